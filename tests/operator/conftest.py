"""What the tests of an operator's tools have in common."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .kit import Nova

FIGURES: list[str] = []


@pytest.hookimpl
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if FIGURES:
        terminalreporter.section("systemd's judgement of the units (0 is best, 10 worst)")
        for line in FIGURES:
            terminalreporter.write_line(line)


@pytest.fixture
def record_figure() -> list[str]:
    """Its lines are printed at the end of the run."""
    return FIGURES


@pytest.fixture
def folder() -> Iterator[Path]:
    """Ours alone, and short enough for a unix socket in it."""
    with tempfile.TemporaryDirectory(prefix="fmo-", dir="/tmp") as made:
        yield Path(made)


@pytest.fixture(scope="session")
def nova() -> Iterator[Nova]:
    """The embedded metadata API, which checks signatures as Nova does."""
    with Nova() as started:
        yield started
