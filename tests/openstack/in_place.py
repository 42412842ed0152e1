"""fastmeta in the agent's place: the namespaces of a scene hold haproxies that Neutron's own code has started, and an
agent is reached over their socket alone."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastmeta.lab.topology import METADATA_ADDRESS_V6

from ..service.link_local import until_usable
from .agents import Agent
from .conftest import Setting
from .scene import Guest
from .stack.cloud import Network
from .stock.haproxies import Haproxies


class InPlace:
    """The socket and the haproxies: they stay, whoever listens on the socket."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.scene = setting.scene
        self.cloud = setting.cloud
        self.nova = setting.stack.services.nova
        folder = tempfile.TemporaryDirectory(prefix="fmr-", dir="/tmp")
        self._folder = Path(setting.exits.enter_context(folder))
        self._folder.chmod(0o711)
        self._socket = self._folder / "metadata_proxy"

    def start_haproxies(self) -> None:
        """One for each network and router that the scene has."""
        haproxies = self.setting.exits.enter_context(self.haproxies())
        for network_id in self.scene.networks:
            self.start_haproxy(haproxies, network_id)
        for router_id, namespace in self.scene.routers.items():
            haproxies.router(router_id, namespace)

    def haproxies(self, **options: Any) -> Haproxies:
        """None of them started yet; options: of Haproxies."""
        folder = Path(tempfile.mkdtemp(prefix="proxies-", dir=self._folder))
        return Haproxies(self.setting.stack.layout, folder, self._socket, **options)

    def start_haproxy(self, haproxies: Haproxies, network_id: str) -> None:
        """For a network of the scene, for both families."""
        port = self.scene.networks[network_id]
        until_usable(port.namespace, port.interface, METADATA_ADDRESS_V6)
        haproxies.network(network_id, port.namespace, interface=port.interface)

    @contextmanager
    def agent(self, source: str, **options: Any) -> Iterator[Agent]:
        """fastmeta, until it is left; options: of Agent."""
        host = f"fastmeta-test-{secrets.token_hex(3)}"
        layout = self.setting.stack.layout
        with Agent(layout, source, [], host=host, metadata_socket=self._socket, **options) as agent:
            yield agent


class Places(InPlace):
    """Two networks and a router's two, three of them with the same addresses, and two guests in each.

    The first guest of a network has IPv6, too."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        scene = self.scene
        self.blue, self.green = (
            scene.isolated(name, "10.0.0.0/24", agent_address="10.0.0.2", cidr_v6="fd00:10::/64")
            for name in ("blue", "green")
        )
        router = scene.router("router")
        self.red = scene.routed(router, "red", "10.0.0.0/24", gateway="10.0.0.1", cidr_v6="fd00:10::/64")
        self.grey = scene.routed(router, "grey", "10.1.0.0/24", gateway="10.1.0.1")
        self.start_haproxies()
        self.guests: dict[str, Guest] = {}
        """By the network's name and the end of the address."""
        for network in (self.blue, self.green, self.red, self.grey):
            for last in (5, 6):
                self.guests[f"{network.name}-{last}"] = self.new_guest(network, last)
        for network in (self.blue, self.green, self.red, self.grey):
            scene.enable_ipv6(self.guests[f"{network.name}-5"])

    def new_guest(self, network: Network, last: int, **options: Any) -> Guest:
        """last: the end of its addresses; options: of Scene.guest."""
        v4 = f"{network.cidr.rpartition('.')[0]}.{last}"
        v6 = [f"fd00:10::{last}"] if network.cidr_v6 else []
        return self.scene.guest(network, v4, *v6, **options)

    @property
    def one_of_each(self) -> list[Guest]:
        """In a network of its own, and behind a router."""
        return [self.guests["blue-5"], self.guests["red-5"]]
