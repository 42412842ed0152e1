"""A node as an operator has it: the files of neutron-metadata-agent, fastmeta with these files in its place, and a
guest whose haproxy hands over requests."""

from __future__ import annotations

import re
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from fastmeta.lab.services import Service, write_private
from tests.service.guests import Answer, Wire
from tests.service.upstream import WAIT, Upstream

from .kit import NETWORK, PORT, SECRET, write_ports

ADDRESS = PORT["fixed_ips"][0]["ip_address"]
SOMEBODY = "10.0.0.99"
"""Nobody has a port with this address."""
INSTANCE, PROJECT = str(PORT["device_id"]), str(PORT["project_id"])


class Node:
    """From entering to leaving: an upstream in Nova's place, and whatever agents a test starts."""

    def __init__(self, folder: Path, *, nova_address: str = "127.0.0.1", secret: str = SECRET) -> None:
        """folder: ours, and short enough for a unix socket in it."""
        self.folder = folder
        self.upstream = Upstream(secret, address=nova_address)
        self.socket_path = folder / "state" / "metadata_proxy"
        self.metadata_agent = {
            "nova_metadata_port": str(self.upstream.tcp_port),
            "metadata_proxy_shared_secret": SECRET,
        }
        """[DEFAULT] of metadata_agent.ini: what every operator sets."""
        self.fastmeta = {"park_timeout": "1", "access_log": "true", "control_dir": f"{folder}/control"}
        """[fastmeta] of a third file; park_timeout: what is not served is found out soon; control_dir: there may be
        other agents on this machine."""
        self._stack = ExitStack()
        self._agents = 0

    def __enter__(self) -> Node:
        self._stack.enter_context(self.upstream)
        self.socket_path.parent.mkdir()
        ports = write_ports(self.folder / "ports.json")
        self.fastmeta["ports_file"] = str(ports)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        assert self.upstream.wrong == []

    def files(self, neutron: str = "", metadata_agent: str = "") -> list[Path]:
        """Written anew: neutron.conf, metadata_agent.ini and ours. neutron, metadata_agent: lines behind the others, of
        [DEFAULT] until another section begins."""
        contents = {
            "neutron.conf": f"[DEFAULT]\nstate_path = {self.folder}/state\n{neutron}\n",
            "metadata_agent.ini": f"[DEFAULT]\n{_lines(self.metadata_agent)}{metadata_agent}\n",
            "fastmeta.conf": f"[fastmeta]\n{_lines(self.fastmeta)}",
        }
        made = []
        for name, content in contents.items():
            path = self.folder / name
            path.unlink(missing_ok=True)
            made.append(write_private(path, content))
        return made

    def agent(
        self,
        neutron: str = "",
        metadata_agent: str = "",
        *,
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Running:
        """One that is ready. neutron, metadata_agent: as of files(); prefix: of its command line."""
        command = [*prefix, sys.executable, "-m", "fastmeta", "agent"]
        for path in self.files(neutron, metadata_agent):
            command += ["--config-file", str(path)]
        self._agents += 1
        name = f"agent-{self._agents}"
        service = Service(name, command, self.folder, environment=environment)
        return self._stack.enter_context(Running(service, self))

    def ask(self, target: str = "/", address: str = ADDRESS, *, path: Path | None = None) -> Answer:
        """What the guest with this address gets, on a connection of its own."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(WAIT)
        try:
            connection.connect(str(path or self.socket_path))
        except BaseException:
            connection.close()
            raise
        with Wire(connection) as wire:
            wire.get(target, f"X-Forwarded-For: {address}", f"X-Neutron-Network-ID: {NETWORK}")
            return wire.answer()

    def is_served(self, *, path: Path | None = None) -> bool:
        """Whether the guest gets Nova's answer, under its own name."""
        before = len(self.upstream.received)
        if self.ask("/served", path=path).status != 200:
            return False
        (request,) = self.upstream.received[before:]
        return (request.instance, request.value("x-tenant-id")) == (INSTANCE, PROJECT)

    def statuses(self, count: int, address: str = ADDRESS) -> list[int]:
        """Of so many requests."""
        return [self.ask(address=address).status for _ in range(count)]


def _lines(options: Mapping[str, str]) -> str:
    return "".join(f"{name} = {value}\n" for name, value in options.items())


class Running:
    """An agent that is ready, until the node's test ends or end() is called."""

    def __init__(self, service: Service, node: Node) -> None:
        self.service = service
        self._node = node

    def __enter__(self) -> Running:
        self.service.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        assert "Traceback" not in self.log, self.log
        assert SECRET not in self.log

    def end(self) -> None:
        """Stops it, and returns when it has ended. May be called again."""
        self.service.__exit__(None, None, None)

    @property
    def log(self) -> str:
        """All that it has printed."""
        return self.service.log_path.read_text(errors="backslashreplace")

    @property
    def messages(self) -> list[str]:
        """Its lines from warnings on: level and text, without what is another one each time."""
        found = re.findall(r"^\S+ \S+ [0-9]+ (WARNING|ERROR|CRITICAL) \S+ \[-\] (.*)$", self.log, re.M)
        return [f"{level} {text}" for level, text in found]

    def until(self, condition: Callable[[], object], what: str = "") -> None:
        end = time.monotonic() + WAIT
        while not condition():
            assert time.monotonic() < end, f"{what or 'not yet'}:\n{self.log}"
            time.sleep(0.02)
