"""Descriptors run out: accepting pauses, who does nothing makes room, and it goes on by itself."""

from __future__ import annotations

import resource

from ..service.agents import until
from .field import ALLOWANCE, CONNECTION, SMALL, Attack, Ground, address_of, get

SPARE = 60
"""Descriptors that the agent may have beyond what it has before the attack."""


def take_descriptors(attack: Attack) -> None:
    """At its start the agent takes care that its connections find enough of them; so take them away while it runs."""
    most = attack.descriptors() + SPARE
    resource.prlimit(attack.agent.pid, resource.RLIMIT_NOFILE, (most, most))


def test_descriptors_run_out(ground: Ground) -> None:
    """100 guests hold all descriptors for some seconds, with requests that Nova takes long for. The innocent wait, and
    are all served; nothing spins meanwhile."""
    bound = 100 * (CONNECTION + SMALL) + ALLOWANCE
    with Attack(ground, "no descriptors", bound=bound) as attack:
        take_descriptors(attack)
        holders = attack.attacker(
            first_source=address_of(0), sources=50, connections=100, reset=True, send=get("/slow/2")
        )
        attack.agent.until_logged("no descriptors are left")
        with attack.nothing_spins():
            until(lambda: holders.statuses().get("200", 0) > 10, "answers to those who held the descriptors")
        attack.end_attackers()
        attack.go_on(1)


def test_idle_connections_give_their_descriptors(ground: Ground) -> None:
    """200 idle connections: the oldest are closed, so that new ones are served at once."""
    bound = 200 * (CONNECTION + SMALL) + ALLOWANCE
    with Attack(ground, "no descriptors, idle connections", bound=bound) as attack:
        take_descriptors(attack)
        idle = attack.attacker(
            first_source=address_of(0), sources=50, connections=200, again=True, rate=300, send=get("/idle")
        )
        attack.agent.until_logged("no descriptors are left")
        attack.go_on(3)
        until(lambda: idle.get("closed") > 100, "idle connections that were closed")


def test_few_descriptors_from_the_start(ground: Ground) -> None:
    """The service may have 400 descriptors, and 300 requests of one network hang: it gets its part, not all of them."""
    bound = 200 * (CONNECTION + SMALL) + ALLOWANCE
    options = {"neighbour": False, "prefix": ["prlimit", "--nofile=400:400"]}
    with Attack(ground, "400 descriptors", bound=bound, **options) as attack:
        holders = attack.attacker(
            first_source=address_of(0),
            sources=100,
            connections=300,
            again=True,
            rate=300,
            reset=True,
            send=get("/slow/3"),
            end_after="answered",
        )
        until(lambda: holders.statuses().get("503", 0) > 100, "refusals")
        attack.go_on(3)
        until(lambda: holders.statuses().get("200", 0) > 10, "answers")
