"""When the source is asked, and when it is left alone. Each test fails when its rule is broken."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Awaitable, Callable

import pytest

from fastmeta.lookup import circuit as circuit_module
from fastmeta.lookup.circuit import LONGEST_PAUSE, OPEN_AFTER, PLACES, Circuit, Failure, Place

from .virtual_time import run

AWAY = "http://192.0.2.1:9696 refuses connections: does neutron-server run?"


class Bench:
    """A circuit on a clock of its own."""

    def __init__(self) -> None:
        self.changes: list[str] = []
        self.circuit = Circuit(self.changed, clock=asyncio.get_running_loop().time, jitter=lambda: 1.0)

    def changed(self) -> None:
        self.changes.append(self.circuit.reason)

    async def fail(
        self, count: int = 1, kind: Failure = Failure.AWAY, why: str = AWAY, scope: int = 1
    ) -> None:
        for _ in range(count):
            place = await self.circuit.enter()
            place.failed(scope, kind, why)

    async def answer(self) -> None:
        (await self.circuit.enter()).answered()


def bench(test: Callable[[Bench], Awaitable[None]]) -> None:
    async def body() -> None:
        await test(Bench())

    run(body())


def now() -> float:
    return asyncio.get_running_loop().time()


class TestOpening:
    def test_after_some_failures_in_a_row(self) -> None:
        async def test(bench: Bench) -> None:
            for _ in range(3):
                await bench.fail(OPEN_AFTER - 1)
                await bench.answer()
            assert not bench.circuit.is_open
            await bench.fail(OPEN_AFTER)
            assert bench.changes == [AWAY]

        bench(test)

    def test_at_once_when_only_an_operator_can_help(self) -> None:
        async def test(bench: Bench) -> None:
            await bench.fail(1, Failure.REFUSED, "401 for user neutron")
            assert bench.circuit.is_open

        bench(test)

    @pytest.mark.parametrize("kind", [Failure.MALFORMED, Failure.SILENT])
    def test_what_may_be_one_scope_s_fault_only_when_it_is_everywhere(self, kind: Failure) -> None:
        async def test(bench: Bench) -> None:
            await bench.fail(20, kind, scope=1)
            await bench.fail(20, kind, scope=2)
            assert not bench.circuit.is_open
            await bench.fail(1, kind, scope=3)
            assert bench.circuit.is_open

        bench(test)


class TestWhileOpen:
    def test_one_question_at_a_time_after_growing_pauses(self) -> None:
        async def test(bench: Bench) -> None:
            times: list[float] = []
            under_way = 0

            async def scope(number: int) -> None:
                nonlocal under_way
                while len(times) < 12:
                    place = await bench.circuit.enter()
                    under_way += 1
                    assert under_way == 1
                    times.append(now())
                    await asyncio.sleep(0.01)
                    under_way -= 1
                    place.failed(number, Failure.AWAY, AWAY)

            await bench.fail(OPEN_AFTER)
            opened = now()
            tasks = [asyncio.create_task(scope(number)) for number in range(20)]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            starts = [opened, *(time + 0.01 for time in times)]
            pauses = [round(time - start, 3) for start, time in zip(starts, times, strict=False)]
            assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6] + [LONGEST_PAUSE] * 7

        bench(test)

    def test_pauses_are_longer_while_we_are_refused(self) -> None:
        """Each attempt may count against us; one that is refused no more is noticed by the next one."""

        async def test(bench: Bench) -> None:
            times = []
            for _ in range(10):
                await bench.fail(1, Failure.REFUSED, "401 for user neutron")
                times.append(now())
            pauses = [round(later - earlier, 3) for earlier, later in itertools.pairwise(times)]
            assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, circuit_module.LONGEST_REFUSED]
            begin = now()
            await bench.fail(1, Failure.AWAY, AWAY)
            assert round(now() - begin, 3) == circuit_module.LONGEST_REFUSED
            begin = now()
            await bench.fail(1, Failure.AWAY, AWAY)
            assert round(now() - begin, 3) == LONGEST_PAUSE

        bench(test)

    def test_pauses_are_jittered(self) -> None:
        async def test(bench: Bench) -> None:
            bench.circuit._jitter = lambda: 0.0
            await bench.fail(OPEN_AFTER)
            start = now()
            await bench.circuit.enter()
            assert round(now() - start, 3) == 0.05

        bench(test)

    def test_nothing_runs_while_nobody_waits(self) -> None:
        async def test(bench: Bench) -> None:
            await bench.fail(OPEN_AFTER)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(bench.circuit.enter(), 0.01)
            # The last who waited is gone: what was planned for it comes to nothing, and nothing follows.
            await asyncio.sleep(1)
            assert bench.circuit._timer is None
            # Who comes later tries at once.
            start = now()
            await bench.answer()
            assert now() == start
            assert not bench.circuit.is_open

        bench(test)

    def test_a_change_is_worth_a_question_at_once(self) -> None:
        async def test(bench: Bench) -> None:
            await bench.fail(OPEN_AFTER + 4)
            waiting = asyncio.create_task(bench.circuit.enter())
            await asyncio.sleep(0)
            start = now()
            bench.circuit.try_now()
            await waiting
            assert now() == start

        bench(test)

    def test_who_has_a_place_and_is_cancelled_gives_it_back(self) -> None:
        async def test(bench: Bench) -> None:
            await bench.fail(OPEN_AFTER)
            first = asyncio.create_task(bench.circuit.enter())
            second = asyncio.create_task(bench.circuit.enter())
            await asyncio.sleep(0)
            bench.circuit.try_now()
            first.cancel()
            await second

        bench(test)

    def test_a_malformed_answer_shows_that_it_is_there_again(self) -> None:
        async def test(bench: Bench) -> None:
            await bench.fail(OPEN_AFTER)
            await bench.fail(1, Failure.MALFORMED, "not JSON")
            assert not bench.circuit.is_open

        bench(test)


class TestAfterwards:
    def test_all_who_wait_go_on_soon_but_not_all_at_once(self) -> None:
        async def test(bench: Bench) -> None:
            entered: list[float] = []

            async def scope() -> None:
                place = await bench.circuit.enter()
                entered.append(now())
                await asyncio.sleep(0.05)
                place.answered()

            await bench.fail(OPEN_AFTER)
            tasks = [asyncio.create_task(scope()) for _ in range(200)]
            await asyncio.wait(tasks)
            together = [round(time - entered[0], 3) for time in entered]
            assert [together.count(moment) for moment in sorted(set(together))][:6] == [1, 1, 2, 4, 8, 16]
            assert together[-1] < 1.0

        bench(test)


class TestPlaces:
    def test_are_bounded_and_in_order(self) -> None:
        async def test(bench: Bench) -> None:
            order: list[int] = []
            places: list[Place] = []

            async def scope(number: int) -> None:
                places.append(await bench.circuit.enter())
                order.append(number)

            tasks = [asyncio.create_task(scope(number)) for number in range(PLACES + 2)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert len(places) == PLACES
            places[7].answered()
            places[3].give_back()
            places[3].give_back()  # once
            await asyncio.wait(tasks)
            assert order == list(range(PLACES + 2))
            for place in places:
                place.give_back()
            assert bench.circuit._taken == 0

        bench(test)

    def test_a_source_that_hangs_for_many_scopes_does_not_hold_up_the_others(self) -> None:
        async def test(bench: Bench) -> None:
            hung = [await bench.circuit.enter() for _ in range(PLACES)]
            start = now()
            await bench.answer()
            assert now() - start <= circuit_module.SLOW_AFTER
            for place in hung:
                place.give_back()
            assert bench.circuit._taken == 0

        bench(test)


class TestLog:
    def lines(self, caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
        return [(record.levelno, record.getMessage().split(";")[0]) for record in caplog.records]

    def test_a_line_when_it_opens_when_the_reason_changes_and_when_it_is_over(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def test(bench: Bench) -> None:
            await bench.fail(OPEN_AFTER + 10)
            await bench.fail(5, Failure.REFUSED, "401 for user neutron")
            await bench.answer()
            assert bench.changes == [AWAY, "401 for user neutron", ""]

        with caplog.at_level(logging.INFO):
            bench(test)
        (away, refused, over) = self.lines(caplog)
        assert away == (logging.WARNING, f"lookup: the source is away: {AWAY}")
        assert refused == (logging.ERROR, "lookup: the source refuses us: 401 for user neutron")
        assert over[1].startswith("lookup: the source answers again, after ")

    def test_again_at_long_intervals_while_it_lasts(self, caplog: pytest.LogCaptureFixture) -> None:
        async def test(bench: Bench) -> None:
            end = now() + 3 * circuit_module.REPEAT_PERIOD
            while now() < end:
                await bench.fail()

        bench(test)
        assert 3 <= len(caplog.records) <= 4
        assert "times more since this was last said" in caplog.records[-1].getMessage()

    def test_what_comes_and_goes_all_the_time_is_not_said_all_the_time(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def test(bench: Bench) -> None:
            for _ in range(20):
                await bench.fail(OPEN_AFTER)
                await bench.answer()

        with caplog.at_level(logging.INFO):
            bench(test)
        assert len(caplog.records) == 2
