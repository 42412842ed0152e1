"""Requests through the stock pair and through fastmeta: no other difference than those that are expected."""

from __future__ import annotations

import fnmatch
import threading
from collections.abc import Iterator

import pytest

from tests.openstack.conftest import Instances, Stack, new_setting
from tests.openstack.stack.api import Api

from .cases import CASES, Case
from .differences import DIFFERENCES, Difference, Where
from .outcomes import Found, Outcome, compare
from .ways import Way, both


class Results:
    """All cases on both ways."""

    def __init__(self, stock: Way, ours: Way) -> None:
        self.found: dict[str, list[Found]] = {}
        self.wrong: list[str] = []
        """What no correct agent sends."""
        outcomes: list[dict[str, Outcome]] = [{}, {}]
        threads = [
            threading.Thread(target=self._run, args=(way, results))
            for way, results in zip((stock, ours), outcomes, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for case in CASES:
            self.found[case.name] = compare(*(results[case.name] for results in outcomes))
        self.wrong = ours.nova.wrong

    @staticmethod
    def _run(way: Way, results: dict[str, Outcome]) -> None:
        for case in CASES:
            results[case.name] = way.outcome(case)

    def seen(self, difference: Difference, where: Where) -> bool:
        return any(
            difference.is_about(case) and where.fits(found)
            for case, founds in self.found.items()
            for found in founds
        )


@pytest.fixture(scope="module")
def results(stack: Stack, api: Api, nova: Instances) -> Iterator[Results]:
    with new_setting(stack, api, nova) as setting, both(setting) as (stock, ours):
        yield Results(stock, ours)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_case(results: Results, case: Case) -> None:
    unexpected = [
        str(found)
        for found in results.found[case.name]
        if not any(difference.explains(case.name, found) for difference in DIFFERENCES)
    ]
    assert not unexpected, "\n".join([f"{case.name}: {case.parts!r:.300}", *unexpected])


@pytest.mark.parametrize("difference", DIFFERENCES, ids=[difference.title for difference in DIFFERENCES])
def test_a_difference_is_there(results: Results, difference: Difference) -> None:
    """What is expected and never seen is no difference (any more)."""
    unseen = [where for where in difference.where if not results.seen(difference, where)]
    assert not unseen


def test_nova_sees_nothing_that_is_wrong(results: Results) -> None:
    """One framing, our headers once each and signed, whatever the guest sends."""
    assert not results.wrong


def test_there_are_enough() -> None:
    assert len(CASES) >= 150
    assert len({case.name for case in CASES}) == len(CASES)


def test_patterns_of_cases_are_of_some() -> None:
    for difference in DIFFERENCES:
        for pattern in difference.cases:
            assert fnmatch.filter([case.name for case in CASES], pattern), (difference.title, pattern)
