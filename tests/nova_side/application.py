"""A WSGI application in Nova's place, for real servers: it says in every answer who it was told the guest is.

It runs in the servers' own interpreters, so it uses the standard library only. As Nova does, it believes no instance id
whose signature is not right. SECRET is in its environment.

The first part of a path says what is answered, the second how much of it: /small, /large/<bytes>, /chunked/<bytes>
(without Content-Length, so the server frames it), /empty, /none (204), /absent (404), /echo (what was posted, marked),
/slow/<milliseconds>, /fail (the application raises before it answers).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

CHUNK = 10_007


def mark(instance_id: str, project_id: str, address: str, target: str) -> bytes:
    """One line that says for whom an answer is, and to which request."""
    return f"<{instance_id}|{project_id}|{address}|{target}>\n".encode()


def content(line: bytes, target: str, body: bytes = b"") -> tuple[str, bytes]:
    """Status and content of the answer to this request; line: its mark."""
    kind, _, amount = target.lstrip("/").partition("?")[0].partition("/")
    if kind in ("large", "chunked"):
        size = int(amount)
        return "200 OK", (line * (size // len(line) + 1))[:size]
    if kind == "empty":
        return "200 OK", b""
    if kind == "none":
        return "204 No Content", b""
    if kind == "absent":
        return "404 Not Found", line
    if kind == "echo":
        return "200 OK", line + body
    return "200 OK", line


def pieces(data: bytes) -> Iterator[bytes]:
    for at in range(0, len(data), CHUNK):
        yield data[at : at + CHUNK]


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    secret = os.environ["SECRET"].encode()
    instance = environ.get("HTTP_X_INSTANCE_ID", "")
    expected = hmac.new(secret, instance.encode(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, environ.get("HTTP_X_INSTANCE_ID_SIGNATURE", "")):
        start_response("403 Forbidden", [("Content-Length", "0")])
        return []
    target = environ["PATH_INFO"]
    if environ.get("QUERY_STRING"):
        target += "?" + environ["QUERY_STRING"]
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    kind, _, amount = target.lstrip("/").partition("/")
    if kind == "fail":
        raise RuntimeError("the application was asked to fail")
    if kind == "slow":
        time.sleep(int(amount) / 1000)
    # Apache appends the address that it is asked from.
    address = environ.get("HTTP_X_FORWARDED_FOR", "").partition(",")[0]
    line = mark(instance, environ.get("HTTP_X_TENANT_ID", ""), address, target)
    status, data = content(line, target, body)
    headers = [
        ("Content-Type", "text/plain"),
        ("X-Worker", str(os.getpid())),
    ]
    if kind != "chunked" and not status.startswith("204"):
        headers.append(("Content-Length", str(len(data))))
    start_response(status, headers)
    if environ["REQUEST_METHOD"] == "HEAD":
        return []
    return pieces(data)
