"""Settings of a loop: each has a name, a default and bounds, and nothing outside of them is taken."""

from __future__ import annotations

import gc
import os

import pytest

from fastmeta._core import SETTINGS, Loop


@pytest.mark.parametrize("name", SETTINGS)
def test_bounds(name: str) -> None:
    default, smallest, largest = SETTINGS[name]
    assert smallest <= default <= largest
    for value in {default, smallest, largest} - {1_000_000}:
        Loop({name: value})
    for value in (smallest - 1, largest + 1, -(2**63) - 1, 2**64):
        with pytest.raises(ValueError, match=name):
            Loop({name: value})


@pytest.mark.parametrize("name", ["", "max_heads", "MAX_HEAD", "max-head", "secret"])
def test_unknown_name(name: str) -> None:
    with pytest.raises(ValueError, match="unknown setting"):
        Loop({name: 1})


@pytest.mark.parametrize("value", ["many", None, [], {}])
def test_no_number(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        Loop({"max_head": value})  # type: ignore[dict-item]


def test_none_and_nothing_mean_the_defaults() -> None:
    Loop()
    Loop(None)
    Loop({})


def test_a_secret_is_bytes() -> None:
    for secret in ("text", None, 5):
        with pytest.raises(TypeError):
            Loop(secret=secret)  # type: ignore[arg-type]


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_a_loop_that_never_ran_leaves_no_descriptor() -> None:
    gc.collect()
    before = descriptors()
    for _ in range(50):
        loop = Loop()
        assert loop.fileno() > 2
        del loop
    gc.collect()
    assert descriptors() == before


def test_a_refused_loop_leaves_no_descriptor() -> None:
    gc.collect()
    before = descriptors()
    for _ in range(50):
        with pytest.raises(ValueError, match="max_head"):
            Loop({"max_head": 1})
    gc.collect()
    assert descriptors() == before
