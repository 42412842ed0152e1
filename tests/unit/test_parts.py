"""Answers that come in parts. Each test fails when its rule is broken."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from fastmeta.exceptions import LookupUnavailableError
from fastmeta.lookup.parts import Heard, in_parts
from fastmeta.models import Answer, Question, Scope

from .test_resolver import A5, Bench, Source, answer, port
from .test_resolver_events import now
from .test_resolver_events import run as run_resolver
from .virtual_time import run


def after(*parts: float, each: float = 3.0, most: float = 8.0) -> tuple[object, float]:
    """What comes of an answer whose parts take so many seconds, and when."""

    async def ask(heard: Heard) -> str:
        for seconds in parts[:-1]:
            await asyncio.sleep(seconds)
            heard()
        await asyncio.sleep(parts[-1])
        return "all"

    async def body() -> tuple[object, float]:
        began = now()
        result: object
        try:
            result = await in_parts(ask, each, most)
        except asyncio.TimeoutError as error:
            result = str(error)
        assert len(asyncio.all_tasks()) == 1
        return result, round(now() - began, 3)

    return run(body())


@pytest.mark.parametrize(
    ("parts", "result", "seconds"),
    [
        ((0.0,), "all", 0.0),
        ((2.9,), "all", 2.9),
        ((3.1,), "no answer in 3 seconds (lookup_timeout)", 3.0),
        ((2.5, 2.5, 2.5), "all", 7.5),
        ((2.5, 3.1), "no answer in 3 seconds (lookup_timeout)", 5.5),
        ((2.5, 2.5, 2.5, 2.5), "parts of an answer, but not all of it in 8 seconds", 8.0),
    ],
)
def test_each_part_has_its_time_and_all_of_them_have_theirs(
    parts: tuple[float, ...], result: str, seconds: float
) -> None:
    assert after(*parts) == (result, seconds)


def test_one_that_comes_at_once_has_the_time_of_a_part() -> None:
    assert after(2.5, each=3.0, most=1.0) == ("all", 2.5)


def test_whoever_is_cancelled_cancels_it() -> None:
    ended: list[str] = []

    async def ask(heard: Heard) -> None:
        try:
            await asyncio.sleep(100)
        finally:
            ended.append("it")

    async def body() -> None:
        task = asyncio.get_running_loop().create_task(in_parts(ask, 3.0, 8.0))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == ["it"]

    run(body())


def test_what_it_raises() -> None:
    async def ask(heard: Heard) -> None:
        raise LookupUnavailableError("away")

    with pytest.raises(LookupUnavailableError, match="away"):
        run(in_parts(ask, 3.0, 8.0))


class Parts(Source):
    """Each answer comes in so many parts, each of which takes so long."""

    def __init__(self, count: int, seconds: float) -> None:
        super().__init__(answer(port(1, A5)))
        self.count, self.seconds = count, seconds

    async def ports(self, scope: Scope, questions: Sequence[Question], heard: Any = None) -> Answer:
        for _ in range(self.count):
            await asyncio.sleep(self.seconds)
            heard()
        return await super().ports(scope, questions)


class TestResolver:
    """lookup_timeout is 1 s, park_timeout 8 s."""

    def test_the_age_counts_from_the_first_question(self) -> None:
        async def test(bench: Bench) -> None:
            asked_at = now()
            bench.miss(A5)
            await asyncio.sleep(5.5)
            assert [keywords["asked_at"] for keywords in bench.table.keywords] == [asked_at]

        run_resolver(Parts(6, 0.9), test)

    @pytest.mark.parametrize(("ttl", "is_answered"), [(10.0, True), (6.0, False)])
    def test_one_that_would_be_too_old_is_given_up(self, ttl: float, is_answered: bool) -> None:
        """At eight tenths of identity_ttl, 5.4 s being too long."""

        async def test(bench: Bench) -> None:
            bench.miss(A5)
            await asyncio.sleep(5.5)
            assert bool(bench.table.answers()) is is_answered

        run_resolver(Parts(6, 0.9), test, identity_ttl=ttl)

    def test_one_for_which_nobody_waits_any_more_is_given_up(self) -> None:
        async def test(bench: Bench) -> None:
            bench.miss(A5)
            await asyncio.sleep(5.5)
            assert bench.table.answers() == []

        run_resolver(Parts(6, 0.9), test, park_timeout=5.0)
