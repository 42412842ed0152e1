"""The chunked coding: any valid coding is decoded, in any pieces; what h11 or llhttp refuse, we refuse."""

from __future__ import annotations

from hypothesis import event, given
from hypothesis import strategies as st

from fastmeta._core import _decode_chunked
from tests.property import peers
from tests.property.peers import Reading
from tests.property.strategies import bad_bytes, chunked, cuts

HEAD = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"


@given(st.data(), chunked(), st.binary(max_size=10))
def test_any_coding_in_any_pieces(data: st.DataObject, coding: tuple[bytes, bytes], behind: bytes) -> None:
    content, coded = coding
    assert _decode_chunked([coded + behind]) == (content, 1, len(behind))
    assert _decode_chunked([*data.draw(cuts(coded)), behind]) == (content, 1, 0)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Without trailers: the peers' callbacks show them as headers."""
    coded = draw(chunked(plain=True))[1]
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(coded)))
        middle = draw(st.sampled_from([b"", bytes([draw(bad_bytes)]), b"\n", b" ", b"\r\n"]))
        coded = coded[:at] + middle + coded[at + draw(st.integers(0, 2)) :]
    return coded


@given(st.data(), damaged())
def test_damaged_in_pieces(data: st.DataObject, coded: bytes) -> None:
    """Once refused, always: at every cut the same content up to the same end."""
    content, state, rest = _decode_chunked([coded])
    cut_content, cut_state, _ = _decode_chunked(data.draw(cuts(coded)))
    assert cut_state == state
    if state >= 0:
        assert cut_content == content
    if state == 1:
        ended = len(coded) - rest
        assert all(_decode_chunked([coded[:length]])[1] == 0 for length in range(ended))


@given(damaged())
def test_what_we_accept_h11_and_llhttp_read_the_same(coded: bytes) -> None:
    content, state, rest = _decode_chunked([coded])
    event(f"state {state}")
    if state < 0 or b"\r\n\r\n" not in coded:
        return
    data = HEAD + coded
    end = len(data) - rest if state == 1 else -1
    for theirs in (peers.h11_request(data), peers.llhttp_request(data)):
        if theirs == peers.REFUSED:
            assert b";" in coded  # llhttp, for the grammar of an extension
            continue
        assert isinstance(theirs, Reading), theirs
        assert (theirs.content, theirs.end) == (content, end)
