"""The corpus of answers over a running loop: what Nova says, cut and framed as it is, and what a guest gets of it; and
whether the connection on which it came may serve another request. Nonsense is 502 and the end of that connection."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import pytest

from fastmeta import _core
from tests.vectors import filled, groups, pairs, to_bytes, variants

from .corpus_kit import all_hold
from .loop_kit import Answer, Guest, Request, Rig, Wire, answer, until

ANSWERS = groups("answers", "answers")
ACCEPTED = groups("responses", "accept")
REFUSED = groups("responses", "refuse")
CHUNKED = groups("chunked", "accept")
BAD_CHUNKED = groups("chunked", "refuse")

CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
# Longer than any wait here: what is closed is closed for what was said on it.
IDLE = {"upstream_idle_timeout_ms": 600_000}
FINAL = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@dataclass
class Play:
    """What the upstream says to the next request for /case; all others get a good answer."""

    data: bytes = b""
    later: bytes = b""
    ends: bool = False
    first_part_is_there: threading.Event = field(default_factory=threading.Event)

    def script(self, wire: Wire) -> None:
        while (request := wire.read()) is not None:
            if request.target != "/case":
                wire.send(answer(b"good"))
                continue
            wire.send(self.data)
            if self.later:
                assert self.first_part_is_there.wait(8)
                wire.send(self.later)
            if self.ends:
                return


def ask(rig: Rig, play: Play, method: str, version: str, content: bytes) -> tuple[Guest, Answer]:
    """A guest asks for /case. content: what it must have seen before the upstream sends the rest."""
    play.first_part_is_there.clear()
    guest = rig.guest()
    guest.get("/case", method=method, version=version)
    if play.later:
        while content not in guest.pending:
            assert guest.more() == ""
        play.first_part_is_there.set()
    found = guest.answer(method)
    return guest, found


def connection_is(rig: Rig, request: Request, kept: bool) -> None:
    """Another guest's request goes out at once on the connection of this one, or on another and this one is closed."""
    after = rig.guest()
    after.get("/after")
    assert after.answer().body == b"good"
    after.close()
    last = rig.upstream.requests[-1]
    assert last.target == "/after"
    assert (last.connection == request.connection) is kept, (last.connection, request.connection)
    if not kept:
        # Not by the loop's timer for idle connections: see IDLE.
        until(lambda: all(wire.number != request.connection for wire in list(rig.upstream.wires)))


def is_nonsense(rig: Rig, play: Play, method: str = "GET") -> None:
    """502, of our own and whole; not asked again; the guest's connection lives on, and Nova's does not."""
    before = len(rig.upstream.requests)
    guest, found = ask(rig, play, method, "1.1", b"")
    assert (found.status, found.whole) == (502, True), (play.data, found)
    assert found.body == (b"" if method == "HEAD" else b"The metadata service gave no valid answer.\n")
    (request,) = rig.upstream.requests[before:]
    assert request.target == "/case"
    connection_is(rig, request, False)
    guest.close()


@pytest.mark.parametrize("group", ANSWERS)
def test_answers(make_rig: Any, group: str) -> None:
    play = Play()
    rig = make_rig(play.script, IDLE)

    def check(case: dict[str, Any]) -> None:
        play.data = variants(case, "sent")[0][1]
        play.later = to_bytes(case.get("later", ""))
        play.ends = case.get("ends", False)
        method = case.get("method", "GET")
        if "content" not in case:
            assert (case["gets"], case["kept"]) == (502, False)
            is_nonsense(rig, play, method)
            return
        content = to_bytes(filled(case, case["content"]))
        before = len(rig.upstream.requests)
        guest, found = ask(rig, play, method, case.get("version", "1.1"), content)
        cut = case.get("cut", False)
        assert (found.status, bytes(found.body), found.whole) == (case["gets"], content, not cut), found
        assert found.framing == case["framing"]
        if found.framing == "none":
            expected = [str(case["length"])] if "length" in case else []
            assert found.all("Content-Length") == expected
        if "headers" in case:
            assert [(a.encode(), b.encode()) for a, b in found.headers] == pairs(case["headers"])
        (request,) = rig.upstream.requests[before:]
        connection_is(rig, request, case["kept"])
        if cut:
            assert found.end == ("reset" if found.framing == "close" else "closed")
        elif found.framing != "close":
            guest.get("/again")
            assert guest.answer().body == b"good"
        guest.close()

    all_hold(ANSWERS[group], check)
    if any("content" not in case for case in ANSWERS[group]):
        assert _core.PROBLEM_UPSTREAM_NONSENSE in rig.problems()


@pytest.mark.parametrize("group", REFUSED)
def test_refused_heads(make_rig: Any, group: str) -> None:
    play = Play()
    rig = make_rig(play.script, IDLE)

    def check(case: dict[str, Any]) -> None:
        for _, head in variants(case):
            play.data = head + b"hello"
            is_nonsense(rig, play, "HEAD" if case.get("to_head") else "GET")

    all_hold(REFUSED[group], check)


@pytest.mark.parametrize("group", ACCEPTED)
def test_accepted_heads(make_rig: Any, group: str) -> None:
    play = Play()
    rig = make_rig(play.script, IDLE)

    def check(case: dict[str, Any]) -> None:
        method = "HEAD" if case.get("to_head") else "GET"
        for _, head in variants(case):
            read = _core._parse_response(head, method == "HEAD")
            assert isinstance(read, dict)
            interim = read["status"] < 200
            framing, length = read["framing"], read["content_length"]
            long = length > 1000
            content = {"length": b"x" * (10 if long else length), "chunked": b"abc", "close": b"abc"}.get(
                framing, b""
            )
            play.data = head + (b"3\r\nabc\r\n0\r\n\r\n" if framing == "chunked" else content)
            play.ends = long or framing == "close"
            kept = read["keep_alive"] and not play.ends
            if method == "HEAD" and b"transfer-encoding" in head.lower():
                kept = False  # uwsgi sends a last chunk, a moment later
            if interim:
                play.data += FINAL
                content, kept = b"hello", True
            before = len(rig.upstream.requests)
            guest, found = ask(rig, play, method, "1.1", content)
            assert (found.status, found.body) == (200 if interim else read["status"], content), head
            assert found.whole is not long
            names = [name.lower() for name, _ in found.headers]
            assert names.count("content-length") + names.count("transfer-encoding") <= 1
            (request,) = rig.upstream.requests[before:]
            connection_is(rig, request, kept)
            guest.close()

    all_hold(ACCEPTED[group], check)


@pytest.mark.parametrize("group", CHUNKED)
def test_accepted_chunks(make_rig: Any, group: str) -> None:
    play = Play()
    rig = make_rig(play.script, IDLE)

    def check(case: dict[str, Any]) -> None:
        for _, coded in variants(case, "coded"):
            play.data = CHUNKED_HEAD + coded
            before = len(rig.upstream.requests)
            guest, found = ask(rig, play, "GET", "1.1", b"")
            assert (found.status, found.framing, found.whole) == (200, "chunked", True)
            assert found.body == to_bytes(filled(case, case["content"])), coded
            connection_is(rig, rig.upstream.requests[before], True)
            guest.close()

    all_hold(CHUNKED[group], check)


@pytest.mark.parametrize("group", BAD_CHUNKED)
def test_refused_chunks(make_rig: Any, group: str) -> None:
    """They came with the head, so nothing has gone down before they are seen."""
    play = Play()
    rig = make_rig(play.script, IDLE)

    def check(case: dict[str, Any]) -> None:
        for _, coded in variants(case, "coded"):
            play.data = CHUNKED_HEAD + coded
            is_nonsense(rig, play)

    all_hold(BAD_CHUNKED[group], check)
