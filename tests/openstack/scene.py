"""Neutron's networks as namespaces of this machine, as its agents would make them, and the instances in them."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from fastmeta.lab.namespaces import inside
from fastmeta.lab.redirect import METADATA_PORT
from fastmeta.lab.topology import METADATA_ADDRESS, METADATA_ADDRESS_V6, Lab, Port
from fastmeta.lab.topology import Network as LabNetwork

from ..service.guests import Answer, Wire
from ..service.link_local import ip, link_local, until_usable
from ..service.upstream import WAIT
from .stack.cloud import Cloud, Instance, Network, Router

META_DATA = "/openstack/latest/meta_data.json"


class Guest:
    """A namespace with the port of an instance in it."""

    def __init__(self, instance: Instance, port: Port) -> None:
        self.instance = instance
        self.namespace = port.namespace
        self.port = port

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.instance.network.name}/{self.port.addresses[0]}"

    def connect(self, *, ipv6: bool = False) -> Wire:
        """A connection to the metadata address; by IPv6 from the link-local address that is made of the MAC."""

        def work() -> socket.socket:
            connection = socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET)
            connection.settimeout(WAIT)
            try:
                if ipv6:
                    connection.connect((METADATA_ADDRESS_V6, 80, 0, socket.if_nametoindex("eth0")))
                else:
                    connection.connect((METADATA_ADDRESS, 80))
            except BaseException:
                connection.close()
                raise
            return connection

        return Wire(inside(self.namespace, work))

    def ask(
        self,
        target: str = META_DATA,
        *headers: str,
        method: str = "GET",
        body: bytes | None = None,
        ipv6: bool = False,
        seconds: float = WAIT,
    ) -> Answer:
        """One request on a connection of its own; seconds: for the answer."""
        with self.connect(ipv6=ipv6) as wire:
            wire.socket.settimeout(seconds)
            wire.get(target, *headers, method=method, body=body)
            return wire.answer(method=method)

    def is_served(self, *, ipv6: bool = False) -> bool:
        """Whether it gets the data of its own instance."""
        return who(self.ask(ipv6=ipv6)) == self.instance.instance_id


def who(answer: Answer) -> str:
    """The instance that meta_data.json is of; "" for any answer but 200."""
    return str(json.loads(answer.body)["uuid"]) if answer.status == 200 else ""


@dataclass
class _Place:
    """How guests of a network come to the metadata address."""

    lab_network: LabNetwork
    routes: list[tuple[str, str]]
    gateway: Port
    """The port that has fe80::a9fe:a9fe, or that the way to it leads over."""
    routed: bool


class Scene:
    """Namespaces for a cloud. They go with the lab."""

    def __init__(self, lab: Lab, cloud: Cloud) -> None:
        self.lab = lab
        self.cloud = cloud
        self.listen: list[str] = []
        """For the agent."""
        self.networks: dict[str, Port] = {}
        """Ports that have the metadata address, by the id of their network."""
        self.routers: dict[str, str] = {}
        """Namespaces, by the id of the router."""
        self._places: dict[str, _Place] = {}
        self._guests = 0

    def isolated(self, name: str, cidr: str, *, agent_address: str, cidr_v6: str = "") -> Network:
        """A network whose DHCP namespace has the metadata address."""
        network = self.cloud.network(name, cidr, cidr_v6=cidr_v6)
        item = self.cloud.dhcp_port(network, agent_address)
        lab_network = self.lab.add_network(name, network.network_id)
        namespace = self.lab.add_namespace(f"qdhcp-{network.network_id}")
        tap = f"tap{item['id'][:11]}"
        port = self.lab.add_port(
            lab_network,
            namespace,
            tap,
            [f"{agent_address}/{cidr.rpartition('/')[2]}"],
            extra_addresses=[f"{METADATA_ADDRESS}/32", f"{METADATA_ADDRESS_V6}/128"],
            port_id=item["id"],
            mac_address=item["mac_address"],
        )
        scope = f"network:{network.network_id}@{namespace}"
        self.listen += [f"{scope}/{METADATA_ADDRESS}:80", f"{scope}/[{METADATA_ADDRESS_V6}%{tap}]:80"]
        route = (f"{METADATA_ADDRESS}/32", agent_address)
        self.networks[network.network_id] = port
        self._places[network.network_id] = _Place(lab_network, [route], port, routed=False)
        return network

    def router(self, name: str) -> Router:
        router = self.cloud.router(name)
        namespace = self.lab.add_router_namespace(router.router_id, ipv6=True)
        self.routers[router.router_id] = namespace
        # Takes IPv4 too.
        self.listen.append(f"router:{router.router_id}@{namespace}/[::]:{METADATA_PORT}")
        return router

    def routed(self, router: Router, name: str, cidr: str, *, gateway: str, cidr_v6: str = "") -> Network:
        """A network behind a router."""
        network = self.cloud.network(name, cidr, cidr_v6=cidr_v6)
        item = self.cloud.attach(router, network, gateway)
        lab_network = self.lab.add_network(name, network.network_id)
        port = self.lab.add_port(
            lab_network,
            self.routers[router.router_id],
            f"qr-{item['id'][:11]}",
            [f"{gateway}/{cidr.rpartition('/')[2]}"],
            port_id=item["id"],
            mac_address=item["mac_address"],
        )
        self._places[network.network_id] = _Place(lab_network, [("0.0.0.0/0", gateway)], port, routed=True)
        return network

    def gateway(self, network: Network) -> Port:
        """The port in which the metadata address is, or that the way to it leads over."""
        return self._places[network.network_id].gateway

    def guest(self, network: Network, *addresses: str, user_data: bytes | None = None) -> Guest:
        """A new instance with these addresses, the first one IPv4, that is up. user_data: as of Instances."""
        return self.boot(self.cloud.instance(network, *addresses, user_data=user_data))

    def boot(self, instance: Instance) -> Guest:
        """A namespace for the port of an instance."""
        place = self._places[instance.network.network_id]
        self._guests += 1
        namespace = self.lab.add_namespace(f"fastmeta-{self.lab.tag}-guest-{self._guests}")
        prefix = instance.network.cidr.rpartition("/")[2]
        port = self.lab.add_port(
            place.lab_network,
            namespace,
            "eth0",
            [f"{instance.addresses[0]}/{prefix}"],
            routes=place.routes,
            port_id=instance.port_id,
            mac_address=instance.port["mac_address"],
        )
        return Guest(instance, port)

    def crowd(self, network: Network, addresses: Sequence[str]) -> str:
        """One namespace that has the addresses of many guests: a program in it is each of them by what it binds to."""
        place = self._places[network.network_id]
        prefix = network.cidr.rpartition("/")[2]
        self._guests += 1
        namespace = self.lab.add_namespace(f"fastmeta-{self.lab.tag}-crowd-{self._guests}")
        interface_addresses = [f"{address}/{prefix}" for address in addresses]
        self.lab.add_port(place.lab_network, namespace, "eth0", interface_addresses, routes=place.routes)
        return namespace

    def shut_down(self, guest: Guest) -> None:
        """Its namespace goes, and with it everything of it."""
        self.lab.remove_namespace(guest.namespace)

    def enable_ipv6(self, guest: Guest) -> None:
        """Returns when its link-local address may be used; behind a router with the route that this announces."""
        until_usable(guest.namespace, "eth0", link_local(guest.port.mac_address))
        place = self._places[guest.instance.network.network_id]
        if place.routed:
            gateway = link_local(place.gateway.mac_address)
            until_usable(place.gateway.namespace, place.gateway.interface, gateway)
            route = [f"{METADATA_ADDRESS_V6}/128", "via", gateway, "dev", "eth0"]
            ip(guest.namespace, "-6", "route", "replace", *route)
