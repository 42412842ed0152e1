"""Fixtures for conversations with a real loop."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .loop_kit import Rig, Script, Upstream, echo, nothing_left_behind


@pytest.fixture
def make_rig() -> Iterator[Callable[..., Rig]]:
    """Makes loops that run, each with its own upstream; afterwards nothing of them is left."""
    made: list[Rig] = []

    def make(script: Script = echo, settings: dict[str, int] | None = None, **more: Any) -> Rig:
        rig = Rig(settings or {}, Upstream(script), **more)
        made.append(rig)
        return rig.start()

    with nothing_left_behind():
        yield make
        for rig in made:
            rig.end()
        made.clear()


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    """A loop with default settings before an upstream that marks its answers."""
    return make_rig()
