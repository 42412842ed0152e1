"""Request heads against a second reading of the rules, and against h11 and llhttp."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from typing import Any

from hypothesis import event, example, given
from hypothesis import strategies as st

from fastmeta._core import _decode_chunked, _parse_request, _parse_request_pieces
from tests.property import oracle, peers
from tests.property.peers import INCOMPLETE, REFUSED, Reading
from tests.property.strategies import (
    BAD_CODINGS,
    BAD_LENGTHS,
    FRAMING_NAMES,
    any_requests,
    chunked,
    cuts,
    damaged_requests,
    good_requests,
    joined,
    recased,
)

NEXT = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n"
MOST_CONTENT = 100  # of what is really sent; beyond it only the heads are compared


@given(st.one_of(damaged_requests, st.binary(max_size=60)))
def test_reads_as_the_rules_say(data: bytes) -> None:
    read = _parse_request(data)
    event("accepted" if isinstance(read, dict) else f"status {read}")
    assert read == oracle.read_request(data)


@given(st.data())
def test_pieces_do_not_matter(data: st.DataObject) -> None:
    head = data.draw(damaged_requests)
    assert _parse_request_pieces(data.draw(cuts(head))) == _parse_request(head)


def our_reading(head: dict[str, Any], data: bytes) -> Reading:
    """What our head, content length and chunked decoder say of a whole message with something behind it."""
    rest = data[head["length"] :]
    if head["chunked"]:
        content, state, behind = _decode_chunked([rest])
        assert state == 1
        end = len(data) - behind
    else:
        content = rest[: max(head["content_length"], 0)]
        end = head["length"] + len(content)
    return Reading(
        start=(head["method"], head["target"]),
        version=head["version"],
        headers=peers.normal(head["headers"]),
        content=content,
        end=end,
        keep_alive=head["keep_alive"],
    )


def without_authority(reading: Reading | str) -> Reading:
    """The peers give an absolute target as it is; RFC 9112 section 3.2.2."""
    assert isinstance(reading, Reading), reading
    assert isinstance(reading.start, tuple)
    method, target = reading.start
    if not target.startswith(b"/"):
        target = re.sub(rb"(?i)\Ahttp://[^/?]+", b"", target)
    return replace(reading, start=(method, target))


def compare_with_h11(data: bytes, ours: Reading) -> None:
    skipped = 2 if data.startswith(b"\r\n") else 0
    if skipped:
        assert peers.h11_request(data) == REFUSED
    theirs = without_authority(peers.h11_request(data[skipped:]))
    if not peers.h11_knows_connection(ours):
        theirs = replace(theirs, keep_alive=ours.keep_alive)
    assert replace(theirs, end=theirs.end + skipped) == ours


def compare_with_llhttp(data: bytes, ours: Reading) -> None:
    line = data.removeprefix(b"\r\n").split(b"\r\n")[0]
    method, target, version = line.split(b" ")
    absolute = re.match(rb"(?i)http://([^/?]+)", target)
    if absolute and not peers.LLHTTP_AUTHORITY.fullmatch(absolute[1]):
        # As long as the other one: so the offsets stay.
        target = target.replace(absolute[1], b"h" * len(absolute[1]), 1)
    if method not in peers.LLHTTP_METHODS:
        assert peers.llhttp_request(data) == REFUSED
        assert isinstance(ours.start, tuple)
        ours = replace(ours, start=(b"GET", ours.start[1]), end=ours.end + 3 - len(method))
        method = b"GET"
    data = data.replace(line, b" ".join([method, target, version]), 1)
    theirs = without_authority(peers.llhttp_request(data))
    if not peers.llhttp_knows_connection(ours):
        theirs = replace(theirs, keep_alive=ours.keep_alive)
    if peers.llhttp_may_stop_at_head(ours) and theirs.end < ours.end:
        assert theirs.end == data.index(b"\r\n\r\n") + 4
        theirs = replace(theirs, content=ours.content, end=ours.end)
    assert theirs == ours


def test_what_we_accept_h11_and_llhttp_read_the_same() -> None:
    compared: Counter[str] = Counter()

    @example(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n", (b"", b"0\r\n\r\n"))
    @given(any_requests, chunked(plain=True))
    def check(head: bytes, coding: tuple[bytes, bytes]) -> None:
        read = _parse_request(head)
        if not isinstance(read, dict):
            return
        head = head[: read["length"]]
        if read["content_length"] > MOST_CONTENT:
            compared["long"] += 1
            compare_unfinished(head, our_reading(read, head))
            return
        framing = "chunked" if read["chunked"] else "length" if read["content_length"] > 0 else "none"
        compared[framing] += 1
        content = coding[1] if read["chunked"] else b"c" * max(read["content_length"], 0)
        data = head + content + NEXT
        ours = our_reading(read, data)
        compare_with_h11(data, ours)
        compare_with_llhttp(data, ours)

    check()
    # Lest it becomes a test of nothing. (Which examples come depends on the constants that hypothesis finds in modules
    # that happen to be loaded: a rare class has an example of its own.)
    assert min(compared[framing] for framing in ("none", "length", "chunked")) >= 1, compared
    assert compared["long"] >= 1


def compare_unfinished(data: bytes, ours: Reading) -> None:
    """Only the head is there: the peers must wait for content too."""
    theirs = peers.h11_request(data.removeprefix(b"\r\n"))
    assert isinstance(theirs, Reading)
    assert (theirs.end, theirs.headers) == (-1, ours.headers)
    theirs = peers.llhttp_request(data)
    if theirs != REFUSED:  # for its method or authority: compared above
        assert isinstance(theirs, Reading)
        assert (theirs.end, theirs.headers) == (-1, ours.headers)


@given(damaged_requests)
def test_what_we_wait_for_they_wait_for(head: bytes) -> None:
    """Where we need more, neither peer has seen a request yet: it would act on what we have not judged."""
    if _parse_request(head) != 0:
        return
    assert peers.h11_request(head) in (INCOMPLETE, REFUSED)
    assert peers.llhttp_request(head) in (INCOMPLETE, REFUSED)


@st.composite
def ambiguous(draw: st.DrawFn) -> bytes:
    """A good head with one thing in it that two readers could read in two ways."""
    lines = draw(good_requests(framed=False, new=True))
    at = draw(st.integers(1, len(lines)))  # behind the request line
    length, coding = (draw(recased(name)) for name in FRAMING_NAMES)
    good_length = length + b": %d" % draw(st.integers(0, 9))
    kind = draw(st.integers(0, 9))
    if kind == 0:  # RFC 9112 section 6.3 rule 3
        added = [good_length, coding + b": chunked"]
        lines[at:at] = draw(st.permutations(added))
    elif kind == 1:  # section 6.3 rule 5
        lines[at:at] = [good_length]
        lines.insert(draw(st.integers(1, len(lines))), draw(recased(b"Content-Length")) + b": 3")
    elif kind == 2:
        lines.insert(at, length + b": " + draw(st.sampled_from(BAD_LENGTHS)))
    elif kind == 3:
        lines.insert(at, coding + b": " + draw(st.sampled_from(BAD_CODINGS)))
    elif kind == 4:  # PEP 3333: the names are one
        lines.insert(at, draw(st.sampled_from([length + b": 3", coding + b": chunked"])).replace(b"-", b"_"))
    elif kind == 5:  # section 5.1
        lines.insert(
            at, draw(st.sampled_from([length, coding, b"A"])) + draw(st.sampled_from([b" ", b"\t"])) + b": 3"
        )
    elif kind == 6:  # section 5.2
        lines.insert(
            at, draw(st.sampled_from([b" ", b"\t"])) + draw(st.sampled_from([good_length, b"x", b""]))
        )
    elif kind == 7:  # RFC 9110 section 5.5
        evil = draw(
            st.sampled_from([b"\0", b"\r", b"\n", b"\x0b", b"\x0c", b"\x7f", b"\x1b", b"\r" + good_length])
        )
        lines.insert(at, b"A: b" + evil + draw(st.sampled_from([b"", b"c"])))
    elif kind == 8:  # section 6.1
        lines[0] = lines[0].replace(b"HTTP/1.1", b"HTTP/1.0")
        lines.insert(at, coding + b": chunked")
    else:  # section 2.2
        head = joined(lines)
        end = draw(st.sampled_from([match.start() for match in re.finditer(b"\r\n", head)]))
        return (
            head[:end]
            + draw(st.sampled_from([b"\n", b"\r", b"\r\r\n", b"\n\r"]))
            + head[end + 2 :]
            + b"\r\n\r\n"
        )
    return joined(lines)


@given(good_requests())
def test_what_is_plain_we_accept(lines: list[bytes]) -> None:
    """The ground that the next test stands on."""
    assert isinstance(_parse_request(joined(lines)), dict)


@given(ambiguous())
def test_whatever_is_ambiguous_we_refuse(head: bytes) -> None:
    assert _parse_request(head) in (400, 501)
