"""The message bus and Neutron's server are shared by all tests of a run: a RabbitMQ takes seconds to start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .neutron import NeutronServer
from .rabbit import RabbitMQ


@pytest.fixture(scope="session")
def rabbit() -> Iterator[RabbitMQ]:
    with RabbitMQ() as started:
        yield started


@pytest.fixture(scope="session")
def _server(rabbit: RabbitMQ) -> Iterator[NeutronServer]:
    with NeutronServer(rabbit.url) as started:
        yield started


@pytest.fixture
def neutron(_server: NeutronServer) -> NeutronServer:
    _server.reset()
    return _server
