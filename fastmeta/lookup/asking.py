"""Asks the source, for one scope after the other: one question at a time for each, for all who wait in it.

Whatever is missed while a question is under way goes into the next one, all of it in one call; in a storm that one
waits for a moment (``pace``), so that few calls do, however quickly they are answered. Each scope has a task of its own
while somebody waits in it, so none delays another. Guests wait rather than fail: what failed or took too long is asked
again, after pauses that grow, for as long as somebody waits.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence

from oslo_log import log as logging

from fastmeta.exceptions import (
    LookupFailedError,
    LookupMalformedError,
    LookupRefusedError,
    LookupUnavailableError,
)
from fastmeta.lookup.circuit import OPEN_AFTER, Circuit, Failure, Place, pause_after
from fastmeta.lookup.judgement import Judgement
from fastmeta.lookup.known import Key
from fastmeta.lookup.parts import in_parts
from fastmeta.lookup.said import Said
from fastmeta.lookup.source import LookupSource
from fastmeta.lookup.trust import Trust
from fastmeta.lookup.waiting import Query, ScopeState
from fastmeta.models import Answer, Question, unpack_address
from fastmeta.repeats import Repeats, more

LOG = logging.getLogger(__name__)

LINK_PAUSE = 0.5
"""Seconds until those are looked at again whose link's network could not be told; a change comes first."""

FRESH_PART = 0.8
"""Of identity_ttl: an answer that comes in parts and takes longer is given up. (One that comes at once may take
lookup_timeout, whatever that is.)"""

SAID_AFTER = 2
"""Failures in a row of one scope that are said before the circuit opens,"""
SLOW = 1.0
"""when each takes so many seconds: its guests may get 503 soon. Quick ones open the circuit, which says it."""

LinkMac = Callable[[int, int], "str | None"]


class _SilentError(LookupUnavailableError):
    """There was no answer in time."""


class Asking:
    """on_left(count): so many do not wait any more. on_idle(state): nobody waits in this scope."""

    def __init__(
        self,
        source: LookupSource,
        circuit: Circuit,
        said: Said,
        trust: Trust,
        *,
        lookup_timeout: float,
        park_timeout: float,
        clock: Callable[[], float],
        jitter: Callable[[], float],
        first_pause: float,
        link_mac: LinkMac,
        repeats: Repeats,
        on_left: Callable[[int], None],
        on_idle: Callable[[ScopeState], None],
    ) -> None:
        self._source = source
        self._circuit = circuit
        self._said = said
        self._trust = trust
        self.lookup_timeout = lookup_timeout
        self.park_timeout = park_timeout
        self._clock = clock
        self._jitter = jitter
        self._first_pause = first_pause
        self._link_mac = link_mac
        self._repeats = repeats
        self._on_left = on_left
        self._on_idle = on_idle

    def go_on(self, state: ScopeState) -> None:
        """Somebody waits."""
        if state.task is None:
            state.task = asyncio.get_running_loop().create_task(
                self._ask_while_waited_for(state), name=f"lookup {state.scope}"
            )

    def back_from_aside(self, state: ScopeState) -> None:
        """What could not be told may be told now."""
        if state.aside_timer is not None:
            state.aside_timer.cancel()
            state.aside_timer = None
        if state.aside:
            state.waiting.update(state.aside)
            state.aside.clear()
            self.go_on(state)

    async def _ask_while_waited_for(self, state: ScopeState) -> None:
        """The task of one scope: one question after the other, until nobody waits."""
        failures = 0
        wake = state.wake = asyncio.Event()
        try:
            while self._somebody_waits(state):
                wake.clear()
                pause = state.pace.pause(self._clock())
                if pause:
                    await asyncio.sleep(pause)
                place = await self._circuit.enter()
                try:
                    answered = not self._somebody_waits(state) or await self._ask_once(state, place, failures)
                finally:
                    state.query = None
                    place.give_back()
                failures = 0 if answered else failures + 1
                # While the circuit is open, it is what makes everybody wait.
                if failures and not self._circuit.is_open:
                    pause = pause_after(failures, self._first_pause, self._jitter)
                    with contextlib.suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(wake.wait(), pause)
        finally:
            # Between the last look at waiting and this line nothing else runs: no miss is lost.
            state.task = None
            state.wake = None
            self._on_idle(state)

    def _somebody_waits(self, state: ScopeState) -> bool:
        """Those whose requests the core has given up by now are not asked for any more. Who asks for what is still
        in force (so that it goes on being so, or because Nova doubts it) does so until that has ended."""
        too_old = self._clock() - self.park_timeout
        for key in [key for key, missed_at in state.waiting.items() if missed_at <= too_old]:
            if not self._said.in_force(state, key):
                self._left(state, key)
        return bool(state.waiting)

    def _left(self, state: ScopeState, key: Key) -> None:
        if state.waiting.pop(key, None) is not None:
            self._on_left(1)

    async def _ask_once(self, state: ScopeState, place: Place, failures: int) -> bool:
        """One question for all who wait now. False when it should be followed by a pause."""
        batch = self._batch(state)
        questions = list(dict.fromkeys(question for question, _ in batch.values()))
        if not questions:
            return True
        query = state.query = Query(batch, self._clock(), self._trust.steady(state.number))
        state.pace.asked(len(questions), query.asked_at)
        answer = await self._query(state, questions)
        if isinstance(answer, LookupFailedError):
            self._failed(state, place, answer, failures + 1)
            if isinstance(answer, LookupMalformedError) and not query.void:
                for key in batch:
                    self._refuse(state, key)
            return False
        place.answered()
        if self._repeats.forget((state.number, "away")):
            LOG.info("lookup for %s: the source answers again", state.scope)
        if query.void or self._moved(state, batch):
            return True  # all of it is asked anew, at once
        self._take(state, query, answer, questions)
        return not answer.malformed

    async def _query(self, state: ScopeState, questions: Sequence[Question]) -> Answer | LookupFailedError:
        """What the source says, or why it says nothing."""
        try:
            return await in_parts(
                lambda heard: self._source.ports(state.scope, questions, heard),
                self.lookup_timeout,
                # Whoever waits is still there then, and what is said can still be believed for a while.
                min(self.park_timeout, self._trust.short * FRESH_PART),
            )
        except asyncio.TimeoutError as error:
            return _SilentError(str(error))
        except LookupFailedError as error:
            return error
        except Exception as error:
            # A source that breaks its contract must not end lookups for its scope.
            if self._repeats.admit("broken") is not None:
                LOG.exception("lookup for %s: the source fails in a way that it should not", state.scope)
            return LookupUnavailableError(f"the source is broken ({type(error).__name__})")

    def _failed(self, state: ScopeState, place: Place, error: LookupFailedError, failures: int) -> None:
        """What is wrong with the source as a whole, the circuit says; here, what seems to be so for this scope only."""
        kind = Failure.AWAY
        if isinstance(error, LookupMalformedError):
            kind = Failure.MALFORMED
        elif isinstance(error, LookupRefusedError):
            kind = Failure.REFUSED
        elif isinstance(error, _SilentError):
            kind = Failure.SILENT
        place.failed(state.number, kind, str(error))
        if self._circuit.is_open:
            return
        if kind is Failure.MALFORMED:
            self.complain(state, (state.number, kind), f"the answer cannot be trusted: {error}")
        elif kind is Failure.SILENT:
            self.complain(state, kind, str(error))
        elif failures >= OPEN_AFTER:
            self.complain(state, (state.number, "away"), str(error))
        elif failures >= SAID_AFTER and self._took(state) >= SLOW:
            self.complain(state, kind, str(error))

    def _took(self, state: ScopeState) -> float:
        """Seconds since the question was sent."""
        return self._clock() - state.query.asked_at if state.query is not None else 0.0

    def _take(self, state: ScopeState, query: Query, answer: Answer, questions: Sequence[Question]) -> None:
        """Judges all addresses of an answer. Those about which something has changed meanwhile go on waiting."""
        for malformed in answer.malformed:
            self.complain(
                state, (state.number, Failure.MALFORMED), f"the answer cannot be trusted: {malformed.reason}"
            )
        if state.is_router:
            state.networks = answer.networks
            self._said.networks_lost(state, answer.networks, query)
        judgement = Judgement(state.scope, answer, questions)
        for key, (question, link) in query.batch.items():
            verdict = judgement.of(question, link)
            if state.prefetch is not None:
                # What was asked for somebody counts, whichever of the two questions was sent first.
                state.prefetch.changed_addresses.add(key[0])
            if query.is_void_for(key, verdict.port):
                continue
            if verdict.unclear:
                self._set_aside(state, key, verdict.unclear)
            elif verdict.refused:
                self._refuse(state, key)
            elif verdict.port is not None:
                why = self._said.identity(state, key, verdict.port, query)
                if why:
                    self.complain(
                        state, (state.number, Failure.MALFORMED), f"the answer cannot be trusted: {why}"
                    )
                    self._refuse(state, key)
                self._left(state, key)
            else:
                if verdict.doubt:
                    self.complain(state, (state.number, question.address), verdict.doubt)
                LOG.debug("lookup for %s: %s belongs to no certain instance", state.scope, question.address)
                self._said.nobody(state, key, query)
                self._left(state, key)

    def _refuse(self, state: ScopeState, key: Key) -> None:
        """Whoever waits gets 503. What is in force stays so until it ends: it was confirmed."""
        if not self._said.in_force(state, key):
            self._said.refused(state, key)
            self._left(state, key)

    def _batch(self, state: ScopeState) -> dict[Key, tuple[Question, str | None]]:
        """What to ask for those who wait, and for those for whom it counts the MAC of their link."""
        batch: dict[Key, tuple[Question, str | None]] = {}
        links: dict[int, str | None] = {}
        for key in list(state.waiting):
            question = Question(unpack_address(key[0]))
            interface = key[1]
            link = None
            # Without an interface it came over the relay, whose proxies do not say on which link it was: then its MAC
            # must be that of one port in all networks of the router.
            if state.is_router and question.mac is not None and interface:
                if interface not in links:
                    links[interface] = self._link_mac(state.number, interface)
                link = links[interface]
                if link is None:
                    self._set_aside(state, key, "it is gone, or has no MAC of its own")
                    continue
            batch[key] = (question, link)
        return batch

    def _moved(self, state: ScopeState, batch: Mapping[Key, tuple[Question, str | None]]) -> bool:
        """Whether an interface is not the one any more that it was when the question was sent."""
        links = {interface: link for (_, interface), (_, link) in batch.items() if link is not None}
        return any(self._link_mac(state.number, interface) != link for interface, link in links.items())

    def _set_aside(self, state: ScopeState, key: Key, why: str) -> None:
        """Which network this guest is in cannot be told: never guessed. It waits, since that may change."""
        if key not in state.waiting:
            return
        state.aside[key] = state.waiting.pop(key)
        self.complain(
            state,
            (state.number, key[1], why),
            f"{unpack_address(key[0])} asks over interface {key[1]}, and which network that is cannot be told: "
            f"{why}; the guest waits, and then gets 503",
        )
        if state.aside_timer is None:
            state.aside_timer = asyncio.get_running_loop().call_later(LINK_PAUSE, self.back_from_aside, state)

    def complain(self, state: ScopeState, kind: object, what: str) -> None:
        """kind: of which there is one line in a while."""
        held_back = self._repeats.admit(kind)
        if held_back is not None:
            LOG.warning("lookup for %s: %s%s", state.scope, what, more(held_back))
