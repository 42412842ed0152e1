"""Rule 3: connections to the metadata API are kept and shared, and what comes on an idle one is nobody's."""

from __future__ import annotations

import threading
import time

import pytest

from . import faults
from .agents import until
from .conftest import Served
from .faults import STRAY
from .upstream import Exchange, Script


@pytest.mark.parametrize("late", [STRAY, b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n" + STRAY])
def test_a_late_second_answer_ends_the_idle_connection(served: Served, late: bytes) -> None:
    """Rule 3: bytes that come on an idle connection close it; the next guest gets another one."""
    idle, sent = threading.Event(), threading.Event()
    closed = threading.Event()

    def late_answer(exchange: Exchange) -> bool:
        exchange.send(exchange.whole())
        assert idle.wait(20)
        exchange.send(late)
        sent.set()
        if exchange.gone(20):
            closed.set()
        return False

    served.upstream.close_connections()
    served.upstream.scripts["late"] = late_answer
    blue, green = served.guests["blue-5"], served.guests["green-5"]
    target = f"/late/{len(late)}"
    assert blue.ask(target).body == blue.mark(target)  # so the connection is idle now: nobody else asks
    idle.set()
    assert sent.wait(20)
    assert green.is_served(target.replace("late", "next"))
    assert closed.wait(20), "the connection is still kept"
    connections = [request.connection for request in served.upstream.received[-2:]]
    assert connections[0] != connections[1]


def test_a_kept_connection_serves_many_tenants(served: Served) -> None:
    """The tests above mean something: one connection to the metadata API is used for guests of all networks."""
    served.upstream.close_connections()
    until(lambda: served.upstream.open == 0)
    before = len(served.upstream.received)
    for _ in range(3):
        for guest in served.guests.values():
            assert guest.is_served()
    requests = served.upstream.received[before:]
    assert len({request.instance for request in requests}) == len(served.guests)
    assert len({request.connection for request in requests}) < len(requests) / 2


@pytest.mark.parametrize(
    ("script", "method", "kept"),
    [
        (faults.chunked, "GET", True),
        (faults.interim, "GET", True),
        (faults.bytewise, "GET", True),
        (faults.large, "GET", True),
        (faults.content_after_head_request, "HEAD", False),
        (faults.content_after_304, "GET", False),
        (faults.twice_in_one_segment, "GET", False),
        (faults.more_than_it_said, "GET", False),
        (faults.chunked_and_more, "GET", False),
        (faults.says_close, "GET", False),
        (faults.two_framings, "GET", False),
        (faults.nonsense, "GET", False),
    ],
)
def test_which_connections_are_used_again(served: Served, script: Script, method: str, kept: bool) -> None:
    """Only those on which the answer ended where it said, and not a byte followed."""
    upstream = served.upstream
    upstream.scripts["judged"] = script
    upstream.close_connections()
    until(lambda: upstream.open == 0)
    upstream.received.clear()
    assert served.guests["blue-5"].ask("/judged", method=method).status in (200, 304, 502)
    assert served.guests["green-5"].is_served()
    first, second = upstream.received
    assert (first.connection == second.connection) is kept


def test_a_post_goes_out_on_a_fresh_connection(served: Served) -> None:
    """A stale kept one would cost its answer: it is never sent twice."""
    served.upstream.received.clear()
    for method in ("GET", "POST", "POST", "GET"):
        assert served.guests["blue-5"].ask("/fresh", method=method).status == 200
    get, *posts, last = (request.connection for request in served.upstream.received)
    assert len({get, *posts}) == 3
    assert last in (get, *posts)


def test_pipelined_requests_get_their_answers_in_order(served: Served) -> None:
    """Rule 3: the first answer belongs to the first request, also when answers take different times."""

    def slower(exchange: Exchange) -> bool:
        time.sleep(0.02)
        exchange.send(exchange.whole())
        return True

    served.upstream.scripts["slower"] = slower
    targets = [f"/{'slower' if n % 3 == 0 else 'quick'}/{n}" for n in range(12)]
    for guest in (served.guests["green-5"], served.guests["red-5"]):
        with guest.connect() as wire:
            wire.send(b"".join(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % target.encode() for target in targets))
            for target in targets:
                assert wire.answer().body == guest.mark(target)
            assert wire.unread == b""
