"""A small cloud in the real Neutron and Nova: projects, networks with overlapping addresses, a router, instances.

Tests make one of their own each; all of it goes with its projects.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from .api import Api, Item
from .instances import Instances

PREFIX = "fastmeta-"
"""Of the names of all projects made here."""


@dataclass
class Network:
    """A network with a subnet, and perhaps an IPv6 subnet."""

    name: str
    network_id: str
    project_id: str
    cidr: str
    subnet_id: str
    cidr_v6: str = ""
    subnet_v6_id: str = ""


@dataclass
class Router:
    router_id: str
    project_id: str
    interfaces: dict[str, Item] = field(default_factory=dict)
    """Its ports, by network id."""


@dataclass
class Instance:
    """An instance of Nova's and its port."""

    instance_id: str
    project_id: str
    network: Network
    port: Item

    @property
    def name(self) -> str:
        """Also its host name."""
        return name_of(self.instance_id)

    @property
    def port_id(self) -> str:
        return str(self.port["id"])

    @property
    def addresses(self) -> list[str]:
        return [str(item["ip_address"]) for item in self.port["fixed_ips"]]


def name_of(instance_id: str) -> str:
    return f"instance-{instance_id[:8]}"


class Cloud:
    """To be used with ``with``: leaving it deletes all that it has made."""

    def __init__(self, api: Api, instances: Instances) -> None:
        self.api = api
        self.nova = instances
        self.projects: dict[str, str] = {}
        """Ids, by the name that the test gave."""
        self._made: list[str] = []
        """Instances."""
        self._tag = secrets.token_hex(3)

    def __enter__(self) -> Cloud:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for instance_id in self._made:
            self.nova.delete(instance_id)
        for project_id in self.projects.values():
            self.api.remove_project(project_id)

    def project(self, name: str) -> str:
        """Its id; made when it is not there yet."""
        if name not in self.projects:
            self.projects[name] = self.api.create_project(f"{PREFIX}{self._tag}-{name}")
        return self.projects[name]

    def network(self, name: str, cidr: str, *, project: str | None = None, cidr_v6: str = "") -> Network:
        """project: a name; that of the network when None."""
        project_id = self.project(project or name)
        network_id = self.api.create_network(name, project_id)["id"]
        subnet = self.api.create_subnet(network_id, project_id, cidr)
        network = Network(name, network_id, project_id, cidr, subnet["id"])
        if cidr_v6:
            network.cidr_v6 = cidr_v6
            network.subnet_v6_id = self.api.create_subnet(network_id, project_id, cidr_v6)["id"]
        return network

    def dhcp_port(self, network: Network, address: str) -> Item:
        """What the DHCP agent of a host makes."""
        device_id = f"dhcp{uuid.uuid4()}-{network.network_id}"
        return self.api.create_port(
            network.network_id,
            network.project_id,
            [address],
            device_id=device_id,
            device_owner="network:dhcp",
        )

    def router(self, name: str, *, project: str | None = None) -> Router:
        project_id = self.project(project or name)
        return Router(self.api.create_router(name, project_id)["id"], project_id)

    def attach(self, router: Router, network: Network, address: str) -> Item:
        """The router's new port on a network."""
        port = self.api.create_port(
            network.network_id, router.project_id, [address], device_id="", device_owner=""
        )
        self.api.add_router_interface(router.router_id, port["id"])
        [router.interfaces[network.network_id]] = self.api.items("port", id=port["id"])
        return router.interfaces[network.network_id]

    def detach(self, router: Router, network: Network) -> None:
        self.api.remove_router_interface(router.router_id, router.interfaces.pop(network.network_id)["id"])

    def instance(
        self, network: Network, *addresses: str, user_data: bytes | None = None, **options: Any
    ) -> Instance:
        """A new instance with a port that has these addresses; user_data: as of Instances; options: further fields of
        the port."""
        instance_id = str(uuid.uuid4())
        port = self.api.create_port(
            network.network_id, network.project_id, addresses, device_id=instance_id, **options
        )
        self._create(instance_id, network, [port], user_data)
        return Instance(instance_id, network.project_id, network, port)

    def instances(self, network: Network, addresses: Sequence[str]) -> list[Instance]:
        """A new instance for each of these addresses."""
        wanted = {address: str(uuid.uuid4()) for address in addresses}
        made = []
        for port in self.api.create_ports(network.network_id, network.project_id, wanted):
            self._create(port["device_id"], network, [port])
            made.append(Instance(port["device_id"], network.project_id, network, port))
        return made

    def spare_instance(self, network: Network) -> str:
        """The id of an instance that has no port yet, for when a port must be made without delay."""
        instance_id = str(uuid.uuid4())
        self._create(instance_id, network, [])
        return instance_id

    def give_port(self, instance_id: str, network: Network, *addresses: str, **options: Any) -> Instance:
        """A port for an instance that there is."""
        port = self.api.create_port(
            network.network_id, network.project_id, addresses, device_id=instance_id, **options
        )
        return Instance(instance_id, network.project_id, network, port)

    def move(self, instance: Instance, *addresses: str) -> None:
        """Its port gets other addresses."""
        fixed_ips = [{"ip_address": address} for address in addresses]
        instance.port = self.api.update_port(instance.port_id, fixed_ips=fixed_ips)

    def delete(self, instance: Instance) -> None:
        """The port, then the instance."""
        self.api.delete_port(instance.port_id)
        self.nova.delete(instance.instance_id)
        self._made.remove(instance.instance_id)

    def _create(
        self, instance_id: str, network: Network, ports: list[Item], user_data: bytes | None = None
    ) -> None:
        name = name_of(instance_id)
        self.nova.create(instance_id, network.project_id, name, ports, network.cidr, user_data)
        self._made.append(instance_id)


def remove_leftovers(api: Api) -> None:
    """Projects of clouds that were not left: of a run that was killed."""
    for project in api.projects():
        if project["name"].startswith(PREFIX):
            api.remove_project(project["id"])
