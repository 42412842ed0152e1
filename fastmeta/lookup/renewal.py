"""Asks the core in time which identities guests use, so that these are confirmed before they end.

What nobody uses just ends. There is one timer for each scope in which something is known, none for each identity,
and none at all where nothing is: an idle node asks nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fastmeta.lookup.known import Given, Known
from fastmeta.lookup.table import IdentityTable
from fastmeta.lookup.waiting import ScopeState

LOOK_AFTER = 2 / 3
"""The part of its time after which the core is asked whether an identity is used."""
GATHER_AFTER = 1 / 2
"""When one has its turn, all that have spent so much of their time are looked at with it: they are confirmed in one
call."""


class Renewal:
    """Looks at what is known of each scope when it is time to, and forgets what is over.

    linger: seconds for which an identity is remembered after its end: so long a request may be in progress that
    was sent under it, and a revocation must find it. on_idle(state) is called when nothing is left to look at.
    """

    def __init__(
        self,
        table: IdentityTable,
        known: Known,
        clock: Callable[[], float],
        linger: float,
        on_idle: Callable[[ScopeState], None],
    ) -> None:
        self._table = table
        self._known = known
        self._clock = clock
        self.linger = linger
        self._on_idle = on_idle

    def plan(self, state: ScopeState, at: float) -> None:
        """Something was said that is to be looked at then, if not before."""
        loop = asyncio.get_running_loop()
        when = loop.time() + max(0.0, at - self._clock())
        if state.timer is None or state.timer.when() > when:
            if state.timer is not None:
                state.timer.cancel()
            state.timer = loop.call_at(when, self._look, state)

    def plan_anew(self, state: ScopeState) -> None:
        """At what is left, the earliest first; for what is over once, when the last of it is."""
        if state.timer is not None:
            state.timer.cancel()
            state.timer = None
        known = self._known.of_scope(state.number)
        looks = [look_at(given) for given in known if not given.looked_at]
        if looks:
            self.plan(state, min(looks))
        elif known:
            self.plan(state, max(given.ends_at for given in known) + self.linger)
        elif state.nobody_until > self._clock():
            self.plan(state, state.nobody_until)
        else:
            self._on_idle(state)

    def _look(self, state: ScopeState) -> None:
        state.timer = None
        now = self._clock()
        known = self._known.of_scope(state.number)
        self._known.forget_all(given for given in known if given.ends_at + self.linger <= now)
        due = [given for given in known if not given.looked_at and look_at(given) <= now]
        for given in due:
            given.looked_at = True
        if any(given.ends_at > now for given in due):
            gathered = [
                given for given in known if now < given.ends_at and _spent(given, now) >= GATHER_AFTER
            ]
            before = max(given.ends_at for given in gathered)
            for given in known:
                given.looked_at = given.looked_at or given.ends_at <= before
            # The core's clock has microseconds.
            self._table.renew(state.number, before + 0.001)
        self.plan_anew(state)


def look_at(given: Given) -> float:
    """When its time is spent so far that it should be confirmed."""
    return given.asked_at + (given.ends_at - given.asked_at) * LOOK_AFTER


def _spent(given: Given, now: float) -> float:
    return (now - given.asked_at) / (given.ends_at - given.asked_at)
