"""[fastmeta] loops: several threads serve; nobody can tell, but for the processors that are used."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fastmeta.lab.topology import Lab

from .agents import Cloud, until
from .conftest import Served, Setting

NETWORKS = 7


def threads_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


class ServedByLoops(Served):
    def __init__(self, setting: Setting, cloud: Cloud) -> None:
        self.setting = setting
        self.cloud = cloud
        self.guests = cloud.guests
        self.upstream = setting.upstream()
        self.agent = setting.agent(self.upstream, loops=3)


@pytest.fixture(scope="module")
def module_served(lab: Lab) -> Iterator[Served]:
    """Seven networks and two routers with a guest at 10.0.0.5 each, on three loops."""
    cloud = Cloud(lab)
    for number in range(NETWORKS):
        cloud.add_network(f"n{number}", ["10.0.0.5"])
    for number in range(2):
        cloud.add_routed_network(f"r{number}", ["10.0.0.5"])
    setting = Setting(cloud)
    with setting.stack:
        yield ServedByLoops(setting, cloud)


def test_each_guest_gets_its_own(served: Served) -> None:
    """All of them at once, each with many requests on one connection: one address, nine instances."""

    def ask(name: str) -> None:
        guest = served.guests[name]
        with guest.connect() as wire:
            for turn in range(50):
                target = f"/own/{name}/{turn}"
                wire.get(target)
                answer = wire.answer()
                assert (answer.status, answer.body) == (200, guest.mark(target))

    with ThreadPoolExecutor(len(served.guests)) as pool:
        assert len(list(pool.map(ask, served.guests))) == NETWORKS + 2
    assert len(served.upstream.asked("/own/")) == 50 * (NETWORKS + 2)
    assert served.agent.logged("3 loops, each with up to ")


def test_they_are_threads_of_one_process(own_setting: Setting) -> None:
    """Two more than with one loop, in agents that do nothing else."""
    nowhere = "network:11111111-1111-4111-8111-111111111111@not-there/169.254.169.254:80"
    one, three = (
        own_setting.agent(own_setting.upstream(), listen=[nowhere], loops=loops) for loops in (1, 3)
    )
    until(lambda: threads_of(three.pid) == threads_of(one.pid) + 2)


def test_a_change_reaches_the_loop_of_its_scope(served: Served) -> None:
    """Every guest in turn becomes nobody, and the others stay who they are."""
    for name, guest in served.guests.items():
        served.agent.change_ports(served.cloud.ports(guest))
        for other_name, other in served.guests.items():
            if other is guest:
                assert guest.ask(f"/nobody/{name}").status == 404
            else:
                assert other.is_served(f"/others/{name}/{other_name}")
    served.agent.change_ports(served.cloud.ports())
    assert served.upstream.asked("/nobody/") == []


def test_an_end_waits_for_all(own_setting: Setting) -> None:
    """SIGTERM while a request is in progress on each loop: all of them are answered whole."""
    cloud = own_setting.cloud
    for number in range(3):
        cloud.add_network(f"e{number}", ["10.0.0.5"])
    upstream = own_setting.upstream()
    gate = threading.Event()
    upstream.scripts["slow"] = lambda exchange: gate.wait(20) and exchange.send(exchange.whole()) is None
    agent = own_setting.agent(upstream, loops=3)
    with ThreadPoolExecutor(3) as pool:
        answers = {guest: pool.submit(guest.ask, "/slow") for guest in cloud.guests.values()}
        upstream.until_asked("/slow", 3)
        agent.terminate()
        agent.until_logged("requests in progress have 10 seconds")
        gate.set()
        for guest, answer in answers.items():
            assert answer.result().body == guest.mark("/slow")
    assert agent.exit_status() == 0
