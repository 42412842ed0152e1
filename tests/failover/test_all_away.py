"""Nobody is there: guests wait, and only who has waited for park_timeout is told to come again.

test_without_nova_for_a_minute.py has the same for longer.
"""

from __future__ import annotations

import pytest

from .outage import LONGEST_PAUSE, SPARE, first_served, judge_a_long_outage, kill_all, start_all
from .scene import Scene


@pytest.mark.parametrize("count", [1, 2])
def test_away_for_5_s(scene: Scene, count: int) -> None:
    """Every guest is served, whoever asked meanwhile."""
    novas = [scene.nova() for _ in range(count)]
    scene.agent()
    load = scene.load()
    load.until_asked(5)
    kill_all(novas)
    load.go_on(5)
    back = start_all(novas)
    load.until_asked(5)
    load.go_on(1)
    served = first_served(load, back)
    scene.judge(load, f"{count} of {count} away for 5 s", f"served {served:.2f} s after the return")
    assert served < SPARE * LONGEST_PAUSE
    assert all(nova.served(back) for nova in novas)


def test_away_for_longer_than_guests_wait(scene: Scene) -> None:
    """park_timeout of 2 s, away for 6 s."""
    novas = [scene.nova(), scene.nova()]
    scene.agent(park_timeout=2.0)
    load = scene.load()
    load.until_asked(5)
    gone = kill_all(novas)
    load.go_on(6)
    back = start_all(novas)
    load.until_asked(5)
    judge_a_long_outage(scene, load, gone, back, 2.0)
