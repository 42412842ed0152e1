"""The chunked transfer coding, RFC 9112 section 7.1: strict, resumable at every byte, and bounded in
what is not content."""

from __future__ import annotations

from typing import Any

import pytest

from fastmeta._core import _decode_chunked
from tests.vectors import cases, filled, name_of, to_bytes, variants

MORE, DONE, BAD = 0, 1, -1

ACCEPTED = cases("chunked", "accept")
REFUSED = cases("chunked", "refuse")

MOST_EXTRA = 8192


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def coded_of(case: dict[str, Any]) -> list[bytes]:
    return [data for _, data in variants(case, "coded")]


@pytest.mark.parametrize("case", ACCEPTED, ids=name_of)
def test_accepted(case: dict[str, Any]) -> None:
    content = to_bytes(filled(case, case["content"]))
    for coded in coded_of(case):
        assert _decode_chunked([coded]) == (content, DONE, 0), coded
        assert _decode_chunked([coded + b"GET / HTTP/1.1"]) == (content, DONE, 14)
        for length in range(len(coded)):
            got, state, rest = _decode_chunked([coded[:length]])
            assert (state, rest) == (MORE, 0), coded[:length]
            assert content.startswith(got)


@pytest.mark.parametrize("case", ACCEPTED, ids=name_of)
def test_pieces_do_not_matter(case: dict[str, Any]) -> None:
    content = to_bytes(filled(case, case["content"]))
    for coded in coded_of(case):
        for at in range(len(coded) + 1):
            assert _decode_chunked([coded[:at], coded[at:]]) == (content, DONE, 0)
            for second in range(at, min(len(coded), 200) + 1, 3):
                assert _decode_chunked([coded[:at], coded[at:second], coded[second:]]) == (content, DONE, 0)
        assert _decode_chunked(bytewise(coded)) == (content, DONE, 0)
        # Pieces behind the end are not touched: they are the next message's.
        assert _decode_chunked([*bytewise(coded), b"next"]) == (content, DONE, 0)


@pytest.mark.parametrize("case", REFUSED, ids=name_of)
def test_refused(case: dict[str, Any]) -> None:
    for coded in coded_of(case):
        assert _decode_chunked([coded])[1] == BAD, coded
        assert _decode_chunked(bytewise(coded))[1] == BAD
        for at in range(len(coded) + 1):
            assert _decode_chunked([coded[:at], coded[at:]])[1] == BAD
        for length in range(len(coded)):
            assert _decode_chunked([coded[:length]])[1] != DONE


def accepted_bytes(start: bytes, end: bytes) -> set[int]:
    return {byte for byte in range(256) if _decode_chunked([start + bytes([byte]) + end])[1] == DONE}


def test_every_byte() -> None:
    value = {9} | set(range(0x20, 0x7F)) | set(range(0x80, 0x100))
    token = set(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
    assert accepted_bytes(b"1\r\nx\r\n0;a", b"\r\n\r\n") == value
    assert accepted_bytes(b"0\r\nA: b", b"\r\n\r\n") == value
    assert accepted_bytes(b"0\r\nA", b"A: b\r\n\r\n") == token | {ord(":")}
    assert accepted_bytes(b"0\r", b"\r\n") == {10}
    assert accepted_bytes(b"0", b"\n\r\n") == {13}
    assert accepted_bytes(b"0\r\n\r", b"") == {10}
    assert accepted_bytes(b"0\r\nA: b\r", b"\r\n") == {10}
    assert accepted_bytes(b"1\r\nx\r", b"0\r\n\r\n") == {10}
    assert accepted_bytes(b"1\r\nx", b"\n0\r\n\r\n") == {13}
    assert accepted_bytes(b"1\r\n", b"\r\n0\r\n\r\n") == set(range(256))
    # A digit would make the size 10 and more; "0" more of it than one zero.
    assert accepted_bytes(b"0", b"\r\n\r\n") == {ord("0"), ord(";")}


def test_a_large_chunk_in_small_pieces() -> None:
    content = bytes(range(256)) * 256
    coded = b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content)
    for size in (1, 7, 1000, 65_536):
        pieces = [coded[at : at + size] for at in range(0, len(coded), size)]
        assert _decode_chunked(pieces) == (content, DONE, 0)


def test_the_largest_size_does_not_overflow() -> None:
    assert _decode_chunked([b"f" * 15 + b"\r\n" + b"x" * 100]) == (b"x" * 100, MORE, 0)
    assert _decode_chunked([b"f" * 16])[1] == BAD


@pytest.mark.parametrize(
    ("start", "end"),
    [(b"1;", b"\r\nx\r\n0\r\n\r\n"), (b"0\r\nA:", b"\r\n\r\n"), (b"0\r\n", b": v\r\n\r\n")],
    ids=["extension", "trailer's value", "trailer's name"],
)
def test_what_is_not_content_is_bounded(start: bytes, end: bytes) -> None:
    """RFC 9112 sections 7.1.1 and 7.1.2: extensions and trailers must not be without a limit."""
    assert _decode_chunked([start + b"x" * (MOST_EXTRA - 100) + end])[1] == DONE
    assert _decode_chunked([start + b"x" * (MOST_EXTRA + 1)])[1] == BAD
    assert _decode_chunked([start] + [b"x"] * (MOST_EXTRA + 1))[1] == BAD


def test_what_is_not_content_is_bounded_in_sum() -> None:
    chunk = b"1;" + b"e" * 8 + b"\r\nx\r\n"
    for trailers in (b"", b"a: b\r\n" * 4):
        assert _decode_chunked([chunk * 800 + b"0\r\n" + trailers + b"\r\n"])[1] == DONE
        assert _decode_chunked([chunk * 1000])[1] == BAD
    assert _decode_chunked([b"0\r\n" + b"a:\r\n" * 10_000])[1] == BAD
