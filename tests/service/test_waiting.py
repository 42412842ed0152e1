"""Rule 6: guests wait rather than fail. And the end of the agent, which no guest should notice either."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from .agents import until
from .conftest import Setting
from .guests import Answer, Guest
from .upstream import Exchange

LONG = 25
"""A park_timeout that a loaded machine does not reach by mistake."""


@contextmanager
def asking(guests: Iterable[Guest], target: str, **options: object) -> Iterable[list[Future[Answer]]]:
    """All of them ask at once."""
    guests = list(guests)
    with ThreadPoolExecutor(len(guests)) as pool:
        yield [pool.submit(guest.ask, target, **options) for guest in guests]


def must_be_served(asked: list[Future[Answer]], guests: Iterable[Guest], target: str) -> None:
    for answer, guest in zip(asked, guests, strict=True):
        assert (answer.result().status, answer.result().body) == (200, guest.mark(target))


@pytest.mark.parametrize("options", [{}, {"method": "POST", "body": b"x"}])
def test_the_metadata_api_comes_late(setting: Setting, options: dict[str, object]) -> None:
    """Nobody listens there yet: all wait, and are served when somebody does (a POST too: nothing was sent)."""
    upstream = setting.upstream(listening=False)
    agent = setting.agent(upstream, park_timeout=LONG)
    guests = setting.cloud.guests.values()
    with asking(guests, "/late", **options) as asked:
        agent.until_logged("is away, guests wait")
        assert not any(answer.done() for answer in asked)
        upstream.listen()
        must_be_served(asked, guests, "/late")
    agent.until_logged("answers again")
    assert len(upstream.asked("/late")) == len(guests)


def test_the_metadata_api_goes_and_comes(setting: Setting) -> None:
    """It refuses each request by closing for a while: those that may be repeated are."""
    upstream = setting.upstream()
    open_again = threading.Event()

    def closes(exchange: Exchange) -> bool:
        if not open_again.is_set():
            return False
        exchange.send(exchange.whole())
        return True

    upstream.scripts["closes"] = closes
    setting.agent(upstream, park_timeout=LONG)
    guests = setting.cloud.guests.values()
    with asking(guests, "/closes") as asked:
        upstream.until_asked("/closes", 2 * len(guests))
        assert not any(answer.done() for answer in asked)
        open_again.set()
        must_be_served(asked, guests, "/closes")


@pytest.mark.parametrize("missing", ["metadata API", "ports file"])
def test_the_wait_is_bounded(setting: Setting, missing: str) -> None:
    """park_timeout: then 503 with Retry-After, and the connection is still good."""
    upstream = setting.upstream(listening=missing != "metadata API")
    ports = None if missing == "ports file" else setting.cloud.ports()
    agent = setting.agent(upstream, park_timeout=0.4, ports=ports)
    with setting.cloud.guests["red-5"].connect() as wire:
        for _ in range(2):
            wire.get("/in-vain")
            answer = wire.answer()
            assert answer.status == 503
            assert 1 <= int(answer.values("retry-after")[0]) <= 3
    agent.until_logged("is away, guests wait" if missing == "metadata API" else "is not there yet")
    assert upstream.received == []


def test_too_many_that_wait(setting: Setting) -> None:
    """max_parked: one more gets 503 with Retry-After at once."""
    upstream = setting.upstream(listening=False)
    agent = setting.agent(upstream, park_timeout=LONG, max_parked=2)
    with asking([setting.cloud.guests[name] for name in ("blue-5", "green-5", "red-5")], "/full") as asked:
        refused = until(lambda: [answer for answer in asked if answer.done()])[0].result()
        assert refused.status == 503
        assert 1 <= int(refused.values("retry-after")[0]) <= 3
        agent.until_logged("max_parked is reached")
        assert not all(answer.done() for answer in asked)
        upstream.listen()
        for answer in asked:
            assert answer.result().status in (200, 503)


def test_the_ports_file_comes_late(setting: Setting) -> None:
    """Nobody can say who anybody is: all wait, and are served as soon as the file is there."""
    upstream = setting.upstream()
    agent = setting.agent(upstream, park_timeout=LONG, ports=None)
    guests = setting.cloud.guests.values()
    with asking(guests, "/late-file") as asked:
        agent.until_logged("is not there yet")
        agent.until_logged(r"lookup: the source is away: ports file \S+ is not there yet")
        assert not any(answer.done() for answer in asked)
        assert upstream.received == []
        agent.write_ports(setting.cloud.ports())
        must_be_served(asked, guests, "/late-file")


def test_an_answer_that_does_not_come(setting: Setting) -> None:
    """upstream_timeout: 504, and the log says whose fault it is."""
    upstream = setting.upstream()
    upstream.scripts["never"] = lambda exchange: not exchange.gone(20)
    agent = setting.agent(upstream, upstream_timeout=1)
    assert setting.cloud.guests["blue-5"].ask("/never").status == 504
    agent.until_logged("gave no answer in upstream_timeout")
    assert len(upstream.asked("/never")) == 1


def test_a_restart_that_nobody_notices(setting: Setting) -> None:
    """SIGTERM with requests in flight, one still on its way in and one whose answer has begun; a successor starts
    meanwhile. All get their answers, and the exit status is 0."""
    upstream = setting.upstream()
    release = threading.Event()

    def held(exchange: Exchange) -> bool:
        whole = exchange.whole(100_000)
        if exchange.request.target == "/held/begun":
            exchange.send(whole[:1000])
        release.wait(30)
        exchange.send(whole[1000:] if exchange.request.target == "/held/begun" else whole)
        return True

    upstream.scripts["held"] = held
    agent = setting.agent(upstream, drain_timeout=30)
    guests = setting.cloud.guests
    with asking(guests.values(), "/held") as asked, guests["blue-6"].connect() as begun:
        begun.get("/held/begun")
        assert begun.socket.recv(1, 2)  # MSG_PEEK
        upstream.until_asked("/held", len(guests) + 1)
        before = agent.descriptors()
        agent.terminate()
        until(lambda: agent.descriptors() <= before - len(setting.cloud.listen), "end of the listeners")
        successor = setting.agent(upstream, beside=True)
        until(lambda: all(guest.is_served("/quick") for guest in guests.values()))
        assert not any(answer.done() for answer in asked)
        release.set()
        for answer, guest in zip(asked, guests.values(), strict=True):
            assert answer.result().status == 200
            assert set(answer.result().body.splitlines(keepends=True)) == {guest.mark("/held")}
        lines = begun.answer().body.splitlines(keepends=True)
        assert set(lines) == {guests["blue-6"].mark("/held/begun")}
    assert agent.exit_status() == 0
    agent.until_logged("fastmeta agent ended")
    assert all(guest.is_served("/after") for guest in guests.values())
    successor.terminate()
    assert successor.exit_status() == 0


def test_guests_that_wait_when_the_agent_ends(setting: Setting) -> None:
    """Parked requests are in progress too: the metadata API comes back while the agent is ending."""
    upstream = setting.upstream(listening=False)
    agent = setting.agent(upstream, park_timeout=LONG, drain_timeout=30)
    guests = setting.cloud.guests.values()
    before = agent.quiet_descriptors(upstream)
    with asking(guests, "/parked") as asked:
        agent.until_logged("is away, guests wait")
        until(lambda: agent.descriptors() >= before + len(guests), "all are accepted")
        agent.terminate()
        agent.until_logged("requests in progress have 30 seconds")
        upstream.listen()
        must_be_served(asked, guests, "/parked")
    assert agent.exit_status() == 0


def test_the_end_is_bounded(setting: Setting) -> None:
    """drain_timeout: what has not ended then is cut off."""
    upstream = setting.upstream()
    upstream.scripts["never"] = lambda exchange: not exchange.gone(60)
    agent = setting.agent(upstream, drain_timeout=0.3)
    with setting.cloud.guests["blue-5"].connect() as wire:
        wire.get("/never")
        upstream.until_asked("/never")
        agent.terminate()
        assert agent.exit_status() == 0
        assert wire.end() == b""
