"""Both servers are away for 60 s, with the defaults. The fixture has begun that with the first test of this folder, so
that the others do not wait for it."""

from __future__ import annotations

import time

from .conftest import LongOutage
from .outage import judge_a_long_outage, start_all

SECONDS = 60.0


def test_away_for_60_s(long_outage: LongOutage) -> None:
    """503 from the 8th second on, and after the return the first who asks is served."""
    time.sleep(max(0.0, long_outage.gone + SECONDS - time.monotonic()))
    back = start_all(long_outage.novas)
    long_outage.load.until_asked(3)
    judge_a_long_outage(long_outage.scene, long_outage.load, long_outage.gone, back, 8.0)
