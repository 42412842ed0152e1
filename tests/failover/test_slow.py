"""Servers that take long, all of them or one: nobody is given up for that, and the load is not made heavier."""

from __future__ import annotations

from .scene import Scene

SLOW = 4.0
"""Seconds for an answer, more than second_try_after."""
MOMENT = 0.5
"""Seconds within which answers come that come together."""
FEW = 4


def test_all_are_slow(scene: Scene) -> None:
    """All are served, and the servers get hardly more requests than there are: a tenth at a time. Not counted are those
    that last for a moment only: all answers come at about the same time here, and who is still waiting when one of the
    second tries ends may have the next."""
    for _ in range(2):
        scene.nova(delay=SLOW)
    scene.agent()
    load = scene.load()
    load.go_on(9)
    load.end()
    ended = {record.target: record.ended for record in load.records}
    lasting = [at for target, at in scene.second_times() if at < ended[target] - MOMENT]
    asked, repeats = len(load.records), len(lasting)
    scene.judge(load, f"both take {SLOW:g} s", f"{repeats} second tries that lasted, for {asked} requests")
    assert asked >= 2 * len(scene.guests)
    assert 1 <= repeats <= asked / 10 + FEW
    assert all(not record.error for record in load.of("POST"))


def test_who_is_fast_gets_more(scene: Scene) -> None:
    """Of three the slow one has as many requests in flight as the others, and so gets fewer in a second."""
    fast, also_fast, slow = (scene.nova(delay=delay) for delay in (0.01, 0.01, 0.2))
    scene.agent()
    load = scene.load(pause=0.001, posts=0)
    load.go_on(4)
    load.end()
    counts = [len(nova.served()) for nova in (fast, also_fast, slow)]
    scene.judge(load, "three, of which one takes 0.2 s, the others 0.01 s", f"{counts} requests to each")
    assert min(counts[:2]) > max(counts[:2]) / 2
    assert 0 < counts[2] < min(counts[:2]) / 3


def test_requests_one_after_the_other_use_one_connection(scene: Scene) -> None:
    """Without warm connections: the first one made is used by all who follow, of all networks."""
    novas = [scene.nova() for _ in range(3)]
    scene.agent(warm_connections=0)
    for guest in scene.guests[::8]:
        load = scene.load([guest], posts=0, pause=0.01)
        load.until_asked(20)
        load.end()
    opened = [len(nova.opened()) for nova in novas]
    scene.judge(load, "one guest after the other, three servers", f"{opened} connections", all_asked=False)
    assert sorted(opened) == [0, 0, 1]


def test_requests_one_after_the_other_use_warm_connections(scene: Scene) -> None:
    """With two warm ones for each server no other is ever opened."""
    novas = [scene.nova() for _ in range(3)]
    scene.agent(warm_connections=2)
    load = scene.load(scene.guests[:1], posts=0, pause=0.01)
    load.until_asked(60)
    load.end()
    opened = [len(nova.opened()) for nova in novas]
    scene.judge(load, "one guest, three servers, warm connections", f"{opened} connections")
    assert opened == [2, 2, 2]
