"""Nobody is there at all: how the servers go and come back together, and what holds of it."""

from __future__ import annotations

import time
from collections.abc import Sequence

from .load import REPEATABLE, Load, Record
from .novas import Nova
from .scene import Scene

LONGEST_PAUSE = 2.25
"""Seconds between two looks at servers that are away: 1.5 and half of it."""
SPARE = 5
"""Times a promise that a loaded machine may take."""


def kill_all(novas: Sequence[Nova]) -> float:
    """Gives a moment just before nobody is there any more: whoever waits then has begun to wait after it."""
    at = time.monotonic()
    for nova in novas:
        nova.kill()
    return at


def start_all(novas: Sequence[Nova]) -> float:
    """Gives a moment just before the first one is there again."""
    at = time.monotonic()
    for nova in novas:
        nova.start()
    return at


def first_served(load: Load, back_at: float) -> float:
    """Seconds from the return until the first answer."""
    ends = [record.ended for record in load.of(*REPEATABLE) if not record.error and record.ended > back_at]
    return min(ends) - back_at


def judge_a_long_outage(scene: Scene, load: Load, gone: float, back: float, park_timeout: float) -> None:
    """From park_timeout on guests get 503 with Retry-After; who comes after the return is served."""

    def allowed(record: Record) -> bool:
        return record.status == 503 and record.ended >= gone + park_timeout and record.began < back

    load.end()
    refused = [record for record in load.of(*REPEATABLE, "POST") if allowed(record)]
    waited = max(record.took for record in refused)
    scene.judge(
        load,
        f"both away for {back - gone:.0f} s, park_timeout {park_timeout:g} s",
        f"{len(refused)} refused after at most {waited:.2f} s; "
        f"served {first_served(load, back):.2f} s after the return",
        allowed=allowed,
    )
    assert {record.guest for record in refused} == {guest.name for guest in load.guests}
    assert {record.retry_after for record in refused} == {"1", "2", "3"}
    assert min(record.took for record in refused) >= park_timeout
    assert waited < SPARE * park_timeout
    assert first_served(load, back) < SPARE * LONGEST_PAUSE
