"""Heads of answers: as strict as of requests, since an answer that is framed ambiguously could desynchronise
a connection that several tenants use. And the table of framings, RFC 9112 section 6.3."""

from __future__ import annotations

from typing import Any

import pytest

from fastmeta._core import _parse_response
from tests.vectors import cases, heads, name_of, pairs, to_bytes

ACCEPTED = cases("responses", "accept")
REFUSED = cases("responses", "refuse")


@pytest.mark.parametrize("case", ACCEPTED, ids=name_of)
def test_accepted(case: dict[str, Any]) -> None:
    to_head = case.get("to_head", False)
    wanted = dict(case["reads"])
    if "reason" in wanted:
        wanted["reason"] = to_bytes(wanted["reason"])
    if "headers" in wanted:
        wanted["headers"] = pairs(wanted["headers"])
    for head in heads(case):
        read = _parse_response(head, to_head)
        assert isinstance(read, dict), (head, read)
        assert read["length"] == len(head)
        assert {key: read[key] for key in wanted} == wanted
        for rest in (b"H", b"\r\n", b"\n", head):
            assert _parse_response(head + rest, to_head) == read


@pytest.mark.parametrize("case", ACCEPTED, ids=name_of)
def test_every_prefix_needs_more(case: dict[str, Any]) -> None:
    for head in heads(case):
        for length in range(len(head)):
            assert _parse_response(head[:length], case.get("to_head", False)) == 0, head[:length]


@pytest.mark.parametrize("case", REFUSED, ids=name_of)
def test_refused(case: dict[str, Any]) -> None:
    to_head = case.get("to_head", False)
    for head in heads(case):
        seen = [_parse_response(head[:length], to_head) for length in range(len(head) + 1)]
        assert seen[-1] == 502, head
        first = seen.index(502)
        assert seen == [0] * first + [502] * (len(seen) - first)


FRAMINGS = {
    "length": b"Content-Length: 7\r\n",
    "zero": b"Content-Length: 0\r\n",
    "chunked": b"Transfer-Encoding: chunked\r\n",
    "nothing": b"",
    "both": b"Content-Length: 7\r\nTransfer-Encoding: chunked\r\n",
}


def framing_of(status: int, version: str, what: str, to_head: bool) -> str | int:
    """RFC 9112 section 6.3, rule for rule, and where we are stricter."""
    if status == 101:
        return 502  # RFC 9110 section 15.2.2: the answer to an Upgrade that we never send
    if what == "both" or (what == "chunked" and version == "1.0"):
        return 502  # rule 3 and section 6.1
    if what in ("chunked", "length") and (status < 200 or status == 204):
        return 502  # section 6.1 and RFC 9110 section 8.6: forbidden, and some readers take it at its word
    if to_head or status < 200 or status in (204, 304):
        return "none"  # rule 1
    # Rule 2 is about CONNECT, which we refuse.
    return {"length": "length", "zero": "none", "chunked": "chunked", "nothing": "close"}[what]


@pytest.mark.parametrize(
    "status", [100, 101, 102, 103, 199, 200, 201, 204, 205, 206, 301, 304, 400, 404, 500, 599]
)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("what", FRAMINGS)
def test_framing(status: int, version: str, what: str) -> None:
    head = b"HTTP/%s %d x\r\n%s\r\n" % (version.encode(), status, FRAMINGS[what])
    for to_head in (False, True):
        read = _parse_response(head, to_head)
        assert (read if isinstance(read, int) else read["framing"]) == framing_of(
            status, version, what, to_head
        )


@pytest.mark.parametrize(
    ("version", "says", "keeps"),
    [
        ("1.1", "", True),
        ("1.1", "keep-alive", True),
        ("1.1", "close", False),
        ("1.1", "keep-alive, close", False),
        ("1.1", "upgrade, Close", False),
        ("1.0", "", False),
        ("1.0", "keep-alive", True),
        ("1.0", "Keep-Alive, x", True),
        ("1.0", "close", False),
        ("1.0", "close, keep-alive", False),
    ],
)
def test_whether_the_connection_lives_on(version: str, says: str, keeps: bool) -> None:
    """RFC 9112 section 9.3."""
    connection = f"Connection: {says}\r\n" if says else ""
    read = _parse_response(f"HTTP/{version} 200 OK\r\nContent-Length: 1\r\n{connection}\r\n".encode())
    assert isinstance(read, dict)
    assert read["keep_alive"] is keeps


VALUE = {9} | set(range(0x20, 0x7F)) | set(range(0x80, 0x100))


@pytest.mark.parametrize("length", [1, 7, 8, 9, 15, 16, 17])
@pytest.mark.parametrize("where", ["reason", "value"])
def test_every_byte_at_every_place(length: int, where: str) -> None:
    """RFC 9112 section 4 and RFC 9110 section 5.5; read in words of eight bytes where that goes."""
    start = b"HTTP/1.1 200 " if where == "reason" else b"HTTP/1.1 200 OK\r\nA:"
    for place in range(length):
        for byte in range(256):
            text = b"x" * place + bytes([byte]) + b"x" * (length - place - 1)
            read = _parse_response(start + text + b"\r\n\r\n")
            assert isinstance(read, dict) is (byte in VALUE), text
            assert isinstance(read, dict) or read == 502
