"""How soon a network or router may be asked about again: at once, unless many guests of it come.

Whoever comes while a question is under way is in the next one. Before a source that answers within a few milliseconds
that would make many small questions of a storm; so in a storm the next one waits until more have come.
"""

from __future__ import annotations

STEADY = 100
"""Addresses a second for which it is never waited."""
BURST = 20
"""More addresses than that beyond those are a storm."""
PAUSE = 0.3
"""Seconds from one question to the next one in a storm, at least."""


class Pace:
    """Of one scope. The addresses that were asked for leak out of it. now: seconds of the resolver's clock."""

    __slots__ = ("_asked_at", "_excess")

    def __init__(self) -> None:
        self._excess = 0.0
        self._asked_at = 0.0

    def asked(self, count: int, now: float) -> None:
        """A question for so many addresses is sent."""
        # Of however many: when the pause is over, so is the storm, unless more have come meanwhile.
        self._excess = min(self._left(now) + count, BURST + STEADY * PAUSE)
        self._asked_at = now

    def pause(self, now: float) -> float:
        """Seconds until the next one should be sent."""
        return max(0.0, self._asked_at + PAUSE - now) if self._left(now) > BURST else 0.0

    def _left(self, now: float) -> float:
        return max(0.0, self._excess - (now - self._asked_at) * STEADY)
