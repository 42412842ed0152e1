"""Rule 3, tried with real servers: each asker gets its own answer, byte for byte; connections are used again where the
server allows it, and never where it does not."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence

import pytest

from fastmeta import _core
from tests.core.loop_kit import Rig, instance_of

from .application import content, mark
from .servers import PROXY_PASS, SERVERS, Machine

SCOPES = 3
ADDRESSES = 3
REQUESTS = 25

TARGETS = (
    "/small",
    "/small/further?with=query",
    "/large/1000",
    "/large/70000",
    "/large/300000",
    "/chunked/10",
    "/chunked/200000",
    "/empty",
    "/none",
    "/absent",
)
FRAMED = [target for target in TARGETS if not target.startswith("/chunked")]


class Talker:
    """A guest that asks, now on a kept connection, now on one for each request, and looks at every byte."""

    def __init__(
        self, rig: Rig, scope: int, address: str, seed: int, targets: Sequence[str], largest: int
    ) -> None:
        self.targets = targets
        self.largest = largest
        self.rig, self.scope, self.address = rig, scope, address
        self.chance = random.Random(seed)
        self.wrong: list[object] = []
        self.gets = self.posts = 0

    def talk(self) -> None:
        try:
            guest = None
            for number in range(REQUESTS):
                if guest is None:
                    guest = self.rig.guest(self.address, listener=self.scope)
                keep = self.chance.random() < 0.6
                self.ask(guest, number, keep)
                if not keep:
                    assert guest.ended() == "closed"
                    guest.close()
                    guest = None
        except BaseException as error:
            self.wrong.append(repr(error))

    def ask(self, guest, number: int, keep: bool) -> None:
        method = self.chance.choice(("GET", "GET", "GET", "HEAD", "POST"))
        more = [] if keep else ["Connection: close"]
        body = b""
        if method == "POST":
            self.posts += 1
            target = f"/echo/{number}"
            body = self.chance.randbytes(
                self.chance.choice([n for n in (0, 1, 1000, 60_000, 200_000) if n <= self.largest])
            )
            guest.post(body, target, *more)
        else:
            self.gets += 1
            target = self.chance.choice(self.targets)
            guest.get(target, *more, method=method)
        answer = guest.answer(method)
        line = mark(instance_of(self.scope, self.address), f"project-{self.scope}", self.address, target)
        status, data = content(line, target, body)
        if method == "HEAD":
            data = b""
        if (answer.status, bytes(answer.body), answer.whole) != (int(status[:3]), data, True):
            self.wrong.append((method, target, answer.status, bytes(answer.body[:200]), answer.whole))


def talk(rig: Rig, targets: Sequence[str] = TARGETS, *, largest: int = 200_000) -> list[Talker]:
    """Several tenants with the same addresses ask at once. largest: bytes of a body."""
    for scope in range(2, SCOPES + 1):
        rig.add_listener(scope, scope)
    talkers = [
        Talker(rig, scope, f"127.0.0.{number + 2}", scope * 100 + number, targets, largest)
        for scope in range(1, SCOPES + 1)
        for number in range(ADDRESSES)
    ]
    threads = [threading.Thread(target=talker.talk) for talker in talkers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert [wrong for talker in talkers for wrong in talker.wrong] == []
    return talkers


@pytest.mark.parametrize("name", SERVERS)
def test_everybody_gets_their_own_answer(before: Callable[..., Rig], name: str) -> None:
    """Three tenants, each with the same three addresses, all at once; no error, no stray, every byte."""
    rig = before(name)
    talkers = talk(rig, [target for target in TARGETS if SERVERS[name].answers(target)])
    gets = sum(talker.gets for talker in talkers)
    posts = sum(talker.posts for talker in talkers)
    stats = rig.loop.stats()
    assert gets + posts == SCOPES * ADDRESSES * REQUESTS == stats["requests"]
    assert stats["answers_5xx"] == stats["aborted"] == stats["refused"] == stats["upstream_failures"] == 0
    if SERVERS[name].keeps:
        # Each POST has a connection of its own, but what it leaves may be used again.
        assert stats["upstream_connects"] < posts + gets / 2
    elif SERVERS[name].says:
        assert stats["upstream_connects"] == gets + posts
        assert stats["stale_retries"] == 0
    else:
        # Some were kept until their end came, a moment after the answer; a request that took one went out again.
        assert stats["upstream_connects"] >= gets + posts


def test_no_content_that_is_framed(before: Callable[..., Rig]) -> None:
    """uwsgi's router with http-auto-chunked frames a 204, which RFC 9112 section 6.1 forbids, and sends a last chunk.
    That is refused, and its connection is used by nobody. (Nova has no 204.)"""
    rig = before("uwsgi http, kept")
    assert rig.ask("/none").status == 502
    for number in range(2, 6):
        address = f"127.0.0.{number}"
        answer = rig.ask("/small", address=address)
        assert bytes(answer.body) == mark(instance_of(1, address), "project-1", address, "/small")
    assert rig.stat("upstream_connects") == 2


def test_an_application_that_fails(before: Callable[..., Rig]) -> None:
    """uwsgi closes without an answer then. It may be repeated, but not for ever: 503; others do not notice."""
    rig = before("uwsgi", park_timeout_ms=500)
    guest = rig.guest("127.0.0.2")
    guest.get("/fail")
    for number in range(3, 8):
        assert rig.ask("/small", address=f"127.0.0.{number}").status == 200
    answer = guest.answer()
    assert (answer.status, len(answer.all("Retry-After"))) == (503, 1)
    guest.post(b"x", "/fail")
    assert guest.answer().status == 502
    assert rig.ask("/small").status == 200


def ask_twice(rig: Rig, between: Callable[[], None]) -> None:
    """GET, POST and HEAD of different guests, before and after."""
    for round_ in range(2):
        for number, method in enumerate(("GET", "POST", "HEAD", "GET"), 2):
            address = f"127.0.0.{number}"
            guest = rig.guest(address)
            target = f"/echo/{round_}"
            if method == "POST":
                guest.post(b"what was posted", target)
            else:
                guest.get(target, method=method)
            answer = guest.answer(method)
            line = mark(instance_of(1, address), "project-1", address, target)
            _, data = content(line, target, b"what was posted" if method == "POST" else b"")
            assert (answer.status, bytes(answer.body)) == (200, b"" if method == "HEAD" else data)
            guest.close()
        if round_ == 0:
            between()


def test_our_idle_time_is_below_the_servers(before: Callable[..., Rig], machine: Machine) -> None:
    """Ours ends first: no request ever meets a connection that the server has closed."""
    tcp_port = machine.nginx(PROXY_PASS.format(machine.uwsgi()), "keepalive_timeout 3s;")
    rig = before(tcp_port, upstream_idle_timeout_ms=300)
    ask_twice(rig, lambda: rig.wait_stat("upstream_connections", 0))
    assert rig.stat("stale_retries") == 0
    assert rig.stat("upstream_connects") < 8


@pytest.mark.parametrize("while_idle", [True, False], ids=["closed while idle", "closed on the next request"])
def test_the_servers_idle_time_is_below_ours(
    before: Callable[..., Rig], machine: Machine, while_idle: bool
) -> None:
    """It closes what we keep: no guest notices, whatever its method."""
    tcp_port = machine.nginx(PROXY_PASS.format(machine.uwsgi()), "keepalive_timeout 100ms;")
    rig = before(tcp_port, upstream_idle_timeout_ms=60_000)
    if while_idle:
        ask_twice(rig, lambda: rig.wait_stat("upstream_connections", 0))
        return
    end = time.monotonic() + 2
    while time.monotonic() < end:
        # About when it closes: some of these requests meet a connection that ends.
        ask_twice(rig, lambda: time.sleep(random.uniform(0.097, 0.103)))
    assert rig.stat("answers_5xx") == 0


def test_connections_are_bounded_and_used_last_in_first_out(before: Callable[..., Rig]) -> None:
    """Never more than max_upstream_connections; when few ask, the others end by age."""
    rig = before("nginx, uwsgi", max_upstream_connections=3, upstream_idle_timeout_ms=600)
    seen: list[int] = []
    guests = [rig.guest(f"127.0.0.{number}") for number in range(2, 14)]
    for guest in guests:
        guest.get("/slow/30")
    for guest in guests:
        seen.append(rig.stat("upstream_connections"))
        assert guest.answer().status == 200
    assert max(seen) <= 3
    rig.wait_stat("upstream_idle", rig.stat("upstream_connections"))
    assert rig.stat("upstream_idle") > 1
    connects = rig.stat("upstream_connects")
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        assert rig.ask("/small").status == 200
        time.sleep(0.05)
    assert rig.stat("upstream_connections") == 1  # in turns, all of them would have stayed
    assert rig.stat("upstream_connects") == connects


def test_a_server_whose_workers_are_bound_to_kept_connections(
    before: Callable[..., Rig], machine: Machine
) -> None:
    """uwsgi's http11-socket: with as many connections as it has workers nobody waits for a worker that a kept
    connection holds (4 s, uwsgi's socket-timeout), also those that need a connection of their own."""
    rig = before(machine.uwsgi(kind="http11-socket", workers=2), max_upstream_connections=2)
    # Of two places one is for bodies above 64 KiB: with those, the second guest at a time would rightly get 503.
    talk(rig, FRAMED, largest=60_000)
    assert rig.loop.stats()["answers_5xx"] == 0
    # Nobody waited for its timeout: the answer of each request came within a second.
    slow = sum(
        count
        for bound, count in zip(
            [*_core.HISTOGRAM_BOUNDS_US, 10**9], rig.loop.histograms()["upstream"], strict=True
        )
        if bound > 2_500_000
    )
    assert slow == 0
