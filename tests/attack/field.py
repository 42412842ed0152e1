"""Where attacks take place: an agent before a Nova, hostile guests, and innocent ones who must not notice them.

Each attack has an agent of its own, so that its peak of memory is that of the attack. What was measured is printed at
the end of the run (see conftest.py).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

from pyroute2 import IPRoute

from fastmeta.lab.namespaces import inside
from fastmeta.lab.topology import METADATA_ADDRESS, Lab

from ..service.agents import Agent, Cloud, port_item
from ..service.guests import Guest
from .measure import KIB, MIB
from .siege import Siege

CONNECTION = 2 * KIB
"""Records of a guest's connection and of its address, with what malloc adds."""
SMALL = 20 * KIB
"""A buffer of 16 KiB with the table of its head: a request, the first part of an answer."""
LARGE = 68 * KIB
"""The same of 64 KiB: a gathered body, further parts of an answer."""
ADDRESS = 1280
"""An address of a scope that is known, known to be nobody's, or asked for."""
ALLOWANCE = 10 * MIB
"""What does not depend on the attack: Python's objects for the misses under way and its log's lines, kept buffers."""

MAX_PARKED_PER_SCOPE = 2048
MAX_PARKED_PER_ADDRESS = 64
MAX_CONNECTIONS_PER_SCOPE = 4096
MAX_CONNECTIONS_PER_ADDRESS = 128
MAX_UPSTREAM_CONNECTIONS = 256
MAX_GATHERED_BODIES = 512
"""Defaults of [fastmeta]."""

NETWORKS = 4
KNOWN = 128
"""Of a hostile network so many addresses are an instance's, the others are nobody's."""


class Ground:
    """Networks hostile-1 to hostile-4, in each a guest with the 65,536 addresses of 10.1.0.0/16, and an innocent one;
    networks with innocent guests only, one of them behind a router."""

    def __init__(self, lab: Lab) -> None:
        self.cloud = Cloud(lab)
        self.attackers: list[Guest] = []
        ports = []
        for number in range(1, NETWORKS + 1):
            name = f"hostile{number}"
            _, dhcp = self.cloud.add_network(name, ["10.0.0.5", "10.0.0.66"])
            attacker = self.cloud.guests[f"{name}-66"]
            self.attackers.append(attacker)
            _own_many(attacker.port.namespace, dhcp.namespace)
            many = port_item(attacker.port, attacker.instance_id, attacker.project_id)
            many["fixed_ips"] += [{"ip_address": address_of(index)} for index in range(KNOWN)]
            ports.append(many)
        self.cloud.add_network("elsewhere", ["10.0.0.5"])
        self.cloud.add_routed_network("routed", ["10.0.0.5"])
        self.ports = self.cloud.ports(*self.attackers) + ports
        guests = self.cloud.guests
        self.neighbour = guests["hostile1-5"]
        self.others = [guests["elsewhere-5"], guests["routed-5"]]


def address_of(index: int) -> str:
    """An address of a hostile guest."""
    return str(ipaddress.ip_address("10.1.0.0") + index)


def get(target: str) -> str:
    """A request of a hostile guest."""
    return f"GET {target} HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n"


def _own_many(namespace: str, dhcp_namespace: str) -> None:
    """All of 10.1.0.0/16 is local to one namespace; the other one routes it there."""

    def local() -> None:
        with IPRoute() as ipr:
            ipr.route("add", dst="10.1.0.0/16", oif=1, type="local", table=255, scope="host")

    def route() -> None:
        with IPRoute() as ipr:
            ipr.route("add", dst="10.1.0.0/16", gateway="10.0.0.66")

    inside(namespace, local)
    inside(dhcp_namespace, route)


class Attack(Siege):
    """An attack on an agent. neighbour: an innocent guest of the network hostile-1 is among those who ask. Options are
    the agent's."""

    def __init__(
        self, ground: Ground, name: str, *, bound: int, neighbour: bool = True, **options: object
    ) -> None:
        super().__init__(name, bound=bound)
        self.ground = ground
        self.guests = [*([ground.neighbour] if neighbour else []), *ground.others]
        self.options = {"access_log": "false", **options}

    def serve(self) -> int:
        self.agent = self.stack.enter_context(
            Agent(
                self.ground.cloud.listen,
                self.ground.ports,
                nova_tcp_port=self.nova.tcp_port,
                default=["debug = false"],
                **self.options,
            )
        )
        return self.agent.pid

    def innocents(self) -> Sequence[tuple[dict[str, Any], str | None]]:
        return [
            (
                {
                    "target": [METADATA_ADDRESS, guest.tcp_port],
                    "own": f"<{guest.instance_id}|{guest.project_id}|{guest.address}|",
                },
                guest.port.namespace,
            )
            for guest in self.guests
        ]

    def namespace(self, number: int) -> str | None:
        return self.ground.attackers[number - 1].port.namespace
