"""The whole agent in real namespaces, before a metadata API that obeys the test.

One lab for all tests: networks blue and green and, behind a router, red, all of them 10.0.0.0/24.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import pytest

from fastmeta.lab.namespaces import NETNS_FOLDER
from fastmeta.lab.topology import Lab

from .agents import SECRET, Agent, Cloud
from .upstream import Upstream


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A lab for all tests; of it nothing is left afterwards."""
    if os.geteuid() != 0:
        if os.environ.get("FASTMETA_CI") == "1":
            pytest.fail("CI must run as root")
        pytest.skip("needs root")
    with Lab() as built:
        yield built
    left = [path.name for path in NETNS_FOLDER.iterdir() if built.tag in path.name]
    assert left == []


@pytest.fixture(scope="session")
def cloud(lab: Lab) -> Cloud:
    """Three networks with a guest at 10.0.0.5 each, and others."""
    cloud = Cloud(lab)
    cloud.add_network("blue", ["10.0.0.5", "10.0.0.6"])
    cloud.add_network("green", ["10.0.0.5", "10.0.0.7"])
    cloud.add_routed_network("red", ["10.0.0.5", "10.0.0.8"])
    return cloud


@pytest.fixture
def own_cloud(lab: Lab) -> Cloud:
    """An empty cloud for one test, in the same lab."""
    return Cloud(lab)


class Setting:
    """What one test (or module) starts: upstreams, agents. They end with it."""

    serving: ClassVar[list[Cloud]] = []
    """Those that an agent serves now."""

    def __init__(self, cloud: Cloud) -> None:
        self.stack = ExitStack()
        self.cloud = cloud
        self.agents: list[Agent] = []
        self.upstreams: list[Upstream] = []

    def upstream(self, *, listening: bool = True, path: str = "") -> Upstream:
        upstream = self.stack.enter_context(Upstream(SECRET, listening=listening, path=path))
        self.upstreams.append(upstream)
        return upstream

    def agent(self, upstream: Upstream | None = None, *, beside: bool = False, **options: Any) -> Agent:
        """An agent for all of the cloud, unless options say otherwise. beside: another one still runs."""
        if "listen" not in options:
            # Two would share the listeners, each with a part of the connections.
            assert beside or self.cloud not in Setting.serving, "another agent still serves this cloud"
        options = {"listen": self.cloud.listen, "ports": self.cloud.ports(), **options}
        # That of a unix socket is named by upstreams only.
        tcp_port = upstream.tcp_port if upstream is not None and upstream.tcp_port else 9
        agent = self.stack.enter_context(Agent(nova_tcp_port=tcp_port, **options))
        self.agents.append(agent)
        Setting.serving.append(self.cloud)
        self.stack.callback(Setting.serving.remove, self.cloud)
        return agent

    def check(self) -> None:
        for upstream in self.upstreams:
            assert upstream.wrong == []
        for agent in self.agents:
            agent.check_log()


@pytest.fixture
def setting(cloud: Cloud) -> Iterator[Setting]:
    """For tests that need an agent of their own."""
    setting = Setting(cloud)
    with setting.stack:
        yield setting
        setting.check()


@pytest.fixture
def own_setting(own_cloud: Cloud) -> Iterator[Setting]:
    """For tests that need a cloud of their own, too."""
    setting = Setting(own_cloud)
    with setting.stack:
        yield setting
        setting.check()


class Served:
    """An agent that several tests use, its upstream and its cloud."""

    def __init__(self, setting: Setting, cloud: Cloud) -> None:
        self.setting = setting
        self.cloud = cloud
        self.guests = cloud.guests
        self.upstream = setting.upstream()
        self.agent = setting.agent(self.upstream)


@pytest.fixture(scope="module")
def module_served(cloud: Cloud) -> Iterator[Served]:
    setting = Setting(cloud)
    with setting.stack:
        yield Served(setting, cloud)


@pytest.fixture
def served(module_served: Served) -> Iterator[Served]:
    """One agent for the tests of a module (which start no other: it would share the listeners)."""
    yield module_served
    module_served.setting.check()


@pytest.fixture
def private_folder() -> Iterator[Path]:
    """Ours alone (pytest's own folders are, too, but not where it is told to use others)."""
    with tempfile.TemporaryDirectory(prefix="fms-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    """Guests and upstreams of a test end with it."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        if not thread.daemon:  # those of an upstream that the whole module uses are daemons
            thread.join(10)
            assert not thread.is_alive(), thread
