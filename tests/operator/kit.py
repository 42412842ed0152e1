"""A configuration in a folder, a metadata API to give it, and what ``fastmeta config check`` says of both."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastmeta.lab.services import Service, write_private

SECRET = "s3cret-of-nova-and-neutron"
NETWORK = "11111111-1111-4111-8111-111111111111"
LISTEN = f"listen = network:{NETWORK}@127.0.0.1:{{}}"

INSTANCES = """\
instances:
  - id: 8f0c5f2e-3a55-4f0e-9c8e-0d6f5d0a1b01
    project_id: 5d0a1b018f0c4f0e9c8e3a550d6f5f2e
"""
PORT = {
    "id": "22222222-2222-4222-8222-222222222222",
    "network_id": NETWORK,
    "device_id": "8f0c5f2e-3a55-4f0e-9c8e-0d6f5d0a1b01",
    "device_owner": "compute:nova",
    "project_id": "5d0a1b018f0c4f0e9c8e3a550d6f5f2e",
    "mac_address": "fa:16:3e:00:00:01",
    "fixed_ips": [{"ip_address": "10.0.0.5"}],
}


def free_tcp_port() -> int:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        tcp_port: int = reserved.getsockname()[1]
        return tcp_port


class Nova:
    """``fastmeta metadata-api``, from entering to leaving."""

    def __enter__(self) -> Nova:
        self._stack = ExitStack()
        folder = Path(tempfile.mkdtemp(prefix="fmo-", dir="/tmp"))
        self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
        self.tcp_port = free_tcp_port()
        command = [sys.executable, "-m", "fastmeta", "metadata-api"]
        command += ["--instances", str(write_private(folder / "instances.yaml", INSTANCES))]
        command += ["--shared-secret-file", str(write_private(folder / "secret", SECRET))]
        command += ["--listen", f"127.0.0.1:{self.tcp_port}"]
        self._stack.enter_context(Service("nova", command, folder))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def write_ports(path: Path) -> Path:
    """A ports file with one port, that of a guest with 10.0.0.5."""
    path.write_text(json.dumps({"ports": [PORT]}))
    path.chmod(0o600)
    return path


def write_config(
    folder: Path,
    *,
    default: Sequence[str] = (),
    fastmeta: Sequence[str] = (),
    more: str = "",
    static: bool = True,
    secret: str = SECRET,
) -> Path:
    """A configuration that is right but for what is given. Nobody listens at its address."""
    lines = ["[DEFAULT]", f"metadata_proxy_shared_secret = {secret}", *default, "[fastmeta]"]
    if not any(line.startswith("listen") for line in fastmeta):
        lines.append(LISTEN.format(8080))
    if static:
        lines.append(f"ports_file = {write_ports(folder / 'ports.json')}")
    path = folder / "fastmeta.conf"
    path.write_text("\n".join([*lines, *fastmeta, more, ""]))
    path.chmod(0o600)
    return path


@dataclass(frozen=True)
class Checked:
    """What it has said, as JSON; and printed."""

    status: int
    report: dict[str, Any]
    output: str

    def states(self, part: str) -> list[str]:
        return [finding["state"] for finding in self.findings(part)]

    def findings(self, part: str) -> list[dict[str, str]]:
        return [finding for finding in self.report["findings"] if finding["part"] == part]

    def texts(self, state: str) -> list[str]:
        return [finding["text"] for finding in self.report["findings"] if finding["state"] == state]

    @property
    def wrong(self) -> str:
        """The text of the only finding that is wrong."""
        (text,) = self.texts("wrong")
        return text


def run_check(
    *arguments: str, prefix: Sequence[str] = (), seconds: float = 60
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*prefix, sys.executable, "-m", "fastmeta", "config", "check", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
        env={name: value for name, value in os.environ.items() if not name.startswith("OS_")},
    )


def check(config: Path, *arguments: str, secrets: Sequence[str] = (SECRET,), seconds: float = 60) -> Checked:
    """Of the report nothing may be missing, and no secret in it."""
    done = run_check("--config-file", str(config), "--format", "json", *arguments, seconds=seconds)
    assert done.stderr == ""
    for secret in secrets:
        assert secret not in done.stdout
    report = json.loads(done.stdout)
    assert report["exit_status"] == done.returncode
    return Checked(done.returncode, report, done.stdout)
