"""Turns misses of the core into questions, and answers into identities, and ends them when they are over.

The rules are those of identity safety (docs/identity-safety.md): an identity's age counts from when its question
was sent; what an answer says about an address or a port that has changed since its question was sent counts for
nothing; whatever is in doubt is nobody.

The parts: ``waiting`` remembers who waits in a scope, ``asking`` asks for them, ``circuit`` and ``pace`` let it,
``judgement`` says what an answer is worth, ``said`` tells the core and remembers it (``known``), ``trust`` knows for
how long, ``renewal`` looks who is still used, ``prefetch`` asks before anybody does. Here they are put together, and
told what has changed.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import TypedDict

from oslo_log import log as logging

from fastmeta.lookup.asking import Asking, LinkMac
from fastmeta.lookup.circuit import FIRST_PAUSE, Circuit
from fastmeta.lookup.known import Key
from fastmeta.lookup.prefetch import Prefetch
from fastmeta.lookup.said import Said
from fastmeta.lookup.source import LookupSource
from fastmeta.lookup.table import IdentityTable
from fastmeta.lookup.trust import Trust
from fastmeta.lookup.waiting import Query, ScopeState, is_link_local
from fastmeta.models import Change, Question, Scope, pack_address, unpack_address
from fastmeta.repeats import Repeats

LOG = logging.getLogger(__name__)

MAX_QUESTIONS_PER_SCOPE = 4096
"""Addresses of one scope that are waited for at once; a miss beyond is dropped (the core repeats it)."""
MAX_QUESTIONS = 65536
"""The same for all scopes together."""
MAX_REVOKED_ADDRESSES = 256
"""A change of more addresses of one scope revokes the whole scope."""
REPEAT_PERIOD = 60.0
"""Seconds for which the same complaint is not logged again."""
LINGER = 60.0
"""Seconds for which a request may be in progress that was sent under an identity: upstream_timeout's default."""


class Times(TypedDict):
    """Seconds, all of which may be other ones later."""

    identity_ttl: float
    identity_ttl_with_events: float
    negative_ttl: float
    lookup_timeout: float
    park_timeout: float
    upstream_timeout: float


class Resolver:
    """Asks one source for all scopes. Lives in the event loop's thread; none of its methods blocks.

    link_mac(scope, interface) gives the MAC that the interface of this index has now in the scope's
    namespace, or None; it may call links_changed. Without it, nobody behind a router who has a link-local
    address can be told. on_health(text) is called when health has changed.

    Times are seconds. clock must be the one by which the core counts ages (time.monotonic); jitter gives
    numbers from 0 to 1.
    """

    def __init__(
        self,
        table: IdentityTable,
        source: LookupSource,
        *,
        identity_ttl: float,
        negative_ttl: float,
        lookup_timeout: float,
        park_timeout: float,
        identity_ttl_with_events: float = 0.0,
        upstream_timeout: float = LINGER,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
        first_pause: float = FIRST_PAUSE,
        link_mac: LinkMac | None = None,
        on_health: Callable[[str], None] | None = None,
    ) -> None:
        self._clock = clock
        # Scopes that there are; those in which anybody ever asked; those in which something is known or asked.
        self._scopes: dict[int, Scope] = {}
        self._states: dict[int, ScopeState] = {}
        self._active: dict[int, ScopeState] = {}
        self._questions = 0
        self._repeats = Repeats(REPEAT_PERIOD, clock)
        self._on_health = on_health
        self._health = "healthy"
        self._trust = Trust(identity_ttl, identity_ttl_with_events, clock)
        self._circuit = Circuit(self._circuit_changed, clock=clock, jitter=jitter, first_pause=first_pause)
        self._said = Said(
            table,
            self._trust,
            negative_ttl=negative_ttl,
            linger=upstream_timeout,
            clock=clock,
            repeats=self._repeats,
            state_of=self._states.__getitem__,
            on_idle=self._idle,
        )
        self._asking = Asking(
            source,
            self._circuit,
            self._said,
            self._trust,
            lookup_timeout=lookup_timeout,
            park_timeout=park_timeout,
            clock=clock,
            jitter=jitter,
            first_pause=first_pause,
            link_mac=link_mac or _unknown_link,
            repeats=self._repeats,
            on_left=self._left,
            on_idle=self._idle,
        )
        self._prefetch = Prefetch(
            source,
            self._circuit,
            self._said,
            self._trust,
            lookup_timeout=lookup_timeout,
            clock=clock,
            state_of=self._state,
            on_idle=self._idle,
        )

    @property
    def health(self) -> str:
        """For operators: "healthy", or "degraded: " and why."""
        return self._health

    def set_times(
        self,
        *,
        identity_ttl: float,
        negative_ttl: float,
        lookup_timeout: float,
        park_timeout: float,
        identity_ttl_with_events: float = 0.0,
        upstream_timeout: float = LINGER,
    ) -> None:
        """Other times from now on; a query that is under way keeps its timeout. When an answer is believed for
        a shorter time, what is known ends: it was to be believed for the longer one."""
        long = max(identity_ttl, identity_ttl_with_events)
        shorter = (
            identity_ttl < self._trust.short
            or long < self._trust.long
            or negative_ttl < self._said.negative_ttl
        )
        self._trust.short, self._trust.long = identity_ttl, long
        self._said.negative_ttl = negative_ttl
        self._said.renewal.linger = upstream_timeout
        self._asking.lookup_timeout = self._prefetch.lookup_timeout = lookup_timeout
        self._asking.park_timeout = park_timeout
        if shorter:
            self.revoke_all()

    def add_scope(self, number: int, scope: Scope) -> None:
        """number: the core's for this scope, which the core knows already."""
        self._scopes[number] = scope

    def remove_scope(self, number: int) -> None:
        """Nobody waits in this scope any more; an answer that is under way is thrown away."""
        self._scopes.pop(number, None)
        self._prefetch.forget(number)
        self._trust.forget(number)
        state = self._states.pop(number, None)
        if state is not None:
            self._active.pop(number, None)
            self._left(len(state.waiting) + len(state.aside))
            state.stop()
            self._said.known.forget_scope(number)

    async def stop(self) -> None:
        """Asks nothing more; returns when no query is under way."""
        tasks = [state.task for state in self._states.values() if state.task is not None]
        for number in list(self._scopes):
            self.remove_scope(number)
        await self._prefetch.stop()
        await asyncio.gather(*tasks, return_exceptions=True)

    def miss(self, number: int, address: bytes, interface: int) -> None:
        """The core wants to know who has address (16 bytes) in a scope: somebody waits, or the core was asked who is
        still used, or Nova has answered 404; also when it reminds of one."""
        state = self._state(number)
        if state is None:
            return
        key = (address, interface)
        if key in state.aside:
            state.aside[key] = self._clock()
            return
        question = Question(unpack_address(address))
        if not question.answerable:
            # No source could name its port.
            self._said.nobody(state, key, Query({}, self._clock(), 0))
            return
        if key not in state.waiting:
            waiting = len(state.waiting) + len(state.aside)
            if waiting >= MAX_QUESTIONS_PER_SCOPE or self._questions >= MAX_QUESTIONS:
                self._asking.complain(state, "full", "too many addresses are waited for at once")
                return
            self._questions += 1
        state.waiting[key] = self._clock()
        state.link_local = state.link_local or is_link_local(key)
        self._asking.go_on(state)

    def prefetch(self, number: int) -> None:
        """A scope can be reached from now on: its ports are asked for before anybody asks."""
        if number in self._scopes:
            self._prefetch.want(number)

    def revoke_all(self) -> None:
        """Nothing of what is known holds any more; also answers that are under way are void."""
        for state in list(self._active.values()):
            self._revoke_scope(state)

    def links_changed(self, number: int) -> None:
        """The indexes of interfaces may mean something else than before in this scope's namespace."""
        state = self._states.get(number)
        if state is not None and state.link_local:
            self._revoke_scope(state)

    def announcing(self, announcing: bool) -> None:
        """The source says whether every change is told from now on."""
        if not self._trust.set_announcing(announcing):
            return
        if announcing:
            self._circuit.try_now()  # it is there
        else:
            for state in list(self._active.values()):
                self._said.shorten(state)
        self._look_at_health()

    def changed(self, change: Change) -> None:
        """The source says what is no longer true: identities end, and answers that are under way are void. What
        nobody has asked about costs nothing."""
        if change.everything:
            self.revoke_all()
            self._circuit.try_now()
            return
        of_ports: dict[int, set[Key]] = {}
        for port in change.ports:
            for given in self._said.known.of_port(port):
                of_ports.setdefault(given.scope, set()).add(given.key)
        for state in list(self._active.values()):
            keys = of_ports.get(state.number, set())
            for query in state.queries:
                query.ports_changed(change.ports)
            if state.scope.uuid in change.routers:
                state.networks = (
                    None  # a change in any network may concern it, until it is known anew which it has
                )
                self._revoke_scope(state)
                continue
            if self._add_changed(state, change, keys):
                self._revoke_scope(state)
                continue
            for key in keys:
                self._said.revoke(state, key)
            if keys:
                self._try_again(state)

    def _add_changed(self, state: ScopeState, change: Change, keys: set[Key]) -> bool:
        """Adds to keys what the change ends in this scope by addresses. True when that is all of it."""
        networks = set(change.addresses)
        # Before its first answer a router may have any network; and in what is under way for all of it, another one.
        if state.networks is not None and not (state.is_router and state.prefetch is not None):
            networks &= state.networks
        if not networks:
            return len(keys) > MAX_REVOKED_ADDRESSES
        nobody = self._clock() < state.nobody_until
        known = self._said.known
        if state.link_local:
            # By address a link-local guest cannot be found: it was asked for by its MAC. Who was said to be nobody
            # is not remembered one by one.
            if nobody:
                return True
            for query in state.queries:
                query.changed_links = True
            if not change.ports:
                keys.update(
                    given.key
                    for given in known.of_scope(state.number)
                    if given.network in networks and is_link_local(given.key)
                )
        for address in {
            pack_address(address) for network in networks for address in change.addresses[network]
        }:
            if nobody or known.get(state.number, (address, 0)) is not None:
                keys.add((address, 0))
            for query in state.queries:
                query.address_changed(address)
        return len(keys) > MAX_REVOKED_ADDRESSES

    def _state(self, number: int) -> ScopeState | None:
        """Of a scope in which something is to be asked: from now on it is told what changes. None when there is none
        of this number."""
        if number not in self._scopes:
            return None
        state = self._states.get(number)
        if state is None:
            state = self._states[number] = ScopeState(number, self._scopes[number])
        self._active[number] = state
        return state

    def _revoke_scope(self, state: ScopeState) -> None:
        self._said.revoke_scope(state)
        self._try_again(state)

    def _try_again(self, state: ScopeState) -> None:
        """Something has changed: whoever waits for that need not wait longer."""
        state.wake_up()
        self._asking.back_from_aside(state)

    def _left(self, count: int) -> None:
        self._questions -= count

    def _idle(self, state: ScopeState) -> None:
        """Nothing is known, or nothing is asked, in a scope."""
        busy = state.task is not None or state.prefetch is not None or state.timer is not None or state.aside
        if not busy and self._states.get(state.number) is state:
            self._active.pop(state.number, None)

    def _circuit_changed(self) -> None:
        if not self._circuit.is_open:
            for state in self._active.values():
                state.wake_up()
        self._look_at_health()

    def _look_at_health(self) -> None:
        health = "healthy"
        if self._circuit.is_open:
            health = f"degraded: lookups fail: {self._circuit.reason}"
        elif self._trust.lost:
            health = "degraded: changes of ports are not announced, identities live identity_ttl"
        if health != self._health:
            self._health = health
            if self._on_health is not None:
                self._on_health(health)


def _unknown_link(number: int, interface: int) -> None:
    """Nobody can tell."""
