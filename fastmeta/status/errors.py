"""What was wrong last with each network or router."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

MAX_SCOPES = 8192
"""That are remembered; the one whose error is the oldest makes place."""


class LastError(NamedTuple):
    """text: as in the log. at: seconds since the epoch."""

    text: str
    at: float


class LastErrors:
    """The last error of each scope, by the core's numbers."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._errors: OrderedDict[int, LastError] = OrderedDict()

    def note(self, scope: int, text: str) -> None:
        """It is the last one now."""
        self._errors[scope] = LastError(text, self._clock())
        self._errors.move_to_end(scope)
        if len(self._errors) > MAX_SCOPES:
            self._errors.popitem(last=False)

    def forget(self, scope: int) -> None:
        """There is no such scope any more."""
        self._errors.pop(scope, None)

    def of(self, scope: int) -> LastError | None:
        """None: there was none."""
        return self._errors.get(scope)
