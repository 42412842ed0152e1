"""System calls of the loop's thread for each request, with one connection, where they are exact: by name, so that one
more is seen as what it is.

The loop's clock ticks now and then (core/timer.pxi): one timerfd_settime, and mostly one epoll_wait, that no request
pays for. Nothing else may vary."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import peers, promises, syscalls
from bench.peers import Setting
from bench.scenarios import SCENARIOS

REQUESTS = 500
# A slot of the timer wheel is 16 ms: it cannot tick more often than that, and a traced run takes less than 2 s.
MOST_TICKS = 125

WANTED = {
    # Kept alive: 6.0.
    "keep-1": {"recvfrom": 2, "sendto": 2, "epoll_wait": 2},
    # Closed by us: 8.0, where 9.0 is promised.
    "close-1": {"accept4": 1, "recvfrom": 2, "sendto": 2, "epoll_wait": 2, "close": 1},
    # Closed by the guest: its connection is watched after the answer, and its end is read.
    "fresh-1": {"accept4": 1, "recvfrom": 3, "sendto": 2, "epoll_wait": 2, "epoll_ctl": 2, "close": 1},
}


@pytest.fixture(scope="module")
def agent(setting: Setting) -> Iterator[peers.Running]:
    with peers.running("fastmeta", setting) as one:
        yield one


@pytest.mark.parametrize("name", WANTED)
def test_the_loop_makes_these_calls_for_each_request_and_no_others(
    setting: Setting, agent: peers.Running, tmp_path: Path, name: str
):
    count = syscalls.count(
        setting.programs["load"], setting.core, agent, SCENARIOS[name], REQUESTS, tmp_path / "trace"
    )
    found = {call: round(each * REQUESTS) for call, each in count.busiest_by_name.items()}
    ticks = found.pop("timerfd_settime", 0)
    wanted = {call: each * REQUESTS for call, each in WANTED[name].items()}
    said = f"in {REQUESTS} requests: {found}, ticks: {ticks}, wanted: {wanted}"
    assert ticks <= MOST_TICKS, said
    waits = found.pop("epoll_wait", 0) - wanted.pop("epoll_wait")
    if name == "fresh-1":
        # The guest's close and its next connection are two events, which one wait reports, or two.
        assert 0 <= waits <= MOST_TICKS, said
    else:
        assert 0 <= waits <= ticks, said
    assert found == wanted, said


def test_these_are_the_numbers_that_the_bench_promises():
    for name, most in promises.CALLS_OF_ONE.items():
        assert sum(WANTED[name].values()) <= most
