"""Asks for all ports of a scope before anybody in it has asked, so that its guests find the answer there.

Nobody waits for any of this, so it gives way in everything. It is not begun while guests wait for a place, or while
the circuit is open; a few at a time; what is known already, and whom somebody asks about, is left to questions of
their own. It takes no place from the circuit and neither opens nor closes it: a list of all ports is more work than a
question about a few addresses, so that one which is not done in time says nothing about whether guests would get an
answer. One that fails is not repeated: guests ask.

The rules of identity safety hold as for other answers: the age counts from the question, and what has changed
meanwhile is void. Nobody is said to be nobody: of whom there is no port, or several, or one that cannot be read,
nothing is said. Nor of link-local addresses, which mean something only on the link over which somebody asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from oslo_log import log as logging

from fastmeta.exceptions import LookupFailedError
from fastmeta.lookup.circuit import Circuit
from fastmeta.lookup.judgement import Judgement
from fastmeta.lookup.known import MAX_KNOWN
from fastmeta.lookup.parts import in_parts
from fastmeta.lookup.said import Said
from fastmeta.lookup.source import LookupSource
from fastmeta.lookup.trust import Trust
from fastmeta.lookup.waiting import ScopeState, WholeQuery
from fastmeta.models import Answer, Question, pack_address

LOG = logging.getLogger(__name__)

AT_ONCE = 2
"""Scopes that are asked about at the same time."""
MAX_PORTS = 2000
"""Ports of a scope; one that has more is left to questions."""
MOST_KNOWN = MAX_KNOWN // 2
"""Identities beyond which nothing is added: what guests have asked for must not end for it."""
SPARE = 1 / 2
"""The part of identity_ttl after which an answer is no longer waited for: there would be too little left of it."""
GIVE_WAY_AFTER = 100
"""Identities after which others have their turn."""


class Prefetch:
    """state_of gives the state of a scope by its number, None when there is none any more; on_idle(state) is called
    when nothing is asked in it.

    Lives in the event loop's thread.
    """

    def __init__(
        self,
        source: LookupSource,
        circuit: Circuit,
        said: Said,
        trust: Trust,
        *,
        lookup_timeout: float,
        clock: Callable[[], float],
        state_of: Callable[[int], ScopeState | None],
        on_idle: Callable[[ScopeState], None],
    ) -> None:
        self._source = source
        self._circuit = circuit
        self._said = said
        self._trust = trust
        self.lookup_timeout = lookup_timeout
        self._clock = clock
        self._state_of = state_of
        self._on_idle = on_idle
        self._wanted: dict[int, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def want(self, number: int) -> None:
        """The ports of this scope, when there is time for it. Whoever wants them twice gets them once."""
        self._wanted[number] = None
        if len(self._tasks) < AT_ONCE:
            task = asyncio.get_running_loop().create_task(self._work(), name="prefetch")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def forget(self, number: int) -> None:
        """The scope is gone."""
        self._wanted.pop(number, None)

    async def stop(self) -> None:
        """Nothing is asked any more."""
        self._wanted.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self) -> None:
        while self._wanted:
            await self._circuit.quiet()
            if not self._wanted:
                return
            number = next(iter(self._wanted))
            del self._wanted[number]
            state = self._state_of(number)
            if state is None or state.prefetch is not None:
                continue
            state.prefetch = WholeQuery(self._clock(), self._trust.steady(number))
            try:
                answer = await self._ask(state)
                if answer is not None:
                    await self._take(state, state.prefetch, answer)
            finally:
                state.prefetch = None
                self._on_idle(state)

    async def _ask(self, state: ScopeState) -> Answer | None:
        try:
            answer = await in_parts(
                lambda heard: self._source.all_ports(state.scope, MAX_PORTS, heard),
                self.lookup_timeout,
                self._trust.short * SPARE,
            )
        except (LookupFailedError, asyncio.TimeoutError) as error:
            LOG.debug("prefetch for %s fails, guests will ask: %s", state.scope, error)
            return None
        except Exception:
            # A source that breaks its contract must not end this for other scopes; who asks sees it in the log.
            LOG.debug(
                "prefetch for %s: the source fails in a way that it should not", state.scope, exc_info=True
            )
            return None
        if answer is None:
            LOG.debug("prefetch for %s: it has more than %d ports, guests will ask", state.scope, MAX_PORTS)
        return answer

    async def _take(self, state: ScopeState, query: WholeQuery, answer: Answer) -> None:
        if query.void:
            return
        if state.networks is not None:
            # An older answer may not know of these; a change in one of them concerns us from now on.
            state.networks |= answer.networks
        questions = list(
            dict.fromkeys(
                Question(address)
                for port in answer.ports
                # DHCP servers and routers ask for nothing.
                if port.device_id and not port.device_owner.startswith("network:")
                for address in port.fixed_ips
                if not address.is_link_local
            )
        )
        judgement = Judgement(state.scope, answer, questions)
        count = 0
        for number, question in enumerate(questions, 1):
            key = (pack_address(question.address), 0)
            port = judgement.of(question, None).port
            # Looked at for each: others have their turn in between.
            if (
                port is not None
                and key not in state.waiting
                and not query.is_void_for(key, port)
                and not self._said.in_force(state, key)
                and len(self._said.known) < MOST_KNOWN
            ):
                count += not self._said.identity(state, key, port, query)
            if number % GIVE_WAY_AFTER == 0:
                await asyncio.sleep(0)
        LOG.debug("prefetch for %s: %d identities", state.scope, count)
