"""The corpus of requests over a running loop: what Nova gets is ours to the byte and framed once; what is refused
gets its status, reaches nobody, and ends the connection."""

from __future__ import annotations

import re
from typing import Any

import pytest

from fastmeta._core import _parse_request
from tests.vectors import filled, groups, to_bytes, variants

from .corpus_kit import (
    all_hold,
    answered_requests,
    echo_strictly,
    expected_head,
    final_answer,
    framings,
    nothing_more_came,
)
from .loop_kit import Rig, until

ACCEPTED = groups("requests", "accept")
REFUSED = groups("requests", "refuse")
MESSAGES = groups("messages", "messages")
CHUNKED = groups("chunked", "accept")
BAD_CHUNKED = groups("chunked", "refuse")

CHUNKED_HEAD = b"POST /chunks HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: h\r\n\r\n"


def body_for(case: dict[str, Any], read: dict[str, Any]) -> tuple[bytes, bytes]:
    """(what follows the head, the content that it means)."""
    if read["chunked"]:
        return b"2;a=b\r\nab\r\n1\r\nc\r\n0\r\nA: b\r\n\r\n", b"abc"
    content = to_bytes(case["body"]) if "body" in case else b"b" * max(read["content_length"], 0)
    assert len(content) == max(read["content_length"], 0)
    return content, content


def is_refused(rig: Rig, data: bytes, status: int) -> None:
    """It gets this status and the connection ends. That nothing reached Nova is for the caller to see."""
    guest = rig.guest()
    guest.send(data)
    found = guest.answer("HEAD" if data.startswith(b"HEAD ") else "GET")
    assert (found.status, found.all("Connection"), found.whole) == (status, ["close"], True), (data, found)
    assert guest.ended() == "closed"
    guest.close()


def passes(rig: Rig, head: bytes, body: bytes, content: bytes, keeps: bool) -> None:
    """It reaches Nova as our head for it, with its content, framed once or not at all; what follows is the next."""
    before = len(rig.upstream.requests)
    guest = rig.guest()
    guest.send(head + body)
    method = head.removeprefix(b"\r\n").split(b" ", 1)[0].decode()
    assert final_answer(guest, method).status == 200, head
    (request,) = answered_requests(rig, before, 1)
    assert request.head == expected_head(head, content)
    assert request.body == content
    assert framings(request) == (1 if content or method not in ("GET", "HEAD") else 0)
    if keeps:
        guest.send(NEXT)
        assert guest.answer().status == 200
        assert guest.is_open()
        assert [one.target for one in answered_requests(rig, before, 2)][1:] == ["/next"]
    else:
        assert guest.ended() == "closed"
    guest.close()


@pytest.mark.parametrize("group", ACCEPTED)
def test_accepted_heads(make_rig: Any, group: str) -> None:
    rig = make_rig(echo_strictly)

    def check(case: dict[str, Any]) -> None:
        for _, head in variants(case):
            read = _parse_request(head)
            assert isinstance(read, dict)
            if "then" in case:
                before = len(rig.upstream.requests)
                is_refused(rig, head + to_bytes(case.get("body", "")), case["then"])
                nothing_more_came(rig, before)
            else:
                passes(rig, head, *body_for(case, read), read["keep_alive"])

    all_hold(ACCEPTED[group], check)


@pytest.mark.parametrize("group", REFUSED)
def test_refused_heads(make_rig: Any, group: str) -> None:
    rig = make_rig(echo_strictly)

    def check(case: dict[str, Any]) -> None:
        before = len(rig.upstream.requests)
        for _, head in variants(case):
            is_refused(rig, head + to_bytes(case.get("body", "")), case["status"])
        nothing_more_came(rig, before)

    all_hold(REFUSED[group], check)
    assert rig.upstream.connections == 1  # that of the requests at the end of each case


@pytest.mark.parametrize("group", CHUNKED)
def test_accepted_chunks(make_rig: Any, group: str) -> None:
    """They reach Nova as one content with a length."""
    rig = make_rig(echo_strictly)

    def check(case: dict[str, Any]) -> None:
        content = to_bytes(filled(case, case["content"]))
        for _, coded in variants(case, "coded"):
            passes(rig, CHUNKED_HEAD, coded, content, True)

    all_hold(CHUNKED[group], check)


@pytest.mark.parametrize("group", BAD_CHUNKED)
def test_refused_chunks(make_rig: Any, group: str) -> None:
    rig = make_rig(echo_strictly)

    def check(case: dict[str, Any]) -> None:
        before = len(rig.upstream.requests)
        for _, coded in variants(case, "coded"):
            is_refused(rig, CHUNKED_HEAD + coded, 400)
        nothing_more_came(rig, before)

    all_hold(BAD_CHUNKED[group], check)
    assert rig.upstream.connections == 1


@pytest.mark.parametrize("piece", [0, 1], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("group", MESSAGES)
def test_messages(make_rig: Any, group: str, piece: int) -> None:
    """Everything on a connection: what reaches Nova, in order and whole, and what becomes of the connection."""
    rig = make_rig(echo_strictly)

    def check(case: dict[str, Any]) -> None:
        ((_, sent),) = variants(case, "sent")
        if piece and len(sent) > 1000:
            return
        before = len(rig.upstream.requests)
        wanted = [
            (method, target, to_bytes(filled(case, content))) for method, target, content in case["requests"]
        ]
        guest = rig.guest()
        send(guest, sent, piece)
        for method, _, _ in wanted:
            assert final_answer(guest, method).status == 200
        then = case["then"]
        if then == "open":
            guest.send(NEXT)
            assert guest.answer().status == 200
            assert guest.is_open()
            wanted.append(("GET", "/next", b""))
        elif then == "waits":
            until(lambda: rig.stat("parked") == 0)
            assert not re.search(
                rb"HTTP/1.[01]", pending(guest).replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
            )
            assert guest.is_open()
        else:
            if then != "closes":
                found = guest.answer()
                assert (found.status, found.all("Connection")) == (then, ["close"])
            assert guest.ended() in ("closed", "reset")
        guest.close()
        reached = answered_requests(rig, before, len(wanted))
        assert [(one.method, one.target, one.body) for one in reached] == wanted
        assert all(framings(one) == (1 if one.body or one.method == "POST" else 0) for one in reached)
        nothing_more_came(rig, before + len(wanted))

    all_hold(MESSAGES[group], check)


def send(guest: Any, data: bytes, piece: int) -> None:
    """A guest whose connection was ended in the middle of what it sends does not mind."""
    if not piece:
        guest.send(data)
        return
    for at in range(0, len(data), piece):
        try:
            guest.send(data[at : at + piece])
        except (BrokenPipeError, ConnectionResetError):
            return


def pending(guest: Any) -> bytes:
    """What has come within a moment in which the loop had every chance to answer."""
    guest.socket.settimeout(0.02)
    try:
        guest.more()
    except TimeoutError:
        pass
    finally:
        guest.socket.settimeout(8)
    found, guest.pending = guest.pending, b""
    return found
