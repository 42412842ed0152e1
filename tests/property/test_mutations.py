"""Breaks the code of identity safety in one place after the other: the machine of test_identity_safety.py must find
each.

It would find them by itself in the end, but how long that takes is a matter of luck. So for each it is said what
dangers it is about, and only such are tried; what is left open in them is drawn. The code as it is must stand them. The
same examples come in each run.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st

from fastmeta.lookup.resolver import Resolver
from fastmeta.lookup.said import Said
from fastmeta.lookup.trust import Trust
from fastmeta.lookup.waiting import Query, WholeQuery

from .machines import Dangerous, near, one_change, only
from .test_identity_safety import look_for


def ignored(*_: Any, **__: Any) -> None:
    """Does not happen."""


def no_check_of_what_changed_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Query, "is_void_for", lambda self, key, port: False)


def age_from_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Said.identity

    def wrong(self: Said, state: Any, key: Any, port: Any, query: Query) -> str:
        late = Query(query.batch, self._clock(), query.steady)
        return right(self, state, key, port, late)

    monkeypatch.setattr(Said, "identity", wrong)


def nothing_is_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Said, "shorten", ignored)


def ports_of_changes_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Resolver.changed
    monkeypatch.setattr(
        Resolver, "changed", lambda self, change: right(self, dataclasses.replace(change, ports=frozenset()))
    )


def routers_of_changes_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Resolver.changed
    monkeypatch.setattr(
        Resolver,
        "changed",
        lambda self, change: right(self, dataclasses.replace(change, routers=frozenset())),
    )


def put_without_revoking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Said, "_revoke_other", ignored)


def announced_at_the_answer_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Trust, "time_to_live", lambda self, scope, steady: self.long if self.steady(scope) else self.short
    )


def always_the_longer_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trust, "time_to_live", lambda self, scope, steady: self.long)


def changes_do_not_reach_what_nobody_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WholeQuery, "address_changed", ignored)
    monkeypatch.setattr(WholeQuery, "ports_changed", ignored)


ANOTHER = ("another port gets the address", "a port goes to another instance")
FOUND_BY = {
    no_check_of_what_changed_meanwhile: near(
        known="nothing",
        asked_by="guests",
        slow=True,
        changes=one_change(*ANOTHER, fate="told"),
        between=[],
        early=True,
        seconds=0.1,
    ),
    # So that it is over by then when it is counted from the question, and not yet renewed when from the answer.
    age_from_the_answer: near(
        announcing=False,
        known="nothing",
        slow=True,
        changes=one_change(*ANOTHER, fate="lost"),
        between=["7 s"],
        early=True,
        seconds=5.0,
    ),
    nothing_is_shortened: near(
        announcing=True,
        known="all",
        asked_by="guests",
        changes=one_change(*ANOTHER, fate="lost"),
        between=["announcements"],
        seconds=30.0,
    ),
    ports_of_changes_are_ignored: near(
        known="all", changes=one_change("a port goes", fate="told"), between=[], seconds=0.1
    ),
    routers_of_changes_are_ignored: near(
        known="all",
        changes=one_change("a router gets or loses a network", fate="told"),
        between=[],
        seconds=0.1,
    ),
    put_without_revoking: near(
        known="all",
        changes=one_change(*ANOTHER, fate="lost"),
        between=[],
        seconds=st.sampled_from([30.0, 55.0]),
    ),
    announced_at_the_answer_is_enough: near(
        announcing=False,
        known="nothing",
        slow=True,
        changes=one_change(*ANOTHER, fate="lost"),
        between=["announcements"],
        early=True,
        seconds=30.0,
    ),
    always_the_longer_time: near(
        announcing=False,
        known="all",
        changes=one_change(*ANOTHER, fate="lost"),
        between=[],
        seconds=30.0,
    ),
    changes_do_not_reach_what_nobody_asked_for: near(
        known="nothing",
        asked_by="nobody",
        slow=True,
        changes=one_change(*ANOTHER, fate="told"),
        between=[],
        early=True,
        seconds=0.1,
    ),
}


@pytest.mark.parametrize("mutate", FOUND_BY, ids=lambda mutate: mutate.__name__)
def test_it_would_be_found(
    mutate: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it fails because of what it looks for, not of anything else."""
    machine = only(FOUND_BY[mutate])
    look_for(machine, 4, 3)
    assert not Dangerous.found
    mutate(monkeypatch)
    with contextlib.suppress(Exception):
        look_for(machine, 40, 3)
    assert Dangerous.found
