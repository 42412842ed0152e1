"""What stands in Nova's place: it records every request, and answers as the first part of the path says."""

from __future__ import annotations

import gzip
import http
import time
import zlib
from collections.abc import Callable

from tests.service.upstream import Exchange, Script, Upstream

from .cases import ANSWERS, LATE

TEXT = b"who asks is told this, and nothing else\n"
TYPE = "Content-Type: text/plain; charset=UTF-8"


def _say(exchange: Exchange, content: bytes, *headers: str, status: str = "200 OK") -> bool:
    data = exchange.head(f"Content-Length: {len(content)}", *headers, status=status)
    exchange.send(data if exchange.request.method == "HEAD" else data + content)
    return True


def _answer(content: bytes, *headers: str, status: str = "200 OK") -> Script:
    return lambda exchange: _say(exchange, content, *headers, status=status)


def _bytes(data: bytes, *, reset: bool = False) -> Script:
    """These bytes, and the end of the connection."""

    def script(exchange: Exchange) -> bool:
        exchange.send(data)
        if reset:
            exchange.reset()
        return False

    return script


def _status(exchange: Exchange) -> bool:
    status = int(exchange.request.target.split("/")[2])
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = "Something Else"
    if status in (204, 304):
        exchange.send(exchange.head(status=f"{status} {phrase}"))
        return True
    return _say(exchange, f"{status} it is\n".encode(), TYPE, status=f"{status} {phrase}")


def _late(seconds: float) -> Script:
    def script(exchange: Exchange) -> bool:
        time.sleep(seconds)
        return _say(exchange, TEXT, TYPE)

    return script


def _continue_first(exchange: Exchange) -> bool:
    exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    return _say(exchange, TEXT, TYPE)


def _redirect(to: str) -> Script:
    return _answer(b"", f"Location: {to}", status="302 Found")


def _chunked(exchange: Exchange, after: bytes = b"0\r\n\r\n") -> bool:
    data = exchange.head("Transfer-Encoding: chunked", TYPE)
    if exchange.request.method != "HEAD":
        data += b"5\r\nchunk\r\n2\r\ned\r\n" + after
    exchange.send(data)
    return True


def _lines(*lines: str) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


SCRIPTS: dict[str, Callable[[Exchange], bool | None]] = {
    "status": _status,
    "late": _late(LATE),
    "slow-2": _late(2.0),
    "empty": _answer(b"", TYPE),
    "large": _answer(b"0123456789" * 100_000, TYPE),
    "json": _answer(b'{"a": "b"}', "Content-Type: application/json"),
    "html": _answer(b"<html></html>", "Content-Type: text/html; charset=UTF-8"),
    "no-type": _answer(TEXT),
    "binary": _answer(bytes(range(256)), TYPE),
    "octets": _answer(bytes(range(256)), "Content-Type: application/octet-stream"),
    "latin-1": _answer(b"\xe9t\xe9\n", TYPE),
    "gzip-content": _answer(gzip.compress(TEXT, mtime=0), TYPE),
    "gzip-coded": _answer(gzip.compress(TEXT, mtime=0), TYPE, "Content-Encoding: gzip"),
    "deflate": _answer(zlib.compress(TEXT), TYPE, "Content-Encoding: deflate"),
    "chunked": _chunked,
    "chunked-trailer": lambda exchange: _chunked(exchange, b"0\r\nX-Trailer: a\r\n\r\n"),
    "until-close": _bytes(_lines("HTTP/1.1 200 OK", TYPE, "Connection: close") + TEXT),
    "version-1.0": _bytes(_lines("HTTP/1.0 200 OK", TYPE, f"Content-Length: {len(TEXT)}") + TEXT),
    "no-reason": _bytes(_lines("HTTP/1.1 200 ", TYPE, f"Content-Length: {len(TEXT)}") + TEXT),
    "cookies": _answer(TEXT, TYPE, "Set-Cookie: a=b", "Set-Cookie: c=d"),
    "etag": _answer(
        TEXT, TYPE, 'ETag: "a"', "Last-Modified: Thu, 26 Nov 2026 00:00:00 GMT", "Cache-Control: private"
    ),
    "server": _answer(TEXT, TYPE, "Server: another", "X-Powered-By: another", "Via: 1.1 another"),
    "date": _answer(TEXT, TYPE, "Date: Thu, 26 Nov 2026 00:00:00 GMT"),
    "hop-by-hop": _answer(
        TEXT, TYPE, "Keep-Alive: timeout=5", "Proxy-Authenticate: Basic", "Upgrade: h2c", "Trailer: a"
    ),
    "connection-close": _bytes(
        _lines("HTTP/1.1 200 OK", TYPE, "Connection: close", f"Content-Length: {len(TEXT)}") + TEXT
    ),
    "retry-after": _answer(TEXT, TYPE, "Retry-After: 7", status="503 Service Unavailable"),
    "continue-first": _continue_first,
    "many-headers": _answer(TEXT, TYPE, *(f"X-Header-{i}: {i}" for i in range(60))),
    "large-header": _answer(TEXT, TYPE, "X-Large: " + "a" * 4000),
    "folded": _answer(TEXT, TYPE, "X-Folded: a\r\n b"),
    "length-twice": _answer(TEXT, TYPE, f"Content-Length: {len(TEXT)}"),
    "cut-length": _bytes(_lines("HTTP/1.1 200 OK", TYPE, "Content-Length: 1000") + TEXT),
    "cut-chunked": _bytes(_lines("HTTP/1.1 200 OK", TYPE, "Transfer-Encoding: chunked") + b"5\r\nchunk\r\n"),
    "cut-head": _bytes(b"HTTP/1.1 200 OK\r\nContent-Ty"),
    "nothing": _bytes(b""),
    "reset": _bytes(b"", reset=True),
    "nonsense": _bytes(b"this is no HTTP\r\n\r\n"),
    "instance-header": _answer(TEXT, TYPE, "X-Instance-ID: another"),
    "redirect": _redirect("/json"),
    "redirect-away": _redirect("http://127.0.0.1:9/elsewhere"),
}
assert SCRIPTS.keys() >= set(ANSWERS)


def nova(secret: str) -> Upstream:
    upstream = Upstream(secret)
    upstream.scripts.update(SCRIPTS)
    upstream.default = _answer(TEXT, TYPE)
    return upstream
