"""Servers that are frozen (SIGSTOP): their kernel takes connections and requests, and nothing comes back. Nobody can
tell it from one that takes long, so it is asked for a while, and after second_try_after somebody else is as well."""

from __future__ import annotations

import time

from .load import LIMIT, REPEATABLE, Load, Record, times
from .novas import Nova
from .scene import Scene

KNOWN_AFTER = 5.0
"""Seconds after which it is known who does not answer: second_try_after, and the second tries that show it."""
SHORTEST_PAUSE = 2.0
"""Seconds between two requests that try whether a suspect one is well again."""


def posts_that_waited(load: Load, frozen_at: float, until: float) -> list[Record]:
    """POSTs that were at the frozen server when it was known to be, or before: nobody may send them again. Later there
    are none: a suspect server that is only tried is tried with what may be repeated, never with a POST."""
    return [record for record in load.of("POST") if record.error and frozen_at - 1 <= record.began <= until]


def tries(victim: Nova, load: Load, since: float, thawed_at: float) -> int:
    """Requests that were sent to a frozen server from some moment on. It reads them when it goes on."""
    began = {record.target: record.began for record in load.of(*REPEATABLE, "POST")}
    late = [request.target for request in victim.served(thawed_at)]
    return sum(since <= began[target] < thawed_at for target in late)


def test_one_of_two_for_20_s(scene: Scene) -> None:
    """No guest that waits for 10 s sees an error, and when it goes on its late answers go nowhere."""
    victim, other = scene.nova(delay=0.02), scene.nova(delay=0.02)
    scene.agent()
    load = scene.load()
    load.until_asked(5)
    frozen = time.monotonic()
    victim.freeze()
    load.go_on(20)
    thawed = time.monotonic()
    victim.go_on()
    load.go_on(6)
    load.until_asked(5)
    load.end()
    known = frozen + KNOWN_AFTER
    waited = posts_that_waited(load, frozen, known)
    wasted = tries(victim, load, known, thawed)
    repeats = scene.repeats()
    note = (
        f"{repeats} second tries; {wasted} requests to it in the last {thawed - known:.0f} s; "
        f"while it was frozen {times(load.between(known, thawed))}"
    )
    scene.judge(load, "one of two frozen for 20 s", note, allowed=lambda record: record in waited)
    assert repeats >= 1
    late_posts = {record.target for record in load.of("POST") if known <= record.began < thawed}
    assert late_posts
    assert not late_posts & {request.target for request in victim.served(frozen)}
    assert wasted <= (thawed - known) / SHORTEST_PAUSE + 2
    # It is well again, and is treated so.
    assert len(victim.served(thawed + 5)) > len(other.served(thawed + 5)) / 4


def test_one_of_two_with_few_guests(scene: Scene) -> None:
    """At least one second try, however few requests are in flight."""
    victim, _ = scene.nova(delay=0.02), scene.nova(delay=0.02)
    scene.agent()
    load = scene.load(scene.guests[:3], posts=0)
    load.until_asked(5)
    victim.freeze()
    load.go_on(5)
    victim.go_on()
    load.until_asked(5)
    scene.judge(load, "one of two frozen for 5 s, three guests", f"{scene.repeats()} second tries")
    assert scene.repeats() >= 1


def test_the_only_one_for_5_s(scene: Scene) -> None:
    """Guests wait and are served; nothing is sent twice."""
    nova = scene.nova(delay=0.02)
    scene.agent()
    load = scene.load()
    load.until_asked(5)
    nova.freeze()
    load.go_on(5)
    nova.go_on()
    load.until_asked(5)
    scene.judge(load, "the only one frozen for 5 s", f"{scene.repeats()} sent twice")
    assert scene.repeats() == 0
    assert all(not record.error for record in load.of("POST"))


def test_both_for_5_s(scene: Scene) -> None:
    """Nobody else can be asked: guests wait, and the servers get little more than they would have."""
    novas = [scene.nova(delay=0.02), scene.nova(delay=0.02)]
    scene.agent()
    load = scene.load()
    load.until_asked(5)
    for nova in novas:
        nova.freeze()
    load.go_on(5)
    for nova in novas:
        nova.go_on()
    load.until_asked(5)
    scene.judge(load, "both frozen for 5 s", f"{scene.repeats()} second tries")
    assert scene.repeats() <= len(scene.guests) / 5
    assert all(not record.error for record in load.of("POST"))


def test_one_is_frozen_and_the_other_restarts(scene: Scene) -> None:
    """The other one is away for a second meanwhile: whoever has gone to the frozen one then comes back to it."""
    victim, other = scene.nova(delay=0.02), scene.nova(delay=0.02)
    scene.agent()
    load = scene.load(posts=0)
    load.until_asked(5)
    victim.freeze()
    load.go_on(5)
    other.kill()
    load.go_on(1)
    other.start()
    load.go_on(6)
    load.until_asked(5)
    victim.go_on()
    load.until_asked(5)
    scene.judge(load, "one frozen, the other away for 1 s meanwhile", f"{scene.repeats()} sent twice")
    assert scene.repeats() >= 1


def test_a_scope_that_floods_while_one_is_frozen(scene: Scene) -> None:
    """128 requests at a time from one network, before servers with 16 places each: guests of other networks are served
    in their 10 s."""
    victim, _ = scene.nova(delay=0.02), scene.nova(delay=0.02)
    scene.agent(max_upstream_connections=16)
    others = scene.load(scene.guests[8:], posts=0)
    flood = scene.load(scene.of_scope(0), posts=0, pause=0.0, at_once=16, path="/flood/")
    others.until_asked(5)
    victim.freeze()
    others.go_on(10)
    victim.go_on()
    others.until_asked(5)
    flood.end()
    statuses = {record.status for record in flood.records}
    note = f"flood: {times(flood.records)}, statuses {sorted(statuses)}"
    scene.judge(others, "one of two frozen, one scope floods", note)
    assert scene.repeats() >= 1
    assert flood.strays == [], flood.strays[:10]
    assert sum(record.status == 200 for record in flood.records) > 1000
    assert max(record.took for record in others.records) < LIMIT
