"""Rule 9: a listener's life is its namespace's life."""

from __future__ import annotations

import os
import signal
import socket
import threading
import uuid

import pytest
from pyroute2 import IPRoute

from fastmeta.lab.namespaces import NETNS_FOLDER, inode_of, inside
from fastmeta.lab.topology import METADATA_ADDRESS, Lab, Network, Port

from .agents import Agent, until
from .conftest import Setting
from .guests import Cut, Guest
from .upstream import WAIT, Exchange

GONE_WITHIN = 15.0
"""Seconds in which a deleted namespace must really be gone: five times what was measured with SO_LINGER 0 (3 s). With
a guest that does not read it would be more than 200 s otherwise."""


def switch_links(lab: Lab) -> set[str]:
    """The interfaces in the namespace of the bridges: one for each port that is alive."""

    def names() -> set[str]:
        with IPRoute() as ipr:
            return {link.get_attr("IFLA_IFNAME") for link in ipr.get_links()}

    return inside(f"fastmeta-{lab.tag}-switch", names)


class Place:
    """A network or router namespace that can be made, removed and made again as the same."""

    def __init__(self, setting: Setting, kind: str) -> None:
        self.lab = setting.cloud.lab
        self.cloud = setting.cloud
        self.kind = kind
        self.network: Network = self.lab.add_network(f"{kind}-{uuid.uuid4().hex[:8]}")
        self.uuid = self.network.network_id if kind == "network" else str(uuid.uuid4())
        prefix = "qdhcp" if kind == "network" else "qrouter"
        self.namespace = f"{prefix}-{self.uuid}"
        self.port_id = str(uuid.uuid4())
        self.link = ""
        self.add_guest = self.cloud.add_guest
        address, tcp_port = (METADATA_ADDRESS, 80) if kind == "network" else ("0.0.0.0", 9697)
        self.listen = f"{kind}:{self.uuid}@{self.namespace}/{address}:{tcp_port}"
        self.cloud.listen.append(self.listen)
        self.port: Port | None = None

    def make(self) -> None:
        before = switch_links(self.lab)
        if self.kind == "network":
            self.lab.add_namespace(self.namespace)
            # With the same MAC as before, because the guests remember it.
            self.port = self.lab.add_port(
                self.network,
                self.namespace,
                "tap0",
                ["10.0.0.2/24"],
                extra_addresses=[f"{METADATA_ADDRESS}/32"],
                port_id=self.port_id,
            )
        else:
            self.lab.add_router_namespace(self.uuid)
            self.port = self.lab.add_port(
                self.network, self.namespace, "qr-0", ["10.0.0.1/24"], port_id=self.port_id
            )
        (self.link,) = switch_links(self.lab) - before

    def guests(self, count: int) -> list[Guest]:
        route = (
            (f"{METADATA_ADDRESS}/32", "10.0.0.2") if self.kind == "network" else ("0.0.0.0/0", "10.0.0.1")
        )
        return [self.cloud.add_guest(self.network, f"10.0.0.{5 + n}", [route]) for n in range(count)]

    def interface(self) -> dict[str, object]:
        """Its own port."""
        owner = "network:dhcp" if self.kind == "network" else "network:router_interface"
        return {
            "id": self.port_id,
            "network_id": self.network.network_id,
            "device_id": self.uuid,
            "device_owner": owner,
            "project_id": "p",
            "mac_address": "fa:16:3e:00:00:01",
            "fixed_ips": [{"ip_address": "10.0.0.2" if self.kind == "network" else "10.0.0.1"}],
        }

    def remove(self) -> None:
        self.lab.remove_namespace(self.namespace)

    def until_really_gone(self) -> None:
        """Its interface ends with it, and so does the other end of that."""
        until(lambda: self.link not in switch_links(self.lab), "end of the namespace", GONE_WITHIN)


@pytest.mark.parametrize("kind", ["network", "router"])
def test_a_namespace_that_comes_goes_and_comes(own_setting: Setting, kind: str) -> None:
    """It is waited for; when it is deleted, listener and connections close at once, whatever is in them, so that it
    really goes; under the same name it is served again. Another network is served all the time."""
    setting = own_setting
    upstream = setting.upstream()
    place = Place(setting, kind)
    other = Place(setting, "network")
    other.make()
    kept, unread, waiting = place.guests(3)
    neighbour = other.guests(1)[0]
    setting.cloud.infrastructure += [place.interface(), other.interface()]
    answered = threading.Event()

    def held(exchange: Exchange) -> bool:
        # Until the agent gives it up, or (should it not) an answer after all, long before a drain would end.
        if not exchange.gone(1):
            exchange.send(exchange.whole())
            answered.set()
        return False

    upstream.scripts |= {"held": held, "large": lambda exchange: exchange.send(exchange.whole(5_000_000))}
    agent = setting.agent(upstream)
    agent.until_logged(f"{place.namespace} is not there yet: waiting for it")
    assert neighbour.is_served()
    place.make()
    pattern = f"listening: .*{place.namespace}"
    agent.until_logged(pattern)
    before = agent.quiet_descriptors(upstream)

    with (
        kept.connect() as idle,
        unread.connect(receive_buffer=4096) as deaf,
        waiting.connect() as parked,
        waiting.connect() as half,
    ):
        idle.get("/kept")
        assert idle.answer().body == kept.mark("/kept")
        half.send(b"GET /half HTT")
        deaf.get("/large")
        parked.get("/held")
        upstream.until_asked("/held")
        assert deaf.socket.recv(1, 2)  # MSG_PEEK: its answer has begun
        place.remove()
        agent.until_logged(f"{place.namespace} is gone: closing")
        with pytest.raises(Cut) as cut:
            parked.answer()
        assert (cut.value.got, cut.value.reset) == (b"", True)
        with pytest.raises(Cut) as cut:
            idle.answer()
        assert cut.value.got == b""
        assert half.end() == b""
        place.until_really_gone()
        agent.until_logged(f"closed: .*{place.namespace}")
        assert not answered.is_set()
        assert neighbour.is_served()
    until(lambda: agent.quiet_descriptors(upstream) < before, "descriptors")

    place.make()
    agent.until_logged(pattern, 2)
    assert kept.is_served()
    assert unread.is_served()
    assert agent.quiet_descriptors(upstream) == before


@pytest.mark.parametrize("looks_away", [False, True])
def test_a_namespace_that_is_replaced(own_setting: Setting, looks_away: bool) -> None:
    """Deleted and made again at once, also while the agent is stopped and sees only what there is in the end: the old
    one is left, so that it goes, and the listener is in the new one."""
    setting = own_setting
    upstream = setting.upstream()
    place = Place(setting, "network")
    place.make()
    (guest,) = place.guests(1)
    agent = setting.agent(upstream)
    for turn in range(1, 4):
        agent.until_logged(f"listening: .*{place.namespace}", turn)
        assert guest.is_served(f"/turn/{turn}")
        old = place.link
        if looks_away:
            os.kill(agent.pid, signal.SIGSTOP)
        place.remove()
        place.make()
        if looks_away:
            os.kill(agent.pid, signal.SIGCONT)
        until(lambda old=old: old not in switch_links(setting.cloud.lab), "end of the old one", GONE_WITHIN)


def test_an_address_that_comes_later(own_setting: Setting) -> None:
    """IP_FREEBIND: Neutron's agents add 169.254.169.254 when they please, take it away, and add it again."""
    setting = own_setting
    lab = setting.cloud.lab
    upstream = setting.upstream()
    network = lab.add_network("free")
    namespace = lab.add_namespace(f"qdhcp-{network.network_id}")
    lab.add_port(network, namespace, "tap0", ["10.0.0.2/24"])
    guest = setting.cloud.add_guest(network, "10.0.0.5", [(f"{METADATA_ADDRESS}/32", "10.0.0.2")])
    setting.cloud.listen.append(f"network:{network.network_id}@{namespace}/{METADATA_ADDRESS}:80")

    def address(command: str) -> None:
        def run() -> None:
            with IPRoute() as ipr:
                index = ipr.link_lookup(ifname="tap0")[0]
                ipr.addr(command, index=index, address=METADATA_ADDRESS, prefixlen=32)

        inside(namespace, run)

    agent = setting.agent(upstream)
    assert agent.logged("ready: 1 of 1 listeners are open")
    for _ in range(2):
        address("add")
        assert guest.is_served()
        address("del")
        with pytest.raises(OSError):
            guest.connect(timeout=0.2).socket.close()


def test_a_plain_file_is_no_namespace(own_setting: Setting, lab: Lab) -> None:
    """A name in the folder on which nothing is mounted is waited for, as for one that is being made; what stands there
    is not harmed."""
    setting = own_setting
    place = Place(setting, "network")
    (guest,) = place.guests(1)
    path = NETNS_FOLDER / place.namespace
    path.write_text("not a namespace")
    try:
        agent = setting.agent(setting.upstream())
        agent.until_logged(f"{place.namespace} is not there yet: waiting for it")
        assert agent.logged("ready: 0 of 1 listeners are open")
        assert path.read_text() == "not a namespace"
    finally:
        path.unlink()
    place.make()
    agent.until_logged(f"listening: .*{place.namespace}")
    assert guest.is_served()


def test_a_tcp_port_that_is_taken_in_a_namespace(own_setting: Setting) -> None:
    """The log names place and way out; when the other one is gone it is opened."""
    setting = own_setting
    upstream = setting.upstream()
    place = Place(setting, "network")
    place.make()
    (guest,) = place.guests(1)

    def listen() -> socket.socket:
        other = socket.socket()
        other.bind((METADATA_ADDRESS, 80))
        other.listen()
        return other

    with inside(place.namespace, listen):
        agent = setting.agent(upstream)
        (line,) = agent.until_logged("somebody else listens there")
        assert "ss -ltnp 'sport = :80'" in line
        assert f"{METADATA_ADDRESS}:80 in namespace {NETNS_FOLDER / place.namespace}" in line
        assert agent.logged("ready: 0 of 1 listeners are open")
    agent.until_logged("listening: ")
    assert guest.is_served()


def ask_inside(namespace: str, instance_id: str) -> None:
    """One request from a namespace to its own listener on loopback."""

    def work() -> bytes:
        with socket.create_connection(("127.0.0.1", 80), timeout=WAIT) as connection:
            connection.sendall(b"GET /many HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            with connection.makefile("rb") as reader:
                return reader.read()

    answer = inside(namespace, work)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert instance_id.encode() in answer


def processes(agent: Agent) -> list[str]:
    with open(f"/proc/{agent.pid}/task/{agent.pid}/children") as file:
        return file.read().split()


def test_two_hundred_namespaces(own_setting: Setting) -> None:
    """One process listens in all of them, the same address is another instance in each; when all are deleted, no
    descriptor is left."""
    setting = own_setting
    lab, upstream = setting.cloud.lab, setting.upstream()
    networks = [str(uuid.uuid4()) for _ in range(200)]
    instances = {network: str(uuid.uuid4()) for network in networks}
    ports = [
        {
            "id": str(uuid.uuid4()),
            "network_id": network,
            "device_id": instances[network],
            "device_owner": "compute:nova",
            "project_id": "p",
            "mac_address": "fa:16:3e:00:00:01",
            "fixed_ips": [{"ip_address": "127.0.0.1"}],
        }
        for network in networks
    ]
    names = {network: f"fmt-{lab.tag}-{number}" for number, network in enumerate(networks)}
    agent = setting.agent(
        upstream,
        ports=ports,
        listen=[f"network:{network}@{name}/0.0.0.0:80" for network, name in names.items()],
    )
    assert agent.logged("ready: 0 of 200 listeners are open")
    before = agent.quiet_descriptors(upstream)
    for name in names.values():
        lab.add_namespace(name)
    agent.until_logged("listening: ", 200)
    assert agent.descriptors() == before + 200
    assert processes(agent) == []
    for network, name in names.items():
        ask_inside(name, instances[network])
    inodes = {inode_of(name) for name in names.values()}
    assert len(inodes) == 200
    for name in names.values():
        lab.remove_namespace(name)
    agent.until_logged("closed: ", 200)
    assert agent.quiet_descriptors(upstream) == before
