"""Starting stand-ins as Neutron's agents do, and an agent of our own at the other end of what they say."""

from __future__ import annotations

import array
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from fastmeta.lab.namespaces import sbin_environment
from fastmeta.stand_in.message import HandOver
from fastmeta.stand_in.program import FOLDER

from .configurations import UUID, Configuration

WAIT = 20.0
"""Seconds for anything; what waits takes milliseconds."""

PROGRAM = FOLDER / "haproxy"


def until(condition: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + WAIT
    while not (value := condition()):
        assert time.monotonic() < end, f"not after {WAIT:g} s: {what}"
        time.sleep(0.005)
    return value


def is_alive(pid: int) -> bool:
    """Whether the process is there, and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def command_line(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


class Ground:
    """Where stand-ins are started: their files, and their holders, which end with it."""

    def __init__(self, program: Path = PROGRAM, control_dir: Path | None = None) -> None:
        """control_dir: that of an agent; else one of our own."""
        self.folder = Path(tempfile.mkdtemp(prefix="fmh-", dir="/tmp"))
        self.program = program
        self.control_dir = control_dir or self.folder / "control"
        if control_dir is None:
            self.control_dir.mkdir(mode=0o700)
            (self.control_dir / "holders").mkdir(mode=0o700)
        self.options = self.folder / "stand-in.conf"
        self.holders: list[int] = []
        self.set_options()

    def __enter__(self) -> Ground:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pid in self.holders:
            if str(self.folder) in command_line(pid):  # (the number could be another's by now)
                os.kill(pid, signal.SIGKILL)
        for pid in self.holders:
            until(lambda pid=pid: str(self.folder) not in command_line(pid), "the end of a holder")
        shutil.rmtree(self.folder)

    def set_options(self, *lines: str) -> None:
        self.options.write_text("\n".join([f"control_dir = {self.control_dir}", *lines, ""]))

    @property
    def environment(self) -> dict[str, str]:
        return sbin_environment() | {"FASTMETA_STAND_IN_CONF": str(self.options)}

    def new_uuid(self) -> str:
        return str(uuid.uuid4())

    def pid_file(self, identifier: str) -> Path:
        return self.folder / f"{identifier}.pid.haproxy"

    def write(self, configuration: Configuration, identifier: str = UUID) -> Path:
        """Under the name that Neutron gives it, and with our pid file."""
        configuration = replace(configuration, pid_file=str(self.pid_file(identifier)))
        path = self.folder / f"{identifier}.conf"
        path.write_text(str(configuration).replace(UUID, identifier))
        return path

    def start(
        self, namespace: str, configuration: Configuration, identifier: str = UUID, *, arguments: Any = None
    ) -> subprocess.CompletedProcess[str]:
        """As Neutron's process manager does it: returns when it has ended, and everybody has closed its output."""
        path = self.write(configuration, identifier)
        command = ["ip", "netns", "exec", namespace, "env", f"PROCESS_TAG=haproxy-{identifier}"]
        done = subprocess.run(
            [*command, str(self.program), *(arguments or ["-f", str(path)])],
            stdin=subprocess.PIPE,
            capture_output=True,
            text=True,
            timeout=WAIT,
            check=False,
            env=self.environment,
        )
        with contextlib.suppress(OSError, ValueError):
            self.holders.append(int(self.pid_file(identifier).read_text()))
        return done

    def holder(self, identifier: str = UUID) -> int:
        """Checked as Neutron does it."""
        pid = int(self.pid_file(identifier).read_text())
        assert identifier in command_line(pid)
        return pid

    def sockets(self) -> list[str]:
        """Names in the folder of holders."""
        return sorted(path.name for path in (self.control_dir / "holders").iterdir())


@dataclass
class Handed:
    """What has been handed over. connection: to the stand-in, then to its holder."""

    claim: HandOver
    descriptors: list[int]
    connection: socket.socket

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.connection.close()

    def has_ended(self) -> bool:
        """Whether the other end of the connection is gone."""
        self.connection.settimeout(WAIT)
        return self.connection.recv(16) == b""


def receive(connection: socket.socket, timeout: float = WAIT) -> Handed:
    connection.settimeout(timeout)
    data, ancillary, flags, _ = connection.recvmsg(2048, socket.CMSG_SPACE(64), socket.MSG_CMSG_CLOEXEC)
    assert not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
    descriptors = array.array("i")
    for _, _, content in ancillary:
        descriptors.frombytes(content)
    return Handed(HandOver.parse(data), list(descriptors), connection)


@contextlib.contextmanager
def listening(ground: Ground) -> Iterator[socket.socket]:
    """What stand-ins hand over to."""
    path = ground.control_dir / "stand-ins"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(str(path))
        server.listen(16)
        server.settimeout(WAIT)
        try:
            yield server
        finally:
            path.unlink()


def connect(ground: Ground, name: str) -> socket.socket:
    """To a holder, as an agent that starts."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(WAIT)
    try:
        connection.connect(str(ground.control_dir / "holders" / name))
    except BaseException:
        connection.close()
        raise
    return connection


def status(pid: int) -> Mapping[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
