"""Guests that ask over IPv6 from their link-local addresses, and the router that they are behind."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import uuid

from fastmeta.lab.namespaces import inside, run_command, sbin_environment
from fastmeta.lab.redirect import METADATA_PORT
from fastmeta.lab.topology import METADATA_ADDRESS_V6, Network, Port, in_namespace_command

from .agents import Cloud, port_item, until
from .guests import Guest, Wire
from .upstream import WAIT, mark


def ip(namespace: str, *arguments: str) -> str:
    return run_command(["ip", "-n", namespace, *arguments])


def link_local(mac: str) -> str:
    """fe80:: and the MAC as modified EUI-64 (RFC 4291 appendix A), as the kernel forms it."""
    bytes_ = [int(byte, 16) for byte in mac.split(":")]
    bytes_[0] ^= 2
    groups = (bytes_[0:2], [bytes_[2], 0xFF], [0xFE, bytes_[3]], bytes_[4:6])
    return "fe80::" + ":".join(f"{high << 8 | low:x}" for high, low in groups)


def flags(namespace: str, interface: str, address: str) -> set[str] | None:
    """What the kernel says of an address (tentative, dadfailed); None when it is not there."""
    for link in json.loads(ip(namespace, "-6", "-j", "addr", "show", "dev", interface)):
        for item in link.get("addr_info", ()):
            if item["local"] == address:
                return {name for name in ("tentative", "dadfailed") if item.get(name)}
    return None


def until_usable(namespace: str, interface: str, address: str) -> None:
    """Waits for the end of duplicate address detection."""
    until(lambda: flags(namespace, interface, address) == set(), f"{address} on {interface}")


class LinkLocalGuest:
    """A guest of the cloud, as it asks from its link-local address."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.namespace = guest.port.namespace
        self.address = link_local(guest.port.mac_address)

    def behind(self, interface: Port) -> LinkLocalGuest:
        """Takes the route that the router announces (RFC 4191) over this port."""
        until_usable(interface.namespace, interface.interface, link_local(interface.mac_address))
        until_usable(self.namespace, "eth0", self.address)
        gateway = link_local(interface.mac_address)
        route = [f"{METADATA_ADDRESS_V6}/128", "via", gateway, "dev", "eth0"]
        ip(self.namespace, "-6", "route", "replace", *route)
        return self

    def mark(self, target: str) -> bytes:
        return mark(self.guest.instance_id, self.guest.project_id, self.address, target)

    def curl(self, target: str) -> tuple[int, dict[str, str], bytes]:
        """Status (0: none), headers and body that curl gets."""
        done = self.start_curl(target).communicate(timeout=WAIT * 2)[0]
        if not done:
            return 0, {}, b""
        head, _, body = done.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(re.split(r":\s*", line.lower(), maxsplit=1) for line in lines)
        return int(first.split(" ")[1]), headers, body

    def start_curl(self, target: str) -> subprocess.Popen[bytes]:
        url = f"http://[{METADATA_ADDRESS_V6}%25eth0]{target}"
        command = ["curl", "-q", "-sS", "-i", "--noproxy", "*", "--max-time", "30", url]
        return subprocess.Popen(
            in_namespace_command(self.namespace, command), stdout=subprocess.PIPE, env=sbin_environment()
        )

    def connect(self, source: str = "") -> Wire:
        """A connection of its own; source: another address to come from."""

        def work() -> socket.socket:
            index = socket.if_nametoindex("eth0")
            connection = socket.socket(socket.AF_INET6)
            connection.settimeout(WAIT)
            try:
                if source:
                    connection.bind((source, 0, 0, index))
                connection.connect((METADATA_ADDRESS_V6, 80, 0, index))
            except BaseException:
                connection.close()
                raise
            return connection

        return Wire(inside(self.namespace, work))

    def is_served(self, target: str = "/served") -> bool:
        """Whether it gets its own data."""
        status, _, body = self.curl(target)
        return (status, body) == (200, self.mark(target))


class Router:
    """A router with links to several networks, in a namespace that can be made anew. Network n is
    10.n.0.0/24."""

    def __init__(self, cloud: Cloud, router_id: str | None = None, prefix: str = "qrouter") -> None:
        """router_id: a new one when None; prefix: of its namespace's name."""
        self.cloud = cloud
        self.lab = cloud.lab
        self.uuid = router_id or str(uuid.uuid4())
        self.namespace = self.lab.add_router_namespace(self.uuid, ipv6=True, prefix=prefix)
        self.networks: dict[int, Network] = {}
        self.interfaces: dict[int, Port] = {}
        cloud.listen.append(f"router:{self.uuid}@{self.namespace}/[::]:{METADATA_PORT}")

    def add_link(
        self, number: int, *, index: int | None = None, again: bool = False, known: bool = True
    ) -> Port:
        """To network number, which is made when there is none yet. again: the same port as before; known: Neutron
        knows the router's port."""
        if number not in self.networks:
            self.networks[number] = self.lab.add_network(f"net{number}-{self.uuid[:6]}")
        port_id = self.interfaces[number].port_id if again else str(uuid.uuid4())
        port = self.lab.add_port(
            self.networks[number],
            self.namespace,
            f"qr-{port_id[:11]}",
            [f"10.{number}.0.1/24"],
            port_id=port_id,
            index=index,
        )
        self.interfaces[number] = port
        if known and not again:
            self.cloud.infrastructure.append(self.item(number))
        return port

    def item(self, number: int, **other: object) -> dict[str, object]:
        """What Neutron says about its port on network number."""
        return port_item(self.interfaces[number], self.uuid, "p", "network:router_interface") | other

    def add_guest(self, number: int, last: int, mac: str, *, known: bool = True) -> LinkLocalGuest:
        """At 10.<number>.0.<last>, behind the router."""
        network = self.networks[number]
        name = f"{network.name}-{last}"
        port = self.lab.add_guest(
            network,
            name,
            f"10.{number}.0.{last}/24",
            routes=[("0.0.0.0/0", f"10.{number}.0.1")],
            mac_address=mac,
        )
        guest = Guest(port, str(uuid.uuid4()), uuid.uuid5(uuid.NAMESPACE_DNS, network.name).hex)
        if known:
            self.cloud.guests[name] = guest
        return LinkLocalGuest(guest)

    def index(self, number: int) -> int:
        """Of its interface on network number."""
        shown = ip(self.namespace, "-j", "link", "show", self.interfaces[number].interface)
        return int(json.loads(shown)[0]["ifindex"])
