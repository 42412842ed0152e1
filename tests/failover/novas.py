"""Nova's side: processes that are killed, frozen, and started again where they were."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import yaml
from typing_extensions import Self

from fastmeta.lab.services import Service, write_private
from fastmeta.lab.topology import in_namespace_command

from ..service.agents import SECRET, until

PROGRAM = Path(__file__).parent / "programs" / "nova.py"
TCP_PORT = 8775
"""Nova's own, on addresses of 127.0.0.0/8 that nobody else has: it lies below those that the kernel gives to clients,
so that nobody takes it while its server is away."""


@dataclass(frozen=True)
class Served:
    """A request that a server has carried out."""

    at: float
    connection: int
    method: str
    target: str


class Server:
    """Somebody at an address."""

    def __init__(self, address: str) -> None:
        self.address = address

    @property
    def url(self) -> str:
        return f"http://{self.address}:{TCP_PORT}"


class Nova(Server):
    """programs/nova.py, started and ended as a test pleases. All that it has done is in its journal."""

    def __init__(
        self,
        address: str,
        folder: Path,
        *,
        delay: float = 0.0,
        closes: str = "",
        namespace: str | None = None,
    ) -> None:
        super().__init__(address)
        self.delay = delay
        self.closes = closes
        self.namespace = namespace
        self.journal = write_private(folder / f"{address}.journal", b"")
        self.process: subprocess.Popen[str] | None = None
        self.started = False
        """Ever."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Returns when it listens."""
        assert self.process is None
        self.started = True
        plan = {
            "secret": SECRET,
            "address": self.address,
            "tcp_port": TCP_PORT,
            "journal": str(self.journal),
            "delay": self.delay,
            "closes": self.closes,
        }
        command = ["setpriv", "--pdeathsig", "KILL", "--", sys.executable, str(PROGRAM), json.dumps(plan)]
        if self.namespace is not None:
            command = in_namespace_command(self.namespace, command)
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "listening\n"

    def kill(self) -> None:
        """At once, whatever it does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    def freeze(self) -> None:
        """Its kernel still takes connections and bytes for it."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)
        # kill(2) returns before the process has stopped.
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def go_on(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def _lines(self, what: str) -> list[list[str]]:
        lines = (line.split("\t") for line in self.journal.read_text().splitlines())
        return [line for line in lines if line[1] == what]

    def served(self, since: float = 0.0) -> list[Served]:
        return [
            Served(float(line[0]), int(line[2]), line[3], line[4])
            for line in self._lines("request")
            if float(line[0]) >= since
        ]

    def opened(self, since: float = 0.0) -> list[float]:
        """When connections came."""
        return [float(line[0]) for line in self._lines("open") if float(line[0]) >= since]

    def wrong(self) -> list[str]:
        return [line[-1] for line in self._lines("wrong")]


class EmbeddedNova(Server):
    """`fastmeta metadata-api`, as a user starts it."""

    def __init__(self, address: str, folder: Path, instances: Sequence[tuple[str, str]]) -> None:
        """instances: id and project of each."""
        super().__init__(address)
        self.folder = folder / address
        self.folder.mkdir(mode=0o700)
        # What it gives as /latest/meta-data/instance-id is the id for EC2's sake.
        entries = [
            {"id": instance, "ec2_id": instance, "project_id": project} for instance, project in instances
        ]
        file = write_private(self.folder / "instances.yaml", yaml.safe_dump({"instances": entries}))
        secret = write_private(self.folder / "secret", SECRET)
        self.command = [sys.executable, "-m", "fastmeta", "metadata-api", "--access-log"]
        self.command += ["--instances", str(file), "--shared-secret-file", str(secret)]
        self.command += ["--listen", f"{address}:{TCP_PORT}"]
        self.starts = 0
        self.service: Service | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when it listens."""
        self.starts += 1
        service = Service(f"n{self.starts}", self.command, self.folder)
        service.__enter__()
        self.service = service

    def kill(self) -> None:
        assert self.service is not None
        os.kill(self.service.pid, signal.SIGKILL)
        self.stop()

    def stop(self) -> None:
        """As a service manager does: answers under way are finished."""
        if self.service is not None:
            self.service.__exit__(None, None, None)
            self.service = None

    def served(self) -> int:
        """Requests since it was started last."""
        assert self.service is not None
        return self.service.log_path.read_text(errors="replace").count(" instance ")

    def until_served(self, count: int) -> None:
        until(lambda: self.served() >= count, f"{count} requests at {self.address}")


class FullBacklog(Server):
    """Listens, but takes nobody: the kernel drops the SYN of whoever comes when the queue is full (listen(2))."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.stack = ExitStack()

    def __enter__(self) -> Self:
        with self.stack:
            listener = self.stack.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.address, TCP_PORT))
            listener.listen(0)
            # One more than its length gets in.
            for _ in range(2):
                client = self.stack.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex((self.address, TCP_PORT))
            with socket.socket() as client:
                client.settimeout(0.3)
                try:
                    client.connect((self.address, TCP_PORT))
                except TimeoutError:
                    pass
                else:
                    raise AssertionError("the queue is not full")
            self.stack = self.stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.close()


def executions(novas: Sequence[Nova], *methods: str) -> Counter[str]:
    """How often each request was carried out, by its target."""
    return Counter(request.target for nova in novas for request in nova.served() if request.method in methods)
