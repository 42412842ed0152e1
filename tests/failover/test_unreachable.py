"""One of two is of no use from the start on, in one way or another."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from fastmeta.lab.namespaces import inside, run_command
from fastmeta.lab.topology import Lab

from .load import REPEATABLE
from .scene import Scene

SETTLED = 1.0
"""Seconds after which a server that fails gets no more than tries."""
LONGEST_TRY = 4.0
"""One request (or connection) in so many seconds, at least, tries whether it is well again."""


@pytest.mark.parametrize("first", [True, False], ids=["first", "second"])
def test_nobody_listens(scene: Scene, first: bool) -> None:
    """It refuses each connection, whether it is named first or last."""
    silent = scene.nova(start=not first)
    scene.nova(start=first)
    scene.agent()
    load = scene.load()
    load.until_asked(5)
    load.go_on(1)
    scene.judge(load, f"one of two refuses, named {'first' if first else 'last'}")
    assert len(silent.served()) == (0 if first else len(load.records))


@pytest.mark.parametrize("closes", ["connections", "requests"])
def test_one_closes_without_an_answer(scene: Scene, closes: str) -> None:
    """It is always idle, so it would get all requests if that were all that counts."""
    hole, well = scene.nova(closes=closes), scene.nova(delay=0.02)
    scene.agent()
    started = time.monotonic()
    load = scene.load(posts=0)
    load.until_asked(5)
    load.go_on(max(0.0, started + SETTLED - time.monotonic()))
    settled = time.monotonic()
    load.go_on(4)
    load.until_asked(3)
    seconds = time.monotonic() - settled
    wasted, good = len(hole.opened(settled)), len(well.served(settled))
    note = f"{len(hole.opened())} connections to it in all, {wasted} in the last {seconds:.0f} s"
    scene.judge(load, f"one of two closes its {closes}", note)
    assert wasted < good / 20


def test_posts_and_one_that_closes_without_an_answer(scene: Scene) -> None:
    """A POST on which the connection was closed may have been carried out: it fails. But they are few."""
    scene.nova(closes="requests")
    scene.nova(delay=0.02)
    scene.agent()
    load = scene.load(posts=3)
    load.until_asked(10)
    load.go_on(3)
    failed = sum(bool(record.error) for record in load.of("POST"))
    scene.judge(load, "one of two closes, POSTs")
    assert failed < len(load.of("POST")) / 5


def test_one_that_drops_who_connects(scene: Scene) -> None:
    """A full backlog: no refusal, no connection."""
    scene.full_backlog()
    well = scene.nova(delay=0.02)
    scene.agent()
    load = scene.load()
    load.until_asked(5, seconds=30)
    load.go_on(5)
    load.until_asked(5)
    scene.judge(load, "one of two drops SYNs (full backlog)")
    assert len(well.served()) >= len(load.of(*REPEATABLE))


@pytest.fixture
def namespace() -> Iterator[str]:
    """One with loopback only, where packets may be dropped."""
    with Lab() as lab:
        yield lab.add_namespace(f"fmf-{lab.tag}")


def test_packets_of_one_vanish(namespace: str) -> None:
    """As when its host loses power in the middle of load: connections that were good are silent from then on, new ones
    get no answer. Then it is back."""
    with Scene(namespace=namespace) as scene:
        lost, _ = scene.nova(delay=0.02), scene.nova(delay=0.02)
        scene.agent()
        load = scene.load(posts=0)
        load.until_asked(5)

        def rules(action: str) -> None:
            """Loopback: what goes to it and what comes from it both come in there."""
            for end in ("-d", "-s"):
                run_command(["iptables", "-w", action, "INPUT", end, lost.address, "-j", "DROP"])

        inside(namespace, lambda: rules("-A"))
        load.go_on(12)
        inside(namespace, lambda: rules("-D"))
        back = time.monotonic()
        load.go_on(6)
        load.until_asked(5)
        served = [request.at for request in lost.served(back)]
        note = f"{len(served)} requests to it in 6 s after its return"
        scene.judge(load, "packets of one of two vanish for 12 s", note)
        assert served
