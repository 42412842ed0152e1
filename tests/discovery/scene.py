"""What Neutron's agents make, in namespaces that an agent of ours finds by itself: routers, networks, guests."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from fastmeta.lab.namespaces import inside, run_command
from fastmeta.lab.topology import METADATA_ADDRESS, METADATA_ADDRESS_V6, Lab, Network, Port
from fastmeta.netns.listening import listening_tcp_ports
from tests.service.agents import SECRET, Agent, Cloud, port_item, until
from tests.service.guests import Cut, Guest
from tests.service.link_local import LinkLocalGuest, link_local
from tests.service.upstream import WAIT, Upstream

from .namespaces import Namespaces


def run_in(path: str, *command: str, text: str = "") -> str:
    """What a program prints that must succeed there."""
    return inside(path, lambda: run_command(command, text))


def saved(path: str, version: int = 4) -> list[str]:
    """All rules and chains there, without counters."""
    lines = run_in(path, "iptables-save" if version == 4 else "ip6tables-save").splitlines()
    return [line.split(" [")[0] for line in lines if not line.startswith("#")]


def ours(path: str, version: int = 4) -> list[str]:
    """Those lines that are about us."""
    return [line for line in saved(path, version) if "fastmeta" in line]


class Router:
    """A router with one network, and a guest behind it. made: whether its namespace is there from the start."""

    def __init__(self, scene: Scene, *, made: bool = True) -> None:
        self.scene = scene
        self.uuid = str(uuid.uuid4())
        self.name = f"qrouter-{self.uuid}"
        self.path = scene.namespaces.path(self.name)
        self.network = scene.cloud.lab.add_network(f"net-{self.uuid[:6]}")
        self.port_id = str(uuid.uuid4())
        self.guest = scene.cloud.add_guest(self.network, "10.0.0.5", [("0.0.0.0/0", "10.0.0.1")])
        self.interface: Port | None = None
        if made:
            self.make()

    def make(self, **options: Any) -> None:
        """As the L3 agent makes it with enable_metadata_proxy = False: without rules for metadata, but for the mark."""
        self.scene.namespaces.add(self.name, **options)
        run_in(self.path, "ip", "link", "set", "lo", "up")
        inside(self.path, lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text("1"))
        port = self.scene.cloud.lab.add_port(
            self.network, self.path, f"qr-{self.port_id[:11]}", ["10.0.0.1/24"], port_id=self.port_id
        )
        if self.interface is None:
            self.scene.cloud.infrastructure.append(
                port_item(port, self.uuid, "p", "network:router_interface")
            )
        self.interface = port

    def link_local_guest(self) -> LinkLocalGuest:
        """The same guest, who asks over IPv6."""
        assert self.interface is not None
        guest, address = LinkLocalGuest(self.guest), link_local(self.interface.mac_address)
        until_usable(self.path, address)
        until_usable(str(Path("/run/netns") / guest.namespace), guest.address)
        route = ["ip", "-6", "route", "replace", f"{METADATA_ADDRESS_V6}/128", "via", address, "dev", "eth0"]
        run_in(guest.namespace, *route)
        return guest

    def set_state(self, state: str) -> None:
        """As the L3 agent writes it."""
        folder = self.scene.ha_confs / self.uuid
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "state").open("w") as file:
            file.write(state)


class IsolatedNetwork:
    """A network of the DHCP agent, and a guest in it."""

    def __init__(self, scene: Scene, *, addresses: str = "10.0.0") -> None:
        """addresses: the first three numbers of its own."""
        self.scene = scene
        self.network: Network = scene.cloud.lab.add_network(f"net-{uuid.uuid4().hex[:6]}")
        self.uuid = self.network.network_id
        self.name = f"qdhcp-{self.uuid}"
        self.path = scene.namespaces.path(self.name)
        self.port_id = str(uuid.uuid4())
        self.tap = f"tap{self.port_id[:11]}"
        self.address = f"{addresses}.2/24"
        route = (f"{METADATA_ADDRESS}/32", f"{addresses}.2")
        self.guest = scene.cloud.add_guest(self.network, f"{addresses}.5", [route])
        self.port: Port | None = None

    def make(self, **options: Any) -> IsolatedNetwork:
        """Without the metadata address."""
        self.scene.namespaces.add(self.name, **options)
        run_in(self.path, "ip", "link", "set", "lo", "up")
        port = self.scene.cloud.lab.add_port(
            self.network, self.path, self.tap, [self.address], port_id=self.port_id
        )
        if self.port is None:
            self.scene.cloud.infrastructure.append(port_item(port, f"dhcp-{self.uuid}", "p", "network:dhcp"))
        self.port = port
        return self

    def add_metadata_addresses(self, *, ipv6: bool = False) -> IsolatedNetwork:
        """As the DHCP agent does with enable_isolated_metadata."""
        run_in(self.path, "ip", "addr", "add", f"{METADATA_ADDRESS}/32", "dev", self.tap)
        if ipv6:
            run_in(self.path, "ip", "addr", "add", f"{METADATA_ADDRESS_V6}/128", "dev", self.tap, "nodad")
        return self

    def remove_metadata_address(self) -> None:
        run_in(self.path, "ip", "addr", "del", f"{METADATA_ADDRESS}/32", "dev", self.tap)


class Scene:
    """For one test: an empty cloud, a folder of namespaces, what the test starts."""

    def __init__(self, lab: Lab) -> None:
        self.stack = ExitStack()
        self.cloud = Cloud(lab)
        self.agents: list[Agent] = []

    def __enter__(self) -> Scene:
        self.namespaces = self.stack.enter_context(Namespaces())
        # A folder that is not there yet: the L3 agent makes it.
        self.ha_confs = Path(tempfile.mkdtemp(prefix="fmh-", dir="/tmp")) / "ha_confs"
        self.stack.callback(shutil.rmtree, self.ha_confs.parent)
        self.upstream = self.stack.enter_context(Upstream(SECRET))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.close()

    def agent(self, discover: str = "router, dhcp", *, default: Sequence[str] = (), **options: Any) -> Agent:
        """Over all that Neutron knows of the cloud by now."""
        options = {"listen": [], "ports": self.cloud.ports(), "netns_dir": self.namespaces.folder, **options}
        agent = self.stack.enter_context(
            Agent(
                nova_tcp_port=self.upstream.tcp_port,
                default=[f"ha_confs_path = {self.ha_confs}", *default],
                discover=discover,
                **options,
            )
        )
        self.agents.append(agent)
        return agent

    def hold(self, name: str) -> threading.Event:
        """Requests whose target begins with this name are answered when the event that it gives is set."""
        gate = threading.Event()
        self.upstream.scripts[name] = lambda exchange: (
            gate.wait(WAIT) and exchange.send(exchange.whole()) is None
        )
        self.stack.callback(gate.set)
        return gate

    def links_of(self, network: Network) -> int:
        """How many interfaces are in it: one whose namespace has ended is none any more."""
        lab = self.cloud.lab
        shown = run_in(lab.switch, "ip", "-j", "link", "show", "master", network.bridge)
        return len(json.loads(shown or "[]"))

    def check(self) -> None:
        assert self.upstream.wrong == []
        for agent in self.agents:
            agent.check_log()

    def until_served(self, guest: Guest) -> None:
        """Until it gets its own data: nobody may listen yet."""

        def served() -> bool:
            try:
                return guest.is_served()
            except (OSError, Cut):
                return False

        until(served, f"{guest.port.namespace} is served")


def listens(path: str, tcp_port: int) -> bool:
    """Whether anybody does, there."""
    return tcp_port in inside(path, listening_tcp_ports)


def until_usable(path: str, address: str) -> None:
    """Waits for the end of duplicate address detection."""

    def usable() -> bool:
        shown = json.loads(run_in(path, "ip", "-6", "-j", "addr", "show"))
        found = [item for link in shown for item in link.get("addr_info", ()) if item["local"] == address]
        return bool(found) and not found[0].get("tentative")

    until(usable, f"{address} in {path}")
