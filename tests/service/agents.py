"""The agent's process under test, and the small cloud that it serves."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from fastmeta.lab.redirect import METADATA_PORT
from fastmeta.lab.services import Service, write_private
from fastmeta.lab.topology import METADATA_ADDRESS, Lab, Network, Port, in_namespace_command

from .guests import Guest
from .upstream import WAIT, Upstream, signature

SECRET = f"Zx81-{uuid.uuid4()}"
"""Must never be seen anywhere but in the file that the agent reads it from."""


RELOADED = r"reload: (nothing is )?taken up"


def until(condition: Callable[[], Any], what: str = "", seconds: float = WAIT) -> Any:
    """Waits until condition holds, and gives its value."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"not after {seconds:g} s: {what or condition}"
        time.sleep(0.005)
    return value


def port_item(port: Port, device_id: str, project_id: str, owner: str = "compute:nova") -> dict[str, Any]:
    """A port as Neutron's API describes it."""
    return {
        "id": port.port_id,
        "network_id": port.network.network_id,
        "device_id": device_id,
        "device_owner": owner,
        "project_id": project_id,
        "mac_address": port.mac_address,
        "fixed_ips": [{"ip_address": address} for address in port.addresses],
    }


class Cloud:
    """Networks and routers of a lab, their guests, and what Neutron would say about them."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.guests: dict[str, Guest] = {}
        self.listen: list[str] = []
        self.infrastructure: list[dict[str, Any]] = []
        """Ports that no guest has."""

    def add_network(
        self, name: str, addresses: Iterable[str], *, agent_address: str = "10.0.0.2"
    ) -> tuple[Network, Port]:
        """An isolated network with a DHCP namespace, and guests name-<last number of their address>."""
        network = self.lab.add_network(name)
        dhcp = self.lab.add_dhcp_namespace(network, f"{agent_address}/24")
        self.listen.append(f"network:{network.network_id}@{dhcp.namespace}/{METADATA_ADDRESS}:80")
        self.infrastructure.append(port_item(dhcp, f"dhcp-{uuid.uuid4()}", name, "network:dhcp"))
        route = (f"{METADATA_ADDRESS}/32", agent_address)
        for address in addresses:
            self.add_guest(network, address, [route])
        return network, dhcp

    def add_routed_network(self, name: str, addresses: Iterable[str]) -> tuple[Network, str]:
        """A network behind a router of its own; gives the router's id too."""
        network = self.lab.add_network(name)
        router_id = str(uuid.uuid4())
        namespace = self.lab.add_router_namespace(router_id)
        interface = self.lab.add_router_interface(namespace, network, "10.0.0.1/24")
        self.listen.append(f"router:{router_id}@{namespace}/0.0.0.0:{METADATA_PORT}")
        self.infrastructure.append(port_item(interface, router_id, name, "network:router_interface"))
        for address in addresses:
            self.add_guest(network, address, [("0.0.0.0/0", "10.0.0.1")])
        return network, router_id

    def add_guest(
        self, network: Network, address: str, routes: Sequence[tuple[str, str]], *, known: bool = True
    ) -> Guest:
        """known=False: nobody has a port with its address."""
        name = f"{network.name}-{address.rpartition('.')[2]}"
        port = self.lab.add_guest(network, name, f"{address}/24", routes=routes)
        guest = Guest(port, str(uuid.uuid4()), uuid.uuid5(uuid.NAMESPACE_DNS, network.name).hex)
        if known:
            self.guests[name] = guest
        return guest

    def ports(self, *without: Guest, **instances: str) -> list[dict[str, Any]]:
        """All ports, but those of some guests; instances: other instance ids, by guest (_ for -)."""
        other = {name.replace("_", "-"): instance for name, instance in instances.items()}
        return [
            *self.infrastructure,
            *(
                port_item(guest.port, other.get(name, guest.instance_id), guest.project_id)
                for name, guest in self.guests.items()
                if guest not in without
            ),
        ]


class Agent:
    """One agent's process, from entering to leaving. Options: lines of [fastmeta] and, as default, of [DEFAULT]."""

    def __init__(
        self,
        listen: Sequence[str],
        ports: list[dict[str, Any]] | None,
        *,
        nova_tcp_port: int,
        default: Sequence[str] = (),
        namespace: str | None = None,
        prefix: Sequence[str] = (),
        sections: str = "",
        **options: object,
    ) -> None:
        """namespace: in which the process itself is; prefix: of its command line; sections: further ones of its
        configuration, as they are in the file."""
        # Short enough for a unix socket in it.
        self.folder = Path(tempfile.mkdtemp(prefix="fms-", dir="/tmp"))
        self.ports_file = self.folder / "ports.json"
        if ports is not None:
            self.write_ports(ports)
        self.config = self.folder / "agent.conf"
        self.default = {"debug": "true", "nova_metadata_port": str(nova_tcp_port)}
        self.default |= {"metadata_proxy_shared_secret": SECRET}
        self.default |= dict(line.split(" = ") for line in default)
        self.listen = list(listen)
        self.options: dict[str, object] = {
            "ports_file": self.ports_file,
            "access_log": "true",
            "control_dir": self.folder / "control",
            **options,
        }
        self._sections = sections
        self.write_config()
        command = [*prefix, sys.executable, "-m", "fastmeta", "agent", "--config-file", str(self.config)]
        if namespace is not None:
            command = in_namespace_command(namespace, command)
        self.service = Service("agent", command, self.folder)

    def __enter__(self) -> Agent:
        try:
            self.service.__enter__()
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.service.__exit__(kind, error, trace)
            self.check_log()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def pid(self) -> int:
        return self.service.pid

    def write_config(self, more: str = "") -> None:
        """By renaming, of what was given and set since. more: lines behind all others."""
        lines = ["[DEFAULT]", *(f"{name} = {value}" for name, value in self.default.items())]
        lines += ["[fastmeta]", *(f"listen = {entry}" for entry in self.listen)]
        lines += [f"{name} = {value}" for name, value in self.options.items()]
        new = self.folder / "agent.conf.new"
        os.rename(write_private(new, "\n".join([*lines, more, self._sections, ""])), self.config)

    def reload(self, more: str = "", *, default: dict[str, str] | None = None, **options: object) -> str:
        """Writes the configuration with these options, sends SIGHUP, and returns what the log says of it."""
        self.default |= default or {}
        self.options |= options
        self.write_config(more)
        count = len(self.logged(RELOADED))
        os.kill(self.pid, signal.SIGHUP)
        return self.until_logged(RELOADED, count + 1)[-1]

    def write_ports(self, ports: object) -> None:
        """By renaming, as one should. ports: what "ports" is in the file, or bytes: the whole file."""
        data = ports if isinstance(ports, bytes) else json.dumps({"ports": ports}).encode()
        new = self.folder / "ports.json.new"
        with contextlib.suppress(FileNotFoundError):
            new.unlink()
        os.rename(write_private(new, data), self.ports_file)

    def change_ports(self, ports: list[dict[str, Any]]) -> None:
        """Writes them, and returns when the agent has taken them over."""
        count = len(self.logged(r"ports file \S+ read"))
        self.write_ports(ports)
        self.until_logged(r"ports file \S+ read", count + 1)

    @property
    def log(self) -> str:
        return self.service.log_path.read_text(errors="backslashreplace")

    def logged(self, pattern: str) -> list[str]:
        """The lines in which the pattern is found."""
        return [line for line in self.log.splitlines() if re.search(pattern, line)]

    def until_logged(self, pattern: str, count: int = 1) -> list[str]:
        end = time.monotonic() + WAIT
        while len(lines := self.logged(pattern)) < count:
            assert time.monotonic() < end, (
                f"{pattern!r} was logged {len(lines)} times, not {count}:\n{self.log}"
            )
            time.sleep(0.005)
        return lines

    def until_refused_by(self, guest: Guest) -> None:
        """Waits until nobody listens any more where this guest asks."""

        def refused() -> bool:
            try:
                guest.connect().socket.close()
            except ConnectionRefusedError:
                return True
            return False

        until(refused)

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def quiet_descriptors(self, upstream: Upstream) -> int:
        """Its descriptors when nobody asks and all connections to the upstream are closed."""
        upstream.close_connections()
        until(lambda: upstream.open == 0, "end of the connections to the upstream")

        def steady() -> int:
            found = {self.descriptors()}
            for _ in range(10):  # what it opens for a moment only, as when it reads a file, does not count
                time.sleep(0.01)
                found.add(self.descriptors())
            return found.pop() if len(found) == 1 else 0

        count: int = until(steady, "steady number of descriptors")
        return count

    def memory(self) -> int:
        """Resident bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+([0-9]+) kB", status)[0]) * 1024

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def exit_status(self) -> int:
        """Waits for its end (and leaves the process to be reaped)."""
        ended = until(lambda: os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG), "exit")
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def check_log(self) -> None:
        """Rule 11, whatever was tested: neither the secret nor a signature made with it, and no traceback."""
        log = self.log
        assert SECRET not in log
        for instance_id in set(re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", log)):
            assert signature(SECRET, instance_id) not in log
        assert "Traceback" not in log, log
        assert "fastmeta.exceptions." not in log, log  # so oslo.log says an error again
