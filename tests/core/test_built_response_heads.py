"""The head that goes to the guest: all of Nova's answer but what belongs to our connection with Nova."""

from __future__ import annotations

import pytest

from fastmeta._core import _build_response, _parse_response

MAY_GROW = 96  # bytes: what the core counts on when it makes room for the head


def built(
    head: bytes, *, head_request: bool = False, http10: bool = False, keep_alive: bool = True
) -> list[bytes]:
    made = _build_response(head, head_request=head_request, http10=http10, keep_alive=keep_alive)
    assert made.endswith(b"\r\n\r\n")
    assert len(made) <= len(head) + MAY_GROW
    lines = made[:-4].split(b"\r\n")
    assert all(b"\r" not in line and b"\n" not in line for line in lines)
    return lines


HEAD = b"HTTP/1.1 200 OK\r\n"
LENGTH = b"Content-Length: 5\r\n"


def test_the_whole_head() -> None:
    assert built(
        b"HTTP/1.1 404 Not Found\r\nContent-Type:text/html; charset=UTF-8\r\nContent-Length: 5\r\n"
        b"X-OpenStack-Request-Id:  a b \r\nEtag: \r\nSet-Cookie: a\r\nset-cookie: b\r\n"
        b"Connection: close\r\n\r\n"
    ) == [
        b"HTTP/1.1 404 Not Found",
        b"Content-Type:text/html; charset=UTF-8",
        b"X-OpenStack-Request-Id:  a b",
        b"Etag: ",
        b"Set-Cookie: a",
        b"set-cookie: b",
        b"Content-Length: 5",
    ]


@pytest.mark.parametrize(
    "name",
    ["Connection", "Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Transfer-Encoding", "Upgrade"],
)
def test_hop_by_hop(name: str) -> None:
    """RFC 9110 section 7.6.1."""
    for spelled in (name, name.lower(), name.upper(), name.swapcase()):
        value = "chunked" if name == "Transfer-Encoding" else "x"
        head = f"HTTP/1.1 200 OK\r\n{spelled}: {value}\r\nA: b\r\n\r\n".encode()
        lines = built(head)
        assert lines == [b"HTTP/1.1 200 OK", b"A: b", b"Transfer-Encoding: chunked"]


def test_what_connection_nominates() -> None:
    """RFC 9110 section 7.6.1: without regard to case, from every Connection line, wherever it stands."""
    assert built(
        HEAD
        + LENGTH
        + b"x-a: 1\r\nConnection: X-A,close , X-c\r\nX-B: 2\r\nX-C: 3\r\nConnection:\tX-D\r\nX-D: 4\r\n\r\n"
    ) == [b"HTTP/1.1 200 OK", b"X-B: 2", b"Content-Length: 5"]


def test_what_connection_only_seems_to_nominate() -> None:
    assert built(HEAD + LENGTH + b"Connection: X-AB, X, \r\nX-A: 1\r\n\r\n") == [
        b"HTTP/1.1 200 OK",
        b"X-A: 1",
        b"Content-Length: 5",
    ]


def test_connection_cannot_nominate_the_framing_away() -> None:
    assert built(HEAD + LENGTH + b"Connection: Content-Length\r\n\r\n")[-1] == b"Content-Length: 5"


@pytest.mark.parametrize(
    ("head", "http10", "framing"),
    [
        (HEAD + LENGTH, False, [b"Content-Length: 5"]),
        (HEAD + LENGTH, True, [b"Content-Length: 5"]),
        (HEAD + b"content-length:0005\r\n", False, [b"Content-Length: 5"]),
        (HEAD + b"Content-Length: 0\r\n", False, [b"Content-Length: 0"]),
        (HEAD + b"transfer-encoding: Chunked\r\n", False, [b"Transfer-Encoding: chunked"]),
        (HEAD + b"Transfer-Encoding: chunked\r\n", True, []),
        (
            HEAD,
            False,
            [b"Transfer-Encoding: chunked"],
        ),  # until the end becomes chunked: its end is then certain
        (HEAD, True, []),
        (b"HTTP/1.0 200 OK\r\n", False, [b"Transfer-Encoding: chunked"]),
        (b"HTTP/1.0 200 OK\r\n", True, []),
        (b"HTTP/1.1 304 Not Modified\r\n" + LENGTH, False, [b"Content-Length: 5"]),
        (b"HTTP/1.1 304 Not Modified\r\n", False, []),
        # RFC 9110 section 8.6: none in 1xx and 204.
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n", False, []),
        (b"HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n", False, []),
    ],
)
def test_framing_is_ours(head: bytes, http10: bool, framing: list[bytes]) -> None:
    keep_alive = not http10
    status_line, *lines = built(head + b"\r\n", http10=http10, keep_alive=keep_alive)
    assert status_line == b"HTTP/1.1" + head[8:].split(b"\r\n")[0]
    assert lines == framing + ([b"Connection: close"] if http10 else [])


@pytest.mark.parametrize(
    ("framing", "sent"),
    [(LENGTH, [b"Content-Length: 5"]), (b"", []), (b"Transfer-Encoding: chunked\r\n", [])],
)
def test_to_head(framing: bytes, sent: list[bytes]) -> None:
    """RFC 9110 section 9.3.2: the length that GET would get, or nothing; no coding that does not follow."""
    assert built(HEAD + framing + b"\r\n", head_request=True)[1:] == sent


@pytest.mark.parametrize(
    ("http10", "keep_alive", "sent"),
    [
        (False, True, []),
        (False, False, [b"Connection: close"]),
        (True, True, [b"Connection: keep-alive"]),
        (True, False, [b"Connection: close"]),
    ],
)
def test_what_the_guest_is_told_about_its_connection(
    http10: bool, keep_alive: bool, sent: list[bytes]
) -> None:
    """RFC 9112 section 9.3: what Nova says about its connection with us has no part in it."""
    for nova in (b"", b"Connection: close\r\n", b"Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n"):
        lines = built(HEAD + LENGTH + nova + b"\r\n", http10=http10, keep_alive=keep_alive)
        assert lines == [b"HTTP/1.1 200 OK", b"Content-Length: 5", *sent]


@pytest.mark.parametrize("status_line", [b"HTTP/1.1 200", b"HTTP/1.1 200 ", b"HTTP/1.0 599 a\tb \xff"])
def test_status_line(status_line: bytes) -> None:
    """RFC 9112 section 4: the version is ours, the rest Nova's; the space before the reason is a must."""
    made = built(status_line + b"\r\n" + LENGTH + b"\r\n")[0]
    assert made == b"HTTP/1.1" + status_line[8:] + (b" " if status_line.count(b" ") == 1 else b"")


def test_grows_no_more_than_is_counted_on() -> None:
    longest = _build_response(b"HTTP/1.1 200\r\n\r\n", http10=False, keep_alive=False)
    assert len(longest) - len(b"HTTP/1.1 200\r\n\r\n") <= MAY_GROW
    number = b"9" * 18
    head = b"HTTP/1.0 200\r\ncontent-length:" + number + b"\r\n\r\n"
    for http10 in (False, True):
        for keep_alive in (False, True):
            assert len(_build_response(head, http10=http10, keep_alive=keep_alive)) - len(head) <= MAY_GROW


def test_a_guest_can_read_it() -> None:
    """Each is a valid head again, for the parser that is as strict as we know."""
    for head in (
        HEAD + LENGTH,
        HEAD,
        HEAD + b"Transfer-Encoding: chunked\r\n",
        b"HTTP/1.0 404\r\nA: b\r\n" + LENGTH,
    ):
        made = _build_response(head + b"\r\n")
        read = _parse_response(made)
        assert isinstance(read, dict)
        assert read["length"] == len(made)
