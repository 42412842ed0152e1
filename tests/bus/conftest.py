"""What the tests of the bus have in common."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _sockets_that_the_library_left() -> Iterator[None]:
    """py-amqp drops the socket of a connection that broke without closing it; Python's collector does, and warns. Here
    and now, where the marks below say that it does not matter."""
    yield
    gc.collect()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.filterwarnings("ignore:.*unclosed.*:ResourceWarning"))
            item.add_marker(
                pytest.mark.filterwarnings("ignore:.*socket.socket.*:pytest.PytestUnraisableExceptionWarning")
            )
