"""What the corpus's tests over a running loop share. As loop_kit: it shares no code with what it tests."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable
from typing import Any

from .loop_kit import Answer, Gone, Guest, Request, Rig, Wire, answer, instance_of, until

ADDRESS = "127.0.0.1"

# RFC 9110 names that pass to Nova, in our spelling.
ALLOWED = (
    "Accept", "Accept-Encoding", "Accept-Language", "Content-Type", "If-Modified-Since", "If-None-Match",
    "Range", "User-Agent",
)  # fmt: skip
SPELLING = {name.lower().encode(): name.encode() for name in ALLOWED}

MOST_FAILED = 10  # some of them only after a deadline
LAST = b"GET /last HTTP/1.1\r\nHost: h\r\n\r\n"


def all_hold(cases: Iterable[Any], check: Callable[[Any], None]) -> None:
    """Runs check for each case and fails with the names of those that fail, and with how the first of them did."""
    failed: list[tuple[str, BaseException]] = []
    for case in cases:
        try:
            check(case)
        except (AssertionError, Gone, OSError, TimeoutError, ValueError) as error:
            failed.append((case["name"], error))
            if len(failed) == MOST_FAILED:
                break
    if failed:
        raise AssertionError(f"{[name for name, _ in failed]}") from failed[0][1]


def echo_strictly(wire: Wire) -> None:
    """As echo, but a byte behind a request is an error at once."""
    while (request := wire.read()) is not None:
        assert wire.pending == b"", (request, wire.pending)
        wire.send(answer(b"" if request.method == "HEAD" else b"ok"))


def target_of(target: bytes) -> bytes:
    """RFC 9112 section 3.2: path and query of an absolute target; "/" when it has no path."""
    if target.startswith(b"/"):
        return target
    rest = target.split(b"://", 1)[1]
    at = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
    rest = rest[at:]
    return rest if rest.startswith(b"/") else b"/" + rest


def expected_head(head: bytes, content: bytes, secret: bytes = b"secret") -> bytes:
    """The head that Nova gets for a guest's valid head with this content, to the byte."""
    first, *lines = head.removeprefix(b"\r\n").removesuffix(b"\r\n\r\n").split(b"\r\n")
    method, target, _ = first.split(b" ")
    instance = instance_of(1, ADDRESS).encode()
    found = [
        b"%b %b HTTP/1.1" % (method, target_of(target)),
        b"Host: nova:8775",
        b"X-Forwarded-For: " + ADDRESS.encode(),
        b"X-Instance-ID: " + instance,
        b"X-Tenant-ID: project-1",
        b"X-Instance-ID-Signature: " + hmac.new(secret, instance, hashlib.sha256).hexdigest().encode(),
    ]
    if content or method not in (b"GET", b"HEAD"):
        found.append(b"Content-Length: %d" % len(content))
    for line in lines:
        name, _, value = line.partition(b":")
        if name.lower() in SPELLING:
            found.append(SPELLING[name.lower()] + b": " + value.strip(b" \t"))
    return b"\r\n".join(found)


def framings(request: Request) -> int:
    """How many framings a request had, for a reader as lenient as PEP 3333 makes them."""
    names = [name.lower().replace("_", "-").strip() for name, _ in request.headers]
    return names.count("content-length") + names.count("transfer-encoding")


def final_answer(guest: Guest, method: str) -> Answer:
    """The next answer that is not an interim one."""
    while True:
        found = guest.answer(method)
        if found.status >= 200:
            return found


def answered_requests(rig: Rig, before: int, number: int) -> list[Request]:
    """The requests that reached the upstream since there were `before` of them: exactly this number."""
    until(lambda: len(rig.upstream.requests) >= before + number)
    return rig.upstream.requests[before:]


def nothing_more_came(rig: Rig, before: int) -> None:
    """Another guest's request is the only one that reached the upstream since there were `before` of them."""
    guest = rig.guest()
    guest.send(LAST)
    assert guest.answer().status == 200
    guest.close()
    assert [request.target for request in rig.upstream.requests[before:]] == ["/last"]
