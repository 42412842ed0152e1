"""A real core between real guests and a Nova that says whom it was asked for, with the resolver, on one clock that
can be put forward.

The core counts ages by CLOCK_MONOTONIC, which nobody can move. So instead of moving time on, everything that the
core knows is put again, as much older as time shall have gone on (Aging). Between two steps all is quiet: each
request has been answered, waits for a lookup, or is held by Nova. Therefore a head that Nova gets was sent at the
time that the clock shows.
"""

from __future__ import annotations

import asyncio
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fastmeta import _core
from fastmeta.lookup.resolver import LINGER, Resolver
from fastmeta.lookup.source import LookupSource
from fastmeta.models import Scope
from tests.core.loop_kit import DEADLINE_S, Answer, Guest, Upstream, Wire, answer, unpacked

FENCE = 1_000_000
SETTINGS = {"park_timeout_ms": 60_000, "warm_connections": 0, "second_try_after_ms": 0}


class Clock:
    """Seconds of CLOCK_MONOTONIC, and what it was put forward by."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


class ClockLoop(asyncio.SelectorEventLoop):
    """An event loop by such a clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._by_clock = clock

    def time(self) -> float:
        return self._by_clock()


@dataclass
class Known:
    """One identity, or that somebody is nobody, as the core was told. instance: None for nobody."""

    instance: str | None
    project: str
    asked_at: float
    ttl_ms: int
    arrivals: int = 0

    def ends_at(self) -> float:
        return self.asked_at + self.ttl_ms / 1000


@dataclass
class Aging:
    """Stands between the resolver and the real loop. What it knows, it knows only in order to put it again."""

    loop: _core.Loop
    clock: Clock
    arrivals: Counter[str]
    on_used: Callable[[int, bytes, int], None]
    known: dict[tuple[int, bytes, int], Known] = field(default_factory=dict)
    generations: Counter[int] = field(default_factory=Counter)
    renewals: int = 0
    told: int = 0
    wrong: str = ""

    def put_identity(
        self,
        scope: int,
        address: bytes,
        interface: int,
        *,
        instance_id: str,
        project_id: str,
        asked_at: float,
        ttl_ms: int,
        generation: int,
    ) -> None:
        self.told += 1
        self.check_revoked((scope, address, interface), instance_id)
        if generation == self.generations[scope]:
            known = Known(instance_id, project_id, asked_at, ttl_ms, self.arrivals[instance_id])
            self.known[scope, address, interface] = known
        self.loop.put_identity(
            scope,
            address,
            interface,
            instance_id=instance_id,
            project_id=project_id,
            asked_at=asked_at - self.clock.ahead,
            ttl_ms=ttl_ms,
            generation=generation,
        )

    def put_absent(
        self, scope: int, address: bytes, interface: int, *, asked_at: float, ttl_ms: int, generation: int
    ) -> None:
        self.told += 1
        self.check_revoked((scope, address, interface), None)
        if generation == self.generations[scope]:
            self.known[scope, address, interface] = Known(None, "", asked_at, ttl_ms)
        self.loop.put_absent(
            scope,
            address,
            interface,
            asked_at=asked_at - self.clock.ahead,
            ttl_ms=ttl_ms,
            generation=generation,
        )

    def check_revoked(self, key: tuple[int, bytes, int], instance: str | None) -> None:
        """Who was another instance, and may have requests in progress, was revoked first."""
        before = self.known.get(key)
        if before is None or before.instance in (None, instance):
            return
        if self.clock() < before.ends_at() + LINGER - 1:
            self.wrong = f"{unpacked(key[1])} was {before.instance}, which was not revoked"

    def put_refused(self, scope: int, address: bytes, interface: int, *, generation: int) -> None:
        self.told += 1
        self.known.pop((scope, address, interface), None)
        self.loop.put_refused(scope, address, interface, generation=generation)

    def revoke(self, scope: int, generation: int, address: bytes | None = None, interface: int = 0) -> None:
        self.told += 1
        self.generations[scope] = generation
        for key in [key for key in self.known if key[0] == scope and address in (None, key[1])]:
            del self.known[key]
        self.loop.revoke(scope, generation, address, interface)

    def renew(self, scope: int, before: float) -> None:
        """The core forgets who was used when an identity is put again: who asked Nova since it was confirmed is known
        here."""
        self.told += 1
        self.renewals += 1
        self.loop.renew(scope, before - self.clock.ahead)
        for key, known in self.known.items():
            used = known.instance is not None and self.arrivals[known.instance] > known.arrivals
            if key[0] == scope and used and self.clock() < known.ends_at() < before:
                self.on_used(*key)

    def shorten(self, scope: int, ttl_ms: int) -> None:
        self.told += 1
        for key, known in self.known.items():
            if key[0] == scope and known.instance is not None:
                known.ttl_ms = min(known.ttl_ms, ttl_ms)
        self.loop.shorten(scope, ttl_ms)

    def put_again(self) -> None:
        """Everything is older than it was when it was put."""
        now = self.clock()
        for (scope, address, interface), known in list(self.known.items()):
            keywords: Any = {
                "asked_at": known.asked_at - self.clock.ahead,
                "ttl_ms": known.ttl_ms,
                "generation": self.generations[scope],
            }
            if known.instance is None:
                # Nobody waits in it yet: until now it was in force.
                self.loop.put_absent(scope, address, interface, **keywords)
                over = now >= known.ends_at()
            else:
                keywords |= {"instance_id": known.instance, "project_id": known.project}
                self.loop.put_identity(scope, address, interface, **keywords)
                over = now >= known.ends_at() + LINGER
            if over:
                del self.known[scope, address, interface]


@dataclass
class Asked:
    """A request of a guest. instance: the one in whose name it was answered."""

    scope: int
    address: str
    target: str
    guest: Guest
    answer: Answer | None = None
    instance: str = ""


@dataclass
class Arrival:
    """A head that Nova got."""

    at: float
    instance: str
    target: str


class Stage:
    """scopes by their numbers. on_arrival, on_answer: judge what was seen; on_wrong: what the resolver told
    the core was wrong."""

    def __init__(
        self,
        scopes: dict[int, Scope],
        source: LookupSource,
        on_arrival: Callable[[Arrival], None],
        on_answer: Callable[[Asked], None],
        on_wrong: Callable[[str], None],
        **times: Any,
    ) -> None:
        self.clock = Clock()
        self.loop = ClockLoop(self.clock)
        self.on_arrival, self.on_answer, self.on_wrong = on_arrival, on_answer, on_wrong
        self.asked: list[Asked] = []
        self.count = 0
        self.lock = threading.Lock()
        self.arrived: list[Arrival] = []
        self.arrivals: Counter[str] = Counter()
        self.held: dict[str, threading.Event] = {}
        self.holding = 0
        self.nova = Upstream(self.serve)
        self.core = _core.Loop(SETTINGS, secret=b"secret")
        self.thread = threading.Thread(target=self.core.run, name="loop")
        self.fence = FENCE
        self.places: dict[int, tuple[str, int]] = {}
        self.table = Aging(self.core, self.clock, self.arrivals, self.used)
        self.resolver = Resolver(self.table, source, clock=self.clock, **times)
        self.thread.start()
        self.core.set_upstream([(self.nova.host, self.nova.tcp_port)], "nova:8775")
        for number, scope in scopes.items():
            self.core.add_scope(number)
            self.resolver.add_scope(number, scope)
            sock = socket.socket()
            sock.bind(("127.0.0.1", 0))
            sock.listen(1024)
            sock.setblocking(False)
            self.places[number] = sock.getsockname()
            self.core.add_listener(number, number, sock.detach())

    def serve(self, wire: Wire) -> None:
        """Nova: says in whose name it was asked. Requests for /held/… wait until they are released or given up."""
        while (request := wire.read()) is not None:
            gate = None
            with self.lock:
                instance = request.one("X-Instance-ID")
                self.arrivals[instance] += 1
                self.arrived.append(Arrival(self.clock(), instance, request.target))
                if request.target.startswith("/held/"):
                    gate = self.held.setdefault(request.target, threading.Event())
                self.holding += 1
            try:
                while gate is not None and not gate.wait(0.001):
                    if select.select([wire.socket], [], [], 0)[0]:
                        return
            finally:
                with self.lock:
                    self.holding -= 1
            wire.send(answer(f"{instance} {request.target}".encode()))

    def used(self, scope: int, address: bytes, interface: int) -> None:
        self.loop.call_soon(self.resolver.miss, scope, address, interface)

    def ask(self, scope: int, address: str, *, held: bool = False) -> Asked:
        self.count += 1
        sock = socket.socket()
        sock.settimeout(DEADLINE_S)
        sock.bind((address, 0))
        sock.connect(self.places[scope])
        asked = Asked(scope, address, f"/{'held' if held else 'now'}/{self.count}", Guest(sock))
        asked.guest.get(asked.target)
        self.asked.append(asked)
        return asked

    def release(self) -> None:
        """Nova answers what it holds."""
        with self.lock:
            for gate in self.held.values():
                gate.set()

    def run(self, action: Callable[[], object]) -> None:
        """In the event loop, as a source or the core would call."""

        async def body() -> None:
            action()
            await asyncio.sleep(0)

        self.loop.run_until_complete(body())
        self.settle()

    def forward(self, seconds: float) -> None:
        self.clock.ahead += seconds
        self.table.put_again()
        self.run(lambda: None)

    def settle(self) -> None:
        """Until all is quiet. Then what was seen is judged."""
        end = time.monotonic() + DEADLINE_S
        quiet = 0
        while quiet < 2:
            if time.monotonic() > end:
                raise AssertionError(f"it does not come to rest: {self.state()}")
            moved = self.turn()
            waiting, parked, busy, holding = self.state()
            if moved or waiting != parked + busy or busy != holding:
                quiet = 0
            else:
                # Figures of the core are read one by one, and Nova may not have seen that a request was given up.
                quiet += 1
                time.sleep(0.002)
        with self.lock:
            arrived, self.arrived = self.arrived, []
        if self.table.wrong:
            self.on_wrong(self.table.wrong)
        for arrival in arrived:
            self.on_arrival(arrival)
        for asked in [asked for asked in self.asked if asked.answer is not None]:
            self.asked.remove(asked)
            asked.guest.close()
            self.on_answer(asked)

    def state(self) -> tuple[int, int, int, int]:
        """Requests that were not answered; that wait for a lookup; connections to Nova in use; requests there."""
        stats = self.core.stats()
        busy = stats["upstream_connections"] - stats["upstream_idle"]
        with self.lock:
            return sum(asked.answer is None for asked in self.asked), stats["parked"], busy, self.holding

    def turn(self) -> bool:
        """Lets everybody do what there is to do; whether there was anything."""
        moved = False

        async def body() -> None:
            # Until nobody in it has anything to do but wait.
            for _ in range(4):
                await asyncio.sleep(0)
            while self.loop._ready:  # type: ignore[attr-defined]
                await asyncio.sleep(0)

        self.fence += 1
        self.core.add_scope(self.fence)
        self.core.remove_scope(self.fence)
        fenced = False
        while not fenced:
            select.select([self.core.fileno()], [], [], DEADLINE_S)
            for event in self.core.events():
                if event[0] == _core.EVENT_MISS:
                    moved = True
                    self.loop.call_soon(self.resolver.miss, *event[1:])
                elif event == (_core.EVENT_SCOPE_REMOVED, self.fence):
                    fenced = True
        told = self.table.told
        self.loop.run_until_complete(body())
        moved |= told != self.table.told
        for asked in self.asked:
            if asked.answer is None and select.select([asked.guest.socket], [], [], 0)[0]:
                moved = True
                asked.answer = asked.guest.answer()
                if asked.answer.status == 200:
                    asked.instance, target = asked.answer.body.decode().split()
                    assert target == asked.target
        return moved

    def end(self) -> None:
        for asked in self.asked:
            asked.guest.close()
        self.release()
        self.loop.run_until_complete(self.resolver.stop())
        self.core.stop()
        self.thread.join(DEADLINE_S)
        assert not self.thread.is_alive()
        self.nova.stop()
        self.loop.close()
