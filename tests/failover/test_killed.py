"""Servers that are killed and restarted under load: no GET or HEAD notices."""

from __future__ import annotations

import time

from .load import instance_id_only
from .outage import LONGEST_PAUSE
from .scene import Scene

DELAY = 0.03
"""Seconds that a server takes, so that a kill meets requests that it works on."""


def test_one_of_two_is_killed(scene: Scene) -> None:
    """And comes back: it gets requests again."""
    one, other = scene.nova(delay=DELAY), scene.nova(delay=DELAY)
    scene.agent()
    load = scene.load()
    load.until_asked(5)
    for victim in (one, other):
        victim.kill()
        killed = time.monotonic()
        load.go_on(2)
        load.until_asked(5)
        assert victim.served(killed) == []
        back = time.monotonic()
        victim.start()
        load.go_on(1.5)
        load.until_asked(10)
        assert victim.served(back)
    scene.judge(load, "one of two killed, and back; then the other", f"{scene.repeats()} sent twice")


def test_one_of_two_is_killed_again_and_again(scene: Scene) -> None:
    """It never lives long: the other one serves."""
    victim, _ = scene.nova(delay=DELAY), scene.nova(delay=DELAY)
    scene.agent()
    load = scene.load()
    load.until_asked(5)
    for _ in range(8):
        victim.kill()
        load.go_on(0.2)
        victim.start()
        load.go_on(0.3)
    load.until_asked(5)
    scene.judge(load, "one of two killed eight times", f"{scene.repeats()} sent twice")


def test_one_of_two_embedded_apis_is_killed(scene: Scene) -> None:
    """`fastmeta metadata-api` twice."""
    one, _ = scene.embedded_nova(), scene.embedded_nova()
    scene.agent()
    load = scene.load(posts=0, path="/latest/meta-data/instance-id?", check=instance_id_only)
    load.until_asked(5)
    one.until_served(1)
    one.kill()
    load.go_on(1.5)
    load.until_asked(5)
    one.start()
    one.until_served(10)
    scene.judge(load, "one of two metadata-api killed, and back")


def test_a_rolling_restart(scene: Scene) -> None:
    """Of `fastmeta metadata-api`, as a service manager does it; each as soon as the one before listens."""
    novas = [scene.embedded_nova(), scene.embedded_nova()]
    scene.agent()
    load = scene.load(posts=0, path="/latest/meta-data/instance-id?", check=instance_id_only)
    load.until_asked(5)
    for _ in range(3):
        for nova in novas:
            nova.stop()
            nova.start()
    for nova in novas:
        nova.until_served(10)
    scene.judge(load, "rolling restart of both, three times")


def test_both_are_killed_in_turns(scene: Scene) -> None:
    """Each as soon as the other one listens again, of which nobody knows yet."""
    novas = [scene.nova(delay=DELAY), scene.nova(delay=DELAY)]
    scene.agent()
    load = scene.load()
    load.until_asked(5)
    for _ in range(4):
        for nova in novas:
            nova.kill()
            load.go_on(0.3)
            nova.start()
    back = time.monotonic()
    load.go_on(LONGEST_PAUSE + 1)  # the last one may rest for so long after its failures
    load.until_asked(5)
    assert all(nova.served(back) for nova in novas)
    scene.judge(load, "both killed in turns, four times", f"{scene.repeats()} sent twice")


def test_a_post_is_never_sent_twice(scene: Scene) -> None:
    """Half of all requests are POSTs, and servers that take long are killed in the middle of them."""
    novas = [scene.nova(delay=0.2), scene.nova(delay=0.2)]
    scene.agent()
    load = scene.load(posts=2)
    load.until_asked(3)
    for turn in range(6):
        nova = novas[turn % 2]
        nova.kill()
        load.go_on(0.5)
        nova.start()
        load.go_on(0.5)
    load.until_asked(3)
    scene.judge(load, "POSTs, servers killed in turns", f"{scene.repeats()} GETs sent twice")
    # It was tried what happens to a POST whose server goes.
    assert [record for record in load.of("POST") if record.status == 502]


def test_the_list_changes_while_one_is_killed(scene: Scene) -> None:
    """SIGHUP in the middle of load: the killed one is taken off the list, a new one is on it."""
    killed, stays, new = (scene.nova(delay=DELAY) for _ in range(3))
    agent = scene.agent([killed, stays])
    load = scene.load()
    load.until_asked(5)
    assert new.opened() == []
    killed.kill()
    agent.reload(upstreams=scene.upstreams([stays, new]))
    load.until_asked(10)
    assert new.served()
    killed.start()
    back = time.monotonic()
    agent.reload(upstreams=scene.upstreams([new]))
    load.go_on(0.5)  # what was on its way to the one that is off the list now
    left = time.monotonic()
    load.go_on(2)
    load.until_asked(5)
    assert killed.opened(back) == []
    assert stays.served(left) == []
    scene.judge(load, "one killed, SIGHUP with another list, twice", f"{scene.repeats()} sent twice")
