"""Saying a thing once, not a thousand times: which log lines are worth their place."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

MAX_KEYS = 1024
"""Things remembered; the one that was said longest ago makes place."""


class Repeats:
    """Lets each thing be said once in a period, and counts what it held back.

    >>> repeats = Repeats(60.0)
    >>> repeats.admit("upstream away"), repeats.admit("upstream away")
    (0, None)
    """

    def __init__(self, period: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._period = period
        self._clock = clock
        self._said: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()

    def admit(self, key: Hashable) -> int | None:
        """None: not again yet. Otherwise say it, and how often it was held back since it was last said."""
        now = self._clock()
        said_at, held_back = self._said.get(key, (-self._period, 0))
        if now - said_at < self._period:
            self._said[key] = (said_at, held_back + 1)
            return None
        self._said[key] = (now, 0)
        self._said.move_to_end(key)
        if len(self._said) > MAX_KEYS:
            self._said.popitem(last=False)
        return held_back

    def forget(self, key: Hashable) -> bool:
        """The thing is over: when it comes again it is news. False when it was not known."""
        return self._said.pop(key, None) is not None


def more(held_back: int) -> str:
    """The end of a log line: how often the same was held back."""
    return f" (and {held_back} times more since this was last said)" if held_back else ""
