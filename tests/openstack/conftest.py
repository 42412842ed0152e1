"""One real OpenStack for all tests of this folder; each test has projects, networks and an agent of its own."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from fastmeta.lab.topology import Lab

from .agents import SOURCES, Agent
from .scene import Scene
from .stack.api import Api
from .stack.cloud import Cloud, remove_leftovers
from .stack.instances import Instances
from .stack.stack import Stack

FIGURES: list[str] = []
"""What was measured."""


@pytest.hookimpl
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if FIGURES:
        terminalreporter.section("measured against a real OpenStack")
        for line in FIGURES:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """All servers run. They are stopped at the end, unless they ran before."""
    if os.geteuid() != 0:
        pytest.fail("needs root: for namespaces, and to install MariaDB and RabbitMQ")
    stack = Stack()
    ran = stack.running
    stack.start()
    try:
        yield stack
    finally:
        if not ran:
            stack.stop()


@pytest.fixture(scope="session")
def api(stack: Stack) -> Iterator[Api]:
    api = stack.api()
    remove_leftovers(api)
    yield api
    api.close()


@pytest.fixture(scope="session")
def nova(stack: Stack) -> Iterator[Instances]:
    with Instances(stack.layout) as instances:
        yield instances


def mend(stack: Stack) -> None:
    """All services run, whatever was done to them."""
    for service in stack.services.all:
        service.thaw()
    stack.start()


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest) -> str:
    """The value of lookup."""
    return str(request.param)


class Setting:
    """What one test makes and starts."""

    def __init__(self, stack: Stack, scene: Scene, exits: ExitStack) -> None:
        self.stack = stack
        self.scene = scene
        self.cloud = scene.cloud
        self.exits = exits

    def agent(self, source: str, listen: Sequence[str] | None = None, **options: Any) -> Agent:
        """For all of the scene, unless it is said where it listens. options: of Agent."""
        host = f"fastmeta-test-{secrets.token_hex(3)}"
        where = self.scene.listen if listen is None else listen
        agent = Agent(self.stack.layout, source, where, host=host, **options)
        return self.exits.enter_context(agent)

    def note(self, line: str) -> None:
        """Printed at the end of the run."""
        FIGURES.append(line)


@contextmanager
def new_setting(stack: Stack, api: Api, nova: Instances) -> Iterator[Setting]:
    with ExitStack() as exits:
        cloud = exits.enter_context(Cloud(api, nova))
        # Cloud deletes through the API: whatever a test has stopped must run again.
        exits.callback(mend, stack)
        lab = exits.enter_context(Lab())
        yield Setting(stack, Scene(lab, cloud), exits)


@pytest.fixture
def setting(stack: Stack, api: Api, nova: Instances) -> Iterator[Setting]:
    with new_setting(stack, api, nova) as setting:
        yield setting
