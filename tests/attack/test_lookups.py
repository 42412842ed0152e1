"""Scopes whose lookups never answer, or all of Python: a loop of the core in a process of its own.

No source that fastmeta has today can hang for one scope only, so here the resolver's part is played; what holds the
bounds is the core.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from fastmeta import _core

from ..service.agents import SECRET, until
from .field import ADDRESS, ALLOWANCE, CONNECTION, MAX_PARKED_PER_ADDRESS, MAX_PARKED_PER_SCOPE, SMALL, get
from .programs_kit import Teller
from .siege import Siege

SILENT = 2
GOOD = (1, 3)
MAX_ADDRESSES = 65536
"""Of a scope, that are known or asked for."""
RING = 8192
"""Misses and problems that wait for Python, of which a scope may have a quarter."""


class LoopAttack(Siege):
    """An attack on a loop with three scopes; of the second one no miss is ever answered."""

    def __init__(self, name: str, *, bound: int, ttl_ms: int = 2000, **settings: int) -> None:
        super().__init__(name, bound=bound)
        self.ttl_ms = ttl_ms
        self.settings = settings

    def serve(self) -> int:
        plan = {
            "nova": self.nova.tcp_port,
            "secret": SECRET,
            "settings": self.settings,
            "scopes": 3,
            "silent": [SILENT],
            "ttl_ms": self.ttl_ms,
        }
        self.loop = self.stack.enter_context(Teller("loop.py", plan))
        self.tcp_ports: list[int] = until(lambda: self.loop.first.get("tcp_ports"), "the loop")
        until(lambda: "loop" in self.loop.line, "the loop's counters")
        return self.loop.process.pid

    def innocents(self) -> Sequence[tuple[dict[str, Any], str | None]]:
        return [(self.innocent(scope, "127.0.0.1"), None) for scope in GOOD]

    def innocent(self, scope: int, address: str) -> dict[str, Any]:
        """The plan of a guest that has this address."""
        return {
            "target": ["127.0.0.1", self.tcp_ports[scope - 1]],
            "source": address,
            "own": f"<instance-{scope}-{address}|project|{address}|",
            "pause": 0.03,
        }

    def namespace(self, number: int) -> str | None:
        return None

    def flood(self, scope: int = SILENT, **plan: Any) -> Teller:
        """Hostile guests of a scope."""
        return self.attacker(target=["127.0.0.1", self.tcp_ports[scope - 1]], send=get("/never"), **plan)

    def count(self, name: str, scope: int | str = SILENT) -> int:
        return int(self.loop.line[str(scope)][name])

    def stall(self, seconds: float) -> None:
        """Python does nothing for so long."""
        assert self.loop.process.stdin is not None
        self.loop.process.stdin.write(f"{seconds}\n")
        self.loop.process.stdin.flush()

    def judge_end(self) -> None:
        """All books are closed: nothing is open, and they add up."""
        gauges = (
            "connections_open",
            "parked",
            "gathered",
            "upstream_connections",
            "upstream_idle",
            "identities",
        )
        until(lambda: all(self.count(name, "loop") == 0 for name in gauges), f"gauges: {self.loop.line}")
        until(lambda: self.count("sources", "loop") == 0, "addresses are forgotten")
        for scope in ("loop", *GOOD, SILENT):
            counters = self.loop.line[str(scope)]
            ended = sum(value for name, value in counters.items() if name.startswith("ended_"))
            assert counters["connections"] == ended, counters
            answers = sum(counters[f"answers_{kind}xx"] for kind in range(2, 6))
            assert counters["requests"] == counters["aborted"] + answers, counters


def test_lookups_that_never_answer() -> None:
    """3,000 guests with 500 addresses in a scope without answers: it parks as many as a scope may, tells the others at
    once, and those who wait in vain in time; other scopes do not notice."""
    bound = 3000 * (CONNECTION + ADDRESS) + MAX_PARKED_PER_SCOPE * SMALL + ALLOWANCE
    with LoopAttack("lookups without answer, 500 addresses", bound=bound, park_timeout_ms=4000) as attack:
        flood = attack.flood(
            first_source="127.1.0.1", sources=500, connections=3000, rate=2000, again=True, reset=True
        )
        until(lambda: attack.count("parked") == MAX_PARKED_PER_SCOPE, "the bound")
        with attack.nothing_spins():
            attack.go_on(2)
        until(
            lambda: attack.count("refused_parked_long") > MAX_PARKED_PER_SCOPE // 2,
            "those who waited in vain",
        )
        assert attack.count("refused_parked_scope") > 0
        assert _core.PROBLEM_SCOPE_PARKED in attack.loop.line["problems"]
        assert set(flood.statuses()) == {"503"}
        assert flood.get("retry_after") == flood.statuses()["503"]
        for scope in GOOD:
            assert attack.count("refused", scope) == 0


def test_one_address_that_is_never_answered() -> None:
    """It has 64 requests that wait; the next ones are refused, and others of its scope still find a place to wait."""
    bound = 128 * (CONNECTION + SMALL) + ALLOWANCE
    with LoopAttack("lookups without answer, one address", bound=bound) as attack:
        flood = attack.flood(
            first_source="127.1.0.1", connections=120, again=True, rate=500, end_after="answered", reset=True
        )
        until(lambda: attack.count("refused_parked_address") > 1000, "refusals")
        assert attack.count("parked") == MAX_PARKED_PER_ADDRESS
        attack.go_on(1)
        other = attack.flood(first_source="127.1.0.2", connections=10, reset=True)
        until(lambda: attack.count("parked") == MAX_PARKED_PER_ADDRESS + 10, "another address waits")
        assert other.statuses() == {}
        assert set(flood.statuses()) == {"503"}


def test_python_stands_still() -> None:
    """For three seconds Python does nothing, and one scope asks from thousands of addresses: it fills its part of the
    ring and no more. Who is known is served, and a guest that comes new to another scope waits and is served."""
    bound = 5000 * CONNECTION + RING * ADDRESS + MAX_PARKED_PER_SCOPE * SMALL + ALLOWANCE
    with LoopAttack("Python stands still, 60,000 addresses", bound=bound, ttl_ms=10_000) as attack:
        flood = attack.flood(
            first_source="127.1.0.1", sources=60_000, connections=5000, rate=3000, again=True, reset=True
        )
        attack.stall(3)
        began = time.monotonic()
        time.sleep(1.5)
        newcomer = attack.stack.enter_context(Teller("innocent.py", attack.innocent(GOOD[0], "127.0.0.77")))
        attack.askers.append(newcomer)
        attack.until_asked(3)
        until(lambda: time.monotonic() - began > 4 and attack.count("refused") > 0, "refusals")
        assert attack.count("refused_misses") > 0
        assert _core.PROBLEM_SCOPE_MISSES in attack.loop.line["problems"]
        assert _core.PROBLEM_EVENTS_LOST not in attack.loop.line["problems"]
        attack.note(json.dumps({name: attack.count(name) for name in ("refused_misses", "identities")}))
        assert flood.get("started") > RING // 4


def test_more_addresses_than_a_scope_may_have() -> None:
    """A scope in which 80,000 addresses are instances and ask: 65,536 of them are known at a time, the next ones get
    503; the scope's known guests and other scopes do not notice."""
    bound = MAX_ADDRESSES * ADDRESS + 4000 * (CONNECTION + SMALL) + ALLOWANCE
    with LoopAttack("80,000 addresses of instances", bound=bound, ttl_ms=20_000) as attack:
        floods = [
            attack.flood(
                GOOD[0],
                first_source=first,
                sources=40_000,
                connections=500,
                again=True,
                end_after="sent",
                end_pause=0.01,
                reset=True,
            )
            for first in ("127.1.0.1", "127.2.0.1")
        ]
        until(lambda: attack.count("refused_misses", GOOD[0]) > 1000, "refusals")
        attack.note(f"{attack.count('identities', GOOD[0])} known")
        assert attack.count("identities", GOOD[0]) <= MAX_ADDRESSES
        attack.end_attackers()
        assert all(flood.get("started") > 1000 for flood in floods)
