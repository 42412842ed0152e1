"""Crowds: many guests of a network in one namespace, who all ask at once for the first time."""

from __future__ import annotations

import contextlib
import ipaddress
import threading
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from bench.crowd import play_guests
from fastmeta.lab.namespaces import inside, run_command
from fastmeta.lab.redirect import METADATA_PORT
from fastmeta.lab.topology import METADATA_ADDRESS, Lab, Network, Port

from .agents import port_item
from .upstream import mark

TARGET = "/latest/meta-data/instance-id"
"""What bench/storm.py asks for."""
LIMIT = 30.0
"""Seconds for a request."""


@dataclass(frozen=True)
class Crowd:
    """The guests of one network: the instance of each address."""

    network: Network
    namespace: str
    project_id: str
    instances: dict[str, str]

    @property
    def answers(self) -> dict[str, str]:
        """What each of them must get, which nobody else must."""
        return {
            address: mark(instance_id, self.project_id, address, TARGET).decode().strip()
            for address, instance_id in self.instances.items()
        }


class Place:
    """A network, or a router with its networks, and their crowds. listen: where an agent must; ports: all that Neutron
    has of it, as its API shows them."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.listen = ""
        self.ports: list[dict[str, Any]] = []
        self.crowds: list[Crowd] = []

    def storm(self) -> list[tuple[str, float]]:
        return storm([self])

    def add_crowd(self, network: Network, gateway: Port, destination: str, guests: str, count: int) -> None:
        """So many guests of network, with the first addresses of the prefix guests; what they send to destination
        goes by way of gateway.

        Every address of the prefix is local in their namespace (ip-route(8), type local), and gateway's side has one
        route to them all: with an entry in the neighbour table for each, 1,000 guests would meet its limit (gc_thresh3,
        arp(7))."""
        namespace = self.lab.add_namespace(f"fastmeta-{self.lab.tag}-{network.name}")
        way = (destination, gateway.addresses[0])
        own = str(ipaddress.ip_address(gateway.addresses[0]) + 1)
        self.lab.add_port(network, namespace, "eth0", [f"{own}/24"], routes=[way])
        inside(namespace, lambda: run_command(["ip", "route", "add", "local", guests, "dev", "lo"]))
        inside(gateway.namespace, lambda: run_command(["ip", "route", "add", guests, "via", own]))
        first = ipaddress.ip_network(guests).network_address + 1
        instances = {str(first + at): str(uuid.uuid4()) for at in range(count)}
        project_id = uuid.uuid4().hex
        self.crowds.append(Crowd(network, namespace, project_id, instances))
        for address, instance_id in instances.items():
            port_id = str(uuid.uuid4())
            mac_address = f"fa:16:3e:{port_id[:2]}:{port_id[2:4]}:{port_id[4:6]}"
            port = Port(port_id, network, namespace, "eth0", mac_address, (address,))
            self.ports.append(port_item(port, instance_id, project_id))


def isolated(lab: Lab, name: str, count: int) -> Place:
    """A network with a DHCP namespace, and so many guests, whose addresses are those of any other place's."""
    place = Place(lab)
    network = lab.add_network(name)
    dhcp = lab.add_dhcp_namespace(network, "10.96.0.2/24")
    place.listen = f"network:{network.network_id}@{dhcp.namespace}/{METADATA_ADDRESS}:80"
    place.ports.append(port_item(dhcp, f"dhcp-{uuid.uuid4()}", name, "network:dhcp"))
    place.add_crowd(network, dhcp, f"{METADATA_ADDRESS}/32", "10.96.16.0/20", count)
    return place


def routed(lab: Lab, name: str, count: int) -> Place:
    """A router with two networks, and half of so many guests in each."""
    place = Place(lab)
    router_id = str(uuid.uuid4())
    namespace = lab.add_router_namespace(router_id)
    place.listen = f"router:{router_id}@{namespace}/0.0.0.0:{METADATA_PORT}"
    for number in (96, 97):
        network = lab.add_network(f"{name}-{number}")
        interface = lab.add_router_interface(namespace, network, f"10.{number}.0.1/24")
        place.ports.append(port_item(interface, router_id, name, "network:router_interface"))
        place.add_crowd(network, interface, "0.0.0.0/0", f"10.{number}.16.0/20", count // 2)
    return place


def storm(places: Sequence[Place]) -> list[tuple[str, float]]:
    """All guests of all places ask at once. How each request ended (bench/storm.py says what there is), and after how
    many seconds since all began."""
    crowds = [crowd for place in places for crowd in place.crowds]
    with contextlib.ExitStack() as stack:
        playing = [
            stack.enter_context(play_guests(place.lab, crowd.namespace, contextlib.nullcontext))
            for place in places
            for crowd in place.crowds
        ]
        together = threading.Barrier(len(crowds))

        def run(at: int) -> list[tuple[str, float]]:
            together.wait(LIMIT)
            late = time.monotonic() - began
            found = playing[at].storm((METADATA_ADDRESS, 80), crowds[at].answers, LIMIT)
            return [(how, late + seconds) for how, seconds in found]

        with ThreadPoolExecutor(len(crowds)) as pool:
            began = time.monotonic()
            return [one for found in pool.map(run, range(len(crowds))) for one in found]
