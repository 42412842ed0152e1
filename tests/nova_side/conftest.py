"""A loop before a real server."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.core.loop_kit import Rig, nothing_left_behind

from .servers import SECRET, Machine, Server, serving


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine() as made:
        yield made


@pytest.fixture
def before() -> Iterator[Callable[..., Rig]]:
    """Makes loops that run before a server (a name of SERVERS, or a TCP port); nothing of them is left."""
    made: list[Rig] = []

    def make(server: str | int, **settings: int) -> Rig:
        upstream = stack.enter_context(serving(server)) if isinstance(server, str) else Server(server)
        rig = Rig(settings, upstream, secret=SECRET.encode())
        made.append(rig)
        return rig.start()

    with nothing_left_behind(), ExitStack() as stack:
        yield make
        for rig in made:
            rig.end()
        made.clear()
