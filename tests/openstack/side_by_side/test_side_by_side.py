"""Requests through the stock pair and through fastmeta: no other difference than those that are expected."""

from __future__ import annotations

import fnmatch
import threading
from collections.abc import Iterator, Sequence

import pytest

from tests.openstack.conftest import Instances, Stack, new_setting
from tests.openstack.stack.api import Api

from .cases import CASES, Case
from .differences import DIFFERENCES, RELAYED, Difference, Where
from .outcomes import Found, Outcome, compare
from .ways import Way, Ways, all_ways


class Results:
    """All cases on all ways."""

    def __init__(self, ways: Ways) -> None:
        self.wrong: list[str] = []
        """What no correct agent sends."""
        outcomes: list[dict[str, Outcome]] = [{}, {}, {}]
        threads = [
            threading.Thread(target=self._run, args=(way, results))
            for way, results in zip((ways.stock, ways.ours, ways.relayed), outcomes, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stock, ours, relayed = outcomes
        self.found = {case.name: compare(stock[case.name], ours[case.name]) for case in CASES}
        self.relayed = {case.name: compare(stock[case.name], relayed[case.name]) for case in CASES}
        self.wrong = ways.ours.nova.wrong + ways.relayed.nova.wrong

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
    with new_setting(stack, api, nova) as setting, all_ways(setting) as ways:
        yield Results(ways)


def check(case: Case, found: Sequence[Found], expected: Sequence[Difference]) -> None:
    unexpected = [
        str(item)
        for item in found
        if not any(difference.explains(case.name, item) for difference in expected)
    ]
    assert not unexpected, "\n".join([f"{case.name}: {case.parts!r:.300}", *unexpected])


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_case(results: Results, case: Case) -> None:
    check(case, results.found[case.name], DIFFERENCES)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_behind_a_proxy(results: Results, case: Case) -> None:
    """The same, with Neutron's haproxies before fastmeta: no difference but these, and fewer."""
    check(case, results.relayed[case.name], RELAYED)


@pytest.mark.parametrize("difference", DIFFERENCES, ids=[difference.title for difference in DIFFERENCES])
def test_a_difference_is_there(results: Results, difference: Difference) -> None:
    """What is expected and never seen is no difference (any more)."""
    unseen = [where for where in difference.where if not results.seen(difference, where)]
    assert difference.sometimes or not unseen


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
