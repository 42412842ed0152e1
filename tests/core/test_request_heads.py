"""Request heads: what is read, what is refused, and that it does not matter in what pieces they arrive."""

from __future__ import annotations

from typing import Any

import pytest

from fastmeta._core import _parse_request, _parse_request_pieces
from tests.vectors import cases, heads, name_of, pairs, to_bytes

ACCEPTED = cases("requests", "accept")
REFUSED = cases("requests", "refuse")


def expected(reads: dict[str, Any]) -> dict[str, Any]:
    wanted = dict(reads)
    for key in ("method", "target"):
        if key in wanted:
            wanted[key] = to_bytes(wanted[key])
    if "headers" in wanted:
        wanted["headers"] = pairs(wanted["headers"])
    return wanted


@pytest.mark.parametrize("case", ACCEPTED, ids=name_of)
def test_accepted(case: dict[str, Any]) -> None:
    wanted = expected(case["reads"])
    for head in heads(case):
        read = _parse_request(head)
        assert isinstance(read, dict), (head, read)
        assert read["length"] == len(head)
        assert {key: read[key] for key in wanted} == wanted


@pytest.mark.parametrize("case", ACCEPTED, ids=name_of)
def test_what_follows_is_left_alone(case: dict[str, Any]) -> None:
    for head in heads(case):
        for rest in (b"G", b"\r\n", b"\n", b"\0" * 100, head):
            assert _parse_request(head + rest) == _parse_request(head)


@pytest.mark.parametrize("case", ACCEPTED, ids=name_of)
def test_every_prefix_needs_more(case: dict[str, Any]) -> None:
    for head in heads(case):
        for length in range(len(head)):
            assert _parse_request(head[:length]) == 0, head[:length]


@pytest.mark.parametrize("case", ACCEPTED, ids=name_of)
def test_pieces_do_not_matter(case: dict[str, Any]) -> None:
    for head in heads(case):
        whole = _parse_request(head)
        for at in range(len(head) + 1):
            assert _parse_request_pieces([head[:at], head[at:]]) == whole, (head, at)
        assert _parse_request_pieces([head[at : at + 1] for at in range(len(head))]) == whole


@pytest.mark.parametrize("case", REFUSED, ids=name_of)
def test_refused(case: dict[str, Any]) -> None:
    for head in heads(case):
        assert _parse_request(head) == case["status"], head


@pytest.mark.parametrize("case", REFUSED, ids=name_of)
def test_a_refused_head_is_never_accepted_in_part(case: dict[str, Any]) -> None:
    """No prefix of it is a request, and once it is refused, nothing that follows makes it good."""
    for head in heads(case):
        seen = [_parse_request(head[:length]) for length in range(len(head) + 1)]
        first = seen.index(case["status"])
        assert seen == [0] * first + [case["status"]] * (len(seen) - first), head
        assert _parse_request(head + b"\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n") == case["status"]


@pytest.mark.parametrize("case", REFUSED, ids=name_of)
def test_a_refused_head_is_refused_in_any_pieces(case: dict[str, Any]) -> None:
    for head in heads(case):
        for at in range(len(head) + 1):
            assert _parse_request_pieces([head[:at], head[at:]]) == case["status"], (head, at)
        assert _parse_request_pieces([head[at : at + 1] for at in range(len(head))]) == case["status"]


def statuses(template: bytes) -> dict[int, set[int]]:
    """status (0 for none of ours: accepted) -> the bytes that give it in the place of %c."""
    found: dict[int, set[int]] = {}
    for byte in range(256):
        read = _parse_request(template.replace(b"%c", bytes([byte])))
        found.setdefault(0 if isinstance(read, dict) else read, set()).add(byte)
    return found


TOKEN = set(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


@pytest.mark.parametrize(
    ("template", "accepted"),
    [
        # RFC 9110 section 9.1: a method is a token.
        (b"a%cb / HTTP/1.1\r\nHost: h\r\n\r\n", TOKEN),
        # RFC 9112 section 3.2: visible ASCII; "#" starts a fragment, which no target has.
        (b"GET /a%cb HTTP/1.1\r\nHost: h\r\n\r\n", set(range(0x21, 0x7F)) - {ord("#")}),
        # RFC 9110 section 5.1: a name is a token; the colon ends it, and here starts a value.
        (b"GET / HTTP/1.1\r\nHost: h\r\na%cb: c\r\n\r\n", TOKEN | {ord(":")}),
        # RFC 9110 section 5.5: visible, space, tab and obs-text.
        (
            b"GET / HTTP/1.1\r\nHost: h\r\na: b%cc\r\n\r\n",
            {9} | set(range(0x20, 0x7F)) | set(range(0x80, 0x100)),
        ),
        # RFC 9110 section 8.6: digits.
        (b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1%c1\r\n\r\n", set(b"0123456789")),
        # RFC 9112 section 2.3: one of two versions.
        (b"GET / HTTP/1.%c\r\nHost: h\r\n\r\n", set(b"01")),
        # RFC 9112 section 2.2: only CRLF ends a line.
        (b"GET / HTTP/1.1%c\nHost: h\r\n\r\n", {13}),
        (b"GET / HTTP/1.1\r\nHost: h%c\n\r\n", {13}),
        (b"GET / HTTP/1.1\r\nHost: h\r\n%c\n", {13}),
    ],
    ids=["method", "target", "name", "value", "length", "version", "request line", "header", "last line"],
)
def test_every_byte(template: bytes, accepted: set[int]) -> None:
    found = statuses(template)
    assert found[0] == accepted
    assert set(found) == {0, 400}


VALUE = {9} | set(range(0x20, 0x7F)) | set(range(0x80, 0x100))

# Heads are read in words of eight bytes where that goes: the ends of one, two and three of them, and what is near.
LENGTHS = [1, 2, 6, 7, 8, 9, 10, 15, 16, 17, 23, 24, 25]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("value", [b"", b"v" * 20], ids=["no value", "a value"])
def test_every_byte_at_every_place_of_a_name(length: int, value: bytes) -> None:
    for place in range(length):
        template = (
            b"GET / HTTP/1.1\r\nHost: h\r\n"
            + b"x" * place
            + b"%c"
            + b"x" * (length - place - 1)
            + b":"
            + value
        )
        found = statuses(template + b"\r\n\r\n")
        assert found[0] == (TOKEN | {ord(":")} if place else TOKEN)
        assert set(found) == {0, 400}


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", [b"a", b"a-longer-name"])
def test_every_byte_at_every_place_of_a_value(length: int, name: bytes) -> None:
    for place in range(length):
        template = (
            b"GET / HTTP/1.1\r\nHost: h\r\n"
            + name
            + b":"
            + b"x" * place
            + b"%c"
            + b"x" * (length - place - 1)
        )
        found = statuses(template + b"\r\n\r\n")
        assert found[0] == VALUE
        assert set(found) == {0, 400}


@pytest.mark.parametrize(
    ("name", "value"), [(b"Content-Length", b"3"), (b"Transfer-Encoding", b"chunked"), (b"Host", b"h")]
)
def test_every_byte_at_every_place_of_a_name_that_means_something(name: bytes, value: bytes) -> None:
    """It is this name, or it is not; and "_" for "-" is refused where it could be taken for framing."""
    for place in range(len(name)):
        for byte in TOKEN:
            changed = name[:place] + bytes([byte]) + name[place + 1 :]
            read = _parse_request(
                b"POST / HTTP/1.0\r\nA: b\r\n" + changed + b": " + value + b"\r\n" + changed + b": 4\r\n\r\n"
            )
            same = changed.lower() == name.lower()
            # Twice the name is refused, whichever of the three it is.
            if same or (name != b"Host" and changed.lower().replace(b"_", b"-") == name.lower()):
                assert read in (400, 501)
            else:
                assert isinstance(read, dict), changed
                assert (read["content_length"], read["chunked"]) == (-1, False)


@pytest.mark.parametrize("name", [b"Content-Length", b"Transfer-Encoding"])
def test_every_spelling_of_a_framing_header(name: bytes) -> None:
    """RFC 9110 section 5.1: names have no case. PEP 3333: WSGI takes "_" for "-"."""
    value = b"chunked" if name[0] == ord("T") else b"3"
    for spelled in (name, name.lower(), name.upper(), name.swapcase()):
        read = _parse_request(b"POST / HTTP/1.1\r\nHost: h\r\n" + spelled + b": " + value + b"\r\n\r\n")
        assert isinstance(read, dict)
        assert (read["chunked"], read["content_length"]) == (
            (True, -1) if name[0] == ord("T") else (False, 3)
        )
        folded = spelled.replace(b"-", b"_")
        for version in (b"1.0", b"1.1"):
            head = b"POST / HTTP/" + version + b"\r\nHost: h\r\n" + folded + b": " + value + b"\r\n\r\n"
            assert _parse_request(head) == 400


def test_names_that_only_resemble_a_framing_header() -> None:
    """One letter more or less, or another mark: these frame nothing here, and nothing behind us sees them."""
    for name in (
        b"Content-Lengt",
        b"Content-Lengths",
        b"Content.Length",
        b"ContentLength",
        b"X-Content-Length",
    ):
        read = _parse_request(b"POST / HTTP/1.1\r\nHost: h\r\n" + name + b": 3\r\n\r\n")
        assert isinstance(read, dict)
        assert read["content_length"] == -1
