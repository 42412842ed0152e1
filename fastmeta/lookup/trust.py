"""How long an identity is believed: longer while the source announces changes, and only then.

An announcement is worth something for a question that was sent while the source announced, if it has announced
all the time until the answer came; and not in a scope in which it has just failed to.
"""

from __future__ import annotations

from collections.abc import Callable

DISTRUST_PERIOD = 300.0
"""Seconds for which a scope is without the longer time, after an answer showed a change that no event had
announced."""


class Trust:
    """Times are seconds. clock: the resolver's."""

    def __init__(
        self, identity_ttl: float, identity_ttl_with_events: float, clock: Callable[[], float]
    ) -> None:
        self.short = identity_ttl
        # Events may shorten a life, but never make it shorter than it is without any.
        self.long = max(identity_ttl, identity_ttl_with_events)
        self._clock = clock
        self._announcing = False
        self._times = 0
        self._distrusted: dict[int, float] = {}
        self.lost = False
        """Whether the source announced once, and does not now."""

    def set_announcing(self, announcing: bool) -> bool:
        """False when it was so already."""
        if announcing == self._announcing:
            return False
        self._announcing = announcing
        self._times += announcing
        self.lost = not announcing
        return True

    def steady(self, scope: int) -> int:
        """Which time of announcements it is, from 1; 0 when nothing is announced that is believed in this scope. Equal
        and not 0 at the question and at the answer: no change between them was missed."""
        if not self._announcing:
            return 0
        until = self._distrusted.get(scope)
        if until is not None:
            if self._clock() < until:
                return 0
            del self._distrusted[scope]
        return self._times

    def time_to_live(self, scope: int, steady: int) -> float:
        """Of an identity whose question was sent when it was steady() so."""
        return self.long if steady and steady == self.steady(scope) else self.short

    def distrust(self, scope: int) -> None:
        """An event is missing in this scope."""
        self._distrusted[scope] = self._clock() + DISTRUST_PERIOD

    def forget(self, scope: int) -> None:
        """The scope is gone."""
        self._distrusted.pop(scope, None)
