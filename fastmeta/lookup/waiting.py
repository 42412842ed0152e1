"""One scope: who waits in it, what is being asked, and what may be in force in the core.

The rules are the resolver's; here is what it remembers. There is nothing here for a scope in which nobody has
asked yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from fastmeta.lookup.known import Key
from fastmeta.lookup.pace import Pace
from fastmeta.models import Port, Question, Scope, ScopeKind

MAX_CHANGES = 256
"""Changed ports and addresses that are told apart while a question is under way; beyond, all of it is void."""


class Query:
    """One question that is under way, for several addresses, and what has changed since it was sent.

    batch: for each key what is asked, and for whom it counts the MAC of the link. steady: see Trust.
    """

    __slots__ = ("asked_at", "batch", "changed_addresses", "changed_links", "changed_ports", "steady", "void")

    def __init__(
        self, batch: Mapping[Key, tuple[Question, str | None]], asked_at: float, steady: int
    ) -> None:
        self.batch = batch
        self.asked_at = asked_at
        self.steady = steady
        self.void = False
        self.changed_addresses: set[bytes] = set()
        self.changed_ports: frozenset[str] = frozenset()
        self.changed_links = False

    def address_changed(self, address: bytes) -> None:
        if (address, 0) in self.batch:
            self.changed_addresses.add(address)

    def ports_changed(self, ports: frozenset[str]) -> None:
        """Which addresses they have is not known before the answer is there."""
        self.changed_ports |= ports
        self.void |= len(self.changed_ports) > MAX_CHANGES

    def is_void_for(self, key: Key, port: Port | None) -> bool:
        """Whether the answer says nothing about this address any more. port: whose the answer says that it is."""
        return (
            self.void
            or key[0] in self.changed_addresses
            or (self.changed_links and is_link_local(key))
            or (port is not None and port.id in self.changed_ports)
        )


class WholeQuery(Query):
    """One that is under way for whatever ports a scope has: which addresses they have is not known before the answer is
    there, so that all that changes counts."""

    __slots__ = ()

    def __init__(self, asked_at: float, steady: int) -> None:
        super().__init__({}, asked_at, steady)

    def address_changed(self, address: bytes) -> None:
        self.changed_addresses.add(address)
        self.void |= len(self.changed_addresses) > MAX_CHANGES


class ScopeState:
    """waiting: the core's keys with the time of their last miss, oldest question first. aside: likewise, those whose
    link's network could not be told; they must not hold up the others. networks: of a router, those of the last
    good answer; None before it. nobody_until: when the last of those ends of whom it was said that they are nobody.
    query: what is asked for those who wait; prefetch: for nobody yet.
    """

    __slots__ = (
        "aside",
        "aside_timer",
        "generation",
        "link_local",
        "networks",
        "nobody_until",
        "number",
        "pace",
        "prefetch",
        "query",
        "scope",
        "task",
        "timer",
        "waiting",
        "wake",
    )

    def __init__(self, number: int, scope: Scope) -> None:
        self.number = number
        self.scope = scope
        self.generation = 0
        self.networks: frozenset[str] | None = None
        if scope.kind is ScopeKind.NETWORK:
            self.networks = frozenset((scope.uuid,))
        self.link_local = False  # whether anybody ever asked from a link-local address
        self.nobody_until = float("-inf")
        self.waiting: dict[Key, float] = {}
        self.aside: dict[Key, float] = {}
        self.aside_timer: asyncio.TimerHandle | None = None
        self.query: Query | None = None
        self.prefetch: WholeQuery | None = None
        self.pace = Pace()
        self.task: asyncio.Task[None] | None = None
        # Of the task. Set: the source has changed, so a pause is not worth it.
        self.wake: asyncio.Event | None = None
        # Of what is in force in the core: when to look at it next.
        self.timer: asyncio.TimerHandle | None = None

    @property
    def is_router(self) -> bool:
        return self.scope.kind is ScopeKind.ROUTER

    @property
    def queries(self) -> tuple[Query, ...]:
        """What is under way."""
        return tuple(query for query in (self.query, self.prefetch) if query is not None)

    def wake_up(self) -> None:
        if self.wake is not None:
            self.wake.set()

    def stop(self) -> None:
        """Nobody waits any more, and nothing is looked at."""
        self.waiting.clear()
        self.aside.clear()
        for timer in (self.aside_timer, self.timer):
            if timer is not None:
                timer.cancel()
        # wait_for of Python before 3.12 swallows the cancellation when the answer has come at the same time.
        for query in self.queries:
            query.void = True
        if self.task is not None:
            self.task.cancel()


def is_link_local(key: Key) -> bool:
    """fe80::/10 (RFC 4291 section 2.4), or whatever the core tells apart by its interface."""
    return bool(key[1]) or (key[0][0] == 0xFE and key[0][1] & 0xC0 == 0x80)
