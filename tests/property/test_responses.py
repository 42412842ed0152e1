"""Heads of answers against h11 and llhttp: a connection is used again only where all would agree."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fastmeta._core import _build_response, _decode_chunked, _parse_response
from tests.property import peers
from tests.property.peers import Reading
from tests.property.strategies import any_responses, chunked, damaged_responses

NEXT = b"HTTP/1.1 200 Next\r\nContent-Length: 0\r\n\r\n"
MOST_CONTENT = 100
HOP_BY_HOP = {
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
}


@given(st.one_of(damaged_responses, st.binary(max_size=60)), st.booleans())
def test_never_anything_but_a_reading_or_a_refusal(data: bytes, to_head: bool) -> None:
    read = _parse_response(data, to_head)
    assert isinstance(read, dict) or read in (0, 502)
    if isinstance(read, dict):
        assert all(_parse_response(data[:length], to_head) == 0 for length in range(read["length"]))
        assert _parse_response(data[: read["length"]], to_head) == read


def our_reading(head: dict[str, Any], data: bytes) -> Reading:
    rest = data[head["length"] :]
    content, end = b"", head["length"]
    if head["framing"] == "chunked":
        content, state, behind = _decode_chunked([rest])
        assert state == 1
        end = len(data) - behind
    elif head["framing"] == "length":
        content = rest[: head["content_length"]]
        end += len(content)
    elif head["framing"] == "close":
        content, end = rest, -1
    return Reading(
        start=head["status"],
        version=head["version"],
        headers=peers.normal(head["headers"]),
        content=content,
        end=end,
        keep_alive=head["keep_alive"],
    )


def compare(data: bytes, ours: Reading, to_head: bool) -> None:
    theirs = peers.h11_response(data, to_head)
    assert isinstance(theirs, Reading), theirs
    if ours.version == 10 or ours.start in range(100, 200):
        # h11 never keeps HTTP/1.0 alive, and an interim answer does not end its exchange.
        theirs = replace(theirs, keep_alive=ours.keep_alive)
    assert theirs == ours
    coding = any(name == b"transfer-encoding" for name, _ in ours.headers)
    if to_head or (ours.start == 304 and coding):
        return
    theirs = peers.llhttp_response(data)
    assert isinstance(theirs, Reading), theirs
    if not peers.llhttp_knows_connection(ours):
        theirs = replace(theirs, keep_alive=ours.keep_alive)
    assert theirs == ours


def test_what_we_accept_h11_and_llhttp_read_the_same() -> None:
    compared: Counter[str] = Counter()

    @given(any_responses, chunked(plain=True), st.booleans())
    def check(head: bytes, coding: tuple[bytes, bytes], to_head: bool) -> None:
        read = _parse_response(head, to_head)
        if not isinstance(read, dict) or (
            read["framing"] == "length" and read["content_length"] > MOST_CONTENT
        ):
            return
        compared[read["framing"]] += 1
        content = b""
        if read["framing"] == "chunked":
            content = coding[1]
        elif read["framing"] == "length":
            content = b"c" * read["content_length"]
        data = head[: read["length"]] + content + NEXT
        compare(data, our_reading(read, data), to_head)

    check()
    # Lest it becomes a test of nothing.
    assert min(compared[framing] for framing in ("none", "length", "chunked", "close")) >= 1, compared


@given(any_responses, st.booleans(), st.booleans(), st.booleans())
def test_what_goes_to_the_guest(head: bytes, to_head: bool, http10: bool, keep_alive: bool) -> None:
    """Hop-by-hop headers never pass, the rest does, and the framing means what it meant."""
    read = _parse_response(head, to_head)
    if not isinstance(read, dict):
        return
    head = head[: read["length"]]
    made = _build_response(head, head_request=to_head, http10=http10, keep_alive=keep_alive)
    assert len(made) <= len(head) + 96
    again = _parse_response(made, to_head)
    assert isinstance(again, dict)
    assert (again["length"], again["status"]) == (len(made), read["status"])
    assert again["reason"] == read["reason"]
    if read["framing"] in ("chunked", "close"):
        assert again["framing"] == ("close" if http10 else "chunked")
    else:
        assert again["framing"] == read["framing"]
        if read["framing"] == "length":
            assert again["content_length"] == read["content_length"]
    nominated = {
        member.strip(b" \t").lower()
        for name, value in read["headers"]
        if name.lower() == b"connection"
        for member in value.split(b",")
    }
    gone = HOP_BY_HOP | nominated | {b"content-length"}
    passed = [(name, value) for name, value in read["headers"] if name.lower() not in gone]
    ours = {b"content-length", b"transfer-encoding", b"connection"}
    assert [(name, value) for name, value in again["headers"] if name.lower() not in ours] == passed
    # Made of what it made itself, it stays as it is.
    assert _build_response(made, head_request=to_head, http10=http10, keep_alive=keep_alive) == made
