"""Several loops as one: every scope on one of them, what holds for all divided, and nobody's way through another's."""

import gc
import select
import threading
from collections.abc import Callable, Iterator

import pytest

from fastmeta import _core
from fastmeta.exceptions import CoreError
from fastmeta.loops import DIVIDED, Loops, divided, share

from .loop_kit import (
    DEADLINE_S,
    Guest,
    Rig,
    Upstream,
    echo,
    instance_of,
    nothing_left_behind,
    packed,
    silence,
    until,
)

DEFAULTS = {name: bounds[0] for name, bounds in _core.SETTINGS.items()}


class LoopsRig(Rig):
    """As a rig, of several loops. Scope and listener 1 are there from the start."""

    def __init__(self, count: int, settings: dict[str, int], upstream: Upstream, **more: object) -> None:
        super().__init__(settings, upstream, **more)
        self.loops = [
            _core.Loop(part, secret=self.secret) for part in divided(DEFAULTS | self.settings, count)
        ]
        self.loop = Loops(self.loops)
        self.all_ended = threading.Semaphore(0)

    def run(self) -> None:
        self.loop.start(self.all_ended.release)
        for _ in self.loops:
            self.all_ended.acquire()
        if self.loop.error is not None:
            self.failure = self.loop.error

    def filenos(self) -> list[int]:
        return self.loop.filenos()

    def end(self) -> None:
        super().end()
        self.loops.clear()


@pytest.fixture
def make_loops() -> Iterator[Callable[..., LoopsRig]]:
    made: list[LoopsRig] = []

    def make(count: int = 3, settings: dict[str, int] | None = None, **more: object) -> LoopsRig:
        rig = LoopsRig(count, settings or {}, Upstream(echo), **more)
        made.append(rig)
        rig.start()
        until(lambda: all(loop.running for loop in rig.loops))
        return rig

    with nothing_left_behind():
        yield make
        for rig in made:
            rig.end()
        made.clear()


def ask(guest: Guest, scope: int, target: str) -> None:
    """The answer must be this scope's own."""
    guest.get(target)
    found = guest.answer()
    assert found.status == 200
    assert found.body.decode() == f"{instance_of(scope, '127.0.0.1')} GET {target}\n"


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("total", [0, 1, 2, 63, 64, 65, 256, 16384])
def test_shares_make_the_whole(total: int, count: int) -> None:
    """Equal but for one; at least one each, unless nobody may have any."""
    shares = [share(total, count, place) for place in range(count)]
    assert sum(shares) == (max(total, count) if total else 0)
    assert max(shares) - min(shares) <= 1
    assert min(shares) >= (total > 0)


def test_what_is_divided() -> None:
    """Bounds for all guests together; times, and bounds for a scope or an address, hold on each loop."""
    settings = DEFAULTS | {"max_connections": 11}
    parts = divided(settings, 3)
    assert [part["max_connections"] for part in parts] == [4, 4, 3]
    assert {name for name in settings if any(part[name] != settings[name] for part in parts)} == set(DIVIDED)
    assert divided(settings, 1) == [settings]
    for part in parts:
        _core.Loop(part)


def test_new_scopes_go_to_the_loop_with_the_fewest() -> None:
    loops = Loops([_core.Loop() for _ in range(3)])
    for scope in range(1, 8):
        loops.add_scope(scope)
    assert [loops.place(scope) for scope in range(1, 8)] == [0, 1, 2, 0, 1, 2, 0]
    for scope in (2, 5, 3):
        loops.remove_scope(scope)
    for scope in (8, 9, 10, 11):
        loops.add_scope(scope)
    assert [loops.place(scope) for scope in (8, 9, 10, 11)] == [1, 1, 2, 1]
    with pytest.raises(ValueError, match="not in use"):
        loops.add_scope(11)
    with pytest.raises(ValueError, match="there is no scope 5"):
        loops.stats(5)


def test_each_scope_has_its_own(make_loops: Callable[..., LoopsRig]) -> None:
    """One address in nine networks on three loops: nine instances, each with its own data, and counted there."""
    rig = make_loops(3)
    for scope in range(2, 10):
        rig.add_listener(scope, scope)
    guests = {scope: rig.guest(listener=scope) for scope in range(1, 10)}
    for turn in range(5):
        for scope, guest in guests.items():
            ask(guest, scope, f"/{scope}/{turn}")
    until(lambda: sum(rig.stat(f"answers_{kind}xx") for kind in (2, 3, 4, 5)) == 45)
    assert [loop.stats()["requests"] for loop in rig.loops] == [15, 15, 15]
    assert rig.stat("requests") == 45
    assert sum(rig.loop.histograms()["total"]) == 45
    for scope in guests:
        assert rig.loop.stats(scope)["requests"] == 5
        assert sum(rig.loop.histograms(scope)["total"]) == 5
    assert sorted(rig.misses) == [(scope, "127.0.0.1") for scope in guests]


def test_a_revocation_and_a_listener_that_goes(make_loops: Callable[..., LoopsRig]) -> None:
    """They reach the loop that they are meant for, and no other."""
    rig = make_loops(3)
    for scope in (2, 3):
        rig.add_listener(scope, scope)
    guests = {scope: rig.guest(listener=scope) for scope in (1, 2, 3)}
    for scope, guest in guests.items():
        ask(guest, scope, "/before")
    rig.revoke(scope=2)
    guests[2].get("/after")
    assert guests[2].answer().body.decode().startswith(instance_of(2, "127.0.0.1", 1))
    assert [rig.misses.count((scope, "127.0.0.1")) for scope in (1, 2, 3)] == [1, 2, 1]
    rig.loop.remove_listener(3, drain=False)
    assert guests[3].ended() == "reset"
    until(lambda: (_core.EVENT_LISTENER_CLOSED, 3) in rig.events)
    ask(guests[1], 1, "/still")
    rig.add_listener(33, 3)
    ask(rig.guest(listener=33), 3, "/new")


def test_a_secret_and_an_upstream_are_for_all(make_loops: Callable[..., LoopsRig]) -> None:
    rig = make_loops(2)
    rig.add_listener(2, 2)
    guests = {scope: rig.guest(listener=scope) for scope in (1, 2)}
    for scope, guest in guests.items():
        ask(guest, scope, "/old")
    other = Upstream(echo)
    try:
        rig.loop.set_secret(b"another")
        rig.loop.set_upstream([(other.host, other.tcp_port)], "other:1")
        for scope, guest in guests.items():
            rig.revoke(scope=scope)
            guest.get("/new")
            assert guest.answer().status == 200
        for request in other.requests:
            instance = request.one("X-Instance-ID")
            assert request.one("X-Instance-ID-Signature") == _core._sign(b"another", instance.encode())
            assert request.one("Host") == "other:1"
        assert len(other.requests) == 2
        assert rig.upstream.targets() == ["/old", "/old"]
    finally:
        rig.stop()
        other.stop()


def test_a_full_loop_leaves_others_theirs(make_loops: Callable[..., LoopsRig]) -> None:
    """max_connections = 5 on two loops: three and two."""
    rig = make_loops(2, settings={"max_connections": 5}, on_miss=silence)
    rig.add_listener(2, 2)
    for _ in range(3):
        rig.guest(listener=1).get("/a")
    rig.wait_stat("parked", 3)
    refused = rig.guest(listener=1)
    refused.get("/b")
    assert refused.answer().status == 503
    for _ in range(2):
        rig.guest(listener=2).get("/c")
    rig.wait_stat("parked", 5)
    refused = rig.guest(listener=2)
    refused.get("/d")
    assert refused.answer().status == 503
    assert [loop.stats()["connections_open"] for loop in rig.loops] == [3, 2]


def test_a_thousand_scopes_come_and_go_while_others_are_asked(make_loops: Callable[..., LoopsRig]) -> None:
    """Nobody else notices: every request on the scopes that stay is answered, with its own data."""
    rig = make_loops(3)
    staying = (1, 2, 3)
    for scope in staying[1:]:
        rig.add_listener(scope, scope)
    assert [rig.loop.place(scope) for scope in staying] == [0, 1, 2]
    stop = threading.Event()
    answered = dict.fromkeys(staying, 0)
    failures: list[BaseException] = []

    def traffic(scope: int) -> None:
        try:
            kept = rig.guest(listener=scope)
            while not stop.is_set():
                ask(kept, scope, f"/kept/{answered[scope]}")
                closing = rig.guest(listener=scope)
                ask(closing, scope, f"/closing/{answered[scope]}")
                closing.close()
                answered[scope] += 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=traffic, args=(scope,)) for scope in staying]
    for thread in threads:
        thread.start()
    try:
        for first in range(100, 1100, 250):
            before = dict(answered)
            coming = range(first, first + 250)
            for scope in coming:
                rig.add_listener(scope, scope)
            # Some of them are asked, too, so that they go with identities and connections.
            for scope in coming[::25]:
                ask(rig.guest(listener=scope), scope, "/passing")
            assert sorted(sum(rig.loop.place(scope) == n for scope in coming) for n in range(3)) == [
                83,
                83,
                84,
            ]
            until(lambda before=before: failures or all(answered[scope] > before[scope] for scope in staying))
            for scope in coming:
                rig.remove_scope(scope)
        gone = set(range(100, 1100))
        until(lambda: gone == {event[1] for event in rig.events if event[0] == _core.EVENT_SCOPE_REMOVED})
    finally:
        stop.set()
        for thread in threads:
            thread.join(DEADLINE_S)
    assert failures == []
    assert not any(thread.is_alive() for thread in threads)
    # An answer is counted a moment after the guest has it.
    until(
        lambda: (
            [rig.loop.stats(scope)["answers_2xx"] for scope in staying] == [2 * n for n in answered.values()]
        )
    )
    stats = [rig.loop.stats(scope) for scope in staying]
    assert sum(one["refused"] + one["aborted"] for one in stats) == 0
    assert rig.stat("requests") == sum(one["requests"] for one in stats) + 40
    assert rig.loop._scope_counts == [1, 1, 1]
    assert set(rig.loop._scope_of_listener) == set(staying)


class Late:
    """A loop whose thread is slow to begin."""

    def __init__(self) -> None:
        self.loop = _core.Loop()

    def run(self) -> None:
        threading.Event().wait(0.05)
        self.loop.run()

    def __getattr__(self, name: str) -> object:
        return getattr(self.loop, name)


def test_more_scopes_than_a_mailbox_holds() -> None:
    """3,000 at once, as at a start: start() returns when all loops take messages."""
    with nothing_left_behind():
        ended = threading.Semaphore(0)
        loops = Loops([_core.Loop(), Late()])
        loops.start(ended.release)
        try:
            for scope in range(1, 3001):
                loops.add_scope(scope)
        finally:
            until(lambda each=loops._loops: all(loop.running for loop in each))
            loops.stop()
        for _ in range(2):
            assert ended.acquire(timeout=DEADLINE_S)
        removed = {event[1] for event in loops.events() if event[0] == _core.EVENT_SCOPE_REMOVED}
        assert removed == set(range(1, 3001))
        until(lambda: not any(thread.name.startswith("core") for thread in threading.enumerate()))
        del loops


def test_what_is_said_of_a_scope_that_is_gone(make_loops: Callable[..., LoopsRig]) -> None:
    """An answer that comes late, or a listener: as with one loop."""
    rig = make_loops(2)
    rig.add_listener(2, 2)
    rig.remove_scope(2)
    rig.loop.put_absent(2, packed("127.0.0.1"), 0, asked_at=0, ttl_ms=1, generation=0)
    rig.loop.put_refused(2, packed("127.0.0.1"), 0, generation=0)
    rig.loop.remove_listener(2, drain=False)
    rig.loop.remove_scope(2)
    rig.put("127.0.0.1", scope=2)
    ask(rig.guest(), 1, "/still")
    del rig.generation[2]  # its books are closed


def test_a_loop_that_cannot_begin() -> None:
    """It ends the others' waiting, and is told as an error."""
    with nothing_left_behind():
        ended = threading.Semaphore(0)
        used = _core.Loop()
        used.stop()
        used.run()
        loops = Loops([_core.Loop(), used])
        loops.start(ended.release)
        assert ended.acquire(timeout=DEADLINE_S)
        assert isinstance(loops.error, CoreError)
        assert not ended.acquire(timeout=0.1)
        loops.stop()
        assert ended.acquire(timeout=DEADLINE_S)
        del loops, used
        gc.collect()  # the error's traceback knows the loop


def test_no_thread_for_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with TasksMax: CoreError, and those that run already end."""
    with nothing_left_behind():
        start = threading.Thread.start
        started: list[threading.Thread] = []

        def start_some(thread: threading.Thread) -> None:
            if len(started) == 2:
                raise RuntimeError("can't start new thread")
            started.append(thread)
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", start_some)
        loops = Loops([_core.Loop() for _ in range(3)])
        with pytest.raises(CoreError, match="thread 3 of 3 for the core: can't start new thread"):
            loops.start(lambda: None)
        assert not any(thread.is_alive() for thread in started)
        del loops


def test_one_descriptor_tells_of_each(make_loops: Callable[..., LoopsRig]) -> None:
    rig = make_loops(2, on_miss=silence)
    assert len(set(rig.loop.filenos())) == 2
    assert not select.select(rig.loop.filenos(), [], [], 0)[0]
