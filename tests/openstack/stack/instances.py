"""Instances of the real Nova: made and deleted by Nova's own code, in a process of the stack's interpreter.

That takes seconds to load, so the process stays for as long as it is needed.
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from .api import Item
from .layout import Layout


class InstanceError(Exception):
    """Nova's code refused; says with what."""


class Instances:
    """To be used with ``with``."""

    def __init__(self, layout: Layout) -> None:
        script = Path(__file__).with_name("nova_instances.py")
        self._output = layout.logs / "nova-instances.out"
        self._command = [
            layout.program("python"),
            str(script),
            str(layout.etc / "nova/nova.conf"),
            str(layout.logs / "nova-instances.log"),
        ]

    def __enter__(self) -> Instances:
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *self._command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                start_new_session=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._process:
            self._process.kill()

    def create(
        self,
        instance_id: str,
        project_id: str,
        name: str,
        ports: Sequence[Item] = (),
        cidr: str = "",
        user_data: bytes | None = None,
    ) -> None:
        """ports: Neutron's, with a fixed IP of the subnet cidr each; user_data: by default a script that names the
        instance."""
        interfaces = [
            {
                "id": port["id"],
                "mac_address": port["mac_address"],
                "network_id": port["network_id"],
                "cidr": cidr,
                "address": port["fixed_ips"][0]["ip_address"],
            }
            for port in ports
        ]
        if user_data is None:
            user_data = f"#!/bin/sh\necho {instance_id}\n".encode()
        instance = {
            "id": instance_id,
            "project_id": project_id,
            "name": name,
            "user_data": base64.b64encode(user_data).decode(),
            "ports": interfaces,
        }
        self._order("create", instance)

    def delete(self, instance_id: str) -> None:
        self._order("delete", {"id": instance_id})

    def _order(self, order: str, wanted: Item) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({order: wanted}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise InstanceError(f"the process has ended; the end of {self._output}:\n{self._end_of_output()}")
        if "error" in (result := json.loads(line)):
            raise InstanceError(result["error"])

    def _end_of_output(self) -> str:
        return self._output.read_text(errors="replace")[-3000:]
