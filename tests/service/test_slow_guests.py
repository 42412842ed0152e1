"""Rules 5 and 8: slow guests and guests that break off delay nobody, and nothing of them is left."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from .agents import until
from .conftest import Served
from .guests import Cut, Guest
from .upstream import Exchange

LARGE = 5_000_000


@pytest.fixture
def served(served: Served) -> Served:
    def large(exchange: Exchange) -> bool:
        exchange.send(exchange.whole(LARGE))
        return True

    served.upstream.scripts["large"] = large
    return served


@contextlib.contextmanager
def others_are_served(guests: list[Guest]) -> Iterator[Callable[[int], None]]:
    """Meanwhile these guests ask without a pause. Gives a function that waits for that many more of their answers; all
    of them must be right."""
    served = 0
    wrong: list[str] = []
    stop = threading.Event()

    def run(guest: Guest) -> None:
        nonlocal served
        while not stop.is_set() and not wrong:
            try:
                if guest.is_served():
                    served += 1
                else:
                    wrong.append(f"{guest.port.namespace}: not its data")
            except Exception as error:
                wrong.append(f"{guest.port.namespace}: {error!r}")

    def more(count: int) -> None:
        target = served + count
        until(lambda: served >= target or wrong, "requests of others")
        assert wrong == []

    threads = [threading.Thread(target=run, args=(guest,)) for guest in guests]
    for thread in threads:
        thread.start()
    try:
        yield more
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []


def others(served: Served) -> list[Guest]:
    return [served.guests["blue-6"], served.guests["green-5"]]


@pytest.mark.parametrize("name", ["blue-5", "red-5"])
def test_head_byte_by_byte(served: Served, name: str) -> None:
    """Its request is answered, and others' in between each of its bytes."""
    guest = served.guests[name]
    with others_are_served(others(served)) as more, guest.connect() as wire:
        for byte in b"GET /bytewise HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n":
            wire.send(bytes((byte,)))
            more(1)
        assert wire.answer().body == guest.mark("/bytewise")


@pytest.mark.parametrize("size", [3_000, 200_000])
def test_body_piece_by_piece(served: Served, size: int) -> None:
    """A body that is gathered, and one that is too large for that."""
    guest = served.guests["red-5"]
    target = f"/body/{size}"
    body = bytes(n % 251 for n in range(size))
    with others_are_served(others(served)) as more, guest.connect() as wire:
        wire.send(f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode())
        for start in range(0, size, size // 10):
            wire.send(body[start : start + size // 10])
            more(2)
        assert wire.answer().body == guest.mark(target)
    assert served.upstream.asked(target)[0].body == body


def test_guests_that_read_slowly(served: Served) -> None:
    """Rule 5: eight guests that do not read their 5 MB cost the agent bounded memory and others nothing; when they
    read on, everything is there, byte for byte."""
    guest = served.guests["blue-5"]
    content = guest.mark("/large") * (-(-LARGE // len(guest.mark("/large"))))
    with contextlib.ExitStack() as stack:
        more = stack.enter_context(others_are_served(others(served)))
        more(5)
        before = served.agent.memory()
        wires = [stack.enter_context(guest.connect(receive_buffer=8192)) for _ in range(8)]
        for wire in wires:
            wire.get("/large")
        served.upstream.until_asked("/large", 8)
        more(200)
        # A connection has a buffer of 64 KiB, no more.
        assert served.agent.memory() - before < 8 * LARGE / 4
        for wire in wires:
            wire.socket.recv(1000, 2)  # MSG_PEEK: it has begun
        assert wires[0].answer().body == content
        more(5)
        for wire in wires[1:3]:
            assert wire.answer().body == content


def broken_off(guest: Guest, number: int) -> None:
    """One connection that ends with an RST at some point of a request."""
    with contextlib.suppress(ConnectionError, Cut), guest.connect(receive_buffer=8192) as wire:
        what = number % 8
        if what == 1:
            wire.send(b"GET /half-a-he")
        elif what == 2:
            wire.get("/held")
        elif what == 3:
            wire.send(b"POST /part HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n\r\n" + b"x" * 70_000)
        elif what == 4:
            wire.get("/large")
            wire.socket.recv(10_000)
        elif what == 5:
            wire.get("/done")
            wire.answer()
        elif what == 6:
            wire.send(b"POST /part HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nx")
        elif what == 7:
            wire.send(b"GET /pipelined HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
        if number % 3 == 0:
            time.sleep(0.005)  # so that the agent is further with it, or not
        wire.reset()


def test_guests_that_break_off(served: Served) -> None:
    """In the middle of everything, 240 times; others are served, and no descriptor is left open."""
    agent, upstream = served.agent, served.upstream
    held = threading.Event()

    def answer_later(exchange: Exchange) -> bool:
        held.wait(30)
        exchange.send(exchange.whole())
        return True

    upstream.scripts["held"] = answer_later
    before = agent.quiet_descriptors(upstream)
    with others_are_served(others(served)) as more:
        breakers = [
            threading.Thread(target=lambda guest=guest, n=n: [broken_off(guest, n + m) for m in range(30)])
            for n in range(8)
            for guest in [served.guests[("blue-5", "red-5")[n % 2]]]
        ]
        for thread in breakers:
            thread.start()
        for thread in breakers:
            thread.join()
        more(5)
    held.set()
    until(lambda: agent.quiet_descriptors(upstream) <= before, "descriptors of the agent")
    assert served.guests["blue-5"].is_served()


def test_the_answer_to_a_guest_that_broke_off_is_nobodys(served: Served) -> None:
    """Rule 3: the connection to the metadata API is kept until its answer comes, for the API works on it; then it is
    closed, whatever came, and the next request goes on another one."""
    broke_off, gone = threading.Event(), threading.Event()
    early: list[bool] = []

    def late(exchange: Exchange) -> bool:
        broke_off.wait(20)
        early.append(exchange.gone(0.2))
        exchange.send(exchange.whole())
        if exchange.gone(20):
            gone.set()
        return False

    served.upstream.scripts["late"] = late
    with served.guests["blue-5"].connect() as wire:
        wire.get("/first")
        assert wire.answer().status == 200
        wire.get("/late")
        served.upstream.until_asked("/late")
        wire.reset()
    broke_off.set()
    assert gone.wait(20)
    assert early == [False]
    assert served.guests["blue-5"].is_served()
