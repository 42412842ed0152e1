"""An upstream that answers by script, for conversations with a real loop. See loop_kit.py."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

DEADLINE_S = 8.0


def reset(sock: socket.socket) -> None:
    """Closes with a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@dataclass
class Request:
    """What an upstream received."""

    connection: int
    number: int
    head: bytes
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes = b""

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def one(self, name: str) -> str:
        (value,) = self.all(name)
        return value


def answer(
    body: bytes = b"", status: str = "200 OK", headers: tuple[str, ...] = (), length: int | None = None
) -> bytes:
    """An answer with Content-Length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(*pieces: bytes, end: bytes = b"0\r\n\r\n", head: bytes = b"HTTP/1.1 200 OK\r\n") -> bytes:
    """An answer in chunks."""
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + end


def mark(request: Request) -> bytes:
    """Content that says for whom it is: a stray shows at once."""
    return f"{request.one('X-Instance-ID')} {request.method} {request.target}\n".encode()


class Wire:
    """One connection that an upstream accepted."""

    def __init__(self, upstream: "Upstream", sock: socket.socket, number: int) -> None:
        self.upstream = upstream
        self.socket = sock
        self.number = number
        self.pending = b""
        self.requests = 0

    def read_head(self) -> Request | None:
        """The next request's head, or None at the end of the connection."""
        while b"\r\n\r\n" not in self.pending:
            piece = self.socket.recv(65536)
            if not piece:
                return None
            self.pending += piece
        head, self.pending = self.pending.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        self.requests += 1
        request = Request(self.number, self.requests, head, method, target, headers)
        self.upstream.note(request)
        return request

    def read_body(self, request: Request, most: int | None = None) -> bytes:
        length = int((request.all("Content-Length") or ["0"])[0])
        wanted = length if most is None else min(most, length)
        while len(self.pending) < wanted:
            piece = self.socket.recv(65536)
            if not piece:
                break
            self.pending += piece
        request.body, self.pending = self.pending[:wanted], self.pending[wanted:]
        return request.body

    def read(self) -> Request | None:
        request = self.read_head()
        if request is not None:
            self.read_body(request)
        return request

    def send(self, data: bytes, piece: int = 0, pause: float = 0) -> None:
        """Sends data, in pieces of so many bytes when piece is given."""
        if not piece:
            self.socket.sendall(data)
            return
        for at in range(0, len(data), piece):
            self.socket.sendall(data[at : at + piece])
            if pause:
                time.sleep(pause)

    def is_closed(self, seconds: float = DEADLINE_S) -> bool:
        """Waits until the other side ended the connection; False when it did not, or sent something."""
        self.socket.settimeout(seconds)
        try:
            return self.socket.recv(1) == b""
        except TimeoutError:
            return False
        except OSError:
            return True

    def read_to_end(self) -> None:
        """Throws away what comes until the other side ends the connection."""
        while self.socket.recv(65536):
            pass

    def reset(self) -> None:
        reset(self.socket)


Script = Callable[[Wire], None]


def echo(wire: Wire) -> None:
    """Serves marked answers until the connection ends."""
    while (request := wire.read()) is not None:
        wire.send(answer(b"" if request.method == "HEAD" else mark(request)))


def once(make: Callable[[Request], bytes]) -> Script:
    """Answers each request of a connection with make(request)."""

    def serve(wire: Wire) -> None:
        while (request := wire.read()) is not None:
            wire.send(make(request))

    return serve


class Upstream:
    """A server in Nova's place. script serves one connection; it may be changed at any time."""

    def __init__(self, script: Script = echo, host: str = "127.0.0.1") -> None:
        self.script = script
        self.requests: list[Request] = []
        self.connections = 0
        self.lock = threading.Lock()
        self.failures: list[BaseException] = []
        self.wires: list[Wire] = []
        self.threads: list[threading.Thread] = []
        self.stopping = False
        self.host = host
        self.tcp_port = 0
        self.listener: socket.socket | None = None
        self.open()

    def open(self) -> None:
        """Listens (again)."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self.host, self.tcp_port))
        listener.listen(1024)
        self.tcp_port = listener.getsockname()[1]
        self.listener = listener
        self.accepting = threading.Thread(target=self.accept, args=(listener,), name="upstream")
        self.accepting.start()

    def close(self) -> None:
        """Takes no more connections; those that exist stay."""
        if self.listener is not None:
            self.listener.shutdown(socket.SHUT_RDWR)
            self.accepting.join(DEADLINE_S)
            self.listener.close()
            self.listener = None

    def note(self, request: Request) -> None:
        with self.lock:
            self.requests.append(request)

    def accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.lock:
                self.connections += 1
                wire = Wire(self, sock, self.connections)
                self.wires.append(wire)
            thread = threading.Thread(target=self.serve, args=(wire,), name="upstream connection")
            self.threads.append(thread)
            thread.start()

    def serve(self, wire: Wire) -> None:
        wire.socket.settimeout(DEADLINE_S * 2)
        try:
            self.script(wire)
        except OSError:
            pass
        except Exception as error:
            self.failures.append(error)
        finally:
            with self.lock:
                wire.socket.close()
                self.wires.remove(wire)

    def hang_up(self) -> None:
        """Ends all connections that there are."""
        with self.lock:
            for wire in self.wires:
                with contextlib.suppress(OSError):
                    wire.socket.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        self.stopping = True
        self.close()
        self.hang_up()
        for thread in self.threads:
            thread.join(DEADLINE_S)
        assert not self.failures, self.failures

    def targets(self) -> list[str]:
        with self.lock:
            return [request.target for request in self.requests]
