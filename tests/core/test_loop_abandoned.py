"""Requests whose guest goes while Nova works on them: they keep their place until Nova is done."""

import threading

import pytest

from .loop_kit import answer, mark, until


@pytest.fixture
def go_on():
    """Set: the upstream answers what it has got."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def slow_rig(make_rig, go_on):
    """An upstream that answers /slow only when it is told to."""

    def script(wire):
        while (request := wire.read()) is not None:
            if request.target == "/slow":
                go_on.wait(5)
            wire.send(answer(mark(request)))

    def make(**settings):
        return make_rig(script, settings=settings)

    return make


def give_up(rig, address, method="GET", *headers):
    """A guest that goes as soon as the upstream has its request."""
    seen = len(rig.upstream.requests)
    guest = rig.guest(address)
    guest.get("/slow", *headers, method=method)
    until(lambda: len(rig.upstream.requests) > seen)
    guest.reset()


def test_the_place_is_kept_until_the_answer(slow_rig, go_on):
    """One scope has three of four places at most, also when its guests have gone; then they are free again."""
    rig = slow_rig(max_upstream_connections=4)
    for number in range(3):
        give_up(rig, f"127.0.0.{number + 10}")
    rig.wait_stat("connections_open", 0)
    assert (rig.stat("upstream_connections"), rig.stat("aborted")) == (3, 3)
    waiting = rig.guest("127.0.0.2")
    waiting.get("/waits")
    rig.wait_stat("parked", 1)
    rig.add_listener(2, 2)
    other = rig.guest(listener=2)
    other.get("/other")
    assert other.answer().status == 200
    assert rig.stat("parked") == 1
    go_on.set()
    assert waiting.answer().status == 200
    # Nothing of what is given up is used again.
    until(lambda: rig.stat("upstream_connections") == rig.stat("upstream_idle") <= 2)


def test_not_longer_than_upstream_timeout(slow_rig):
    rig = slow_rig(upstream_timeout_ms=300)
    give_up(rig, "127.0.0.10")
    assert rig.stat("upstream_connections") == 1
    rig.wait_stat("upstream_connections", 0)
    rig.wait_stat("sources", 0)


def test_the_end_of_a_body_does_not_come(make_rig):
    """Nova is told that there is no more of it, and may still answer."""
    ends = []

    def script(wire):
        request = wire.read_head()
        wire.read_to_end()
        ends.append(request.target)

    rig = make_rig(script)
    give_up(rig, "127.0.0.10", "POST", "Content-Length: 100000")
    until(lambda: ends == ["/slow"])
    rig.wait_stat("upstream_connections", 0)


def test_a_scope_that_is_removed(slow_rig):
    """It takes with it what its guests have left at Nova."""
    rig = slow_rig()
    rig.add_listener(2, 2)
    guest = rig.guest(listener=2)
    guest.get("/slow")
    until(lambda: "/slow" in rig.upstream.targets())
    guest.reset()
    rig.wait_stat("connections_open", 0)
    assert rig.stat("upstream_connections") == 1
    rig.remove_scope(2)
    rig.wait_stat("upstream_connections", 0)
    assert rig.ask().status == 200


def test_the_end_of_the_loop(slow_rig):
    """Nothing of it is left when the loop ends."""
    rig = slow_rig()
    give_up(rig, "127.0.0.10")
    rig.wait_stat("connections_open", 0)
    rig.stop()
    assert rig.stat("upstream_connections") == 0
