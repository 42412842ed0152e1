"""What is said to the core, and remembered: identities, that somebody is nobody, and that all this is over."""

from __future__ import annotations

from collections.abc import Callable

from oslo_log import log as logging

from fastmeta.lookup.known import MAX_KNOWN, Given, Key, Known
from fastmeta.lookup.renewal import Renewal, look_at
from fastmeta.lookup.table import IdentityTable
from fastmeta.lookup.trust import Trust
from fastmeta.lookup.waiting import Query, ScopeState
from fastmeta.models import Port, unpack_address
from fastmeta.repeats import Repeats, more

LOG = logging.getLogger(__name__)


class Said:
    """Whatever is put into the core goes through here, and whatever ends there, so that both know the same.

    Rules: an identity's age counts from when its question was sent. Who is said to be another instance than before
    is revoked first, so that no request in progress is answered in the former one's name. state_of gives the state
    of a scope by its number.
    """

    def __init__(
        self,
        table: IdentityTable,
        trust: Trust,
        *,
        negative_ttl: float,
        linger: float,
        clock: Callable[[], float],
        repeats: Repeats,
        state_of: Callable[[int], ScopeState],
        on_idle: Callable[[ScopeState], None],
        most: int = MAX_KNOWN,
    ) -> None:
        self._table = table
        self._trust = trust
        self.negative_ttl = negative_ttl
        self._clock = clock
        self._repeats = repeats
        self._state_of = state_of
        self.known = Known(self._end, most)
        self.renewal = Renewal(table, self.known, clock, linger, on_idle)

    def in_force(self, state: ScopeState, key: Key) -> bool:
        """Whether the core has an identity for this key, so that whoever asks is answered."""
        given = self.known.get(state.number, key)
        return given is not None and given.ends_at > self._clock()

    def identity(self, state: ScopeState, key: Key, port: Port, query: Query) -> str:
        """Empty when the core has taken it, else why it cannot."""
        self._revoke_other(state, key, port, query)
        time_to_live = self._trust.time_to_live(state.number, query.steady)
        try:
            self._table.put_identity(
                state.number,
                *key,
                instance_id=port.device_id,
                project_id=port.project_id,
                asked_at=query.asked_at,
                ttl_ms=int(time_to_live * 1000),
                generation=state.generation,
            )
        except ValueError as error:
            return f"port {port.id}: {error}"
        given = Given(
            state.number,
            key,
            port,
            asked_at=query.asked_at,
            ends_at=query.asked_at + time_to_live,
            steady=query.steady if query.steady == self._trust.steady(state.number) else 0,
        )
        self.known.add(given)
        self.renewal.plan(state, look_at(given))
        return ""

    def nobody(self, state: ScopeState, key: Key, query: Query) -> None:
        """No certain instance has this address."""
        self._revoke_other(state, key, None, query)
        self._table.put_absent(
            state.number,
            *key,
            asked_at=query.asked_at,
            ttl_ms=int(self.negative_ttl * 1000),
            generation=state.generation,
        )
        state.nobody_until = max(state.nobody_until, query.asked_at + self.negative_ttl)
        self.renewal.plan(state, state.nobody_until)

    def refused(self, state: ScopeState, key: Key) -> None:
        """What the source says of this address cannot be trusted."""
        self._table.put_refused(state.number, *key, generation=state.generation)

    def revoke(self, state: ScopeState, key: Key) -> None:
        """What was said of this address is over, and what is being asked about it."""
        given = self.known.get(state.number, key)
        if given is not None:
            self.known.forget(given)
        for query in state.queries:
            query.changed_addresses.add(key[0])
        self._end_in_core(state, key)

    def revoke_scope(self, state: ScopeState) -> None:
        """So is all that was said in this scope."""
        self.known.forget_all(self.known.of_scope(state.number))
        state.nobody_until = float("-inf")
        for query in state.queries:
            query.void = True
        state.generation += 1
        self._table.revoke(state.number, state.generation)

    def shorten(self, state: ScopeState) -> None:
        """What was said in this scope is believed for the short time only."""
        given = self.known.of_scope(state.number)
        if not given:
            return
        self._table.shorten(state.number, int(self._trust.short * 1000))
        for one in given:
            one.ends_at = min(one.ends_at, one.asked_at + self._trust.short)
            one.steady = 0
        self.renewal.plan_anew(state)

    def networks_lost(self, state: ScopeState, networks: frozenset[str], query: Query) -> None:
        """A router has these networks, and no others any more."""
        for given in self.known.of_scope(state.number):
            if given.network not in networks:
                self._missed(state, given, query)
                self.known.forget(given)
                self._end_in_core(state, given.key)

    def _revoke_other(self, state: ScopeState, key: Key, port: Port | None, query: Query) -> None:
        given = self.known.get(state.number, key)
        if given is None or (port is not None and given.says(port)):
            return
        self._missed(state, given, query)
        self.known.forget(given)
        self._end_in_core(state, key)

    def _missed(self, state: ScopeState, given: Given, query: Query) -> None:
        """An answer shows that this is over. If an event should have said so, events cannot be relied on."""
        steady = self._trust.steady(state.number)
        if not steady or not (given.steady == query.steady == steady):
            return
        self._trust.distrust(state.number)
        self.shorten(state)
        held_back = self._repeats.admit("unannounced")
        if held_back is not None:
            LOG.warning(
                "lookup for %s: %s is not what it was, and no event had announced it; identities there live "
                "identity_ttl until events can be relied on again: does the bus lose messages?%s",
                state.scope,
                unpack_address(given.key[0]),
                more(held_back),
            )

    def _end(self, given: Given) -> None:
        """There are too many."""
        self._end_in_core(self._state_of(given.scope), given.key)

    def _end_in_core(self, state: ScopeState, key: Key) -> None:
        state.generation += 1
        self._table.revoke(state.number, state.generation, *key)
