"""The head that goes to Nova is built new: method, target and harmless headers of the guest, else from us.

Rule 2 of the design: nothing that a guest sends becomes identity."""

from __future__ import annotations

import itertools

import pytest

from fastmeta._core import _build_request, _identity_block, _parse_request
from tests.vectors import cases, heads

ADDRESS = bytes(10) + b"\xff\xff" + bytes([10, 0, 0, 5])
INSTANCE = "33333333-3333-4333-8333-333333333333"
PROJECT = "4" * 32
BLOCK = _identity_block(ADDRESS, INSTANCE, PROJECT, b"secret")
HOST = b"nova.example:8775"

TRUSTED = ["X-Forwarded-For", "X-Instance-ID", "X-Tenant-ID", "X-Instance-ID-Signature"]

# Everything that some version of Neutron, Nova, OVN's agent or a proxy in between believes or believed, and
# what would change how Nova reads the request. None of them may pass, whoever sends it.
NEVER = [
    *TRUSTED,
    "X-Neutron-Network-ID", "X-Neutron-Router-ID", "X-OVN-Network-ID", "X-Metadata-Provider",
    "X-Metadata-Provider-Signature", "X-Quantum-Network-ID", "X-Real-IP", "Forwarded",
    "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Server", "Via",
    "X-Remote-Addr", "Remote-User", "X-Auth-Token", "X-Service-Token", "X-Identity-Status",
    "X-Project-ID", "X-User-ID", "X-Roles", "Authorization", "Proxy-Authorization", "Cookie", "Host",
    "Connection", "Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Upgrade", "HTTP2-Settings",
    "Expect", "X-HTTP-Method-Override", "X-Original-URL", "X-Rewrite-URL", "Max-Forwards", "Proxy",
    "OpenStack-API-Version", "X-OpenStack-Request-ID", "Content-Location", "Date", "Cache-Control",
]  # fmt: skip

ALLOWED = [
    "Accept", "Accept-Encoding", "Accept-Language", "Content-Type", "If-Modified-Since", "If-None-Match",
    "Range", "User-Agent",
]  # fmt: skip


def lines_of(head: bytes) -> list[bytes]:
    assert head.endswith(b"\r\n\r\n")
    lines = head[:-4].split(b"\r\n")
    assert all(b"\r" not in line and b"\n" not in line for line in lines)
    return lines


def built(head: str, content_length: int = -1) -> list[bytes]:
    return lines_of(_build_request(head.encode("latin-1"), BLOCK, HOST, content_length))


def folded(line: bytes) -> str:
    """A header's name as a WSGI server makes a key of it (PEP 3333)."""
    return line.split(b":", 1)[0].decode("latin-1").strip().upper().replace("-", "_")


def spellings(name: str) -> list[str]:
    """In every mixture of "-" and "_", each in three cases."""
    parts = name.split("-")
    found = []
    for marks in itertools.product("-_", repeat=len(parts) - 1):
        text = parts[0] + "".join(mark + part for mark, part in zip(marks, parts[1:], strict=True))
        found += [text, text.lower(), text.upper(), text.swapcase()]
    return found


def test_the_whole_head() -> None:
    head = _build_request(
        b"GET /latest/meta-data/ HTTP/1.1\r\nHost: 169.254.169.254\r\n"
        b"User-Agent: curl/8\r\nAccept: */*\r\nX: y\r\n\r\n",
        BLOCK,
        HOST,
    )
    signature = BLOCK.split(b"X-Instance-ID-Signature: ")[1][:64]
    assert head == (
        b"GET /latest/meta-data/ HTTP/1.1\r\n"
        b"Host: nova.example:8775\r\n"
        b"X-Forwarded-For: 10.0.0.5\r\n"
        b"X-Instance-ID: 33333333-3333-4333-8333-333333333333\r\n"
        b"X-Tenant-ID: 44444444444444444444444444444444\r\n"
        b"X-Instance-ID-Signature: " + signature + b"\r\n"
        b"User-Agent: curl/8\r\n"
        b"Accept: */*\r\n"
        b"\r\n"
    )


@pytest.mark.parametrize("case", cases("requests", "accept"), ids=lambda case: case["name"].replace(" ", "-"))
def test_every_valid_head_gives_a_valid_one_with_each_trusted_header_once(case: dict[str, str]) -> None:
    ours = {name.upper().replace("-", "_") for name in ("Host", *TRUSTED, *ALLOWED)}
    for guests in heads(case):
        head = _build_request(guests, BLOCK, HOST)
        read = _parse_request(head)
        assert isinstance(read, dict)
        assert read["length"] == len(head)
        assert read["version"] == 11  # what our own side of the connection speaks
        lines = lines_of(head)
        assert lines[1:6] == [b"Host: " + HOST, *BLOCK.split(b"\r\n")[:-1]]
        names = [folded(line) for line in lines[1:]]
        for name in ("Host", *TRUSTED):
            assert names.count(name.upper().replace("-", "_")) == 1
        assert set(names) <= ours


@pytest.mark.parametrize("name", NEVER)
def test_never_passes_in_any_spelling(name: str) -> None:
    for spelled in spellings(name):
        if spelled.lower() == "host":
            continue  # a second Host is refused before: RFC 9112 section 3.2
        lines = built(
            f"GET / HTTP/1.1\r\nHost: h\r\n{spelled}: spoofed\r\nUser-Agent: u\r\n{spelled}: again\r\n\r\n"
        )
        assert lines == built("GET / HTTP/1.1\r\nHost: h\r\nUser-Agent: u\r\n\r\n")
        assert not any(b"spoofed" in line or b"again" in line for line in lines)


def test_every_spelling_of_a_trusted_name_at_once() -> None:
    spoofed = "".join(f"{spelled}: spoofed\r\n" for name in TRUSTED for spelled in spellings(name)[:20])
    assert built("GET / HTTP/1.1\r\nHost: h\r\n" + spoofed + "\r\n") == built(
        "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
    )


@pytest.mark.parametrize("name", ALLOWED)
def test_passes_under_our_spelling(name: str) -> None:
    for spelled in (name, name.lower(), name.upper(), name.swapcase()):
        lines = built(f"GET / HTTP/1.1\r\nHost: h\r\n{spelled}: \t a \xe9, b\t \r\n\r\n")
        assert lines[6:] == [name.encode() + b": a \xe9, b"]


@pytest.mark.parametrize("name", [name for name in ALLOWED if "-" in name])
def test_an_underscore_is_not_our_spelling(name: str) -> None:
    """The proper name has one meaning; what WSGI would confuse with it is dropped, not passed as it."""
    assert built(f"GET / HTTP/1.1\r\nHost: h\r\n{name.replace('-', '_')}: a\r\n\r\n") == built(
        "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
    )


@pytest.mark.parametrize("name", ALLOWED)
def test_a_name_that_only_resembles_one_does_not_pass(name: str) -> None:
    """Any other character at any place of it."""
    nothing = built("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    for place, right in enumerate(name):
        for wrong in "!#$%&'*+-.^_`|~09azAZ@[{":
            if wrong.lower() != right.lower():
                changed = name[:place] + wrong + name[place + 1 :]
                head = f"GET / HTTP/1.1\r\nHost: h\r\n{changed}: a\r\n\r\n"
                if wrong in "@[{":
                    assert _parse_request(head.encode()) == 400
                else:
                    assert built(head) == nothing


def test_connection_does_not_nominate_ours_away() -> None:
    """RFC 9110 section 7.6.1 is abused to make proxies drop the headers that they add themselves."""
    nominated = ", ".join(["close", "Host", *TRUSTED, "User-Agent"])
    lines = built(f"GET / HTTP/1.1\r\nHost: h\r\nConnection: {nominated}\r\n\r\n")
    assert lines == built("GET / HTTP/1.1\r\nHost: h\r\n\r\n")


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        ("/", "/"),
        ("/latest?a=b", "/latest?a=b"),
        ("//evil/latest", "//evil/latest"),
        ("http://evil:80/latest/meta-data", "/latest/meta-data"),
        ("HTTP://evil/", "/"),
        ("http://evil", "/"),
        ("http://evil?a=b", "/?a=b"),
        ("http://u:p@evil//x", "//x"),
        ("http://evil/http://other/", "/http://other/"),
        ("/http://other/", "/http://other/"),
    ],
)
def test_target(target: str, sent: str) -> None:
    """RFC 9112 section 3.2.1: origin-form goes to Nova; the authority of absolute-form is dropped."""
    assert built(f"GET {target} HTTP/1.1\r\nHost: evil\r\n\r\n")[:2] == [
        f"GET {sent} HTTP/1.1".encode(),
        b"Host: " + HOST,
    ]


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "get", "PROPFIND", "X-y"]
)
def test_method_passes_as_it_is(method: str) -> None:
    assert built(f"{method} / HTTP/1.1\r\nHost: h\r\n\r\n")[0] == f"{method} / HTTP/1.1".encode()


@pytest.mark.parametrize(
    ("framing", "content_length", "sent"),
    [
        ("Content-Length: 7\r\n", 7, [b"Content-Length: 7"]),
        ("Content-Length: 00007\r\n", 7, [b"Content-Length: 7"]),
        ("Transfer-Encoding: chunked\r\n", 12345678901, [b"Content-Length: 12345678901"]),
        ("Transfer-Encoding: chunked\r\n", 0, [b"Content-Length: 0"]),
        ("", -1, []),
    ],
)
def test_framing_is_ours(framing: str, content_length: int, sent: list[bytes]) -> None:
    """Of the guest's framing no byte passes; chunked content is gathered and sent with its length."""
    assert built(f"POST / HTTP/1.1\r\nHost: h\r\n{framing}\r\n", content_length)[6:] == sent


def test_the_connection_to_nova_is_not_the_guests() -> None:
    """Neither its version nor its wish to close: RFC 9110 section 7.6.1."""
    plain = built("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert built("GET / HTTP/1.0\r\n\r\n") == plain
    assert built("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n") == plain
    assert built("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n") == plain


def test_only_of_a_valid_head() -> None:
    for case in cases("requests", "refuse"):
        for head in heads(case):
            if len(head) > 8192:
                continue  # a loop's limit, which this hook has not
            with pytest.raises(ValueError, match="no valid head"):
                _build_request(head, BLOCK, HOST)
