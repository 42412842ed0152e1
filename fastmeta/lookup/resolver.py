"""Turns misses of the core into questions, and answers into identities.

The rules are those of identity safety: an identity's age counts from when its question was sent; an answer to
a question that was sent before a revocation is thrown away and the question asked anew; each port in an
answer is checked again against the scope and the address asked for; whatever is in doubt is nobody.

At most one query for a scope is in flight. Whatever is missed meanwhile goes into the next one, all of it in
one call: a storm of guests costs few calls, without a timer. Each scope has a task of its own while somebody
waits in it, so none delays another. Guests wait rather than fail: a query that failed or took too long is
asked again, after pauses that grow, for as long as somebody waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from oslo_log import log as logging

from fastmeta.exceptions import LookupFailedError, LookupMalformedError, LookupUnavailableError
from fastmeta.lookup.source import LookupSource
from fastmeta.models import Answer, Change, Port, Question, Scope, ScopeKind, pack_address, unpack_address
from fastmeta.repeats import Repeats, more

LOG = logging.getLogger(__name__)

MAX_QUESTIONS_PER_SCOPE = 4096
"""Addresses of one scope that are waited for at once; a miss beyond is dropped (the core repeats it)."""
MAX_QUESTIONS = 65536
"""The same for all scopes together."""
MAX_REVOKED_ADDRESSES = 256
"""A change of more addresses of one scope revokes the whole scope."""
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0
"""Seconds between a failed query and the next one: doubled each time, then jittered down to a half."""
LINK_PAUSE = 0.5
"""Seconds until those are looked at again whose link's network could not be told; a change comes first."""
REPEAT_PERIOD = 60.0
"""Seconds for which the same complaint about the same scope is not logged again."""


class IdentityTable(Protocol):
    """The part of the core's loop that the resolver writes to."""

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
    ) -> None: ...

    def put_absent(
        self, scope: int, address: bytes, interface: int, *, asked_at: float, ttl_ms: int, generation: int
    ) -> None: ...

    def put_refused(self, scope: int, address: bytes, interface: int, *, generation: int) -> None: ...

    def revoke(
        self, scope: int, generation: int, address: bytes | None = None, interface: int = 0
    ) -> None: ...


class _ScopeState:
    """What is known of one scope, and who waits in it.

    waiting: the core's keys (address, interface) with the time of their last miss, oldest question first.
    aside: likewise, those whose link's network could not be told; they must not hold up the others.
    networks: those of the last good answer; None before it.
    """

    __slots__ = (
        "aside",
        "aside_timer",
        "generation",
        "link_local",
        "networks",
        "number",
        "scope",
        "task",
        "waiting",
        "wake",
    )

    def __init__(self, number: int, scope: Scope) -> None:
        self.number = number
        self.scope = scope
        self.generation = 0
        self.networks: frozenset[str] | None = None
        self.link_local = False  # whether anybody ever asked from a link-local address
        self.waiting: dict[tuple[bytes, int], float] = {}
        self.aside: dict[tuple[bytes, int], float] = {}
        self.aside_timer: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[None] | None = None
        # Of the task. Set: the source has changed, so a pause is not worth it.
        self.wake: asyncio.Event | None = None


class Resolver:
    """Asks one source for all scopes. Lives in the event loop's thread; none of its methods blocks.

    link_mac(scope, interface) gives the MAC that the interface of this index has now in the scope's
    namespace, or None; it may call links_changed. Without it, nobody behind a router who has a link-local
    address can be told.

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
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
        first_pause: float = FIRST_PAUSE,
        link_mac: Callable[[int, int], str | None] | None = None,
    ) -> None:
        self._table = table
        self._source = source
        self._identity_ttl_ms = int(identity_ttl * 1000)
        self._negative_ttl_ms = int(negative_ttl * 1000)
        self._lookup_timeout = lookup_timeout
        self._park_timeout = park_timeout
        self._clock = clock
        self._jitter = jitter
        self._first_pause = first_pause
        self._link_mac = link_mac or _unknown_link
        self._scopes: dict[int, _ScopeState] = {}
        self._questions = 0
        self._repeats = Repeats(REPEAT_PERIOD, clock)

    def set_times(
        self, *, identity_ttl: float, negative_ttl: float, lookup_timeout: float, park_timeout: float
    ) -> None:
        """Other times from now on; a query that is under way keeps its timeout. When an answer is believed for
        a shorter time, what is known ends: it was to be believed for the longer one."""
        shorter = identity_ttl * 1000 < self._identity_ttl_ms or negative_ttl * 1000 < self._negative_ttl_ms
        self._identity_ttl_ms = int(identity_ttl * 1000)
        self._negative_ttl_ms = int(negative_ttl * 1000)
        self._lookup_timeout = lookup_timeout
        self._park_timeout = park_timeout
        if shorter:
            self.revoke_all()

    def revoke_all(self) -> None:
        """Nothing of what is known holds any more; also answers that are under way are void."""
        for state in self._scopes.values():
            self._revoke(state, None)

    def add_scope(self, number: int, scope: Scope) -> None:
        """number: the core's for this scope, which the core knows already."""
        self._scopes[number] = _ScopeState(number, scope)

    def remove_scope(self, number: int) -> None:
        """Nobody waits in this scope any more; an answer that is under way is thrown away."""
        state = self._scopes.pop(number, None)
        if state is None:
            return
        self._questions -= len(state.waiting) + len(state.aside)
        state.waiting.clear()
        state.aside.clear()
        if state.aside_timer is not None:
            state.aside_timer.cancel()
        # wait_for of Python before 3.12 swallows the cancellation when the answer has come at the same time.
        state.generation += 1
        if state.task is not None:
            state.task.cancel()

    def miss(self, number: int, address: bytes, interface: int) -> None:
        """The core waits for the identity of address (16 bytes) in a scope; also when it reminds of one."""
        state = self._scopes.get(number)
        if state is None:
            return
        key = (address, interface)
        if key in state.aside:
            state.aside[key] = self._clock()
            return
        if key not in state.waiting:
            waiting = len(state.waiting) + len(state.aside)
            if waiting >= MAX_QUESTIONS_PER_SCOPE or self._questions >= MAX_QUESTIONS:
                self._complain(state, "full", "too many addresses are waited for at once")
                return
            self._questions += 1
        state.waiting[key] = self._clock()
        if interface or address[:2] == b"\xfe\x80":
            state.link_local = True
        self._go_on(state)

    def _go_on(self, state: _ScopeState) -> None:
        if state.task is None:
            state.task = asyncio.get_running_loop().create_task(
                self._ask_while_waited_for(state), name=f"lookup {state.scope}"
            )

    def links_changed(self, number: int) -> None:
        """The indexes of interfaces may mean something else than before in this scope's namespace."""
        state = self._scopes.get(number)
        if state is not None and state.link_local:
            self._revoke(state, None)

    def changed(self, change: Change) -> None:
        """The source says what is no longer true: identities end, and answers that are under way are void."""
        for state in self._scopes.values():
            if change.everything or self._changes_wholly(state, change):
                self._revoke(state, None)
                continue
            networks = self._networks(state) & change.addresses.keys()
            if not networks:
                continue
            touched = [address for network in networks for address in change.addresses[network]]
            if state.link_local or len(touched) > MAX_REVOKED_ADDRESSES:
                # By address alone the identity of a link-local guest cannot be found: it was asked for by its
                # MAC.
                self._revoke(state, None)
            else:
                for address in touched:
                    self._revoke(state, pack_address(address))

    @staticmethod
    def _networks(state: _ScopeState) -> frozenset[str]:
        if state.scope.kind is ScopeKind.NETWORK:
            return frozenset((state.scope.uuid,))
        return state.networks or frozenset()

    @staticmethod
    def _changes_wholly(state: _ScopeState, change: Change) -> bool:
        if state.scope.kind is ScopeKind.NETWORK:
            return False
        # Before its first answer a router may have any network.
        return state.networks is None or state.scope.uuid in change.routers

    def _revoke(self, state: _ScopeState, address: bytes | None) -> None:
        state.generation += 1
        self._table.revoke(state.number, state.generation, address, 0)
        if state.wake is not None:
            state.wake.set()
        self._back_from_aside(state)

    async def stop(self) -> None:
        """Asks nothing more; returns when no query is under way."""
        tasks = [state.task for state in self._scopes.values() if state.task is not None]
        for number in list(self._scopes):
            self.remove_scope(number)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask_while_waited_for(self, state: _ScopeState) -> None:
        """The task of one scope: one query after the other, until nobody waits."""
        failures = 0
        wake = state.wake = asyncio.Event()
        try:
            while True:
                self._forget_old(state)
                if not state.waiting:
                    return
                wake.clear()
                if await self._ask_once(state):
                    failures = 0
                else:
                    failures += 1
                    await self._pause(wake, failures)
        finally:
            # Between the last look at waiting and this line nothing else runs: no miss is lost.
            state.task = None
            state.wake = None

    def _forget_old(self, state: _ScopeState) -> None:
        """Those whose requests the core has given up by now are not asked for any more."""
        too_old = self._clock() - self._park_timeout
        for key in [key for key, missed_at in state.waiting.items() if missed_at <= too_old]:
            self._answered(state, key)

    def _answered(self, state: _ScopeState, key: tuple[bytes, int]) -> None:
        if state.waiting.pop(key, None) is not None:
            self._questions -= 1

    async def _pause(self, wake: asyncio.Event, failures: int) -> None:
        longest = min(self._first_pause * 2 ** min(failures - 1, 16), LONGEST_PAUSE)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(wake.wait(), longest * (0.5 + 0.5 * self._jitter()))

    async def _query(self, state: _ScopeState, questions: Sequence[Question]) -> Answer | LookupFailedError:
        """What the source says, or why it says nothing."""
        if not questions:
            return Answer(frozenset(), ())
        try:
            return await asyncio.wait_for(self._source.ports(state.scope, questions), self._lookup_timeout)
        except asyncio.TimeoutError:
            return LookupUnavailableError(f"no answer in {self._lookup_timeout:g} seconds")
        except LookupFailedError as error:
            return error
        except Exception as error:
            # A source that breaks its contract must not end lookups for its scope.
            if self._repeats.admit((state.number, "broken")) is not None:
                LOG.exception("lookup for %s: the source fails in a way that it should not", state.scope)
            return LookupUnavailableError(f"the source is broken ({type(error).__name__})")

    async def _ask_once(self, state: _ScopeState) -> bool:
        """One query for all who wait now. False when it should be followed by a pause."""
        batch = self._batch(state)
        questions = list({question: None for question, _ in batch.values() if question.answerable})
        generation = state.generation
        asked_at = self._clock()
        answer = await self._query(state, questions)
        if isinstance(answer, LookupMalformedError):
            if state.generation == generation:
                self._complain(state, "malformed", f"the answer cannot be trusted: {answer}")
                for key in batch:
                    self._refuse(state, key)
            return False
        if isinstance(answer, LookupFailedError):
            self._complain(state, "away", str(answer))
            return False
        if self._moved(state, batch) or state.generation != generation:
            return True  # something was revoked meanwhile: all of it is asked anew, at once
        if questions and self._repeats.forget((state.number, "away")):
            LOG.info("lookup for %s: the source answers again", state.scope)
        if questions:
            state.networks = answer.networks
        for malformed in answer.malformed:
            self._complain(state, "malformed", f"the answer cannot be trusted: {malformed.reason}")
        by_question = _candidates(self._networks_of_answer(state, answer), answer.ports, questions)
        for key, (question, link) in batch.items():
            ports = by_question.get(question, [])
            if link is not None:
                networks = answer.links.get(link, frozenset())
                if len(networks) != 1:
                    self._set_aside(state, key, _why_no_network(link, networks))
                    continue
                # Two guests on two links may have the same MAC, and so the same link-local address.
                ports = [port for port in ports if port.network_id in networks]
            self._judge(state, key, question, ports, answer, asked_at)
        return not answer.malformed

    def _batch(self, state: _ScopeState) -> dict[tuple[bytes, int], tuple[Question, str | None]]:
        """What to ask for those who wait, and for those for whom it counts the MAC of their link."""
        batch: dict[tuple[bytes, int], tuple[Question, str | None]] = {}
        links: dict[int, str | None] = {}
        for key in list(state.waiting):
            question = Question(unpack_address(key[0]))
            interface = key[1]
            link = None
            if state.scope.kind is ScopeKind.ROUTER and question.mac is not None:
                if interface not in links:
                    links[interface] = self._link_mac(state.number, interface)
                link = links[interface]
                if link is None:
                    self._set_aside(state, key, "it is gone, or has no MAC of its own")
                    continue
            batch[key] = (question, link)
        return batch

    def _moved(
        self, state: _ScopeState, batch: Mapping[tuple[bytes, int], tuple[Question, str | None]]
    ) -> bool:
        """Whether an interface is not the one any more that it was when the question was sent."""
        links = {interface: link for (_, interface), (_, link) in batch.items() if link is not None}
        return any(self._link_mac(state.number, interface) != link for interface, link in links.items())

    def _set_aside(self, state: _ScopeState, key: tuple[bytes, int], why: str) -> None:
        """Which network this guest is in cannot be told: never guessed. It waits, since that may change."""
        if key not in state.waiting:
            return
        state.aside[key] = state.waiting.pop(key)
        self._complain(
            state,
            f"link {key[1]}: {why}",
            f"{unpack_address(key[0])} asks over interface {key[1]}, and which network that is cannot be told: "
            f"{why}; the guest waits, and then gets 503",
        )
        if state.aside_timer is None:
            state.aside_timer = asyncio.get_running_loop().call_later(
                LINK_PAUSE, self._back_from_aside, state
            )

    def _back_from_aside(self, state: _ScopeState) -> None:
        if state.aside_timer is not None:
            state.aside_timer.cancel()
            state.aside_timer = None
        if state.aside:
            state.waiting.update(state.aside)
            state.aside.clear()
            self._go_on(state)

    @staticmethod
    def _networks_of_answer(state: _ScopeState, answer: Answer) -> frozenset[str]:
        """Networks in which a port may be to count. A network's own id is not the source's to decide."""
        if state.scope.kind is ScopeKind.NETWORK:
            return answer.networks & {state.scope.uuid}
        return answer.networks

    def _judge(
        self,
        state: _ScopeState,
        key: tuple[bytes, int],
        question: Question,
        ports: Sequence[Port],
        answer: Answer,
        asked_at: float,
    ) -> None:
        """One address of an answer: an identity for exactly one port of an instance, else nobody."""
        if any(_concerns(malformed.addresses, question) for malformed in answer.malformed):
            self._refuse(state, key)
            return
        address, interface = key
        if len(ports) == 1 and ports[0].device_id and ports[0].project_id:
            refusal = self._put_identity(state, key, ports[0], asked_at)
            if refusal:
                self._complain(state, "malformed", f"the answer cannot be trusted: {refusal}")
                self._refuse(state, key)
                return
        else:
            if len(ports) > 1:
                which = ", ".join(sorted(port.id for port in ports)[:4])
                self._complain(
                    state,
                    f"several {question.address}",
                    f"{question.address} belongs to {len(ports)} ports ({which}), so to none: its guest gets 404",
                )
            LOG.debug(
                "lookup for %s: %s belongs to no certain instance (%d ports)",
                state.scope,
                question.address,
                len(ports),
            )
            self._table.put_absent(
                state.number,
                address,
                interface,
                asked_at=asked_at,
                ttl_ms=self._negative_ttl_ms,
                generation=state.generation,
            )
        self._answered(state, key)

    def _put_identity(self, state: _ScopeState, key: tuple[bytes, int], port: Port, asked_at: float) -> str:
        """Empty when the core has taken it, else why it cannot."""
        try:
            self._table.put_identity(
                state.number,
                *key,
                instance_id=port.device_id,
                project_id=port.project_id,
                asked_at=asked_at,
                ttl_ms=self._identity_ttl_ms,
                generation=state.generation,
            )
        except ValueError as error:
            return f"port {port.id}: {error}"
        return ""

    def _refuse(self, state: _ScopeState, key: tuple[bytes, int]) -> None:
        self._table.put_refused(state.number, *key, generation=state.generation)
        self._answered(state, key)

    def _complain(self, state: _ScopeState, kind: str, what: str) -> None:
        held_back = self._repeats.admit((state.number, kind))
        if held_back is not None:
            LOG.warning("lookup for %s: %s%s", state.scope, what, more(held_back))


def _unknown_link(number: int, interface: int) -> None:
    """Nobody can tell."""


def _why_no_network(link: str, networks: frozenset[str]) -> str:
    if not networks:
        return f"its MAC {link} is that of no port of the router"
    return f"its MAC {link} is that of the router's ports in {len(networks)} networks"


def _concerns(addresses: frozenset[object] | None, question: Question) -> bool:
    return addresses is None or question.mac is not None or question.address in addresses


def _candidates(
    networks: frozenset[str], ports: Sequence[Port], questions: Sequence[Question]
) -> dict[Question, list[Port]]:
    """For each question the ports that fit it and lie in one of these networks.

    Whatever else the source put into its answer counts for nothing. A port that comes twice (pages of a list
    may overlap) is one; two descriptions of it that differ are two, and nobody's.
    """
    by_address = {question.address: question for question in questions if question.mac is None}
    by_mac = {question.mac: question for question in questions if question.mac is not None}
    found: dict[Question, dict[Port, None]] = {}
    for port in ports:
        if port.network_id not in networks:
            continue
        fitting = [by_address[address] for address in port.fixed_ips if address in by_address]
        if port.mac_address in by_mac:
            fitting.append(by_mac[port.mac_address])
        for question in fitting:
            found.setdefault(question, {})[port] = None
    return {question: list(fitting) for question, fitting in found.items()}
