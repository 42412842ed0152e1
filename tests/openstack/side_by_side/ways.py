"""The ways from a guest to Nova, side by side in the same namespaces: the stock pair where guests look for it, and, on
other TCP ports, fastmeta, and haproxies that Neutron started before fastmeta in the agent's place."""

from __future__ import annotations

import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from fastmeta.lab.namespaces import inside
from fastmeta.lab.topology import METADATA_ADDRESS, METADATA_ADDRESS_V6
from tests.openstack.conftest import Setting
from tests.openstack.scene import Guest
from tests.openstack.stock.agent import StockAgent
from tests.openstack.stock.haproxies import Haproxies
from tests.service.link_local import ip, link_local, until_usable
from tests.service.upstream import WAIT, Received, Upstream

from .cases import Case
from .nova import nova
from .outcomes import Outcome, run

SECRET = "the-secret-of-both-ways"
OURS = {80: 8080, 9697: 9698}
RELAYED = {80: 8081, 9697: 9699}
"""The TCP ports beside stock's."""
PRIVATE = "fe80::1:2:3:4"
"""A link-local address that is not made of the MAC (RFC 8981): nobody can say whose it is."""
SETTLED = 0.02
"""Seconds in which a request that has been answered has come to Nova's list, too."""
GIVEN_UP = 0.5
"""The same for one whose guest has gone: it may still be on its way."""

Connect = Callable[[], socket.socket]


@dataclass(frozen=True)
class Way:
    """connect: by the name of the guest."""

    nova: Upstream
    connect: dict[str, Connect]

    def outcome(self, case: Case) -> Outcome:
        before = len(self.nova.received)
        answers = run(case, self.connect[case.guest]())
        time.sleep(GIVEN_UP if case.ends else SETTLED)
        received = [self._named(request) for request in self.nova.received[before:]]
        return Outcome(answers, tuple(received))

    def _named(self, request: Received) -> Received:
        """Each way has a Nova of its own, with a TCP port of its own."""
        host = ("host", self.nova.host)
        headers = tuple(("host", "nova") if item == host else item for item in request.headers)
        return replace(request, headers=headers)


def _connect(guest: Guest, to: Sequence[object], source: str = "") -> Connect:
    """to: address and TCP port; an IPv6 address is on the guest's link, and source, if it is given, too."""

    def work() -> socket.socket:
        ipv6 = ":" in str(to[0])
        connection = socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET)
        connection.settimeout(WAIT)
        try:
            scope = (0, socket.if_nametoindex("eth0")) if ipv6 else ()
            if source:
                connection.bind((source, 0, *scope))
            connection.connect((*to, *scope))
        except BaseException:
            connection.close()
            raise
        return connection

    return lambda: inside(guest.namespace, work)


class Places:
    """A network with its own namespace and a router, and guests in both."""

    def __init__(self, setting: Setting) -> None:
        scene = setting.scene
        self.isolated = scene.isolated("a", "10.0.0.0/24", agent_address="10.0.0.2", cidr_v6="fd00:10::/64")
        self.router = scene.router("router")
        self.routed = scene.routed(
            self.router, "b", "10.1.0.0/24", gateway="10.1.0.1", cidr_v6="fd00:11::/64"
        )
        self.guests = {
            "isolated": scene.guest(self.isolated, "10.0.0.5", "fd00:10::5"),
            "nobody": scene.guest(self.isolated, "10.0.0.8"),
            "no-instance": scene.guest(self.isolated, "10.0.0.9"),
            "routed": scene.guest(self.routed, "10.1.0.5", "fd00:11::5"),
            "routed-nobody": scene.guest(self.routed, "10.1.0.8"),
        }
        api = setting.cloud.api
        for name in ("nobody", "routed-nobody"):
            api.delete_port(self.guests[name].instance.port_id)
        api.update_port(self.guests["no-instance"].instance.port_id, device_id="", device_owner="")
        for name in ("isolated", "routed"):
            scene.enable_ipv6(self.guests[name])
        ip(self.guests["isolated"].namespace, "addr", "add", f"{PRIVATE}/64", "dev", "eth0", "nodad")
        interface = self.router.interfaces[self.routed.network_id]
        self._gateway = link_local(str(interface["mac_address"]))
        self.interface = scene.gateway(self.isolated).interface
        until_usable(self.dhcp_namespace, self.interface, METADATA_ADDRESS_V6)

    @property
    def dhcp_namespace(self) -> str:
        return f"qdhcp-{self.isolated.network_id}"

    @property
    def router_namespace(self) -> str:
        return f"qrouter-{self.router.router_id}"

    def connect(self, beside: dict[int, int] | None = None) -> dict[str, Connect]:
        """By the name of the guest: to the metadata address, or to these TCP ports in place of 80 and 9697. (The
        redirection in a router's namespace is for one TCP port: another one is asked itself.)"""
        to_v4, to_v6 = (METADATA_ADDRESS, 80), (METADATA_ADDRESS_V6, 80)
        routed_v4, routed_v6 = to_v4, to_v6
        if beside is not None:
            to_v4, to_v6 = (METADATA_ADDRESS, beside[80]), (METADATA_ADDRESS_V6, beside[80])
            routed_v4, routed_v6 = ("10.1.0.1", beside[9697]), (self._gateway, beside[9697])
        found = {
            name: _connect(guest, routed_v4 if name.startswith("routed") else to_v4)
            for name, guest in self.guests.items()
        }
        for prefix, guest, to in (
            ("", self.guests["isolated"], to_v6),
            ("routed-", self.guests["routed"], routed_v6),
        ):
            found[f"{prefix}ipv6"] = _connect(guest, to, link_local(guest.port.mac_address))
        found["ipv6-privacy"] = _connect(self.guests["isolated"], to_v6, PRIVATE)
        return found


@dataclass(frozen=True)
class Ways:
    stock: Way
    ours: Way
    relayed: Way
    """Neutron's haproxies before fastmeta."""


@contextmanager
def all_ways(setting: Setting) -> Iterator[Ways]:
    places = Places(setting)
    layout = setting.stack.layout
    with ExitStack() as exits:
        novas = [exits.enter_context(nova(SECRET)) for _ in range(3)]
        agent = exits.enter_context(StockAgent(layout, novas[0].tcp_port, SECRET))
        proxies = exits.enter_context(Haproxies(layout, agent.folder, agent.socket))
        proxies.network(places.isolated.network_id, places.dhcp_namespace, interface=places.interface)
        proxies.router(places.router.router_id, places.router_namespace)

        listen = []
        for entry in setting.scene.listen:
            address, _, port = entry.rpartition(":")
            listen.append(f"{address}:{OURS[int(port)]}")
        setting.agent("rpc", listen, nova_port=novas[1].tcp_port, secret=SECRET)

        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="fmr-", dir="/tmp")))
        relay = folder / "metadata_proxy"
        setting.agent("rpc", [], nova_port=novas[2].tcp_port, secret=SECRET, metadata_socket=relay)
        proxies = exits.enter_context(Haproxies(layout, folder, relay))
        proxies.network(
            places.isolated.network_id, places.dhcp_namespace, interface=places.interface, port=RELAYED[80]
        )
        proxies.router(places.router.router_id, places.router_namespace, port=RELAYED[9697])
        yield Ways(
            Way(novas[0], places.connect()),
            Way(novas[1], places.connect(OURS)),
            Way(novas[2], places.connect(RELAYED)),
        )
