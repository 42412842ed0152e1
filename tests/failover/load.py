"""Guests that ask all the time, and note what became of each request.

Each guest has a limit of 10 s for a request, as cloud-init has, and repeats nothing. Each request has a target of its
own, and each answer says for whom it is and to which target: an answer that is not its own is seen, and so is a byte
that nobody asked for. All of them live in one thread, on one event loop.
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType

from typing_extensions import Self

from fastmeta.lab.namespaces import inside

LIMIT = 10.0
"""Seconds that a guest waits for an answer."""
STARTED_WITHIN = 20.0

REPEATABLE = ("GET", "HEAD")


@dataclass(frozen=True)
class GuestPlan:
    """A guest: its name, the place that it asks, and who it is."""

    name: str
    listener: tuple[str, int]
    source: str
    instance_id: str
    project_id: str

    def mark(self, target: str) -> str:
        return f"<{self.instance_id}|{self.project_id}|{self.source}|{target}>"


@dataclass(frozen=True)
class Record:
    """What became of a request. status 0: no answer; error is empty when the answer was the guest's own, whole, 200."""

    guest: str
    method: str
    target: str
    connection: str
    began: float
    took: float
    status: int
    retry_after: str
    error: str

    @property
    def ended(self) -> float:
        return self.began + self.took

    def __str__(self) -> str:
        return f"{self.method} {self.target} ({self.connection}) after {self.took:.2f} s: {self.status} {self.error}"


class Cut(Exception):
    """The connection ended before the answer did."""


class Wire(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.ended = ""
        self.changed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.changed.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.ended = repr(error) if error else "closed"
        self.changed.set()

    async def more(self) -> None:
        """Waits until something has come."""
        before = len(self.received)
        while len(self.received) == before:
            if self.ended:
                raise Cut(f"{self.ended} after {bytes(self.received[:200])!r}")
            self.changed.clear()
            await self.changed.wait()

    async def ask(self, method: str, target: str, *headers: str, body: bytes) -> Answer:
        lines = [f"{method} {target} HTTP/1.1", "Host: 169.254.169.254", *headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self.transport.write("".join(f"{line}\r\n" for line in (*lines, "")).encode() + body)
        while (end := self.received.find(b"\r\n\r\n")) < 0:
            await self.more()
        first, *rest = self.received[:end].decode("latin-1").split("\r\n")
        fields = {}
        for line in rest:
            name, _, value = line.partition(":")
            fields[name.lower()] = value.strip()
        length = 0 if method == "HEAD" else int(fields["content-length"])
        while len(self.received) < end + 4 + length:
            await self.more()
        content = bytes(self.received[end + 4 : end + 4 + length])
        del self.received[: end + 4 + length]
        return Answer(int(first.split(" ")[1]), fields, content)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    content: bytes


Check = Callable[[GuestPlan, str, str, Answer], str]
"""Says what is wrong with an answer of status 200 to (method, target) of a guest."""


def marked(plan: GuestPlan, method: str, target: str, answer: Answer) -> str:
    """For programs/nova.py: the mark is in the head, and the content."""
    mark = plan.mark(target)
    if answer.headers.get("etag") != f'"{mark}"':
        return f"not its own head: {answer.headers}"
    if method != "HEAD" and answer.content != f"{mark}\n".encode():
        return f"not its own content: {answer.content[:200]!r}"
    return ""


def instance_id_only(plan: GuestPlan, method: str, target: str, answer: Answer) -> str:
    """For the embedded metadata API, asked for the id."""
    if method != "HEAD" and answer.content != plan.instance_id.encode():
        return f"not its own content: {answer.content[:200]!r}"
    return ""


class Load:
    """Enter it to begin; leave it, or call end(), to end.

    posts: one request in so many is a POST; 0: none. path: what targets begin with. at_once: so many requests of a
    guest are in progress at a time.
    """

    def __init__(
        self,
        guests: Sequence[GuestPlan],
        *,
        pause: float = 0.04,
        posts: int = 10,
        path: str = "/",
        check: Check = marked,
        limit: float = LIMIT,
        at_once: int = 1,
        namespace: str | None = None,
    ) -> None:
        self.guests = guests
        self.pause = pause
        self.posts = posts
        self.path = path
        self.check = check
        self.limit = limit
        self.at_once = at_once
        self.namespace = namespace
        self.records: list[Record] = []
        self.strays: list[str] = []
        self.reopened = 0
        """Kept connections that were closed between two requests."""
        self.failure: BaseException | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="load")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Returns when the last request has got its answer."""
        self._stopping = True
        self._thread.join(self.limit + 10)
        assert not self._thread.is_alive()
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        try:
            if self.namespace is None:
                asyncio.run(self._ask_all())
            else:
                inside(self.namespace, lambda: asyncio.run(self._ask_all()))
        except BaseException as error:
            self.failure = error

    async def _ask_all(self) -> None:
        await asyncio.gather(
            *(
                self._ask_on_and_on(guest, number * self.at_once + turn)
                for number, guest in enumerate(self.guests)
                for turn in range(self.at_once)
            )
        )

    async def _ask_on_and_on(self, guest: GuestPlan, seed: int) -> None:
        """One request after the other: on a kept connection, on one for each that says so, on one for each that the
        guest just closes (what cloud-init does)."""
        chance = random.Random(seed)
        kept: Wire | None = None
        number = 0
        await asyncio.sleep(chance.random() * self.pause)
        while not self._stopping:
            number += 1
            post = self.posts > 0 and chance.randrange(self.posts) == 0
            method = "POST" if post else chance.choice(("GET", "GET", "GET", "HEAD"))
            connection = chance.choice(("kept", "kept", "fresh", "closing"))
            target = f"{self.path}{guest.name}-{seed}-{number}"
            if kept is not None and kept.ended:
                self.reopened += 1
                kept = None
            began = time.monotonic()
            wire = kept if connection == "kept" else None
            status, retry_after = 0, ""
            try:
                async with _Limit(self.limit):
                    if wire is None:
                        wire = await self._connect(guest)
                    headers = ["Connection: close"] if connection == "closing" else []
                    answer = await wire.ask(method, target, *headers, body=target.encode() if post else b"")
                    status, retry_after = answer.status, answer.headers.get("retry-after", "")
                    wrong = (
                        self.check(guest, method, target, answer)
                        if status == 200
                        else f"{answer.content[:100]!r}"
                    )
                    if wire.received:
                        self.strays.append(f"behind the answer to {target}: {bytes(wire.received)!r}")
                    if wrong and status == 200:
                        self.strays.append(f"{method} {target}: {wrong}")
                    if answer.headers.get("connection") == "close":
                        kept = None if wire is kept else kept
                    elif connection == "kept":
                        kept = wire
            except (OSError, Cut, TimeoutError, asyncio.TimeoutError) as error:
                wrong = repr(error)
                kept = None if wire is kept else kept
            took = time.monotonic() - began
            self.records.append(
                Record(guest.name, method, target, connection, began, took, status, retry_after, wrong)
            )
            if wire is not None and wire is not kept:
                wire.transport.close()
            await asyncio.sleep(self.pause * chance.uniform(0.5, 1.5))
        if kept is not None:
            if kept.received:
                self.strays.append(f"on an idle connection of {guest.name}: {bytes(kept.received)!r}")
            kept.transport.close()

    @staticmethod
    async def _connect(guest: GuestPlan) -> Wire:
        _, wire = await asyncio.get_running_loop().create_connection(
            Wire, *guest.listener, local_addr=(guest.source, 0), family=socket.AF_INET
        )
        return wire

    # What tests ask.

    def until_asked(self, more: int, *, seconds: float = STARTED_WITHIN) -> None:
        """Waits until each guest has got so many more answers, or failures."""
        since = time.monotonic()
        wanted = {guest.name for guest in self.guests}
        while True:
            counts = dict.fromkeys(wanted, 0)
            for record in self.since(since):
                counts[record.guest] += 1
            if min(counts.values()) >= more:
                return
            assert self._thread.is_alive(), self.failure
            assert time.monotonic() < since + seconds, f"not {more} answers for each guest: {counts}"
            time.sleep(0.02)

    def go_on(self, seconds: float) -> None:
        """Lets them ask for so long."""
        time.sleep(seconds)
        assert self._thread.is_alive(), self.failure

    def since(self, when: float) -> list[Record]:
        """Records of requests that began at this time or later."""
        return [record for record in list(self.records) if record.began >= when]

    def between(self, start: float, end: float) -> list[Record]:
        """Records of GETs and HEADs that began in this time."""
        return [record for record in self.of(*REPEATABLE) if start <= record.began < end]

    def of(self, *methods: str) -> list[Record]:
        return [record for record in list(self.records) if record.method in methods]


class _Limit:
    """asyncio.timeout of Python 3.11, for older ones: cancels the task that is in its block, and says so."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.over = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self.timer = asyncio.get_running_loop().call_later(self.seconds, self._end)

    def _end(self) -> None:
        self.over = True
        self.task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.timer.cancel()
        if self.over and kind is asyncio.CancelledError:
            raise TimeoutError(f"no answer in {self.seconds:g} s") from None


def times(records: Iterable[Record]) -> str:
    """Their spread, in words."""
    took = sorted(record.took for record in records)
    if not took:
        return "none"
    median, late = took[len(took) // 2], took[len(took) * 99 // 100]
    return f"{len(took)}: {1000 * median:.1f} / {1000 * late:.0f} / {1000 * took[-1]:.0f} ms"
