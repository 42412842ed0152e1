"""A hostile guest with thousands of connections in one thread. Runs in a guest's namespace; needs only Python.

Its one argument is a plan in JSON (see Plan). It attacks until its standard input ends or plan.seconds are over, then
closes everything and prints the last line. Lines on standard output are JSON, one every quarter of a second: counts
since the start, and how many connections are open now.
"""

from __future__ import annotations

import collections
import errno
import json
import re
import select
import socket
import struct
import sys
import time

IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h: the port is chosen by connect(2), so that other addresses may have it too
STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")
TAIL = 12
"""Bytes of a status line's beginning that may be cut in two."""
TELL_EVERY = 0.25
CONNECTS_A_TURN = 64


class Plan:
    """What the attack is; a plan in JSON has these names, missing ones have these values."""

    target = ("169.254.169.254", 80)
    sources: tuple[str, ...] = ()
    """Addresses of ours, used in turn; none: the kernel's choice."""
    connections = 1
    """Open at once."""
    total = 0
    """After so many there are no more; 0: no bound."""
    rate = 0
    """New connections in a second; 0: as many as may be."""
    seconds = 0.0
    """0: until the end of the standard input."""
    send = ""
    repeat = 1
    """Times that send is sent; 0: for ever."""
    read = True
    receive_buffer = 0
    end_after = ""
    """connected, sent or answered: when we end a connection; else never."""
    end_pause = 0.0
    """Seconds between that and the end."""
    reset = False
    """The end is an RST."""
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
    __slots__ = ("answered", "began", "ending", "socket", "tail", "to_send", "unsent")

    def __init__(self, own: socket.socket, now: float, plan: Plan) -> None:
        self.socket = own
        self.began = now
        self.unsent = b""
        self.to_send = plan.repeat if plan.send else 0
        if plan.send and plan.repeat == 0:
            self.to_send = -1
        self.answered = False
        self.ending = False
        self.tail = b""


class Attacker:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        # Many copies in one piece: each send(2) takes as much as the kernel has room for.
        self.piece = plan.send.encode("latin-1")
        self.copies = max(1, 65536 // max(1, len(self.piece)))
        if plan.repeat:
            self.copies = min(self.copies, plan.repeat)
        self.epoll = select.epoll()
        self.connections: dict[int, Connection] = {}
        self.connecting: set[int] = set()
        self.ends: collections.deque[tuple[float, int, Connection]] = collections.deque()
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
            if now >= tell_at:
                self.tell(last=False)
                tell_at = now + TELL_EVERY
            if opened and not plan.rate:
                wait = 0.0
            elif self.ends:
                wait = min(max(self.ends[0][0] - now, 0.0), 0.02)
            else:
                wait = 0.02
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
            connection.socket.close()

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
        if plan.sources:
            own.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            own.bind((plan.sources[self.counts["started"] % len(plan.sources)], 0))
        self.counts["started"] += 1
        error = own.connect_ex(tuple(plan.target))
        if error not in (0, errno.EINPROGRESS):
            self.failed(error)
            own.close()
            return False  # no ports are left, or no route: try later
        number = own.fileno()
        self.connections[number] = Connection(own, now, plan)
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
        if connection.to_send or connection.unsent:
            events |= select.EPOLLOUT
        self.epoll.modify(number, events)

    def send(self, number: int, connection: Connection) -> None:
        if not connection.unsent:
            if connection.to_send == 0:
                return
            copies = self.copies if connection.to_send < 0 else min(self.copies, connection.to_send)
            if connection.to_send > 0:
                connection.to_send -= copies
            connection.unsent = self.piece * copies
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
        if not connection.unsent and connection.to_send == 0:
            self.counts["sent"] += 1
            self.watch(number, connection)
            if self.plan.end_after == "sent":
                self.end_soon(number, connection)

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
        if self.plan.reset:
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.counts["ended"] += 1
        self.forget(number, connection)

    def forget(self, number: int, connection: Connection) -> None:
        self.connecting.discard(number)
        del self.connections[number]
        connection.socket.close()


if __name__ == "__main__":
    Attacker(Plan(json.loads(sys.argv[1]))).run()
