"""Identities are asked for again before they end, when a guest uses them, and end earlier when they must."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

from .loop_kit import Rig, silence, until

NUMBERS = itertools.count(1)


def misses_after(rig: Rig, before: float) -> list[str]:
    """Who is asked for when all that ends before this time (in seconds from now) is to be renewed."""
    first, last = f"127.1.0.{next(NUMBERS)}", f"127.1.0.{next(NUMBERS)}"
    already = len(rig.misses)
    rig.loop.renew(1, time.monotonic() + before)
    rig.put(first)
    assert rig.ask(address=first).status == 200  # the mailbox is worked on in order
    assert rig.ask(address=last).status == 503  # and so are the events
    until(lambda: (1, last) in rig.misses)
    return [address for _, address in rig.misses[already:-1]]


def a_rig(make_rig: Callable[..., Rig]) -> Rig:
    rig = make_rig(on_miss=silence, settings={"park_timeout_ms": 1})
    for number in range(1, 5):
        rig.put(f"127.0.0.{number}", ttl_ms=10_000 * number)
    return rig


def test_only_those_that_are_used_and_end_soon(make_rig: Callable[..., Rig]) -> None:
    rig = a_rig(make_rig)
    for number in (1, 3):
        assert rig.ask(address=f"127.0.0.{number}").status == 200
    assert misses_after(rig, 5) == []
    assert misses_after(rig, 15) == ["127.0.0.1"]
    time.sleep(1)  # one that is asked for already is not asked for again within a second
    assert sorted(misses_after(rig, 45)) == ["127.0.0.1", "127.0.0.3"]


def test_a_confirmation_begins_a_new_time(make_rig: Callable[..., Rig]) -> None:
    """What was used before it counts no more; until it comes the identity goes on being used."""
    rig = a_rig(make_rig)
    assert rig.ask(address="127.0.0.1").status == 200
    assert misses_after(rig, 15) == ["127.0.0.1"]
    assert rig.ask(address="127.0.0.1").status == 200
    rig.put("127.0.0.1", ttl_ms=10_000)
    assert misses_after(rig, 15) == []
    assert rig.ask(address="127.0.0.1").status == 200
    assert misses_after(rig, 15) == ["127.0.0.1"]


def test_another_scope_is_not_touched(make_rig: Callable[..., Rig]) -> None:
    rig = a_rig(make_rig)
    rig.add_listener(2, 2)
    rig.put("127.0.0.1", scope=2, ttl_ms=1000)
    guest = rig.guest(listener=2)
    guest.get()
    assert guest.answer().status == 200
    assert misses_after(rig, 5) == []
    rig.loop.shorten(1, 0)
    guest.get()
    assert guest.answer().status == 200


def test_a_shorter_time(make_rig: Callable[..., Rig]) -> None:
    """Counted from the question; what ends earlier still does, and a later confirmation has its own time."""
    rig = make_rig(on_miss=silence, settings={"park_timeout_ms": 1})
    rig.put("127.0.0.1", asked_at=time.monotonic() - 20, ttl_ms=60_000)
    rig.put("127.0.0.2", asked_at=time.monotonic() - 5, ttl_ms=60_000)
    rig.put("127.0.0.3", asked_at=time.monotonic() - 5, ttl_ms=5_300)
    rig.loop.shorten(1, 10_000)
    assert rig.ask(address="127.0.0.1").status == 503
    assert rig.ask(address="127.0.0.2").status == 200
    assert rig.ask(address="127.0.0.3").status == 200
    time.sleep(0.4)
    assert rig.ask(address="127.0.0.3").status == 503
    assert rig.ask(address="127.0.0.2").status == 200
    rig.put("127.0.0.1", ttl_ms=60_000)
    assert rig.ask(address="127.0.0.1").status == 200


def test_many_at_once(make_rig: Callable[..., Rig]) -> None:
    """All that are used are asked for, as far as one scope's share of the ring goes; the others end, and nothing is
    lost by it."""
    rig = make_rig(on_miss=silence, settings={"park_timeout_ms": 1})
    for number in range(300):
        address = f"127.0.{number // 250 + 1}.{number % 250 + 1}"
        rig.put(address, ttl_ms=5_000)
        assert rig.ask(address=address).status == 200
    assert len(set(misses_after(rig, 10))) == 300
