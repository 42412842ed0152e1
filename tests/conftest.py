"""Where FASTMETA_CI=1 is set, a skipped test is a failed one: there we are root and everything can be installed."""

import os
from collections.abc import Iterator

import pytest

from tests.bus.neutron import NeutronServer
from tests.bus.rabbit import RabbitMQ


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> object:
    report = yield
    if report.skipped and os.environ.get("FASTMETA_CI") == "1" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and here nothing may be: {report.longrepr}"
    return report


# A RabbitMQ takes seconds to start: it and Neutron's server are shared by all tests of a run.


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
