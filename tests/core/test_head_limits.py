"""Every bound of a head: the last that passes and the first that does not."""

from __future__ import annotations

import pytest

from fastmeta._core import SETTINGS, _parse_request, _parse_request_pieces, _parse_response

LARGEST_RESPONSE_HEAD = 14_000
MOST_HEADERS = 100
LONGEST_TARGET = 4096
LONGEST_METHOD = 32


def request(size: int) -> bytes:
    """A head of exactly so many bytes."""
    start, end = b"GET / HTTP/1.1\r\nHost: h\r\nA: ", b"\r\n\r\n"
    return start + b"x" * (size - len(start) - len(end)) + end


@pytest.mark.parametrize(
    "largest", [SETTINGS["max_head"][1], SETTINGS["max_head"][0], SETTINGS["max_head"][2]]
)
def test_size_of_a_head(largest: int) -> None:
    """RFC 6585 section 5: 431. The bound counts all bytes of the head, its empty line too."""
    assert isinstance(_parse_request(request(largest), largest), dict)
    assert isinstance(_parse_request(request(largest) + b"content", largest), dict)
    assert _parse_request(request(largest + 1), largest) == 431
    # It is refused as soon as it is sure, not only when a line ends.
    assert _parse_request(request(largest + 1)[: largest - 1], largest) == 0
    assert _parse_request(request(largest + 1)[:largest], largest) == 431


def test_the_default_size_is_that_of_the_setting() -> None:
    assert isinstance(_parse_request(request(SETTINGS["max_head"][0])), dict)
    assert _parse_request(request(SETTINGS["max_head"][0] + 1)) == 431


def test_size_of_a_head_that_arrives_byte_by_byte() -> None:
    for size, refused in ((300, False), (301, True)):
        head = request(size)
        read = _parse_request_pieces([head[at : at + 1] for at in range(size)], 300)
        assert (read == 431) is refused
        assert isinstance(read, dict) is not refused


def test_small_lines_count_together() -> None:
    head = b"GET / HTTP/1.1\r\nHost: h\r\n" + b"a:\r\n" * 80
    assert _parse_request(head + b"\r\n", 400) == _parse_request(head + b"\r\n")
    assert _parse_request(head + b"\r\n", len(head) + 2) == _parse_request(head + b"\r\n")
    assert _parse_request(head + b"\r\n", len(head) + 1) == 431


def test_an_endless_request_line() -> None:
    """RFC 9110 section 15.5.15: 414, even if its end never comes."""
    assert _parse_request(b"GET /" + b"a" * 300, 256) == 414
    assert _parse_request(b"GET /" + b"a" * 300 + b" HTTP/1.1\r\n", 256) == 414
    assert _parse_request(b"\r\nGET /" + b"a" * 300, 256) == 414
    assert _parse_request_pieces([b"a"] * 300, 256) == 414


def test_length_of_the_target() -> None:
    """RFC 9112 section 3: 414. (It recommends to support 8,000; no path of Nova's metadata has 200.)"""
    for length, refused in ((LONGEST_TARGET, False), (LONGEST_TARGET + 1, True)):
        read = _parse_request(b"GET /" + b"a" * (length - 1) + b" HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (read == 414) is refused
        assert isinstance(read, dict) is not refused
        absolute = b"http://h/"
        read = _parse_request(b"GET " + absolute.ljust(length, b"a") + b" HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (read == 414) is refused


def test_length_of_the_method() -> None:
    for length, refused in ((LONGEST_METHOD, False), (LONGEST_METHOD + 1, True)):
        assert (_parse_request(b"M" * length + b" / HTTP/1.1\r\nHost: h\r\n\r\n") == 400) is refused


def test_number_of_headers() -> None:
    """RFC 6585 section 5: 431."""
    head = b"GET / HTTP/1.1\r\nHost: h\r\n" + b"a: b\r\n" * (MOST_HEADERS - 1)
    read = _parse_request(head + b"\r\n")
    assert isinstance(read, dict)
    assert len(read["headers"]) == MOST_HEADERS
    assert _parse_request(head + b"a: b\r\n") == 431
    # No header may hide behind the bound: not even one that frames.
    assert _parse_request(head + b"Content-Length: 1\r\n\r\n") == 431
    assert _parse_request(head + b"X-Forwarded-For: 10.0.0.1\r\n\r\n") == 431


def test_answers() -> None:
    start, end = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nA: ", b"\r\n\r\n"
    fill = LARGEST_RESPONSE_HEAD - len(start) - len(end)
    assert isinstance(_parse_response(start + b"x" * fill + end), dict)
    assert _parse_response(start + b"x" * (fill + 1) + end) == 502
    assert _parse_response(b"HTTP/1.1 200 " + b"x" * LARGEST_RESPONSE_HEAD) == 502
    assert _parse_response(b"x" * LARGEST_RESPONSE_HEAD) == 502
    many = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + b"a: b\r\n" * (MOST_HEADERS - 1)
    assert isinstance(_parse_response(many + b"\r\n"), dict)
    assert _parse_response(many + b"a: b\r\n\r\n") == 502
