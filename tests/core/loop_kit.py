"""What conversations with a real loop need: guests, and Python's part; upstream_kit.py has the upstream.

Everything here is plain sockets and threads: it shares no code with what it tests. All waits have deadlines.
"""

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from fastmeta import _core

from .accounts import check_accounts
from .upstream_kit import (
    DEADLINE_S,
    Request,
    Script,
    Upstream,
    Wire,
    answer,
    chunked,
    echo,
    mark,
    once,
    reset,
)

__all__ = [
    "DEADLINE_S",
    "Answer",
    "Gone",
    "Guest",
    "Request",
    "Rig",
    "Script",
    "Upstream",
    "Wire",
    "answer",
    "chunked",
    "cpu_seconds",
    "descriptors",
    "echo",
    "instance_of",
    "know",
    "mark",
    "nothing_left_behind",
    "once",
    "packed",
    "reset",
    "silence",
    "unpacked",
    "until",
]


def until(condition: Callable[[], Any], what: str = "", seconds: float = DEADLINE_S) -> Any:
    """Waits until condition() is true and returns what it gave."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what or condition}")
        time.sleep(0.002)


def packed(address: str) -> bytes:
    """The 16 bytes by which the core knows an address."""
    if ":" in address:
        return socket.inet_pton(socket.AF_INET6, address)
    return b"\0" * 10 + b"\xff\xff" + socket.inet_pton(socket.AF_INET, address)


def unpacked(address: bytes) -> str:
    if address[:12] == b"\0" * 10 + b"\xff\xff":
        return socket.inet_ntop(socket.AF_INET, address[12:])
    return socket.inet_ntop(socket.AF_INET6, address)


def instance_of(scope: int, address: str, age: int = 0) -> str:
    """The instance that the tests' source names for an address; age tells a new one from the old."""
    return f"instance-{scope}-{address}-{age}"


@dataclass
class Answer:
    """What a guest got. whole: it ended where its framing says ('length', 'chunked', 'close', 'none')."""

    status: int
    headers: list[tuple[str, str]]
    body: bytearray = field(default_factory=bytearray)
    whole: bool = False
    framing: str = "none"
    end: str = ""

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


class Gone(Exception):
    """The connection ended before a head came; the message is 'closed' or 'reset'."""


class Guest:
    """A guest's connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.socket.settimeout(DEADLINE_S)
        self.pending = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def get(self, target: str = "/", *headers: str, method: str = "GET", version: str = "1.1") -> None:
        lines = [f"{method} {target} HTTP/{version}", "Host: 169.254.169.254", *headers]
        self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")

    def post(self, body: bytes, target: str = "/", *headers: str) -> None:
        self.get(target, f"Content-Length: {len(body)}", *headers, method="POST")
        self.send(body)

    def more(self, most: int = 65536) -> str:
        """Reads once. '' when something came, else how the connection ended."""
        try:
            piece = self.socket.recv(most)
        except ConnectionResetError:
            return "reset"
        if not piece:
            return "closed"
        self.pending += piece
        return ""

    def take(self, length: int, found: Answer) -> bool:
        """Moves length bytes of the content to the answer; False when the connection ended before."""
        while True:
            part = self.pending[:length]
            found.body += part
            self.pending = self.pending[len(part) :]
            length -= len(part)
            if length == 0:
                return True
            found.end = self.more()
            if found.end:
                return False

    def line(self, found: Answer) -> bytes | None:
        while b"\r\n" not in self.pending:
            found.end = self.more()
            if found.end:
                return None
        line, self.pending = self.pending.split(b"\r\n", 1)
        return line

    def head(self) -> Answer:
        """The head of the next answer."""
        while b"\r\n\r\n" not in self.pending:
            end = self.more()
            if end:
                raise Gone(end)
        head, self.pending = self.pending.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status, _ = first.split(" ", 2)
        assert version == "HTTP/1.1"
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        return Answer(int(status), headers)

    def answer(self, method: str = "GET") -> Answer:
        """The next answer, with its content."""
        found = self.head()
        lengths, codings = found.all("Content-Length"), found.all("Transfer-Encoding")
        assert len(lengths) + len(codings) <= 1, found
        if method == "HEAD" or found.status < 200 or found.status in (204, 304):
            found.whole = True
        elif codings:
            found.framing = "chunked"
            found.whole = self.chunks(found)
        elif lengths:
            found.framing = "length"
            found.whole = self.take(int(lengths[0]), found)
        else:
            found.framing = "close"
            while not (end := self.more()):
                found.body += self.pending
                self.pending = b""
            found.body += self.pending
            found.end = end
            found.whole = end == "closed"
        return found

    def chunks(self, found: Answer) -> bool:
        while (line := self.line(found)) is not None:
            length = int(line, 16)
            if length == 0:
                return self.line(found) == b""
            if not self.take(length, found) or self.line(found) != b"":
                return False
        return False

    def ended(self) -> str:
        """Waits for the end of the connection, with nothing more sent: 'closed' or 'reset'."""
        assert not self.pending, self.pending
        try:
            piece = self.socket.recv(4096)
        except ConnectionResetError:
            return "reset"
        assert piece == b"", piece
        return "closed"

    def is_open(self) -> bool:
        """Whether the connection is open and nothing waits on it."""
        return not self.pending and not select.select([self.socket], [], [], 0)[0]

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        reset(self.socket)


Miss = Callable[["Rig", int, str], None]


def know(rig: "Rig", scope: int, address: str) -> None:
    """The default source: every address is an instance."""
    rig.put(address, scope=scope)


def silence(rig: "Rig", scope: int, address: str) -> None:
    """A source that is away."""


@dataclass
class Rig:
    """A loop in a thread, its upstream, and the thread that plays Python's part."""

    settings: dict[str, int] = field(default_factory=dict)
    upstream: Upstream = field(default_factory=Upstream)
    on_miss: Miss = know
    ttl_ms: int = 60_000
    secret: bytes = b"secret"

    def __post_init__(self) -> None:
        self.loop = _core.Loop(self.settings, secret=self.secret)
        self.generation: dict[int, int] = {}
        self.removed: set[int] = set()
        self.age: dict[tuple[int, str], int] = {}
        self.misses: list[tuple[int, str]] = []
        self.events: list[tuple[Any, ...]] = []
        self.guests: list[Guest] = []
        self.listeners: dict[int, tuple[str, int]] = {}
        self.failure: BaseException | None = None
        self.stopped = False
        self.source = threading.Lock()  # a put and a revocation exclude each other
        self.wake, self.woken = os.pipe()
        self.runner = threading.Thread(target=self.run, name="loop")
        self.driver = threading.Thread(target=self.drive, name="driver")

    def start(self) -> "Rig":
        self.loop.set_upstream([(self.upstream.host, self.upstream.tcp_port)], "nova:8775")
        self.add_listener(1, 1)
        self.runner.start()
        self.driver.start()
        return self

    def run(self) -> None:
        try:
            self.loop.run()
        except BaseException as error:
            self.failure = error

    def filenos(self) -> list[int]:
        return [self.loop.fileno()]

    def drive(self) -> None:
        while True:
            ready, _, _ = select.select([*self.filenos(), self.wake], [], [])
            for event in self.loop.events():
                if event[0] == _core.EVENT_MISS:
                    _, scope, address, _ = event
                    self.misses.append((scope, unpacked(address)))
                    try:
                        self.on_miss(self, scope, unpacked(address))
                    except Exception as error:
                        self.failure = error
                else:
                    self.take(event)
                    self.events.append(event)
            if self.wake in ready:
                return

    def take(self, event: tuple[Any, ...]) -> None:
        """An event that is no miss."""

    def add_listener(self, listener: int, scope: int, host: str = "127.0.0.1") -> None:
        """Opens a listening socket for the loop."""
        if scope not in self.generation or scope in self.removed:
            self.removed.discard(scope)
            self.generation[scope] = 0
            self.loop.add_scope(scope)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, 0))
        sock.listen(1024)
        self.listeners[listener] = sock.getsockname()[:2]
        self.loop.add_listener(listener, scope, sock.detach())

    def remove_scope(self, scope: int) -> None:
        """Its number may be used for another one then."""
        self.removed.add(scope)
        self.loop.remove_scope(scope)

    def put(
        self,
        address: str,
        *,
        scope: int = 1,
        asked_at: float | None = None,
        ttl_ms: int | None = None,
        generation: int | None = None,
        instance: str | None = None,
    ) -> None:
        with self.source:
            self.loop.put_identity(
                scope,
                packed(address),
                0,
                instance_id=instance or instance_of(scope, address, self.age.get((scope, address), 0)),
                project_id=f"project-{scope}",
                asked_at=time.monotonic() if asked_at is None else asked_at,
                ttl_ms=self.ttl_ms if ttl_ms is None else ttl_ms,
                generation=self.generation[scope] if generation is None else generation,
            )

    def revoke(self, address: str | None = None, *, scope: int = 1) -> None:
        """Ends identities; from now on the source names new instances."""
        with self.source:
            known = {name for where, name in self.misses if where == scope}
            for name in known if address is None else {address}:
                self.age[scope, name] = self.age.get((scope, name), 0) + 1
            self.generation[scope] += 1
            self.loop.revoke(scope, self.generation[scope], None if address is None else packed(address))

    def absent(self, address: str, *, scope: int = 1, ttl_ms: int = 2000) -> None:
        self.loop.put_absent(
            scope,
            packed(address),
            0,
            asked_at=time.monotonic(),
            ttl_ms=ttl_ms,
            generation=self.generation[scope],
        )

    def refused(self, address: str, *, scope: int = 1) -> None:
        self.loop.put_refused(scope, packed(address), 0, generation=self.generation[scope])

    def guest(self, address: str = "127.0.0.1", listener: int = 1, receive_buffer: int = 0) -> Guest:
        """Connects from this address."""
        host, tcp_port = self.listeners[listener]
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        sock.settimeout(DEADLINE_S)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        guest = Guest(sock)
        self.guests.append(guest)
        sock.bind((address, 0))
        sock.connect((host, tcp_port))
        return guest

    def ask(
        self, target: str = "/", *headers: str, address: str = "127.0.0.1", method: str = "GET"
    ) -> Answer:
        """One request on a connection of its own."""
        guest = self.guest(address)
        guest.get(target, *headers, method=method)
        found = guest.answer(method)
        guest.close()
        return found

    def stat(self, name: str) -> int:
        return self.loop.stats()[name]

    def wait_stat(self, name: str, value: int) -> None:
        until(lambda: self.stat(name) == value, f"{name} == {value}")

    def problems(self) -> set[int]:
        return {event[1] for event in self.events if event[0] == _core.EVENT_PROBLEM}

    def records(self) -> list[dict[str, Any]]:
        return [event[1] for event in self.events if event[0] == _core.EVENT_REQUEST]

    def stop(self, drain_ms: int = 0) -> None:
        if self.stopped:
            return
        self.stopped = True
        self.loop.stop(drain_ms)
        self.runner.join(DEADLINE_S)
        assert not self.runner.is_alive(), "the loop did not end"
        os.write(self.woken, b"x")
        self.driver.join(DEADLINE_S)
        os.close(self.wake)
        os.close(self.woken)
        if self.failure is not None:
            raise self.failure

    def end(self) -> None:
        for guest in self.guests:
            guest.close()
        try:
            self.stop()
        finally:
            self.upstream.stop()
        try:
            ended = [event[1] for event in self.events if event[0] == _core.EVENT_SCOPE_REMOVED]
            there = [scope for scope in self.generation if scope not in self.removed]
            check_accounts(self.loop, there, all_of_them=len(ended) == len(there))
        finally:
            del self.loop


def descriptors() -> dict[str, str]:
    """The open descriptors of this process, but for the one that lists them."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found[name] = os.readlink(f"/proc/self/fd/{name}")
    return {name: link for name, link in found.items() if not link.startswith("/proc/")}


@contextlib.contextmanager
def nothing_left_behind() -> Iterator[None]:
    """Fails when threads, sockets or descriptors outlive the block."""
    before = descriptors()
    threads = set(threading.enumerate())
    yield
    until(lambda: set(threading.enumerate()) <= threads, "threads end")
    after = descriptors()
    assert after == before, {name: link for name, link in after.items() if before.get(name) != link}


def cpu_seconds(identifier: int | None = None) -> float:
    """CPU time of this process, or of another one."""
    with open(f"/proc/{identifier or 'self'}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
