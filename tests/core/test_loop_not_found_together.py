"""Rule 7, when several requests of one address get Nova's 404 at nearly the same time: they share one question, and
none of them is answered before it has been."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from .loop_kit import Guest, Rig, Wire, answer, instance_of, mark, packed, silence, until

OLD = instance_of(1, "127.0.0.1", 0)
NEW = instance_of(1, "127.0.0.1", 1)
HELD_S = 3.0


def nova(wire: Wire) -> None:
    """Knows no instance of age 0, and no path that begins with /no; says who asked."""
    while (request := wire.read()) is not None:
        missing = request.one("X-Instance-ID").endswith("-0") or request.target.startswith("/no")
        wire.send(answer(mark(request), "404 Not Found" if missing else "200 OK"))


def put_old(rig: Rig, seconds: float = 3.0) -> None:
    """The source said so some time ago."""
    rig.put("127.0.0.1", asked_at=time.monotonic() - seconds)


def ask(rig: Rig, target: str = "/a", method: str = "GET") -> Guest:
    """A guest whose request Nova has answered; what became of the answer is open."""
    count = len(rig.upstream.requests)
    guest = rig.guest()
    if method == "POST":
        guest.post(b"data", target)
    else:
        guest.get(target, method=method)
    until(lambda: len(rig.upstream.requests) > count)
    return guest


def two_held(rig: Rig, target: str = "/a") -> list[Guest]:
    """The second one's 404 comes a moment after the first one's."""
    put_old(rig)
    first = ask(rig, target)
    until(lambda: rig.misses)
    guests = [first, ask(rig, target)]
    time.sleep(0.2)
    assert [guest.is_open() for guest in guests] == [True, True]
    assert (len(rig.misses), rig.stat("rechecks"), rig.stat("status_404")) == (1, 1, 0)
    return guests


@pytest.mark.parametrize("how", ["named", "revoked, then named"])
def test_another_instance_has_the_address(make_rig: Callable[..., Rig], how: str) -> None:
    """Both get what is their own, by one question (and the one that a revocation leads to)."""
    rig = make_rig(nova, on_miss=silence)
    guests = two_held(rig)
    if how == "named":
        rig.age[1, "127.0.0.1"] = 1
    else:
        rig.revoke("127.0.0.1")
    rig.put("127.0.0.1")
    for guest in guests:
        found = guest.answer()
        assert (found.status, found.body.split()[0].decode()) == (200, NEW)
    assert [request.one("X-Instance-ID") for request in rig.upstream.requests] == [OLD, OLD, NEW, NEW]
    assert len(rig.misses) == (1 if how == "named" else 2)
    assert (rig.stat("rechecks"), rig.stat("status_404")) == (1, 0)


def test_the_same_instance_has_it(make_rig: Callable[..., Rig]) -> None:
    """Both 404 pass, and Nova is not asked again; nor is the source, by who comes later."""
    rig = make_rig(nova, on_miss=silence)
    rig.age[1, "127.0.0.1"] = 1
    guests = two_held(rig, "/no")
    put_old(rig)
    for guest in guests:
        found = guest.answer()
        assert (found.status, found.whole, found.body.split()[0].decode()) == (404, True, NEW)
    assert rig.ask("/no").status == 404
    assert rig.upstream.targets() == ["/no"] * 3
    assert (len(rig.misses), rig.stat("rechecks")) == (1, 1)


def test_nobody_has_it(make_rig: Callable[..., Rig]) -> None:
    """Neither gets anything of Nova's."""
    rig = make_rig(nova, on_miss=silence)
    guests = two_held(rig)
    rig.absent("127.0.0.1")
    for guest in guests:
        found = guest.answer()
        assert (found.status, OLD in found.body.decode()) == (404, False)
    rig.wait_stat("refused_absent", 2)


def test_the_answer_about_it_cannot_be_trusted(make_rig: Callable[..., Rig]) -> None:
    """In doubt nothing goes down to either."""
    rig = make_rig(nova, on_miss=silence)
    guests = two_held(rig)
    rig.refused("127.0.0.1")
    for guest in guests:
        found = guest.answer()
        assert (found.status, len(found.all("Retry-After"))) == (503, 1)


def test_a_crowd(make_rig: Callable[..., Rig]) -> None:
    """All that Nova has taken at the same moment."""
    count = 20
    together = threading.Barrier(count)

    def script(wire: Wire) -> None:
        while (request := wire.read()) is not None:
            old = request.one("X-Instance-ID") == OLD
            if old:
                together.wait(10)
            wire.send(answer(mark(request), "404 Not Found" if old else "200 OK"))

    def slowly(rig: Rig, scope: int, address: str) -> None:
        time.sleep(0.3)
        rig.age[scope, address] = 1
        rig.put(address, scope=scope)

    rig = make_rig(script, on_miss=slowly)
    put_old(rig)
    guests = [rig.guest() for _ in range(count)]
    for number, guest in enumerate(guests):
        guest.get(f"/{number}")
    for number, guest in enumerate(guests):
        found = guest.answer()
        assert (found.status, found.body.decode()) == (200, f"{NEW} GET /{number}\n")
    assert (len(rig.misses), rig.stat("rechecks"), rig.stat("status_404")) == (1, 1, 0)


def test_the_source_is_away(make_rig: Callable[..., Rig]) -> None:
    """Its silence ends both waits at the same moment: the second one has what is left of the first one's."""
    rig = make_rig(nova, on_miss=silence)
    put_old(rig)
    started = time.monotonic()
    first = ask(rig)
    until(lambda: rig.misses)
    time.sleep(1.5)
    second = ask(rig)
    for guest in (second, first):
        assert guest.answer().status == 404
        assert time.monotonic() - started >= HELD_S - 0.1
    # No wait of its own: that would be 4.5 s.
    assert time.monotonic() - started < HELD_S + 1.0
    assert rig.ask("/b").status == 404
    assert time.monotonic() - started < HELD_S + 1.0
    assert rig.stat("rechecks") == 1


def test_the_first_one_goes(make_rig: Callable[..., Rig]) -> None:
    """The question that it led to is still open: the second one waits for that."""
    rig = make_rig(nova, on_miss=silence)
    put_old(rig)
    first = ask(rig)
    until(lambda: rig.misses)
    first.reset()
    rig.wait_stat("connections_open", 0)
    second = ask(rig)
    time.sleep(0.2)
    assert second.is_open()
    rig.age[1, "127.0.0.1"] = 1
    rig.put("127.0.0.1")
    assert second.answer().body.split()[0].decode() == NEW
    assert (len(rig.misses), rig.stat("rechecks")) == (1, 1)


def test_behind_what_may_not_be_repeated(make_rig: Callable[..., Rig]) -> None:
    """A POST's 404 passes, and leads to a question; a GET's, a moment later, waits for its answer. A second POST's
    passes, too."""
    rig = make_rig(nova, on_miss=silence)
    put_old(rig)
    assert ask(rig, method="POST").answer("POST").status == 404
    until(lambda: rig.misses)
    guest = ask(rig)
    assert ask(rig, method="POST").answer("POST").status == 404
    assert guest.is_open()
    rig.age[1, "127.0.0.1"] = 1
    rig.put("127.0.0.1")
    found = guest.answer()
    assert (found.status, found.body.split()[0].decode()) == (200, NEW)
    assert (len(rig.misses), rig.stat("rechecks")) == (1, 1)


def test_the_identity_ends_meanwhile(make_rig: Callable[..., Rig]) -> None:
    """Who comes then waits for who it is; a 404 that Nova says to an earlier one waits for the same answer."""
    slow = threading.Event()

    def script(wire: Wire) -> None:
        while (request := wire.read()) is not None:
            if request.target == "/slow":
                slow.wait(10)
            old = request.one("X-Instance-ID") == OLD
            wire.send(answer(mark(request), "404 Not Found" if old else "200 OK"))

    rig = make_rig(script, on_miss=silence)
    rig.put("127.0.0.1", asked_at=time.monotonic() - 3, ttl_ms=3_300)
    late = ask(rig, "/slow")
    guests = [ask(rig, "/first")]
    until(lambda: rig.misses)
    time.sleep(0.4)  # it has ended
    guests.append(rig.guest())
    guests[-1].get("/after")
    rig.wait_stat("parked", 1)
    slow.set()
    time.sleep(0.2)
    guests.append(late)
    assert [guest.is_open() for guest in guests] == [True, True, True]
    rig.age[1, "127.0.0.1"] = 1
    rig.put("127.0.0.1")
    for guest in guests:
        found = guest.answer()
        assert (found.status, found.body.split()[0].decode()) == (200, NEW)
    assert rig.stat("rechecks") == 1


def test_an_answer_that_counts_for_nothing(make_rig: Callable[..., Rig]) -> None:
    """Nobody waits any more when an answer from before a revocation comes: the next 404 leads to a question again,
    instead of a wait for one that nobody will answer."""

    def on_miss(rig: Rig, scope: int, address: str) -> None:
        if len(rig.misses) == 2:
            rig.age[scope, address] = 1
            rig.put(address, scope=scope)

    rig = make_rig(nova, on_miss=on_miss)
    put_old(rig)
    first = ask(rig)
    until(lambda: rig.misses)
    first.reset()
    rig.wait_stat("connections_open", 0)
    # Somebody else's address is revoked.
    rig.generation[1] += 1
    rig.loop.revoke(1, rig.generation[1], packed("127.0.0.2"))
    rig.put("127.0.0.1", generation=0)
    found = rig.ask("/a")
    assert (found.status, found.body.split()[0].decode()) == (200, NEW)
    assert len(rig.misses) == 2
