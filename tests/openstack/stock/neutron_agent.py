"""An agent of Neutron's, as far as it keeps metadata proxies; which haproxy it starts, its PATH says."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from fastmeta.lab.namespaces import sbin_environment
from fastmeta.lab.services import write_private

PROGRAM = Path(__file__).parent / "programs" / "neutron_agent.py"


class NeutronError(Exception):
    """Neutron's code raised that."""


class NeutronAgent:
    """One process, from entering to leaving, or to kill(). What it has started goes on without it."""

    def __init__(
        self,
        python: str,
        folder: Path,
        *,
        path: str = "",
        environment: Mapping[str, str] | None = None,
        check_interval: int = 0,
    ) -> None:
        """folder: for its files, the same for all that are one agent after the other. path: a folder that comes first
        where it looks for programs. check_interval: seconds between looks whether proxies live; 0: never."""
        self.folder = folder
        self._python = python
        default = {"state_path": folder, "external_pids": folder / "pids"}
        default |= {"metadata_proxy_socket": folder / "metadata_proxy"}
        lines = ["[DEFAULT]", *(f"{name} = {value}" for name, value in default.items())]
        lines += ["[AGENT]", f"check_child_processes_interval = {check_interval}", ""]
        config = folder / "neutron.conf"
        config.unlink(missing_ok=True)
        self._config = write_private(config, "\n".join(lines))
        self._environment = {**sbin_environment(), **(environment or {})}
        if path:
            self._environment["PATH"] = f"{path}:{self._environment['PATH']}"

    def __enter__(self) -> NeutronAgent:
        with (self.folder / "neutron.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", self._python, str(PROGRAM), str(self._config)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._environment,
            )
        try:
            assert self._answer() == "ready"
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def kill(self) -> None:
        """At once, as a container that is replaced."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def spawn(self, uuid: str, namespace: str, arguments: Mapping[str, Any], **order: Any) -> bool:
        """Whether Neutron watches it now. order: options, group: of Neutron's configuration, changed before."""
        return bool(self._do("spawn", uuid, namespace=namespace, arguments=dict(arguments), **order))

    def destroy(self, uuid: str, namespace: str, **order: Any) -> None:
        self._do("destroy", uuid, namespace=namespace, **order)

    def is_active(self, uuid: str, **order: Any) -> bool:
        """What Neutron thinks of it."""
        return bool(self._do("active", uuid, **order))

    def pid(self, uuid: str) -> int:
        return int((self.folder / "pids" / f"{uuid}.pid.haproxy").read_text())

    @property
    def pids(self) -> list[int]:
        """Of all that have a pid file."""
        return [int(path.read_text()) for path in (self.folder / "pids").glob("*.pid.haproxy")]

    @property
    def log(self) -> str:
        return (self.folder / "neutron.log").read_text(errors="backslashreplace")

    def _do(self, command: str, uuid: str, **order: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"command": command, "uuid": uuid, **order}).encode() + b"\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self.log[-3000:]
        answer = json.loads(line)
        if "error" in answer:
            raise NeutronError(answer["error"])
        return answer["result"]
