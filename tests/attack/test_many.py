"""Many connections: idle ones, silent ones, resets, requests without a pause, addresses without number."""

from __future__ import annotations

import pytest

from ..service.agents import until
from .field import (
    ADDRESS,
    ALLOWANCE,
    CONNECTION,
    KNOWN,
    MAX_CONNECTIONS_PER_ADDRESS,
    MAX_CONNECTIONS_PER_SCOPE,
    MAX_PARKED_PER_SCOPE,
    NETWORKS,
    SMALL,
    Attack,
    Ground,
    address_of,
    get,
)

MAX_ADDRESSES = 65536
"""Of a scope, that are known, known to be nobody's, or asked for."""


def test_15000_idle_connections(ground: Ground) -> None:
    """15,000 kept-alive connections from four networks, processes and 512 addresses, after a request each: all of them
    stay, cost only their record, and no CPU."""
    # Until all of them have been answered some hundreds wait, each with its request.
    bound = 15_000 * CONNECTION + 1000 * SMALL + NETWORKS * KNOWN * ADDRESS + ALLOWANCE
    with Attack(ground, "15,000 idle connections", bound=bound, keepalive_timeout=100) as attack:
        idle = [
            attack.attacker(
                number,
                first_source=address_of(0),
                sources=KNOWN,
                connections=15_000 // NETWORKS,
                rate=1500,
                send=get("/idle"),
            )
            for number in range(1, NETWORKS + 1)
        ]
        until(
            lambda: sum(program.statuses().get("200", 0) for program in idle) == 15_000, "answers", seconds=60
        )
        assert sum(program.line["open"] for program in idle) == 15_000
        attack.until_connected(15_000)
        attack.go_on(1)
        with attack.nothing_spins():
            attack.go_on(3)
        assert sum(program.line["open"] for program in idle) == 15_000


@pytest.mark.parametrize("most", [None, 1000], ids=["of one scope", "of all"])
def test_silent_connections(ground: Ground, most: int | None) -> None:
    """A flood of connections that say nothing, from 100 addresses of each of four networks, beyond what a scope may
    have, or the service."""
    bound = (most or NETWORKS * MAX_CONNECTIONS_PER_SCOPE) * CONNECTION + ALLOWANCE
    options = {} if most is None else {"max_connections": most}
    name = "silent connections" + (f", {most} allowed" if most else "")
    with Attack(ground, name, bound=bound, **options) as attack:
        silent = [
            attack.attacker(
                number, first_source=address_of(0), sources=100, connections=4500, again=True, rate=1200
            )
            for number in range(1, NETWORKS + 1)
        ]
        until(lambda: sum(program.get("connected") for program in silent) > 12_000, "silent connections")
        attack.go_on(3)
        all_of_them = NETWORKS * MAX_CONNECTIONS_PER_SCOPE
        attack.connections_were(most or all_of_them, least=most or all_of_them // 2)
        until(lambda: sum(program.get("closed") for program in silent) > 1000, "connections that made room")


def test_resets_everywhere(ground: Ground) -> None:
    """Connections are reset in every state: at once, in the middle of a head, of a body, while Nova works, and in the
    middle of an answer."""
    kinds: list[dict[str, object]] = [
        {"end_after": "connected"},
        {"send": "GET / HT", "end_after": "sent", "end_pause": 0.01},
        {"send": get("/slow/0.05"), "end_after": "sent", "end_pause": 0.02},
        {"send": get("/large/3000000"), "end_after": "answered", "receive_buffer": 4096},
        {"send": get("/now") * 10, "end_after": "answered"},
        {
            "send": "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc",
            "end_after": "sent",
            "end_pause": 0.05,
        },
    ]
    bound = len(kinds) * 100 * (CONNECTION + 4 * SMALL) + ALLOWANCE
    with Attack(ground, "resets everywhere", bound=bound) as attack:
        programs = [
            attack.attacker(
                1 + index % NETWORKS,
                first_source=address_of(10 * index),
                sources=10,
                connections=100,
                again=True,
                rate=150,
                reset=True,
                **kind,
            )
            for index, kind in enumerate(kinds)
        ]
        attack.go_on(6)
        for program in programs:
            assert program.get("ended") + program.get("cut") > 100, program.line


@pytest.mark.parametrize("known", [True, False], ids=["known", "nobody"])
def test_pipelined_requests(ground: Ground, known: bool) -> None:
    """40 connections send request after request without waiting for answers, half of them without reading any; from an
    instance's address, and from one that is nobody's, which we answer ourselves."""
    bound = 40 * (CONNECTION + 3 * SMALL) + ALLOWANCE
    name = "pipelined requests" + ("" if known else " of nobody")
    with Attack(ground, name, bound=bound, write_timeout=2) as attack:
        floods = [
            attack.attacker(
                first_source=address_of(0 if known else KNOWN),
                connections=20,
                again=True,
                then=get("/flood"),
                read=read,
                reset=True,
            )
            for read in (True, False)
        ]
        attack.go_on(5)
        statuses = floods[0].statuses()
        assert set(statuses) <= {"200" if known else "404", "503"}
        assert statuses["200" if known else "404"] > 1000


def test_addresses_without_number(ground: Ground) -> None:
    """One request each from as many addresses of a network as can be in some seconds, of 65,536: to none of them
    belongs anything."""
    bound = MAX_ADDRESSES * ADDRESS + MAX_PARKED_PER_SCOPE * (CONNECTION + SMALL) + ALLOWANCE
    with Attack(ground, "65,536 addresses", bound=bound, negative_ttl=60) as attack:
        floods = [
            attack.attacker(
                first_source=address_of(first),
                sources=MAX_ADDRESSES // 2,
                connections=1000,
                again=True,
                send=get("/spoofed"),
                end_after="answered",
            )
            for first in (0, MAX_ADDRESSES // 2)
        ]
        attack.go_on(6)
        attack.note(f"{sum(flood.get('started') for flood in floods)} addresses")
        for flood in floods:
            assert set(flood.statuses()) <= {"200", "404", "503"}
            assert flood.get("started") > 2 * MAX_CONNECTIONS_PER_ADDRESS


def test_requests_that_are_given_up(ground: Ground) -> None:
    """Requests for which Nova works 10 ms are sent and given up at once, 1,000 in a second: what Nova has begun keeps
    its place there until it is done, so others still get theirs."""
    bound = 1000 * (CONNECTION + SMALL) + ALLOWANCE
    with Attack(ground, "requests that are given up", bound=bound) as attack:
        hasty = attack.attacker(
            first_source=address_of(0),
            sources=KNOWN,
            connections=500,
            again=True,
            rate=1000,
            reset=True,
            send=get("/busy/0.01"),
            end_after="sent",
            end_pause=0.03,
        )
        attack.go_on(8)
        attack.note(f"{hasty.get('started')} given up, Nova had {attack.nova.seen()['requests']['busy']}")
