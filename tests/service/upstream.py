"""A metadata API that misbehaves by script, on loopback.

It records every request byte for byte, and its answers carry what it was told about who asks, so that a guest can
tell its own answer from anybody else's.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

WAIT = 30.0
"""Seconds after which whatever a test waits for is not going to happen."""

TRUSTED = ("x-instance-id", "x-tenant-id", "x-instance-id-signature", "x-forwarded-for")


def signature(secret: str, instance_id: str) -> str:
    return hmac.new(secret.encode(), instance_id.encode(), hashlib.sha256).hexdigest()


def mark(instance_id: str, project_id: str, address: str, target: str) -> bytes:
    """One line that says for whom an answer is, and to which request."""
    return f"<{instance_id}|{project_id}|{address}|{target}>\n".encode()


@dataclass(frozen=True)
class Received:
    """One request as it came. headers: names as a WSGI server reads them (lower case, - for _)."""

    connection: int
    head: bytes
    body: bytes
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]

    def values(self, name: str) -> list[str]:
        return [value for found, value in self.headers if found == name]

    def value(self, name: str) -> str:
        values = self.values(name)
        assert len(values) == 1, f"{name}: {values}"
        return values[0]

    @property
    def instance(self) -> str:
        return self.value("x-instance-id")

    @property
    def mark(self) -> bytes:
        return mark(self.instance, self.value("x-tenant-id"), self.value("x-forwarded-for"), self.target)


class Exchange:
    """One request, and the means to answer it, well or badly."""

    def __init__(self, upstream: Upstream, connection: socket.socket, request: Received) -> None:
        self.upstream = upstream
        self.connection = connection
        self.request = request

    def content(self, size: int) -> bytes:
        """Marks, at least one, size bytes or a little more."""
        line = self.request.mark
        return line * max(1, -(-size // len(line)))

    def head(self, *headers: str, status: str = "200 OK") -> bytes:
        return "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", *headers, "")).encode()

    def whole(self, size: int = 0, *headers: str, status: str = "200 OK") -> bytes:
        content = self.content(size)
        head = self.head(f"Content-Length: {len(content)}", *headers, status=status)
        return head if self.request.method == "HEAD" else head + content

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def reset(self) -> None:
        """Ends the connection with an RST."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def signed_with(self, secret: str) -> bool:
        return self.request.value("x-instance-id-signature") == signature(secret, self.request.instance)

    def gone(self, seconds: float) -> bool:
        """Whether the other side ends the connection within this time, or sends something."""
        poll = select.poll()
        poll.register(self.connection, select.POLLIN | select.POLLRDHUP)
        return bool(poll.poll(seconds * 1000))


Script = Callable[[Exchange], bool | None]
"""Answers one request. False: the connection is closed then."""


class Upstream:
    """Enter it to serve; with listening=False nobody can connect until listen() is called.

    The first part of a target's path names the script that answers; others get a whole answer at once.
    """

    def __init__(
        self, secret: str, *, listening: bool = True, path: str = "", address: str = "127.0.0.1"
    ) -> None:
        """path: of a unix socket; else it is on a TCP port of address, which is on loopback."""
        self.secrets = {secret}
        """Each of them makes good signatures."""
        self.scripts: dict[str, Script] = {}
        self.default: Script = plain
        """For all other targets."""
        self.tls: ssl.SSLContext | None = None
        """How it speaks TLS with those that connect from now on."""
        self.received: list[Received] = []
        self.wrong: list[str] = []
        """Requests that no request of a correct agent can be."""
        self._lock = threading.Lock()
        self._open: dict[int, socket.socket] = {}
        self._threads: list[threading.Thread] = []
        self._connections = 0
        self._listener = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
        self._listener.bind(path or (address, 0))
        self.tcp_port: int = 0 if path else self._listener.getsockname()[1]
        self.url = f"unix:{path}" if path else f"http://{address}:{self.tcp_port}"
        self.host = "localhost" if path else f"{address}:{self.tcp_port}"
        """The value of the Host header by which it is asked."""
        self._closing = False
        self._listening = False
        if listening:
            self.listen()

    def listen(self) -> None:
        self._listener.listen(512)
        self._listening = True
        thread = threading.Thread(target=self._accept, daemon=True)
        self._threads.append(thread)
        thread.start()

    def __enter__(self) -> Upstream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        if self._listening:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
        self.close_connections()
        for thread in self._threads:
            thread.join(WAIT)
        self._listener.close()

    def close_connections(self) -> None:
        """All of them, at once."""
        with self._lock:
            for connection in self._open.values():
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    @property
    def open(self) -> int:
        with self._lock:
            return len(self._open)

    def asked(self, text: str) -> list[Received]:
        """The requests whose target contains text, oldest first."""
        with self._lock:
            return [request for request in self.received if text in request.target]

    def until_asked(self, text: str, count: int = 1) -> list[Received]:
        end = time.monotonic() + WAIT
        while len(found := self.asked(text)) < count:
            assert time.monotonic() < end, f"{len(found)} requests for {text}, not {count}"
            time.sleep(0.002)
        return found

    def _accept(self) -> None:
        while not self._closing:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if connection.family == socket.AF_INET:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._connections += 1
                number = self._connections
                self._open[number] = connection
            thread = threading.Thread(target=self._serve, args=(number, connection), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, number: int, connection: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError):
                connection.settimeout(WAIT)
                if self.tls is not None:
                    connection = self.tls.wrap_socket(connection, server_side=True)
                    with self._lock:
                        self._open[number] = connection
                reader = connection.makefile("rb")
                with reader:
                    while not self._closing:
                        request = self._read(number, reader)
                        if request is None:
                            return
                        with self._lock:
                            self.received.append(request)
                        script = self.scripts.get(
                            request.target.partition("/")[2].split("/")[0].partition("?")[0], self.default
                        )
                        if script(Exchange(self, connection, request)) is False:
                            return
        finally:
            with self._lock:
                self._open.pop(number).close()

    def _read(self, number: int, reader: socket.SocketIO) -> Received | None:
        lines = []
        while True:
            line = reader.readline(65536)
            if not line or not line.endswith(b"\r\n"):
                if line or lines:
                    self.wrong.append(f"no head: {b''.join(lines) + line!r}")
                return None
            lines.append(line)
            if line == b"\r\n":
                break
        head = b"".join(lines)
        parts = lines[0].decode("latin-1").rstrip("\r\n").split(" ")
        headers = []
        for line in lines[1:-1]:
            name, _, value = line.decode("latin-1").partition(":")
            headers.append((name.strip().lower().replace("_", "-"), value.strip()))
        found = tuple(headers)
        lengths = [value for name, value in found if name == "content-length"]
        try:
            body = reader.read(int(lengths[0])) if lengths else b""
        except OSError:
            return None
        if lengths and len(body) < int(lengths[0]):
            return None  # cut off on its way: not a request
        request = Received(number, head, body, parts[0], parts[1] if len(parts) == 3 else "/?", found)
        self._judge(request, lines)
        return request

    def _judge(self, request: Received, lines: list[bytes]) -> None:
        """What holds for each request that an agent may send: one framing, our headers once, signed."""
        for name in ("host", *TRUSTED):
            if len(request.values(name)) != 1:
                self.wrong.append(f"{name} is there {len(request.values(name))} times: {request.head!r}")
                return
        if len(request.values("content-length")) > 1 or request.values("transfer-encoding"):
            self.wrong.append(f"ambiguous framing: {request.head!r}")
        if request.value("host") != self.host:
            self.wrong.append(f"Host is not ours: {request.head!r}")
        signatures = [signature(secret, request.instance) for secret in self.secrets]
        if request.value("x-instance-id-signature") not in signatures:
            self.wrong.append(f"the signature is wrong: {request.head!r}")
        if any(line[:1] in b" \t" or line.count(b"\n") != 1 for line in lines) or b"\0" in request.head:
            self.wrong.append(f"lines that may be read in two ways: {request.head!r}")


def plain(exchange: Exchange) -> bool:
    exchange.send(exchange.whole())
    return True
