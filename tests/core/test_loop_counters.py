"""Counters: of a known mix every one is exactly what was sent, for the loop and for each scope."""

import contextlib
import threading
import time
from typing import Any

import pytest

from fastmeta import _core

from .loop_kit import Guest, Rig, Wire, answer, mark, silence, until


def nova(wire: Wire) -> None:
    """Answers as its target says: /301 with that status, /held when the test is over, /nonsense, /cut, /silent."""
    while (request := wire.read_head()) is not None:
        if request.target == "/early":
            wire.send(answer(b"early"))
            return
        wire.read_body(request)
        what = request.target[1:]
        if what.isdigit():
            wire.send(answer(mark(request), f"{what} Reason"))
        elif what == "nonsense":
            wire.send(b"nonsense\r\n\r\n")
        elif what == "cut":
            wire.send(answer(b"12345", length=10))
            return
        elif what == "silent":
            return
        elif what == "slow":
            threading.Event().wait(0.05)
            wire.send(answer(mark(request)))
        elif what != "held":
            wire.send(answer(b"" if request.method == "HEAD" else mark(request)))


class Mix:
    """Sends requests, and keeps the books that the core's must equal."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.expected: dict[int, dict[str, int]] = {1: {}, 2: {}}
        self.upstream = {1: 0, 2: 0}

    def count(self, scope: int, **names: int) -> None:
        for name, number in names.items():
            self.expected[scope][name] = self.expected[scope].get(name, 0) + number

    def guest(self, scope: int, address: str = "127.0.0.1", **options: Any) -> Guest:
        self.count(scope, connections=1)
        return self.rig.guest(address, scope, **options)

    def passed(self, scope: int, guest: Guest, target: str, status: int = 200, method: str = "GET") -> None:
        """A request that Nova answers."""
        guest.get(target, method=method)
        found = guest.answer(method)
        assert found.status == status
        self.answered(scope, status, len(found.body))
        self.upstream[scope] += 1
        self.count(scope, identity_hits=1)

    def answered(self, scope: int, status: int, length: int) -> None:
        name = f"status_{status}" if status in _core.STATUSES else f"status_other_{status // 100}xx"
        self.count(scope, requests=1, bytes_down=length, **{name: 1, f"answers_{status // 100}xx": 1})

    def refused(self, scope: int, reason: str, status: int, guest: Guest, data: bytes) -> None:
        """A request that we answer."""
        guest.send(data)
        found = guest.answer()
        assert found.status == status
        self.answered(scope, status, len(found.body))
        self.count(scope, refused=1, **{f"refused_{reason}": 1})

    def check(self) -> None:
        for scope, expected in self.expected.items():
            found = self.rig.loop.stats(scope)
            del found["bytes_up"]
            assert {name: value for name, value in found.items() if value} == expected
            histograms = self.rig.loop.histograms(scope)
            assert sum(histograms["total"]) == sum(expected[f"answers_{kind}xx"] for kind in range(2, 6))
            assert sum(histograms["upstream"]) == self.upstream[scope]
            assert sum(histograms["parked"]) == expected.get("parked_total", 0)
        loop = self.rig.loop.stats()
        for name in self.expected[1] | self.expected[2]:
            assert loop[name] == sum(self.expected[scope].get(name, 0) for scope in (1, 2)), name


def head(target: str = "/", *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: a", *headers, "", ""]).encode()


def test_a_known_mix(make_rig):
    """Answers of Nova and refusals of ours, of two scopes: nothing is missed, nothing counted twice."""
    rig = make_rig(nova, settings={"linger_timeout_ms": 100}, on_miss=silence)
    rig.add_listener(2, 2)
    for scope in (1, 2):
        rig.put("127.0.0.1", scope=scope)
    rig.absent("127.0.0.4", ttl_ms=60_000)
    rig.wait_stat("identities", 3)
    mix = Mix(rig)
    mix.count(1, identities=2)
    mix.count(2, identities=1)
    # What Nova answers, on connections that are kept.
    kept = {scope: mix.guest(scope) for scope in (1, 2)}
    mix.count(1, connections_open=1, sources=1)
    mix.count(2, connections_open=1, sources=1)
    for status in (200, 200, 200, 204, 206, 301, 302, 304, 307, 400, 403, 404, 404, 410, 500, 503, 599):
        if status not in (204, 304):
            mix.passed(1, kept[1], f"/{status}", status)
    for status in (200, 299, 399, 418, 502):
        mix.passed(2, kept[2], f"/{status}", status)
    mix.passed(2, kept[2], "/head", method="HEAD")
    # What we refuse; most of it ends the connection.
    for reason, status, data in (
        ("malformed", 400, b"GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
        ("malformed", 400, b"GET /\r\n\r\n"),
        ("coding", 501, head("/", "Transfer-Encoding: gzip, chunked", method="POST")),
        ("method", 501, head(method="TRACE")),
        ("target_long", 414, head("/" + "a" * 5000)),
        ("head_large", 431, head("/", *["A: b"] * 100)),
        ("head_large", 431, head("/", "A: " + "b" * 9000)),
        ("body_large", 413, head("/", f"Content-Length: {10 << 30}", method="POST")),
    ):
        guest = mix.guest(1)
        mix.refused(1, reason, status, guest, data)
        guest.close()
        mix.count(1, ended_refused=1)
    guest = mix.guest(1)
    mix.refused(
        1, "body_malformed", 400, guest, head("/", "Transfer-Encoding: chunked", method="POST") + b"x\r\n"
    )
    guest.close()
    mix.count(1, ended_refused=1, identity_hits=1)
    # Nobody: the connection stays.
    nobody = mix.guest(1, "127.0.0.4")
    for _ in range(3):
        mix.refused(1, "absent", 404, nobody, head())
    nobody.close()
    mix.count(1, ended_guest=1)
    # Nova's failures.
    guest = mix.guest(2)
    mix.refused(2, "nonsense", 502, guest, head("/nonsense"))
    guest.send(head("/silent", "Content-Length: 0", method="POST"))
    found = guest.answer()
    assert found.status == 502
    mix.answered(2, 502, len(found.body))
    mix.count(2, refused=1, refused_silent=1, identity_hits=2)
    guest.close()
    mix.count(2, ended_guest=1)
    guest = mix.guest(2)
    guest.get("/cut")
    assert not guest.answer().whole
    mix.count(2, requests=1, aborted=1, ended_cut=1, identity_hits=1, bytes_down=5)
    # A guest that goes while Nova thinks, one that goes between requests, one that says that it is its last.
    guest = mix.guest(2)
    mix.passed(2, guest, "/200")
    guest.get("/held")
    until(lambda: "/held" in rig.upstream.targets())
    guest.reset()
    mix.count(2, requests=1, aborted=1, ended_aborted=1, identity_hits=1)
    mix.guest(2).close()
    mix.count(2, ended_guest=1)
    guest = mix.guest(2)
    guest.get("/", "Connection: close")
    mix.answered(2, 200, len(guest.answer().body))
    mix.upstream[2] += 1
    assert guest.ended() == "closed"
    mix.count(2, identity_hits=1, ended_answered=1)
    # One that waits for its identity, and is answered in the end; one that gives up; one that is told too late.
    guest = mix.guest(2, "127.0.0.5")
    guest.get()
    rig.wait_stat("parked", 1)
    rig.put("127.0.0.5", scope=2)
    mix.answered(2, 200, len(guest.answer().body))
    mix.upstream[2] += 1
    guest.close()
    mix.count(2, identity_misses=1, identity_hits=1, identities=1, parked_total=1, ended_guest=1)
    rig.wait_stat("connections_open", 2)
    mix.check()


@pytest.mark.parametrize(
    ("reason", "status", "settings", "script"),
    [
        ("head_slow", 408, {"head_timeout_ms": 50}, [b"GET /"]),
        ("body_slow", 408, {"body_timeout_ms": 50}, [head("/", "Content-Length: 3", method="POST"), b"a"]),
        ("parked_long", 503, {"park_timeout_ms": 50}, [head()]),
        ("no_answer", 504, {"upstream_timeout_ms": 50}, [head("/held")]),
        ("rate", 429, {"rate_versions": 1, "base_limit": 1}, [head("/held") + head("/held")]),
    ],
)
def test_refusals_in_time(make_rig, reason, status, settings, script):
    """Each under its own reason, once."""
    rig = make_rig(nova, settings=settings, on_miss=silence)
    if reason != "parked_long":
        rig.put("127.0.0.1")
    if reason == "rate":
        assert rig.ask().status == 200
    guest = rig.guest()
    for piece in script:
        guest.send(piece)
    assert guest.answer().status == status
    until(lambda: rig.stat(f"status_{status}") >= 1)  # counted when the answer is with the guest's kernel
    stats = rig.loop.stats(1)
    assert stats["refused"] == stats[f"refused_{reason}"] == stats[f"status_{status}"]
    guest.close()


@pytest.mark.parametrize(
    ("how", "settings"),
    [
        ("idle", {"keepalive_timeout_ms": 50}),
        ("slow_reader", {"write_timeout_ms": 50}),
        ("listener", {}),
        ("aborted", {}),
    ],
)
def test_ends(make_rig, how, settings):
    """Each connection ends once, in one way."""

    def much(wire: Wire) -> None:
        while wire.read() is not None:
            wire.send(answer(bytes(20 << 20)))

    rig = make_rig(much, settings=settings)
    guest = rig.guest(receive_buffer=4096)
    if how == "slow_reader":
        guest.get()
    elif how == "aborted":
        guest.send(b"GET")
        rig.wait_stat("connections_open", 1)
        guest.close()
    elif how == "listener":
        rig.wait_stat("connections", 1)
        rig.loop.remove_listener(1, drain=True)
    rig.wait_stat(f"ended_{how}", 1)
    assert sum(rig.loop.stats(1)[f"ended_{name}"] for name in _core.ENDS) == 1


def test_histograms(make_rig):
    """Log-scale buckets: a request of 50 ms is where 50 ms are, and waiting is told from Nova's part."""
    rig = make_rig(nova, on_miss=silence)
    rig.put("127.0.0.1")
    guest = rig.guest()
    start = time.monotonic()
    guest.get("/slow")
    assert guest.answer().status == 200
    most_us = (time.monotonic() - start) * 1e6
    waiting = rig.guest("127.0.0.2")
    waiting.get("/")
    rig.wait_stat("parked", 1)
    threading.Event().wait(0.05)
    rig.put("127.0.0.2")
    assert waiting.answer().status == 200
    rig.wait_stat("answers_2xx", 2)
    bounds = _core.HISTOGRAM_BOUNDS_US
    assert bounds == tuple(sorted(bounds))
    found = rig.loop.histograms(1)
    assert all(len(buckets) == len(bounds) + 1 for buckets in found.values())

    def times(name: str) -> list[tuple[float, float]]:
        """The (from, below) of each request, in order of time."""
        edges = (0, *bounds, float("inf"))
        return [(edges[at], edges[at + 1]) for at, n in enumerate(found[name]) for _ in range(n)]

    quick, slow = times("upstream")
    assert slow[1] > 50_000 and slow[0] <= most_us
    assert quick[1] <= slow[0]
    assert len(times("total")) == 2
    ((_, below),) = times("parked")
    assert below > 50_000
    assert rig.loop.histograms() == found


def test_reading_disturbs_nothing(make_rig):
    """Python may read as often as it likes while requests are served; what it reads only grows."""
    rig = make_rig(nova)
    done = threading.Event()
    failures: list[str] = []

    def read() -> None:
        last = 0
        while not done.is_set():
            now = rig.loop.stats(1)["requests"]
            if now < last:
                failures.append(f"{now} after {last}")
            last = now
            rig.loop.histograms(1)

    reader = threading.Thread(target=read)
    reader.start()
    guest = rig.guest()
    with contextlib.ExitStack() as at_end:
        at_end.callback(reader.join)
        at_end.callback(done.set)
        for _ in range(500):
            guest.get("/")
            assert guest.answer().status == 200
    assert not failures
    assert rig.loop.stats(1)["requests"] == 500
