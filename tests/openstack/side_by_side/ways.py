"""The two ways from a guest to Nova, side by side in the same namespaces: the stock pair where guests look for it, and
fastmeta beside it on other TCP ports."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

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
BESIDE = {80: 8080, 9697: 9698}
"""fastmeta's TCP port beside each one of stock's."""
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


@contextmanager
def both(setting: Setting) -> Iterator[tuple[Way, Way]]:
    """stock's and ours."""
    scene = setting.scene
    isolated = scene.isolated("a", "10.0.0.0/24", agent_address="10.0.0.2", cidr_v6="fd00:10::/64")
    router = scene.router("router")
    routed = scene.routed(router, "b", "10.1.0.0/24", gateway="10.1.0.1", cidr_v6="fd00:11::/64")
    guests = {
        "isolated": scene.guest(isolated, "10.0.0.5", "fd00:10::5"),
        "nobody": scene.guest(isolated, "10.0.0.8"),
        "no-instance": scene.guest(isolated, "10.0.0.9"),
        "routed": scene.guest(routed, "10.1.0.5", "fd00:11::5"),
        "routed-nobody": scene.guest(routed, "10.1.0.8"),
    }
    api = setting.cloud.api
    for name in ("nobody", "routed-nobody"):
        api.delete_port(guests[name].instance.port_id)
    api.update_port(guests["no-instance"].instance.port_id, device_id="", device_owner="")
    for name in ("isolated", "routed"):
        scene.enable_ipv6(guests[name])
    ip(guests["isolated"].namespace, "addr", "add", f"{PRIVATE}/64", "dev", "eth0", "nodad")
    gateway = link_local(str(router.interfaces[routed.network_id]["mac_address"]))
    stock: dict[str, Connect] = {}
    ours: dict[str, Connect] = {}
    for name, guest in guests.items():
        stock[name] = _connect(guest, (METADATA_ADDRESS, 80))
        # The redirection in a router's namespace is for one TCP port: the other one is asked itself.
        ours[name] = _connect(
            guest, ("10.1.0.1", 9698) if name.startswith("routed") else (METADATA_ADDRESS, 8080)
        )
    for prefix, guest, to in (
        ("", guests["isolated"], (METADATA_ADDRESS_V6, 8080)),
        ("routed-", guests["routed"], (gateway, 9698)),
    ):
        source = link_local(guest.port.mac_address)
        stock[f"{prefix}ipv6"] = _connect(guest, (METADATA_ADDRESS_V6, 80), source)
        ours[f"{prefix}ipv6"] = _connect(guest, to, source)
    stock["ipv6-privacy"] = _connect(guests["isolated"], (METADATA_ADDRESS_V6, 80), PRIVATE)
    ours["ipv6-privacy"] = _connect(guests["isolated"], (METADATA_ADDRESS_V6, 8080), PRIVATE)

    namespaces = {entry.partition("@")[2].partition("/")[0] for entry in scene.listen}
    dhcp, qrouter = (
        next(each for each in namespaces if each.startswith(kind)) for kind in ("qdhcp", "qrouter")
    )
    interface = scene.gateway(isolated).interface
    until_usable(dhcp, interface, METADATA_ADDRESS_V6)
    with ExitStack() as exits:
        stocks_nova, our_nova = exits.enter_context(nova(SECRET)), exits.enter_context(nova(SECRET))
        layout = setting.stack.layout
        agent = exits.enter_context(StockAgent(layout, stocks_nova.tcp_port, SECRET))
        proxies = exits.enter_context(Haproxies(layout, agent.folder, agent.socket))
        proxies.network(isolated.network_id, dhcp, interface=interface)
        proxies.router(router.router_id, qrouter)
        for index, entry in enumerate(scene.listen):
            address, _, port = entry.rpartition(":")
            scene.listen[index] = f"{address}:{BESIDE[int(port)]}"
        setting.agent("rpc", nova_port=our_nova.tcp_port, secret=SECRET)
        yield Way(stocks_nova, stock), Way(our_nova, ours)
