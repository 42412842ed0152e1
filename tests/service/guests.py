"""Guests: clients whose sockets are in a guest's namespace, and that notice every byte too much or too few."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
from dataclasses import dataclass, field

from fastmeta.lab.namespaces import inside, sbin_environment
from fastmeta.lab.topology import METADATA_ADDRESS, Port, in_namespace_command

from .upstream import WAIT, mark


class Cut(Exception):
    """The connection ended before the answer was whole. got: what came of it; reset: it ended with an RST."""

    def __init__(self, got: bytes, *, reset: bool) -> None:
        super().__init__(f"{'reset' if reset else 'closed'} after {len(got)} bytes: {got[:200]!r}")
        self.got = got
        self.reset = reset


@dataclass(frozen=True)
class Answer:
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def values(self, name: str) -> list[str]:
        return [value for found, value in self.headers if found == name]


class Wire:
    """One connection of a guest."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        connection.settimeout(WAIT)
        self.unread = b""

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *ignored: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def get(self, target: str, *headers: str, method: str = "GET", body: bytes | None = None) -> None:
        """Sends a request; the answer is read with answer()."""
        lines = [f"{method} {target} HTTP/1.1", "Host: 169.254.169.254", *headers]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        self.send("".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1") + (body or b""))

    def answer(self, *, method: str = "GET") -> Answer:
        """The next answer. Raises Cut when it does not come whole."""
        while True:
            got = b""
            try:
                status, headers, got = self._head()
                if status >= 200:
                    return Answer(status, headers, self._content(status, headers, method))
            except Cut as cut:
                raise Cut(got + cut.got, reset=cut.reset) from None

    def end(self) -> bytes:
        """What else comes until the connection ends."""
        got, self.unread = self.unread, b""
        with contextlib.suppress(ConnectionError):
            while data := self.socket.recv(65536):
                got += data
        return got

    def reset(self) -> None:
        """Ends the connection with an RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _more(self) -> None:
        try:
            data = self.socket.recv(65536)
        except ConnectionError:
            got, self.unread = self.unread, b""
            raise Cut(got, reset=True) from None
        if not data:
            got, self.unread = self.unread, b""
            raise Cut(got, reset=False)
        self.unread += data

    def _line(self) -> bytes:
        while b"\r\n" not in self.unread:
            self._more()
        line, _, self.unread = self.unread.partition(b"\r\n")
        return line

    def _exactly(self, size: int) -> bytes:
        parts = [self.unread]
        left = size - len(self.unread)
        while left > 0:
            self.unread = b""
            try:
                self._more()
            except Cut as cut:
                raise Cut(b"".join(parts) + cut.got, reset=cut.reset) from None
            parts.append(self.unread)
            left -= len(self.unread)
        data = b"".join(parts)
        self.unread = data[size:]
        return data[:size]

    def _head(self) -> tuple[int, tuple[tuple[str, str], ...], bytes]:
        first = self._line()
        assert first.startswith(b"HTTP/1.1 "), first
        headers = []
        got = first
        while line := self._line():
            got += b"\r\n" + line
            name, _, value = line.decode("latin-1").partition(":")
            headers.append((name.lower(), value.strip()))
        return int(first.split(b" ")[1]), tuple(headers), got

    def _content(self, status: int, headers: tuple[tuple[str, str], ...], method: str) -> bytes:
        if method == "HEAD" or status in (204, 304):
            return b""
        lengths = [value for name, value in headers if name == "content-length"]
        codings = [value for name, value in headers if name == "transfer-encoding"]
        assert len(lengths) + len(codings) == 1, headers
        if lengths:
            return self._exactly(int(lengths[0]))
        assert codings == ["chunked"]
        parts = []
        try:
            while size := int(self._line(), 16):
                parts.append(self._exactly(size))
                assert self._exactly(2) == b"\r\n"
        except Cut as cut:
            raise Cut(b"".join(parts) + cut.got, reset=cut.reset) from None
        assert self._line() == b""
        return b"".join(parts)


@dataclass(frozen=True)
class Guest:
    """An instance, and its port."""

    port: Port
    instance_id: str
    project_id: str
    tcp_port: int = field(default=80)

    @property
    def address(self) -> str:
        return self.port.addresses[0]

    def mark(self, target: str, *, instance_id: str | None = None) -> bytes:
        """What each line of a right answer to this guest is."""
        return mark(instance_id or self.instance_id, self.project_id, self.address, target)

    def connect(self, *, receive_buffer: int | None = None, timeout: float = WAIT) -> Wire:
        """A connection to the metadata address from inside the guest."""

        def work() -> socket.socket:
            connection = socket.socket()
            try:
                if receive_buffer is not None:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.settimeout(timeout)
                connection.connect((METADATA_ADDRESS, self.tcp_port))
            except BaseException:
                connection.close()
                raise
            return connection

        return Wire(inside(self.port.namespace, work))

    def ask(self, target: str, *headers: str, method: str = "GET", body: bytes | None = None) -> Answer:
        """One request on a connection of its own."""
        with self.connect() as wire:
            wire.get(target, *headers, method=method, body=body)
            return wire.answer(method=method)

    def raw(self, data: bytes) -> tuple[int, bytes]:
        """Sends these bytes; the status of the first answer, and everything that came until the end."""
        with self.connect() as wire:
            wire.send(data)
            with contextlib.suppress(OSError):
                wire.socket.shutdown(socket.SHUT_WR)
            got = wire.end()
        return int(got.split(b" ", 2)[1]) if got else 0, got

    def is_served(self, target: str = "/served") -> bool:
        """Whether it gets its own data."""
        answer = self.ask(target)
        return answer.status == 200 and answer.body == self.mark(target)

    def curl(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """curl inside the guest; arguments without the address: the last one is the target."""
        url = f"http://{METADATA_ADDRESS}:{self.tcp_port}{arguments[-1]}"
        command = ["curl", "-q", "-sS", "--noproxy", "*", "--max-time", "30", *arguments[:-1], url]
        return subprocess.run(
            in_namespace_command(self.port.namespace, command),
            capture_output=True,
            timeout=WAIT * 2,
            check=False,
            env=sbin_environment(),
        )
