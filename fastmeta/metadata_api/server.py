"""HTTP/1.1 for the metadata API: asyncio, and httptools (llhttp) as the parser.

Requests of one connection are answered in order, pipelined ones too. Everything is bounded: see Limits.
"""

from __future__ import annotations

import asyncio
import email.utils
import errno
import http
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httptools

from fastmeta.exceptions import MetadataApiError
from fastmeta.metadata_api.application import HTML, Application, Request, Response, fold_header_name

LOG = logging.getLogger(__name__)

_READ = 16 * 1024
"""Bytes read at once: so many pipelined requests, and no more, can be waiting in one connection."""


_DISCARD = 1.0
"""Seconds for which the bytes of a refused client are read and thrown away."""


@dataclass(frozen=True)
class Limits:
    """Sizes in bytes, times in seconds."""

    head: int = 32 * 1024
    body: int = 64 * 1024
    connections: int = 4096
    head_timeout: float = 30.0
    """From the first byte of a request (or the connection's start) to the end of its head; then 408 and
    close."""
    body_timeout: float = 30.0
    write_timeout: float = 30.0
    """For a client to take an answer that does not fit into the socket."""
    keep_alive_timeout: float = 75.0
    """Idle between two requests; then the connection closes without a word."""
    shutdown: float = 2.0
    """What is left of answers when the server ends."""


class MetadataServer:
    """Listening sockets and connections around one application. Used from one event loop."""

    def __init__(
        self,
        application: Application,
        limits: Limits | None = None,
        *,
        log_request: Callable[[Request, Response], None] | None = None,
    ) -> None:
        """log_request is called for each answer."""
        self.application = application
        self.limits = limits or Limits()
        self.log_request = log_request
        self._connections: set[_Connection] = set()
        self._servers: list[asyncio.Server] = []
        self._closing = False

    async def listen(self, addresses: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
        """Listens on each numeric address and tcp_port (0: any free one), and gives what was really bound.

        Raises MetadataApiError when one of them cannot be had; then none is open."""
        loop = asyncio.get_running_loop()
        bound = []
        for host, tcp_port in addresses:
            try:
                listener = _listening_socket(host, tcp_port)
                server = await loop.create_server(self._new_connection, sock=listener, backlog=1024)
            except OSError as error:
                await self.close()
                raise MetadataApiError(
                    f"cannot listen on {format_address(host, tcp_port)}: {_advice(error, tcp_port)}"
                ) from error
            self._servers.append(server)
            name = listener.getsockname()
            bound.append((str(name[0]), int(name[1])))
        return bound

    async def close(self) -> None:
        """Closes the listening sockets and idle connections at once; answers under way have
        Limits.shutdown."""
        self._closing = True
        for server in self._servers:
            server.close()
        for connection in tuple(self._connections):
            connection.finish()
        deadline = time.monotonic() + self.limits.shutdown
        while self._connections and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        for connection in tuple(self._connections):
            connection.abort()
        await asyncio.sleep(0)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    def _new_connection(self) -> asyncio.BaseProtocol:
        return _Connection(self)

    def _register(self, connection: _Connection) -> bool:
        if self._closing or len(self._connections) >= self.limits.connections:
            return False
        self._connections.add(connection)
        return True

    def _forget(self, connection: _Connection) -> None:
        self._connections.discard(connection)


@dataclass
class _Parsed:
    """A request that came in whole, and what the answer's framing depends on."""

    request: Request
    keep_alive: bool
    http10: bool


class _Connection(asyncio.BufferedProtocol):
    """One connection. httptools calls on_*; a request that is complete waits in _queue until it may be
    answered, which is at once unless the client does not take the answers before it."""

    def __init__(self, server: MetadataServer) -> None:
        self._server = server
        self._limits = server.limits
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray(_READ)
        self._queue: deque[_Parsed] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._paused = False
        self._ending = False
        """No further request is read; the transport closes once everything is written."""
        self._discarding = False
        """A refusal is written; what the client still sends is thrown away for a moment."""
        self._busy_since = 0.0
        """When the request that is being read began, or 0 between two requests."""
        self._in_body = False
        self._pieces_bytes = 0
        """Bytes read since the head (or the body) that is under way began, as far as it spans several
        reads."""
        self._refused = 0
        """The status that ends the connection, once one is due: later requests do not take it back."""
        self._mark = 0
        """Counts the ends of heads and messages, to see whether one happened in a read."""
        self._waiting_since = time.monotonic()
        self._parser = httptools.HttpRequestParser(self)
        self._new_message()

    def _new_message(self) -> None:
        self._target = b""
        self._headers: dict[str, str] = {}
        self._head_bytes = 0
        self._body: list[bytes] = []
        self._body_bytes = 0

    # --- transport ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker; asyncio gives no other
        self._transport = transport
        if not self._server._register(self):
            transport.abort()
            return
        self._waiting_since = time.monotonic()
        self._check_time()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server._forget(self)
        self._transport = None
        self._queue.clear()
        if self._timer:
            self._timer.cancel()

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._ending:
            return
        mark = self._mark
        try:
            self._parser.feed_data(memoryview(self._buffer)[:nbytes])
        except httptools.HttpParserUpgrade:
            # The request before the upgrade is complete and gets its answer; we know no other protocol.
            self._ending = True
        except httptools.HttpParserError:
            self._ending = True
            self._refused = self._refused or 400
        if self._mark != mark:
            self._pieces_bytes = 0
        else:
            self._pieces_bytes += nbytes
            # Also what the parser keeps back, such as a header that never ends or the extensions of chunks.
            if not self._in_body and self._pieces_bytes > self._limits.head:
                self._refuse(431)
            elif self._in_body and self._pieces_bytes > 2 * self._limits.body + _READ:
                self._refuse(413)
        self._answer()

    def eof_received(self) -> bool:
        if self._discarding:
            return False
        # Whoever half-closes still gets the answers to what it has asked.
        self._ending = True
        self._answer()
        return True

    def pause_writing(self) -> None:
        self._paused = True
        self._waiting_since = time.monotonic()
        if self._transport:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._paused = False
        self._waiting_since = time.monotonic()
        if self._transport:
            self._transport.resume_reading()
        self._answer()

    def finish(self) -> None:
        """The server ends: answers that are under way are written, then the connection closes."""
        self._ending = True
        self._answer()

    def _close(self) -> None:
        if self._transport:
            self._transport.close()

    def abort(self) -> None:
        if self._transport:
            self._transport.abort()

    # --- parser ---------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._new_message()
        self._busy_since = time.monotonic()

    def on_url(self, url: bytes) -> None:
        self._target += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value) + 4)
        if self._refused:
            return
        folded = fold_header_name(name.decode("latin-1"))
        text = value.decode("latin-1")
        self._headers[folded] = f"{self._headers[folded]},{text}" if folded in self._headers else text

    def on_headers_complete(self) -> None:
        self._mark += 1
        self._in_body = True
        self._busy_since = time.monotonic()
        if (
            not self._refused
            and self._headers.get("expect", "").lower() == "100-continue"
            and self._transport
        ):
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.body:
            self._body.clear()
            self._refused = self._refused or 413
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        self._mark += 1
        self._in_body = False
        self._busy_since = 0.0
        self._waiting_since = time.monotonic()
        if self._refused or self._ending:
            return
        chunked = "transfer-encoding" in self._headers
        length = self._headers.get("content-length", "")
        request = Request(
            method=self._parser.get_method().decode("latin-1"),
            target=self._target.decode("latin-1"),
            headers=self._headers,
            # As it reaches a WSGI application: chunks have no length.
            content_length=int(length) if length.isdecimal() and not chunked else None,
            body=b"".join(self._body),
        )
        self._queue.append(
            _Parsed(request, self._parser.should_keep_alive(), self._parser.get_http_version() == "1.0")
        )

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self._limits.head:
            self._refused = self._refused or 431

    # --- answers --------------------------------------------------------------------------------------------

    def _answer(self) -> None:
        """Answers what is queued as far as the client takes it, then closes if that was all there will be."""
        transport = self._transport
        if transport is None or transport.is_closing() or self._discarding:
            return
        out: list[bytes] = []
        size = 0
        while self._queue and not self._paused:
            parsed = self._queue.popleft()
            response = self._server.application.handle(parsed.request)
            if self._server.log_request:
                self._server.log_request(parsed.request, response)
            last = self._ending and not self._queue and not self._refused
            keep_alive = parsed.keep_alive and not last
            out.append(_head(response, keep_alive, parsed.http10))
            if parsed.request.method != "HEAD":
                out.append(response.body)
                size += len(response.body)
            if not keep_alive:
                self._ending = True
                self._refused = 0  # what came after the last request of a connection does not count
                self._queue.clear()
            if size > 64 * 1024:
                transport.write(b"".join(out))  # may call pause_writing
                out.clear()
                size = 0
        if out:
            transport.write(b"".join(out))
        if self._queue:
            return
        if self._refused:
            transport.write(_refusal(self._refused))
            transport.write_eof()
            self._ending = self._discarding = True
            # A close with unread bytes is a reset, which could overtake the refusal.
            asyncio.get_running_loop().call_later(_DISCARD, self._close)
        elif self._ending:
            # Writes what is left first; the timer below ends it if the client never takes it.
            transport.close()

    def _refuse(self, status: int) -> None:
        self._refused = self._refused or status
        self._ending = True

    # --- time -----------------------------------------------------------------------------------------------

    def _check_time(self) -> None:
        """Looks at the clock now and then rather than setting a timer for each state."""
        transport = self._transport
        if transport is None:
            return
        limits = self._limits
        unwritten = transport.get_write_buffer_size() > 0
        if unwritten:
            since, allowed = self._waiting_since, limits.write_timeout
        elif self._busy_since:
            since, allowed = self._busy_since, limits.body_timeout if self._in_body else limits.head_timeout
        elif self._mark:
            since, allowed = self._waiting_since, limits.keep_alive_timeout
        else:
            since, allowed = self._waiting_since, limits.head_timeout
        left = since + allowed - time.monotonic()
        if left <= 0:
            if self._busy_since and not unwritten:
                self._refuse(408)
                self._answer()
            else:
                transport.abort() if unwritten else transport.close()
            left = limits.write_timeout
            self._waiting_since = time.monotonic()
        shortest = min(
            limits.head_timeout, limits.body_timeout, limits.write_timeout, limits.keep_alive_timeout
        )
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(0.01, min(left, shortest)), self._check_time)


_date: tuple[int, str] = (0, "")


def _now() -> str:
    """The value of Date, made once a second."""
    global _date
    second = int(time.time())
    if _date[0] != second:
        _date = (second, email.utils.formatdate(second, usegmt=True))
    return _date[1]


def _head(response: Response, keep_alive: bool, http10: bool) -> bytes:
    connection = "Connection: keep-alive\r\n" if http10 and keep_alive else ""
    if not keep_alive:
        connection = "Connection: close\r\n"
    return (
        f"HTTP/1.1 {response.status} {http.HTTPStatus(response.status).phrase}\r\n"
        f"Content-Type: {response.content_type}\r\n"
        f"Content-Length: {len(response.body)}\r\n"
        f"Date: {_now()}\r\n"
        f"{connection}\r\n"
    ).encode("ascii")


def _refusal(status: int) -> bytes:
    """What a request gets that never reached the application."""
    phrase = http.HTTPStatus(status).phrase
    response = Response(status, HTML, f"<html><body><h1>{status} {phrase}</h1></body></html>".encode())
    return _head(response, keep_alive=False, http10=False) + response.body


def _advice(error: OSError, tcp_port: int) -> str:
    """What went wrong, and what can be done about it."""
    if error.errno == errno.EADDRINUSE:
        return (
            "somebody else listens there (another fastmeta metadata-api, Nova's own?); end it, or give another "
            f"--listen: ss -ltnp 'sport = :{tcp_port}' names it"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine does not have the address: ip address shows those that it has"
    return os.strerror(error.errno) if error.errno else str(error)


def _listening_socket(host: str, tcp_port: int) -> socket.socket:
    """Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # [::] beside 0.0.0.0 on the same tcp_port.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(
            socket.getaddrinfo(host, tcp_port, family, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)[0][4]
        )
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def format_address(host: str, tcp_port: int) -> str:
    """As in a URL: 127.0.0.1:8775 or [::1]:8775."""
    return f"[{host}]:{tcp_port}" if ":" in host else f"{host}:{tcp_port}"
