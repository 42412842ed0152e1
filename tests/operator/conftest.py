"""What the tests of an operator's tools have in common."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .kit import Nova


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
