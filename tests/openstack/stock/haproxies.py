"""Metadata proxies as Neutron's L3 and DHCP agents run them: real haproxies, started by Neutron's own code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from fastmeta.lab.services import write_private

from ..stack.layout import Layout

PROGRAM = Path(__file__).parent / "programs" / "metadata_proxy.py"
TIMEOUT = 90.0
"""Seconds. Neutron itself waits 60 s for a proxy."""


class NeutronError(Exception):
    """Neutron's code could not do it; says what it printed."""


class Haproxies:
    """From entering to leaving. All of them hand requests over on one socket."""

    def __init__(
        self,
        layout: Layout,
        folder: Path,
        metadata_socket: Path,
        *,
        user: str = "",
        group: str = "",
        limits: Mapping[str, object] | None = None,
    ) -> None:
        """folder: their own, which user can enter; user, group: metadata_proxy_user and metadata_proxy_group; limits:
        options of metadata_rate_limiting."""
        self._python = layout.program("python")
        self._folder = folder
        self._running: dict[str, str] = {}
        """The namespaces, by uuid."""
        options = {
            "state_path": folder,
            "external_pids": folder / "pids",
            "metadata_proxy_socket": metadata_socket,
            "metadata_proxy_user": user,
            "metadata_proxy_group": group,
        }
        lines = ["[DEFAULT]", *(f"{name} = {value}" for name, value in options.items())]
        lines += [
            "[metadata_rate_limiting]",
            *(f"{name} = {value}" for name, value in (limits or {}).items()),
            "",
        ]
        self._config = write_private(folder / "proxies.conf", "\n".join(lines))

    def __enter__(self) -> Haproxies:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for uuid in list(self._running):
            self.kill(uuid)

    def network(self, network_id: str, namespace: str, *, interface: str = "", port: int = 80) -> None:
        """As the DHCP agent has it; interface: the one with fe80::a9fe:a9fe, for IPv6 too; port: TCP's."""
        arguments: dict[str, Any] = {
            "network_id": network_id,
            "port": port,
            "bind_address": "169.254.169.254",
        }
        if interface:
            arguments |= {"bind_address_v6": "fe80::a9fe:a9fe", "bind_interface": interface}
        self._spawn(network_id, namespace, arguments)

    def router(self, router_id: str, namespace: str, *, port: int = 9697) -> None:
        """As the L3 agent has it, for both families; port: TCP's."""
        self._spawn(router_id, namespace, {"router_id": router_id, "port": port, "bind_address": "::"})

    def pid(self, uuid: str) -> int:
        return int((self._folder / "pids" / f"{uuid}.pid.haproxy").read_text())

    def kill(self, uuid: str) -> None:
        """At once, and not by Neutron: for the end of a test, whatever state it is in."""
        self._running.pop(uuid)
        os.kill(self.pid(uuid), signal.SIGKILL)

    def destroy(self, uuid: str) -> None:
        """As Neutron's agents do it when the network or router goes."""
        self._run({"command": "destroy", "uuid": uuid, "namespace": self._running[uuid]})
        del self._running[uuid]

    def _spawn(self, uuid: str, namespace: str, arguments: dict[str, Any]) -> None:
        self._run({"command": "spawn", "uuid": uuid, "namespace": namespace, "arguments": arguments})
        self._running[uuid] = namespace

    def _run(self, given: dict[str, Any]) -> None:
        done = subprocess.run(
            [self._python, str(PROGRAM), json.dumps({"config": str(self._config), **given})],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
        if done.returncode != 0:
            raise NeutronError((done.stdout + done.stderr).decode(errors="backslashreplace")[-3000:])
