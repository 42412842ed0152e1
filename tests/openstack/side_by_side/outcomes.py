"""What came of one case on one way, in a form that can be compared: what the guest saw, and what Nova saw."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

import h11

from tests.service.upstream import Received

from .cases import Case

NONE = "-"
"""Stands for what is not there."""
PAUSE = 0.05
"""Seconds between two parts of what a guest sends."""


@dataclass(frozen=True)
class Seen:
    """One answer at the guest."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    end: str
    """"" when it is whole, else what happened."""


@dataclass(frozen=True)
class Outcome:
    answers: tuple[Seen, ...]
    nova: tuple[Received, ...]


class Reader:
    """Reads one answer after the other, as a lenient client does."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._unread = b""

    def answer(self, method: str, timeout: float) -> Seen:
        """The next final answer, or what stood in its place."""
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method=method, target="/", headers=[("Host", "guest")]))
        client.send(h11.EndOfMessage())
        if self._unread:  # no bytes would mean the end
            client.receive_data(self._unread)
        end = time.monotonic() + timeout
        head: h11.Response | None = None
        body = b""
        while True:
            problem = ""
            try:
                event = client.next_event()
            except h11.RemoteProtocolError as error:
                return self._seen(head, body, f"no HTTP: {error}")
            if event is h11.NEED_DATA:
                problem = self._more(client, end)
                if problem:
                    return self._seen(head, body, problem)
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self._unread = client.trailing_data[0]
                return self._seen(head, body, "")
            elif isinstance(event, h11.ConnectionClosed):
                return self._seen(head, body, "closed")

    def _more(self, client: h11.Connection, end: float) -> str:
        """Gives more to the client; what is wrong if it cannot."""
        readable, _, _ = select.select([self._connection], [], [], max(end - time.monotonic(), 0))
        if not readable:
            return "nothing came in time"
        try:
            data = self._connection.recv(65536)
        except ConnectionError:
            return "reset"
        try:
            client.receive_data(data)
        except h11.RemoteProtocolError:
            return "closed"
        return ""

    @staticmethod
    def _seen(head: h11.Response | None, body: bytes, end: str) -> Seen:
        if head is None:
            return Seen(0, "", (), body, end)
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers)
        return Seen(head.status_code, head.reason.decode("latin-1"), headers, body, end)


def run(case: Case, connection: socket.socket) -> tuple[Seen, ...]:
    """Sends what the guest of the case sends, and reads its answers. The connection is closed."""
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = Reader(connection)
        answers = []
        with contextlib.suppress(ConnectionError):
            for number, part in enumerate(case.parts):
                if number:
                    time.sleep(PAUSE)
                connection.sendall(part)
            if case.ends:
                connection.shutdown(socket.SHUT_WR)
        for method in case.methods:
            answers.append(reader.answer(method, case.timeout))
            if answers[-1].end:
                break
        return tuple(answers)


def _grouped(headers: Sequence[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for name, value in headers:
        found.setdefault(name, []).append(value)
    return {name: " | ".join(values) for name, values in found.items()}


def _headers(subject: str, stock: Sequence[tuple[str, str]], ours: Sequence[tuple[str, str]]) -> list[Found]:
    left, right = _grouped(stock), _grouped(ours)
    return [
        Found(f"{subject} header {name}", left.get(name, NONE), right.get(name, NONE))
        for name in sorted(left.keys() | right.keys())
        if left.get(name) != right.get(name)
    ]


@dataclass(frozen=True)
class Found:
    """One difference. subject: where; stock, ours: the values."""

    subject: str
    stock: str
    ours: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.stock} -> {self.ours}"


def _content(body: bytes) -> str:
    return f"{len(body)} bytes, {body[:40]!r}"


def compare(stock: Outcome, ours: Outcome) -> list[Found]:
    """All differences. Of answers with different statuses the rest is not compared: it follows."""
    found = []
    if len(stock.nova) != len(ours.nova):
        found.append(Found("requests to Nova", str(len(stock.nova)), str(len(ours.nova))))
    for left, right in zip(stock.nova, ours.nova, strict=False):
        if left.method != right.method:
            found.append(Found("method to Nova", left.method, right.method))
        if left.target != right.target:
            found.append(Found("target to Nova", left.target, right.target))
        found += _headers("Nova", left.headers, right.headers)
        if left.body != right.body:
            found.append(Found("content to Nova", _content(left.body), _content(right.body)))
    if len(stock.answers) != len(ours.answers):
        found.append(Found("answers", str(len(stock.answers)), str(len(ours.answers))))
    for first, second in zip(stock.answers, ours.answers, strict=False):
        found += _answers(first, second)
    return found


def _answers(stock: Seen, ours: Seen) -> list[Found]:
    found = []
    if stock.end != ours.end:
        found.append(Found("end of the answer", stock.end or "whole", ours.end or "whole"))
    if stock.status != ours.status:
        return [*found, Found("status", str(stock.status or NONE), str(ours.status or NONE))]
    if stock.reason != ours.reason:
        found.append(Found("reason phrase", stock.reason, ours.reason))
    found += _headers("answer's", stock.headers, ours.headers)
    if stock.body != ours.body:
        found.append(Found("content of the answer", _content(stock.body), _content(ours.body)))
    return found
