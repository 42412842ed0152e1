"""Second tries, counted by the core itself: a loop in this process, and two servers that answer when they are told."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from fastmeta import _core

from .loop_kit import Guest, Rig, Upstream, Wire, answer, mark, nothing_left_behind, until

AFTER_MS = 300
"""second_try_after_ms here."""


class Held(Upstream):
    """Answers nothing until it is let go."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        super().__init__(self.serve_held)

    def serve_held(self, wire: Wire) -> None:
        while (request := wire.read()) is not None:
            assert self.gate.wait(20)
            wire.send(answer(b"" if request.method == "HEAD" else mark(request)))


class Pair:
    """A loop before two servers."""

    def __init__(self, *, ttl_ms: int = 60_000, **settings: int) -> None:
        self.one, self.other = Held(), Held()
        self.rig = Rig({"second_try_after_ms": AFTER_MS, **settings}, self.one, ttl_ms=ttl_ms)
        self.rig.start()
        addresses = [(server.host, server.tcp_port) for server in (self.one, self.other)]
        self.rig.loop.set_upstream(addresses, "nova")

    def end(self) -> None:
        self.one.gate.set()
        self.other.gate.set()
        self.rig.end()
        self.other.stop()

    @property
    def requests(self) -> int:
        """That both have got."""
        return len(self.one.targets()) + len(self.other.targets())

    @property
    def second_tries(self) -> int:
        return self.rig.stat("second_tries")

    def ask(self, count: int, method: str = "GET") -> list[Guest]:
        """So many guests ask; returns when all of it is at the servers."""
        wanted = self.requests + count
        guests = [self.rig.guest(f"127.0.0.{number}") for number in range(2, 2 + count)]
        for number, guest in enumerate(guests):
            if method == "POST":
                guest.post(b"body", f"/{method}/{number}")
            else:
                guest.get(f"/{method}/{number}", method=method)
        until(lambda: self.requests >= wanted, "requests at the servers")
        return guests

    def must_be_served(self, guests: list[Guest], method: str = "GET") -> None:
        """Each with its own answer, and nothing behind it."""
        for number, guest in enumerate(guests):
            found = guest.answer(method)
            assert (found.status, found.whole) == (200, True)
            own = f"instance-1-127.0.0.{number + 2}-0 {method} /{method}/{number}\n".encode()
            assert found.body == (b"" if method == "HEAD" else own)
            assert guest.is_open()


@pytest.fixture
def make_pair() -> Iterator[Callable[..., Pair]]:
    with nothing_left_behind(), ExitStack() as stack:

        def make(**settings: int) -> Pair:
            pair = Pair(**settings)
            stack.callback(pair.end)
            return pair

        yield make


def waits(times: float = 3) -> None:
    """So long that second tries would have been made."""
    time.sleep(times * AFTER_MS / 1000)


@pytest.mark.parametrize(("count", "most"), [(40, 4), (3, 1)])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_tenth_at_a_time_and_one_at_least(
    make_pair: Callable[..., Pair], method: str, count: int, most: int
) -> None:
    """Nobody answers: one in ten requests is sent a second time, and no more however long it takes."""
    pair = make_pair()
    guests = pair.ask(count, method)
    until(lambda: pair.second_tries == most, "second tries")
    waits()
    assert (pair.requests, pair.second_tries) == (count + most, most)
    twice = set(pair.one.targets()) & set(pair.other.targets())
    assert len(twice) == most
    # From here on some of those that are left may be sent a second time, too.
    pair.one.gate.set()
    pair.other.gate.set()
    pair.must_be_served(guests, method)


def test_the_other_one_answers(make_pair: Callable[..., Pair]) -> None:
    """Whoever is at the one that does not answer is served by the other; its connection to the first one is closed,
    and who comes then is not sent there."""
    pair = make_pair()
    guests = pair.ask(20)
    at_one = len(pair.one.targets())
    assert at_one == 10
    pair.other.gate.set()
    pair.must_be_served(guests)
    assert (pair.second_tries, pair.rig.stat("second_tries_won")) == (10, 10)
    until(lambda: _core.PROBLEM_UPSTREAM_SLOW in pair.rig.problems())
    pair.must_be_served(pair.ask(20))
    assert len(pair.one.targets()) == at_one
    # What it still says goes nowhere.
    pair.one.gate.set()
    until(lambda: not pair.one.wires, "end of the connections to the first one")
    pair.must_be_served(pair.ask(20))


def test_not_what_may_not_be_repeated(make_pair: Callable[..., Pair]) -> None:
    """A POST waits for the server that has it."""
    pair = make_pair()
    guests = pair.ask(10, "POST")
    waits()
    assert (pair.requests, pair.second_tries) == (10, 0)
    pair.one.gate.set()
    pair.other.gate.set()
    pair.must_be_served(guests, "POST")


def test_not_for_a_guest_that_has_gone(make_pair: Callable[..., Pair]) -> None:
    """One server that works for nobody is enough."""
    pair = make_pair()
    (guest,) = pair.ask(1)
    guest.socket.shutdown(socket.SHUT_WR)
    waits()
    assert (pair.requests, pair.second_tries) == (1, 0)


def test_a_second_try_is_signed_for_its_own_server(make_pair: Callable[..., Pair]) -> None:
    """While the secret is being changed: the first server has the next one and freezes, the second has the present
    one. That the first refused it says nothing of the second."""
    pair = make_pair()
    pair.rig.loop.set_secret(b"secret", b"next")
    signatures: dict[str, list[str]] = {"one": [], "other": []}

    def serve(name: str, secret: bytes) -> Callable[[Wire], None]:
        def talk(wire: Wire) -> None:
            while (request := wire.read()) is not None:
                instance, signature = request.one("X-Instance-ID"), request.one("X-Instance-ID-Signature")
                signatures[name].append(signature)
                if signature != _core._sign(secret, instance.encode()):
                    wire.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                elif name == "other" or request.target != "/frozen":
                    wire.send(answer(mark(request)))
                else:
                    assert pair.one.gate.wait(20)
                    return

        return talk

    pair.one.script, pair.other.script = serve("one", b"next"), serve("other", b"secret")
    guests = [pair.rig.guest() for _ in range(6)]
    for guest in guests:
        guest.get("/frozen")
    assert [guest.answer().status for guest in guests] == [200] * 6
    assert len(set(signatures["one"])) == 2
    assert len(set(signatures["other"])) == 1


def test_never(make_pair: Callable[..., Pair]) -> None:
    """second_try_after_ms 0."""
    pair = make_pair(second_try_after_ms=0)
    guests = pair.ask(10)
    waits()
    assert (pair.requests, pair.second_tries) == (10, 0)
    pair.one.gate.set()
    pair.other.gate.set()
    pair.must_be_served(guests)


def test_of_a_request_whose_identity_has_ended_meanwhile(make_pair: Callable[..., Pair]) -> None:
    """It is asked for again: no other request of this guest may come that would do it."""
    pair = make_pair(ttl_ms=AFTER_MS * 2 // 3)
    guests = pair.ask(1)
    (pair.other if pair.one.targets() else pair.one).gate.set()
    pair.must_be_served(guests)
    assert len(pair.rig.misses) > 1
    assert (pair.second_tries, pair.rig.stat("second_tries_won")) == (1, 1)


def test_the_other_one_comes_back_when_all_requests_are_at_the_first(make_pair: Callable[..., Pair]) -> None:
    """That it is back must be found out without a new request: none may come."""
    pair = make_pair()
    pair.other.close()
    guests = pair.ask(10)
    assert len(pair.one.targets()) == 10
    waits()
    assert pair.second_tries == 0
    pair.other.gate.set()
    pair.other.open()
    pair.must_be_served(guests)
    assert pair.rig.stat("second_tries_won") == 10


def test_a_suspect_other_one_is_tried(make_pair: Callable[..., Pair]) -> None:
    """When all requests are at the first one, nobody else would find out that the other is well again."""
    pair = make_pair()

    def closes(wire: Wire) -> None:
        wire.read()

    pair.other.script = closes
    guests = pair.ask(2)
    until(lambda: len(pair.one.targets()) == 2, "the request that was closed comes to the first one")
    assert len(pair.other.targets()) == 1
    pair.other.script = pair.other.serve_held
    pair.other.gate.set()
    pair.must_be_served(guests)
    assert pair.rig.stat("second_tries_won") == 2
