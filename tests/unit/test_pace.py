"""How soon a scope is asked about again: few questions in a storm, however quick the source is; else no wait."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence
from typing import Any

import pytest

from fastmeta.lookup.pace import BURST, PAUSE, STEADY, Pace
from fastmeta.models import Answer, Question, Scope

from .test_resolver import BLUE, GREEN, Bench, Source, answer, port
from .test_resolver_events import now, run

FIRST = ipaddress.ip_address("10.0.16.1")


def known(address: str) -> dict[str, Any]:
    """The port that has it."""
    number = int(ipaddress.ip_address(address)) & 0xFFFF
    return port(number, address, mac_address=f"fa:16:3e:00:{number >> 8:02x}:{number & 0xFF:02x}")


class Quick(Source):
    """Knows everybody in network blue, and answers after so many seconds, whatever was asked."""

    def __init__(self, seconds: float) -> None:
        super().__init__(answer())
        self.seconds = seconds
        self.asked_at: list[float] = []

    async def ports(self, scope: Scope, questions: Sequence[Question], heard: Any = None) -> Answer:
        self.asked_at.append(now())
        await super().ports(scope, questions)
        await asyncio.sleep(self.seconds)
        return answer(*(known(str(one.address)) for one in questions))

    @property
    def sizes(self) -> list[int]:
        return [len(addresses) for _, addresses in self.asked]


async def come(bench: Bench, count: int, seconds: float = 0.0) -> None:
    """So many guests in so many seconds, evenly."""
    for number in range(count):
        bench.miss(str(FIRST + number))
        if seconds:
            await asyncio.sleep(seconds / count)


@pytest.mark.parametrize(
    ("within", "seconds", "most"),
    [
        (0.0, 0.002, 1),
        (0.1, 0.002, 3),
        (0.1, 0.02, 3),
        (0.4, 0.002, 8),
        (0.4, 0.005, 5),
        (0.4, 0.02, 4),
        (1.0, 0.005, 10),
        (1.0, 0.02, 8),
        (1.0, 0.2, 5),
    ],
)
def test_a_storm_costs_few_questions(within: float, seconds: float, most: int) -> None:
    """A thousand guests come so quickly, and the source answers within so many seconds; nobody waits long for that."""
    source = Quick(seconds)

    async def test(bench: Bench) -> None:
        began = now()
        await come(bench, 1000, within)
        await bench.answered(1000)
        assert now() - began < within + PAUSE + 2 * seconds + 0.01

    run(source, test)
    assert sum(source.sizes) == 1000
    assert len(source.sizes) <= most, source.sizes


@pytest.mark.parametrize("seconds", [0.001, 0.008, 0.02])
def test_guests_who_come_steadily_never_wait(seconds: float) -> None:
    """Nobody waits but for a question that is under way."""
    source = Quick(seconds)
    run(source, lambda bench: come(bench, 300, 300 / STEADY))
    assert len(source.sizes) >= min(300, int(300 / STEADY / seconds)) - 1
    gaps = [after - before for before, after in zip(source.asked_at, source.asked_at[1:], strict=False)]
    assert max(gaps) < max(seconds, 1 / STEADY) * 2


def test_after_a_storm_nobody_waits() -> None:
    source = Quick(0.01)

    async def test(bench: Bench) -> None:
        await come(bench, 1000)
        await bench.answered(1000)
        await asyncio.sleep(PAUSE)
        began = now()
        bench.miss("10.0.0.5")
        await bench.answered(1001)
        assert source.asked_at[-1] == began

    run(source, test)


def test_a_storm_elsewhere_is_none_here() -> None:
    source = Quick(0.01)

    async def test(bench: Bench) -> None:
        await come(bench, 1000)
        await bench.answered(1000)
        began = now()
        bench.miss("10.0.0.5")
        bench.miss("10.0.0.5", scope=2)
        await bench.answered(1002)
        at = {scope.uuid: when for (scope, _), when in zip(source.asked, source.asked_at, strict=True)}
        assert at[GREEN] == began
        assert at[BLUE] == pytest.approx(source.asked_at[0] + PAUSE)

    run(source, test)


def test_what_was_asked_for_leaks_out() -> None:
    pace = Pace()
    assert pace.pause(100.0) == 0.0
    pace.asked(BURST, 100.0)
    assert pace.pause(100.0) == 0.0
    pace.asked(1, 100.0)
    assert pace.pause(100.0) == pytest.approx(PAUSE)
    assert pace.pause(100.005) == pytest.approx(PAUSE - 0.005)
    assert pace.pause(100.0 + 1 / STEADY) == 0.0
    pace.asked(1_000_000, 200.0)
    assert pace.pause(200.0 + PAUSE / 2) == pytest.approx(PAUSE / 2)
    assert pace.pause(200.0 + PAUSE) == 0.0
