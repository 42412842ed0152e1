"""Breaks the code of identity safety in one place after the other: the machine of test_identity_safety.py must find
each.

Not a part of `make test`: `make mutations`. How many runs it takes until one is found is a matter of luck and of the
machine, and with a bound on them now and then one is not.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from fastmeta.lookup.resolver import Resolver
from fastmeta.lookup.said import Said
from fastmeta.lookup.trust import Trust
from fastmeta.lookup.waiting import Query

from .machines import Dangerous
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


@pytest.mark.parametrize(
    "mutate",
    [
        no_check_of_what_changed_meanwhile,
        age_from_the_answer,
        nothing_is_shortened,
        ports_of_changes_are_ignored,
        routers_of_changes_are_ignored,
        put_without_revoking,
        announced_at_the_answer_is_enough,
        always_the_longer_time,
    ],
    ids=lambda mutate: mutate.__name__,
)
def test_it_would_be_found(
    mutate: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it fails because of what it looks for, not of anything else."""
    mutate(monkeypatch)
    with contextlib.suppress(Exception):
        look_for(Dangerous, 300, 6)
    assert Dangerous.found
