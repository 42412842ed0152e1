"""What a test of the relay has: networks and routers whose namespaces hold haproxies, as Neutron's agents start them,
and an agent that nobody reaches but over its unix socket."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from fastmeta.lab.redirect import METADATA_PORT
from fastmeta.lab.topology import METADATA_ADDRESS, METADATA_ADDRESS_V6, Lab, Network, Port
from tests.service.agents import SECRET, Agent, Cloud, until
from tests.service.guests import Wire
from tests.service.link_local import ip
from tests.service.upstream import WAIT, Upstream, mark

NETWORK = "X-Neutron-Network-ID"
ROUTER = "X-Neutron-Router-ID"
OTHER = {NETWORK: ROUTER, ROUTER: NETWORK}


def haproxy_program() -> str:
    path = shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/sbin")
    assert path is not None, "haproxy is not installed: tools/setup.sh does that, as root"
    return path


def haproxy_configuration(
    header: str, identifier: str, path: str, binds: Sequence[str], *, user: str, group: str, pid_file: Path
) -> str:
    """With every option that Neutron's agents write, but for those of rate limits."""
    bind_lines = "\n".join(f"    bind {bind}" for bind in binds)
    return f"""\
global
    log /dev/log local0 info
    log-tag haproxy-metadata-proxy-{identifier}
    user {user}
    group {group}
    maxconn 1024
    nbthread 2
    pidfile {pid_file}
    daemon

defaults
    log global
    mode http
    option httplog
    option dontlognull
    option http-server-close
    option forwardfor
    retries 3
    timeout http-request 30s
    timeout connect 30s
    timeout client 32s
    timeout server 32s
    timeout http-keep-alive 30s

listen listener
{bind_lines}
    server metadata {path}
    http-request del-header {OTHER[header]}
    http-request set-header {header} {identifier}
"""


class Proxy:
    """One haproxy in a namespace, from entering to leaving."""

    def __init__(
        self,
        lab: Lab,
        namespace: str,
        header: str,
        identifier: str,
        path: str,
        binds: Sequence[str],
        *,
        user: str = "root",
        group: str = "root",
    ) -> None:
        self.lab = lab
        self.namespace = namespace
        self.folder = Path(tempfile.mkdtemp(prefix="fmp-", dir="/tmp"))
        self.config = self.folder / "conf"
        self.config.write_text(
            haproxy_configuration(
                header, identifier, path, binds, user=user, group=group, pid_file=self.folder / "pid"
            )
        )

    def __enter__(self) -> Proxy:
        # -db: in the foreground, so that it ends with us whatever happens.
        command = ["setpriv", "--pdeathsig", "KILL", "--", haproxy_program(), "-db", "-f", str(self.config)]
        with (self.folder / "log").open("wb") as log:
            self.process = self.lab.start(self.namespace, command, stdout=log, stderr=log)
        try:
            until(self.listens, f"haproxy listens: {(self.folder / 'log').read_text()}")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def listens(self) -> bool:
        assert self.process.poll() is None, (self.folder / "log").read_text()
        shown = subprocess.run(
            ["nsenter", f"--net=/run/netns/{self.namespace}", "ss", "-tlnp"],
            capture_output=True,
            text=True,
            check=True,
            timeout=WAIT,
        ).stdout
        binds = self.config.read_text().count("\n    bind ")
        places = {line.split()[3] for line in shown.splitlines() if f"pid={self.process.pid}," in line}
        return len(places) == binds

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        try:
            self.process.wait(WAIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder)


class RelayCloud(Cloud):
    """As a cloud, but its namespaces hold haproxies, and so there is nothing to listen on."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self.places: list[tuple[str, str, str, list[str]]] = []
        """Of the haproxies: namespace, header, network's or router's id, where they listen."""

    def add_network(
        self, name: str, addresses: Any, *, agent_address: str = "10.0.0.2", ipv6: bool = False
    ) -> tuple[Network, Port]:
        network, dhcp = super().add_network(name, addresses, agent_address=agent_address)
        binds = [f"{METADATA_ADDRESS}:80"]
        if ipv6:
            ip(dhcp.namespace, "addr", "add", f"{METADATA_ADDRESS_V6}/128", "dev", dhcp.interface, "nodad")
            binds.append(f"{METADATA_ADDRESS_V6}:80 interface {dhcp.interface}")
        self.places.append((dhcp.namespace, NETWORK, network.network_id, binds))
        self.listen.clear()
        return network, dhcp

    def add_routed_network(self, name: str, addresses: Any) -> tuple[Network, str]:
        network, router_id = super().add_routed_network(name, addresses)
        self.places.append((f"qrouter-{router_id}", ROUTER, router_id, [f"0.0.0.0:{METADATA_PORT}"]))
        self.listen.clear()
        return network, router_id


class Known:
    """A port that the source knows, without a guest in a namespace: for clients that say who asks."""

    def __init__(self, network_id: str, address: str, *, mac: str = "fa:16:3e:00:00:05") -> None:
        self.network_id = network_id
        self.address = address
        self.mac = mac
        self.instance_id = str(uuid.uuid4())
        self.project_id = uuid.uuid4().hex

    def item(self) -> dict[str, Any]:
        return {
            "id": str(uuid.uuid4()),
            "network_id": self.network_id,
            "device_id": self.instance_id,
            "device_owner": "compute:nova",
            "project_id": self.project_id,
            "mac_address": self.mac,
            "fixed_ips": [{"ip_address": self.address}],
        }

    def mark(self, target: str, address: str = "") -> bytes:
        return mark(self.instance_id, self.project_id, address or self.address, target)


def router_port(router_id: str, network_id: str) -> dict[str, Any]:
    """A router's interface on a network."""
    return Known(network_id, "10.0.0.1", mac="fa:16:3e:00:00:01").item() | {
        "device_id": router_id,
        "device_owner": "network:router_interface",
    }


class Scene:
    """What one test, or module, starts: an upstream, agents, haproxies. They end with it."""

    def __init__(self, cloud: RelayCloud) -> None:
        self.cloud = cloud
        self.stack = ExitStack()
        self.agents: list[Agent] = []
        self.ports: list[dict[str, Any]] = []
        """Besides those of the cloud."""

    def __enter__(self) -> Scene:
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="fmr-", dir="/tmp")))
        self.folder.chmod(0o755)
        self.path = str(self.folder / "metadata_proxy")
        self.upstream = self.stack.enter_context(Upstream(SECRET))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.close()

    def check(self) -> None:
        assert self.upstream.wrong == []
        for agent in self.agents:
            agent.check_log()

    def agent(
        self, *, default: Sequence[str] = (), kind: type[Agent] = Agent, socket: bool = True, **options: Any
    ) -> Agent:
        """socket: whether it is told where."""
        options.setdefault("listen", ())
        agent = self.stack.enter_context(
            kind(
                ports=[*self.cloud.ports(), *self.ports],
                nova_tcp_port=self.upstream.tcp_port,
                default=[*([f"metadata_proxy_socket = {self.path}"] if socket else []), *default],
                **options,
            )
        )
        self.agents.append(agent)
        return agent

    def proxies(self, **options: str) -> list[Proxy]:
        """A haproxy in each namespace."""
        return [
            self.stack.enter_context(Proxy(self.cloud.lab, *place[:3], self.path, place[3], **options))
            for place in self.cloud.places
        ]

    def add_known(self, network_id: str, address: str, **more: str) -> Known:
        known = Known(network_id, address, **more)
        self.ports.append(known.item())
        return known

    def wire(self) -> Wire:
        """A connection to the socket, of our own."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(WAIT)
        try:
            connection.connect(self.path)
        except BaseException:
            connection.close()
            raise
        return Wire(connection)


def ask(
    scene: Scene, header: str, identifier: str, address: str, target: str, *headers: str
) -> tuple[int, bytes]:
    """One request as a proxy hands it over, on a connection of its own: status and content."""
    with scene.wire() as wire:
        wire.get(target, *headers, f"X-Forwarded-For: {address}", f"{header}: {identifier}")
        found = wire.answer()
        return found.status, found.body
