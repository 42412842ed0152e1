"""The demonstration: three tenants whose guests have the same address each get their own metadata, lie as
they may.

A lab of namespaces, the embedded metadata API and the agent, all real; curl inside each guest asks.
``fastmeta demo`` prints what comes out.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from fastmeta.exceptions import LabError
from fastmeta.lab.redirect import METADATA_PORT
from fastmeta.lab.services import Service, write_private
from fastmeta.lab.topology import METADATA_ADDRESS, Lab, Port, in_namespace_command

META_DATA = "openstack/latest/meta_data.json"
INSTANCE_ID = "latest/meta-data/instance-id"
USER_DATA = "latest/user-data"

_CURL_TIMEOUT = 15
"""Seconds for one request: above the agent's park_timeout, so that its own answer is seen."""
_GIVE_UP = 5
"""Rows without an answer of the metadata API, after which nothing better is to be expected."""


@dataclass(frozen=True)
class Guest:
    """A guest and the instance that it is."""

    name: str
    port: Port
    project_id: str
    ec2_id: str
    instance_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def network(self) -> str:
        return self.port.network.name

    @property
    def address(self) -> str:
        return self.port.addresses[0]

    @property
    def user_data(self) -> str:
        return f"#!/bin/sh\necho this is {self.name}, instance {self.instance_id}\n"


@dataclass(frozen=True)
class Row:
    """One request of one guest. expected and answered are instance ids; when the answer names none, answered
    says what came instead."""

    network: str
    address: str
    request: str
    lie: str
    """The header by which the guest claims to be another one, or ''."""
    claims: str
    """The name of that other guest, or ''."""
    expected: str
    answered: str
    ok: bool


@dataclass(frozen=True)
class _Lie:
    header: str
    claims: str


class Demo:
    """Everything up and running between entering and leaving. Raises LabError when it cannot be."""

    def __init__(
        self,
        *,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
        api_secret: str | None = None,
    ) -> None:
        """waiting: a context around all that takes long and may be interrupted. api_secret: another secret
        for the metadata API than the agent has, to see that nothing gets through then."""
        self._waiting = waiting
        self._secret = secrets.token_hex(32)
        self._api_secret = self._secret if api_secret is None else api_secret
        self._stack = ExitStack()
        self.guests: list[Guest] = []
        self.leftovers: list[str] = []
        """Namespaces of an earlier lab that was killed; they are removed by now."""
        self.services: list[Service] = []

    def __enter__(self) -> Demo:
        try:
            self._build()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def rows(self) -> Iterator[Row]:
        """Asks, one request at a time."""
        lost = 0
        for guest in self.guests:
            for path in (META_DATA, INSTANCE_ID, USER_DATA):
                yield (row := self._ask(guest, path, _Lie("", ""), lost))
                lost = self._lost(row, lost)
            for lie in self._lies(guest):
                yield (row := self._ask(guest, META_DATA, lie, lost))
                lost = self._lost(row, lost)

    # --- building ----------------------------------------------------------------------------------------

    def _build(self) -> None:
        self.folder = _private_folder()
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        lab = self._stack.enter_context(Lab())
        self.leftovers = lab.leftovers
        ports: list[tuple[Port, str, str, str]] = []
        listen: list[str] = []
        projects = {name: uuid.uuid4().hex for name in ("blue", "green", "red")}
        # Both networks have 10.0.0.0/24, and each a guest at 10.0.0.5.
        for name, other_address in (("blue", "10.0.0.6"), ("green", "10.0.0.7")):
            network = lab.add_network(name)
            dhcp = lab.add_dhcp_namespace(network, "10.0.0.2/24")
            ports.append((dhcp, "network:dhcp", f"dhcp-{uuid.uuid4()}", projects[name]))
            listen.append(f"network:{network.network_id}@{dhcp.namespace}/{METADATA_ADDRESS}:80")
            for number, address in enumerate(("10.0.0.5", other_address), start=1):
                guest_name = f"{name}-{number}"
                # The route that DHCP's option 121 gives.
                routes = [(f"{METADATA_ADDRESS}/32", "10.0.0.2")]
                port = lab.add_guest(network, guest_name, f"{address}/24", routes=routes)
                self._add_guest(guest_name, port, projects[name])
        network = lab.add_network("red")
        router_id = str(uuid.uuid4())
        namespace = lab.add_router_namespace(router_id)
        interface = lab.add_router_interface(namespace, network, "10.0.0.1/24")
        ports.append((interface, "network:router_interface", router_id, projects["red"]))
        listen.append(f"router:{router_id}@{namespace}/0.0.0.0:{METADATA_PORT}")
        port = lab.add_guest(network, "red-1", "10.0.0.5/24", routes=[("0.0.0.0/0", "10.0.0.1")])
        self._add_guest("red-1", port, projects["red"])
        ports += [(guest.port, "compute:nova", guest.instance_id, guest.project_id) for guest in self.guests]

        tcp_port = self._start_metadata_api()
        self._start_agent(listen, ports, tcp_port)

    def _add_guest(self, name: str, port: Port, project_id: str) -> None:
        ec2_id = f"i-{len(self.guests) + 1:08x}"
        self.guests.append(Guest(name, port, project_id, ec2_id))

    def _start_metadata_api(self) -> int:
        """Gives its TCP port on 127.0.0.1."""
        instances = [
            {
                "id": guest.instance_id,
                "project_id": guest.project_id,
                "name": guest.name,
                "ec2_id": guest.ec2_id,
                "local_ipv4": guest.address,
                "user_data": guest.user_data,
            }
            for guest in self.guests
        ]
        # JSON is YAML.
        file = write_private(self.folder / "instances.yaml", json.dumps({"instances": instances}, indent=2))
        secret = write_private(self.folder / "metadata-api.secret", self._api_secret)
        service = self._start(
            "metadata-api",
            ["--instances", str(file), "--shared-secret-file", str(secret), "--listen", "127.0.0.1:0"],
        )
        match = re.search(r"127\.0\.0\.1:([0-9]+)", service.status)
        if match is None:
            raise LabError(f"the metadata API does not say where it listens: {service.status!r}")
        return int(match[1])

    def _start_agent(self, listen: list[str], ports: list[tuple[Port, str, str, str]], tcp_port: int) -> None:
        content = {
            "ports": [
                {
                    "id": port.port_id,
                    "network_id": port.network.network_id,
                    "device_id": device_id,
                    "device_owner": device_owner,
                    "project_id": project_id,
                    "mac_address": port.mac_address,
                    "fixed_ips": [{"ip_address": address} for address in port.addresses],
                }
                for port, device_owner, device_id, project_id in ports
            ]
        }
        ports_file = write_private(self.folder / "ports.json", json.dumps(content, indent=2))
        lines = [
            "[DEFAULT]",
            "nova_metadata_host = 127.0.0.1",
            f"nova_metadata_port = {tcp_port}",
            f"metadata_proxy_shared_secret = {self._secret}",
            "[fastmeta]",
            "lookup = static",
            f"ports_file = {ports_file}",
            f"control_dir = {self.folder / 'control'}",
            *(f"listen = {entry}" for entry in listen),
            "access_log = true",
        ]
        config = write_private(self.folder / "agent.conf", "\n".join(lines) + "\n")
        self._start("agent", ["--config-file", str(config)])

    def _start(self, name: str, arguments: list[str]) -> Service:
        command = [sys.executable, "-m", "fastmeta", name, *arguments]
        service = self._stack.enter_context(Service(name, command, self.folder, waiting=self._waiting))
        self.services.append(service)
        return service

    # --- asking ------------------------------------------------------------------------------------------

    def _lies(self, guest: Guest) -> list[_Lie]:
        """Headers by which guest claims to be somebody else: what a naive proxy would pass on or believe."""
        others = [other for other in self.guests if other.network != guest.network]
        twin = next((other for other in others if other.address == guest.address), others[0])
        neighbour = next((other for other in self.guests if other.address != guest.address), others[0])
        for other in self.guests:
            if other.network == guest.network and other is not guest:
                neighbour = other
        return [
            _Lie(f"X-Instance-ID: {twin.instance_id}", twin.name),
            _Lie(f"X-Tenant-ID: {twin.project_id}", twin.name),
            _Lie(f"X-Forwarded-For: {neighbour.address}", neighbour.name),
            _Lie(f"X-Neutron-Network-ID: {twin.port.network.network_id}", twin.name),
            # A WSGI server reads this one as X-Instance-ID.
            _Lie(f"X_Instance_ID: {twin.instance_id}", twin.name),
        ]

    def _ask(self, guest: Guest, path: str, lie: _Lie, lost: int) -> Row:
        answered = "not asked: there were too many failures" if lost >= _GIVE_UP else ""
        if not answered:
            status, body, problem = self._curl(guest, path, lie.header)
            answered = f"HTTP {status}" if status else problem
            if status == 200:
                answered = self._who(path, body)
        expected = guest.instance_id
        return Row(
            network=guest.network,
            address=guest.address,
            request=f"GET /{path}",
            lie=lie.header,
            claims=lie.claims,
            expected=expected,
            answered=answered,
            ok=answered == expected,
        )

    def _lost(self, row: Row, lost: int) -> int:
        answered = row.ok or re.fullmatch(r"HTTP [1-4][0-9]{2}", row.answered)
        return lost if answered else lost + 1

    def _curl(self, guest: Guest, path: str, lie: str) -> tuple[int, bytes, str]:
        """Status (0: none), body, and what curl says of a failure."""
        command = [
            "curl",
            "-q",
            "-sS",
            "--noproxy",
            "*",
            "--max-time",
            str(_CURL_TIMEOUT),
            "-w",
            "\n%{http_code}",
        ]
        if lie:
            command += ["-H", lie]
        command.append(f"http://{METADATA_ADDRESS}/{path}")
        try:
            with self._waiting():
                done = subprocess.run(
                    in_namespace_command(guest.port.namespace, command),
                    capture_output=True,
                    timeout=_CURL_TIMEOUT + 5,
                    check=False,
                )
        except (OSError, subprocess.TimeoutExpired) as error:
            return 0, b"", f"no answer: {error}"
        body, _, status = done.stdout.rpartition(b"\n")
        if done.returncode or not status.isdigit():
            return 0, b"", f"no answer: {done.stderr.decode(errors='replace').strip()}"
        return int(status), body, ""

    def _who(self, path: str, body: bytes) -> str:
        """The instance id that an answer names, or the answer's beginning when it names nobody whom we
        know."""
        for guest in self.guests:
            if path == INSTANCE_ID and body == guest.ec2_id.encode():
                return guest.instance_id
            if path == USER_DATA and body == guest.user_data.encode():
                return guest.instance_id
            if path == META_DATA:
                with contextlib.suppress(ValueError):
                    data = json.loads(body)
                    if isinstance(data, dict) and (data.get("uuid"), data.get("project_id")) == (
                        guest.instance_id,
                        guest.project_id,
                    ):
                        return guest.instance_id
        return ascii(body[:60])


def _private_folder() -> Path:
    """A new folder of mode 0700, whatever the umask, with a path short enough for a unix socket in it."""
    base = tempfile.gettempdir()
    folder = Path(tempfile.mkdtemp(prefix="fastmeta-demo-", dir=base if len(base) < 60 else "/tmp"))  # noqa: S108
    folder.chmod(0o700)
    return folder
