"""Neutron's own code, from its packages, starts, watches, changes and ends stand-ins in place of haproxies. Its servers
are not needed: who has an address is in a file."""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fastmeta.lab.topology import METADATA_ADDRESS_V6, Lab
from fastmeta.stand_in.program import FOLDER
from tests.openstack.conftest import FIGURES
from tests.openstack.stack.packages import install
from tests.openstack.stack.stack import Stack
from tests.openstack.stock.neutron_agent import NeutronAgent
from tests.service.agents import Agent, Cloud
from tests.service.conftest import Setting
from tests.service.guests import Guest
from tests.service.link_local import LinkLocalGuest, ip, until_usable
from tests.stand_in.kit import Ground, command_line, is_alive, until
from tests.stand_in.places import Scene

MONITORED = 1
"""Seconds between looks of Neutron's monitor."""


@pytest.fixture(scope="session")
def python() -> str:
    """An interpreter that has Neutron."""
    layout = Stack().layout
    install(layout.environment, layout.logs / "install.log")
    return layout.program("python")


class Node:
    """A network, a router and guests in both; an agent of ours; agents of Neutron's."""

    def __init__(self, lab: Lab, python: str, exits: ExitStack) -> None:
        self.lab = lab
        self.python = python
        self.exits = exits
        self.setting = Setting(Cloud(lab))
        exits.enter_context(self.setting.stack)
        self.scene = Scene(self.setting)
        self.ground: Ground = self.scene.ground
        name = uuid.uuid4().hex[:6]
        self.network, self.dhcp = self.scene.cloud.add_network(f"a{name}", ["10.0.0.5"])
        _, self.router_id = self.scene.cloud.add_routed_network(f"b{name}", ["10.0.0.5"])
        self.isolated, self.routed = self.scene.cloud.guests.values()
        self.folder = self.ground.folder / "neutron"
        self.folder.mkdir()
        exits.callback(self._end)

    def neutron(self, *, stock: bool = False, **options: Any) -> NeutronAgent:
        """One that finds the stand-in first; or stock: that does not."""
        environment = {"FASTMETA_STAND_IN_CONF": str(self.ground.options)}
        path = "" if stock else str(FOLDER)
        agent = NeutronAgent(self.python, self.folder, path=path, environment=environment, **options)
        return self.exits.enter_context(agent)

    def fastmeta(self, **options: Any) -> Agent:
        return self.scene.agent(**options)

    @property
    def network_id(self) -> str:
        return self.network.network_id

    def spawn_network(self, neutron: NeutronAgent, **order: Any) -> bool:
        arguments = {"network_id": self.network_id, "port": 80, "bind_address": "169.254.169.254"}
        return neutron.spawn(
            self.network_id, self.dhcp.namespace, {**arguments, **order.pop("more", {})}, **order
        )

    def spawn_router(self, neutron: NeutronAgent, **order: Any) -> bool:
        arguments = {"router_id": self.router_id, "port": 9697, "bind_address": "::"}
        return neutron.spawn(self.router_id, f"qrouter-{self.router_id}", arguments, **order)

    def destroy_network(self, neutron: NeutronAgent, **order: Any) -> None:
        neutron.destroy(self.network_id, self.dhcp.namespace, **order)

    def _end(self) -> None:
        """Whatever Neutron has started."""
        for path in (self.folder / "pids").glob("*.pid.haproxy"):
            pid = int(path.read_text())
            if str(self.folder) in command_line(pid):  # (the number could be another's by now)
                os.kill(pid, signal.SIGKILL)
                until(lambda pid=pid: not is_alive(pid), "the end of a proxy")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    if os.geteuid() != 0:
        pytest.fail("needs root: for namespaces")
    with Lab() as built:
        yield built


@pytest.fixture
def node(lab: Lab, python: str) -> Iterator[Node]:
    with ExitStack() as exits:
        made = Node(lab, python, exits)
        yield made
        made.setting.check()


def is_refused(guest: Guest) -> bool:
    try:
        guest.connect().socket.close()
    except ConnectionRefusedError:
        return True
    return False


def test_spawn_and_destroy(node: Node) -> None:
    """What Neutron starts it finds active at once, and what it ends is gone."""
    agent = node.fastmeta()
    neutron = node.neutron()
    assert node.spawn_network(neutron)
    assert node.spawn_router(neutron)
    for identifier in (node.network_id, node.router_id):
        assert neutron.is_active(identifier)
        assert os.readlink(f"/proc/{neutron.pid(identifier)}/exe") == str(FOLDER / "fastmeta-holder")
    assert node.isolated.is_served()
    assert node.routed.is_served()
    pid = neutron.pid(node.network_id)
    node.destroy_network(neutron)
    until(lambda: not is_alive(pid), "the end of the holder")
    until(lambda: is_refused(node.isolated), "the end of the listener")
    assert not neutron.is_active(node.network_id)
    assert not (node.folder / "ns-metadata-proxy" / f"{node.network_id}.conf").exists()
    assert node.routed.is_served("/still")
    neutron.destroy(node.router_id, f"qrouter-{node.router_id}")
    until(lambda: node.ground.sockets() == [], "nothing of them is left")
    agent.check_log()


def test_both_addresses_of_a_network(node: Node) -> None:
    """Neutron waits for the end of duplicate address detection itself, and then binds to the interface."""
    ip(node.dhcp.namespace, "addr", "add", f"{METADATA_ADDRESS_V6}/128", "dev", node.dhcp.interface)
    node.fastmeta()
    neutron = node.neutron()
    more = {"bind_address_v6": METADATA_ADDRESS_V6, "bind_interface": node.dhcp.interface}
    assert node.spawn_network(neutron, more=more)
    guest = LinkLocalGuest(node.isolated)
    until_usable(guest.namespace, "eth0", guest.address)
    assert guest.is_served("/v6")
    assert node.isolated.is_served("/v4")


def test_ovn(node: Node) -> None:
    node.fastmeta()
    neutron = node.neutron()
    assert node.spawn_network(neutron, ovn=True)
    assert neutron.is_active(node.network_id, ovn=True)
    assert (node.folder / "ovn-metadata-proxy" / f"{node.network_id}.conf").exists()
    assert node.isolated.is_served()
    node.destroy_network(neutron, ovn=True)
    until(lambda: is_refused(node.isolated), "the end of the listener")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_monitor_starts_a_killed_one_again(node: Node, number: int) -> None:
    node.fastmeta()
    neutron = node.neutron(check_interval=MONITORED)
    assert node.spawn_network(neutron)
    first = neutron.pid(node.network_id)
    os.kill(first, number)
    # (The moment without a listener may be too short to be seen: the monitor may look right then.)
    until(lambda: not is_alive(first), "the end of the holder")
    until(lambda: neutron.is_active(node.network_id), "the monitor's next look")
    assert neutron.pid(node.network_id) != first
    assert node.isolated.is_served()
    assert "should not have died" in neutron.log
    until(lambda: len(node.ground.sockets()) == 1, "removal of the first one's name")


def test_the_monitor_leaves_a_living_one_alone(node: Node) -> None:
    """Also while fastmeta is away, and after it has come back."""
    agent = node.fastmeta()
    neutron = node.neutron(check_interval=MONITORED)
    assert node.spawn_network(neutron)
    first = neutron.pid(node.network_id)
    node.scene.kill_agent(agent)
    time.sleep(2.5 * MONITORED)
    assert neutron.is_active(node.network_id)
    node.fastmeta()
    assert node.isolated.is_served()
    time.sleep(1.5 * MONITORED)
    assert neutron.pid(node.network_id) == first
    assert "should not have died" not in neutron.log


def test_a_changed_configuration(node: Node) -> None:
    """Neutron ends the proxy and starts another at once: there is no moment at which both would be wrong."""
    node.fastmeta()
    neutron = node.neutron()
    assert node.spawn_network(neutron)
    first = neutron.pid(node.network_id)
    changed = {"options": {"timeout_client": 77}, "group": "metadata_haproxy"}
    assert node.spawn_network(neutron, **changed)
    second = neutron.pid(node.network_id)
    assert second != first
    until(lambda: not is_alive(first), "the end of the first")
    assert "77s" in (node.folder / "ns-metadata-proxy" / f"{node.network_id}.conf").read_text()
    assert node.isolated.is_served()
    # Without a change it stays.
    assert node.spawn_network(neutron)
    assert neutron.pid(node.network_id) == second


def test_neutrons_agent_is_restarted(node: Node) -> None:
    """A new one finds what the old one has started, and starts nothing."""
    node.fastmeta()
    first = node.neutron()
    assert node.spawn_network(first)
    assert node.spawn_router(first)
    pids = [first.pid(identifier) for identifier in (node.network_id, node.router_id)]
    first.kill()
    assert node.isolated.is_served("/between")
    second = node.neutron(check_interval=MONITORED)
    assert node.spawn_network(second)
    assert node.spawn_router(second)
    assert [second.pid(identifier) for identifier in (node.network_id, node.router_id)] == pids
    assert all(second.is_active(identifier) for identifier in (node.network_id, node.router_id))
    node.destroy_network(second)
    until(lambda: is_refused(node.isolated), "the end of the listener")
    assert node.routed.is_served("/still")


def test_a_pid_file_that_is_lost(node: Node) -> None:
    """Neutron takes the proxy for dead and starts a second one; of ours only one is left, with haproxies both."""
    node.fastmeta()
    neutron = node.neutron()
    assert node.spawn_network(neutron)
    first = neutron.pid(node.network_id)
    (node.folder / "pids" / f"{node.network_id}.pid.haproxy").unlink()
    assert node.spawn_network(neutron)
    until(lambda: not is_alive(first), "the end of the first")
    assert neutron.is_active(node.network_id)
    assert all(node.isolated.is_served(f"/{number}") for number in range(10))


def test_from_haproxy_to_us_and_back(node: Node) -> None:
    """An operator puts the folder on PATH, or takes it away, and starts Neutron's agents anew: proxies that run stay
    what they are until they are ended."""
    agent = node.fastmeta()
    stock = node.neutron(stock=True)
    assert node.spawn_network(stock)
    first = stock.pid(node.network_id)
    assert os.readlink(f"/proc/{first}/exe") == "/usr/sbin/haproxy"
    stock.kill()
    ours = node.neutron()
    assert node.spawn_network(ours)
    assert ours.pid(node.network_id) == first
    node.destroy_network(ours)
    assert node.spawn_network(ours)
    assert node.isolated.is_served()
    node.destroy_network(ours)
    ours.kill()
    stock = node.neutron(stock=True)
    assert node.spawn_network(stock)
    assert os.readlink(f"/proc/{stock.pid(node.network_id)}/exe") == "/usr/sbin/haproxy"
    node.destroy_network(stock)
    agent.check_log()


def test_without_fastmeta_neutron_is_told(node: Node) -> None:
    """As when haproxy cannot start: an error in its log, and nothing that it would watch."""
    neutron = node.neutron()
    assert not node.spawn_network(neutron)
    assert "fastmeta is not running" in neutron.log
    assert not neutron.is_active(node.network_id)
    assert neutron.pids == []


def test_without_fastmeta_the_real_one_runs(node: Node) -> None:
    node.ground.set_options("when_away = haproxy")
    neutron = node.neutron()
    assert node.spawn_network(neutron)
    assert neutron.is_active(node.network_id)
    assert os.readlink(f"/proc/{neutron.pid(node.network_id)}/exe") == "/usr/sbin/haproxy"
    node.destroy_network(neutron)


def test_a_namespace_that_goes_as_neutron_lets_it_go(node: Node, lab: Lab) -> None:
    agent = node.fastmeta()
    before = agent.quiet_descriptors(node.scene.upstream)
    neutron = node.neutron()
    assert node.spawn_network(neutron)
    assert node.isolated.is_served()
    node.destroy_network(neutron)
    lab.remove_namespace(node.dhcp.namespace)
    until(lambda: node.ground.sockets() == [], "the end of the holder")
    assert agent.quiet_descriptors(node.scene.upstream) == before
    agent.check_log()


def test_two_hundred_networks(node: Node, lab: Lab) -> None:
    """Started and ended by Neutron, all of them; the agent is killed and started in between."""
    agent = node.fastmeta()
    neutron = node.neutron()
    assert node.spawn_network(neutron)
    before = agent.quiet_descriptors(node.scene.upstream)
    networks = [str(uuid.uuid4()) for _ in range(200)]
    namespaces = {network: lab.add_namespace(f"qdhcp-{network}") for network in networks}
    began = time.monotonic()
    for network in networks:
        arguments = {"network_id": network, "port": 80, "bind_address": "169.254.169.254"}
        assert neutron.spawn(network, namespaces[network], arguments)
    took = time.monotonic() - began
    assert len(node.ground.sockets()) == 201
    assert agent.quiet_descriptors(node.scene.upstream) == before + 2 * 200
    pss = [_pss(neutron.pid(network)) for network in networks]
    FIGURES.append(
        f"200 proxies by Neutron: {took / 200 * 1000:.0f} ms each, their holders {max(pss)} kB PSS each"
    )
    assert max(pss) <= 64
    node.scene.kill_agent(agent)
    assert all(neutron.is_active(network) for network in networks)
    agent = node.fastmeta()
    until(lambda: len(agent.logged("listening: .*namespace")) == 201, "adoption of all")
    assert node.isolated.is_served()
    storm = threading.Thread(
        target=lambda: [os.kill(neutron.pid(network), signal.SIGTERM) for network in networks[:100]]
    )
    storm.start()
    for network in networks[100:]:
        neutron.destroy(network, namespaces[network])
    storm.join()
    until(lambda: len(node.ground.sockets()) == 1, "the end of all others")
    assert agent.quiet_descriptors(node.scene.upstream) == before
    assert node.isolated.is_served("/at-the-end")


def _pss(pid: int) -> int:
    """kB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise AssertionError(pid)
