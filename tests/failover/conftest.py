"""Failures of Nova that guests do not see: a real agent, real servers that are killed and frozen, guests that ask all
the time. How long guests waited is printed at the end of the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from .load import Load
from .novas import Nova
from .outage import kill_all
from .scene import FIGURES, Scene, report


@pytest.fixture
def make_scene() -> Iterator[Callable[..., Scene]]:
    """Makes scenes that end with the test."""
    with ExitStack() as stack:

        def make(**options: Any) -> Scene:
            return stack.enter_context(Scene(**options))

        yield make


@pytest.fixture
def scene(make_scene: Callable[..., Scene]) -> Scene:
    """Four networks with eight guests each."""
    return make_scene()


@dataclass(frozen=True)
class LongOutage:
    """Guests whose Nova went some time ago."""

    scene: Scene
    novas: list[Nova]
    load: Load
    gone: float


@pytest.fixture(scope="session")
def long_outage() -> Iterator[LongOutage]:
    """Eight guests; waiting takes next to nothing of the machine."""
    with Scene(scopes=2, addresses=4) as scene:
        novas = [scene.nova(), scene.nova()]
        scene.agent()
        load = scene.load()
        load.until_asked(3)
        yield LongOutage(scene, novas, load, kill_all(novas))


@pytest.fixture(scope="session", autouse=True)
def early(request: pytest.FixtureRequest) -> None:
    """Begins the long outage with the first test, if it is wanted at all."""
    if any("long_outage" in getattr(item, "fixturenames", ()) for item in request.session.items):
        request.getfixturevalue("long_outage")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if FIGURES:
        terminalreporter.section("failures of Nova")
        for line in report():
            terminalreporter.write_line(line)
