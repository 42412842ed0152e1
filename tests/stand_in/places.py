"""A small cloud whose namespaces hold nothing but stand-ins' holders, and agents that they hand over to."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from fastmeta.models import ListenSpec, Scope
from tests.service.agents import Agent, Cloud
from tests.service.conftest import Setting
from tests.service.upstream import Upstream

from . import configurations
from .configurations import Configuration
from .kit import PROGRAM, Ground, is_alive, until


class Scene:
    """What one test starts; it ends with it."""

    def __init__(self, setting: Setting, program: Path = PROGRAM) -> None:
        self.setting = setting
        self.cloud: Cloud = setting.cloud
        self.upstream: Upstream = setting.upstream()
        self.folder = Path(
            setting.stack.enter_context(tempfile.TemporaryDirectory(prefix="fmc-", dir="/tmp"))
        )
        self.control_dir = self.folder / "control"
        self.ground = setting.stack.enter_context(Ground(program, self.control_dir))

    def __enter__(self) -> Scene:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The setting ends it."""

    def agent(self, **options: Any) -> Agent:
        """One whose only sockets are those of stand-ins."""
        options = {"listen": [], "stand_in": "true", "control_dir": self.control_dir, **options}
        return self.setting.agent(self.upstream, **options)

    def proxies(self) -> list[tuple[Scope, str, list[str]]]:
        """Of the cloud: for whom, in which namespace, and where there."""
        found: dict[tuple[Scope, str], list[str]] = {}
        for text in self.cloud.listen:
            spec = ListenSpec.parse(text)
            host = f"[{spec.address}]" if spec.address.version == 6 else str(spec.address)
            interface = f" interface {spec.interface}" if spec.interface else ""
            binds = found.setdefault((spec.scope, spec.namespace or ""), [])
            binds.append(f"{host}:{spec.tcp_port}{interface}")
        return [(scope, namespace, binds) for (scope, namespace), binds in found.items()]

    def configuration(self, scope: Scope, binds: list[str], **options: Any) -> Configuration:
        headers = configurations.ROUTER if scope.kind.value == "router" else configurations.NETWORK
        return Configuration(headers, binds, **options)

    def start(
        self, scope: Scope, namespace: str, binds: list[str], *, started: bool = True, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        done = self.ground.start(namespace, self.configuration(scope, binds, **options), scope.uuid)
        assert (done.returncode == 0) is started, done.stderr
        return done

    def start_all(self, **options: Any) -> None:
        for scope, namespace, binds in self.proxies():
            self.start(scope, namespace, binds, **options)

    def holder(self, scope: Scope) -> int:
        return self.ground.holder(scope.uuid)

    def kill_agent(self, agent: Agent, number: int = signal.SIGKILL) -> None:
        os.kill(agent.pid, number)
        agent.exit_status()

    def end(self, scope: Scope, number: int = signal.SIGTERM) -> None:
        """Its holder, as Neutron does it."""
        pid = self.holder(scope)
        os.kill(pid, number)
        until(lambda: not is_alive(pid), "the end of a holder")
