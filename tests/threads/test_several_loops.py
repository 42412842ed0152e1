"""Several loops at once, and Python that talks to all of them: messages, events, figures, scopes, revocations.

With ThreadSanitizer (make sanitize) this is where a data race between a loop and Python would show; without, it shows
that nobody gets what is another's, and that the books are right.
"""

from __future__ import annotations

import os
import pathlib
import threading
from collections.abc import Callable

import pytest

from fastmeta import _core
from tests.core.loop_kit import Rig, Upstream, echo, instance_of, nothing_left_behind, until

LOOPS = 3
ASKING = 2  # threads for each loop
SANITIZED = os.environ.get("FASTMETA_SANITIZED")
ROUNDS = 200 if SANITIZED == "thread" else 60


def test_the_core_is_built_as_it_is_said():
    """Else everything below says nothing about data races."""
    mapped = pathlib.Path("/proc/self/maps").read_text()
    assert ("libtsan" in mapped, "libasan" in mapped) == (
        SANITIZED in ("thread", "planted"),
        SANITIZED == "address",
    )
    if SANITIZED:
        assert pathlib.Path(_core.__file__).is_relative_to(pathlib.Path.cwd())


def ask(rig: Rig, thread: int) -> None:
    """A guest that comes again and again, with kept connections and without; its address is its own."""
    address = f"127.0.0.{thread + 2}"
    for number in range(ROUNDS):
        target = f"/{thread}/{number}"
        guest = rig.guest(address)
        guest.get(target)
        found = guest.answer()
        if number % 3 == 0:
            guest.post(b"data", target)
            assert guest.answer().status in (200, 503)
        guest.close()
        assert found.status == 200
        instance, _, said = found.body.decode().split()
        assert instance.startswith(instance_of(1, address, 0)[:-1])
        assert said == target


def stir(rig: Rig, other: Upstream) -> None:
    """Everything that Python may tell a loop while guests ask."""
    for number in range(ROUNDS):
        scope, listener = number + 10, number + 10
        rig.add_listener(listener, scope)
        guest = rig.guest("127.0.0.9", listener)
        guest.get("/stirred")
        rig.put("127.0.0.3", ttl_ms=100)
        rig.absent("127.0.0.8", ttl_ms=10)
        rig.revoke("127.0.0.2" if number % 2 else None)
        if number % 2:
            assert guest.answer().status == 200
        rig.loop.remove_listener(listener, drain=bool(number % 3))
        rig.remove_scope(scope)
        if number % 10 == 0:
            target = other if number % 20 else rig.upstream
            rig.loop.set_upstream([(target.host, target.tcp_port)], "nova:8775")
        guest.close()


def removed_scopes(rig: Rig) -> int:
    return [event[0] for event in rig.events].count(_core.EVENT_SCOPE_REMOVED)


def look(rigs: list[Rig], over: threading.Event) -> None:
    """Reads all figures all the time."""
    while not over.wait(0.001):
        for rig in rigs:
            rig.loop.stats()
            rig.loop.stats(1)
            rig.loop.histograms()


def guarded(work: Callable[..., None], failures: list[BaseException], *arguments: object) -> threading.Thread:
    def run() -> None:
        try:
            work(*arguments)
        except BaseException as error:
            failures.append(error)

    return threading.Thread(target=run)


@pytest.mark.timeout(300)
def test_several_loops_and_python():
    """Only who is told so gets 503: what may not be repeated, when its identity was revoked."""
    failures: list[BaseException] = []
    over = threading.Event()
    with nothing_left_behind():
        other = Upstream(echo)
        settings = {"access_log": 1, "rate_versions": 1, "base_limit": 100_000, "burst_limit": 100_000}
        rigs = [Rig(settings, Upstream(echo)) for _ in range(LOOPS)]
        for rig in rigs:
            rig.start()
        watching = guarded(look, failures, rigs, over)
        working = [guarded(ask, failures, rig, thread) for rig in rigs for thread in range(ASKING)]
        working += [guarded(stir, failures, rig, other) for rig in rigs]
        try:
            watching.start()
            for thread in working:
                thread.start()
            for thread in working:
                thread.join(240)
                assert not thread.is_alive()
        finally:
            over.set()
            watching.join(10)
            totals = []
            for rig in rigs:
                until(lambda rig=rig: removed_scopes(rig) == ROUNDS)
                rig.stop(1000)
                totals.append(rig.loop.stats())
                rig.end()
            other.stop()
            rigs.clear()
    if failures:
        raise failures[0]
    for stats in totals:
        ended = sum(value for name, value in stats.items() if name.startswith("ended_"))
        answered = sum(stats[f"answers_{kind}xx"] for kind in range(2, 6))
        assert stats["connections"] == ended
        assert stats["requests"] == answered + stats["aborted"] >= ROUNDS * ASKING
