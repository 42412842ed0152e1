"""A unit of ours as a service: its own command line, in a sandbox made of what the unit says."""

from __future__ import annotations

import functools
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType

from fastmeta.lab.services import Service, write_private
from tests.service.upstream import WAIT

from .units import Unit

SANDBOX = Path(__file__).with_name("sandbox.py")
FILTER = Path(__file__).with_name("sandbox_filter.py")
FASTMETA = Path(sys.executable).with_name("fastmeta")
PYTHON = "/usr/bin/python3"
USER, UID = "neutron", 64_500
"""The user of the sandbox; this machine need not have one of that name."""

CLONE_NEWNET = 0x40000000

TRIED = (
    "User Group UMask LimitNOFILE LimitCORE RuntimeDirectory RuntimeDirectoryMode ProtectSystem ReadWritePaths "
    "PrivateDevices ProtectProc ProtectKernelTunables CapabilityBoundingSet AmbientCapabilities NoNewPrivileges "
    "LockPersonality MemoryDenyWriteExecute RestrictAddressFamilies RestrictNamespaces RestrictRealtime "
    "RestrictSUIDSGID SystemCallFilter SystemCallErrorNumber Environment ExecStart ExecReload Type NotifyAccess"
)
"""What the sandbox, and the tests that use it, do as the unit says."""
NOT_TRIED = (
    # Only systemd has to do with these.
    "EnvironmentFile ExecStartPre ExecStop PIDFile Restart RestartSec TimeoutStopSec RuntimeDirectoryPreserve",
    # The tests' own files are there.
    "ProtectHome PrivateTmp",
    # They take away what the filter of system calls and the capabilities have taken already, or is not looked at.
    "ProtectClock ProtectControlGroups ProtectHostname ProtectKernelLogs ProtectKernelModules",
    "SystemCallArchitectures",
)


def names(*groups: str) -> set[str]:
    return {name for group in groups for name in group.split()}


@functools.cache
def system_calls(group: str) -> frozenset[str]:
    """Of one of systemd's groups, as the systemd that is installed has it."""
    text = subprocess.run(
        ["systemd-analyze", "--no-pager", "syscall-filter", group],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    found: set[str] = set()
    for line in text.splitlines()[1:]:
        name = line.strip()
        if name.startswith("@"):
            found |= system_calls(name)
        elif name and not name.startswith("#"):
            found.add(name)
    return frozenset(found)


def allowed_system_calls(unit: Unit) -> list[str]:
    """The first value says whether it is a list of what is allowed: ours are."""
    allowed = set(system_calls("@default"))
    for value in unit.values("SystemCallFilter"):
        for group in value.lstrip("~").split():
            if value.startswith("~"):
                allowed -= system_calls(group)
            else:
                allowed |= system_calls(group)
    return sorted(allowed | system_calls("@default"))


class Sandbox:
    """What a command gets that makes it a service of this unit."""

    def __init__(
        self,
        unit: Unit,
        folder: Path,
        files: Mapping[str, tuple[str, str, int]],
        *,
        members: Sequence[str] = (),
    ) -> None:
        """files: content, owner (root or USER) and mode, by path; members: others in USER's group."""
        for name in ("state", "log"):
            (folder / name).mkdir()
        # The user comes to the socket of sd_notify through here.
        folder.chmod(0o711)
        families = [int(getattr(socket, name)) for name in unit.words("RestrictAddressFamilies")]
        (namespaces,) = unit.values("RestrictNamespaces")
        spec = {
            "folder": str(folder),
            "files": files,
            "links": {"/opt/fastmeta/bin/fastmeta": str(FASTMETA)},
            "bind": {"/var/lib/neutron": f"{folder}/state", "/var/log/neutron": f"{folder}/log"},
            "user": unit.value("User"),
            "uid": UID,
            "members": members,
            "protect_system": unit.value("ProtectSystem"),
            "read_write_paths": [path.lstrip("-") for path in unit.words("ReadWritePaths")],
            "runtime_directory": unit.value("RuntimeDirectory"),
            "private_devices": unit.is_true("PrivateDevices"),
            "protect_proc": unit.value("ProtectProc"),
            "protect_kernel_tunables": unit.is_true("ProtectKernelTunables"),
            "nofile": int(unit.value("LimitNOFILE")),
            "core": int(unit.value("LimitCORE")),
            "umask": int(unit.value("UMask"), 8),
            "capabilities": unit.words("AmbientCapabilities"),
            "no_new_privileges": unit.is_true("NoNewPrivileges"),
            "filter": str(FILTER),
            "filtered": {
                "system_calls": allowed_system_calls(unit),
                "address_families": families,
                "namespaces": {"yes": 0, "net": CLONE_NEWNET}[namespaces],
                "no_write_execute": unit.is_true("MemoryDenyWriteExecute"),
                "no_realtime": unit.is_true("RestrictRealtime"),
                "no_suid": unit.is_true("RestrictSUIDSGID"),
                "no_personality": unit.is_true("LockPersonality"),
            },
        }
        self.runtime = Path("/run") / unit.value("RuntimeDirectory")
        path = write_private(folder / "sandbox.json", json.dumps(spec))
        self.command = ["unshare", "--mount", "--propagation", "slave", PYTHON, str(SANDBOX), str(path)]


class RunningUnit:
    """The unit's ExecStart in the sandbox, from entering to leaving. It is ready when it is entered."""

    def __init__(
        self,
        unit: Unit,
        folder: Path,
        files: Mapping[str, tuple[str, str, int]],
        *,
        variables: Mapping[str, str] | None = None,
        members: Sequence[str] = (),
    ) -> None:
        """variables: in place of the unit's, as by EnvironmentFile=."""
        self.unit = unit
        self._folder = folder
        self.sandbox = Sandbox(unit, folder, files, members=members)
        self.service = Service("unit", [*self.sandbox.command, *unit.command("ExecStart", variables)], folder)
        self._stack = ExitStack()

    def __enter__(self) -> RunningUnit:
        if not self.sandbox.runtime.exists():
            # Only to mount something there.
            self.sandbox.runtime.mkdir(0o700)
            self._stack.callback(self._remove_runtime)
        before = os.umask(0)  # or the user could not write to the socket of sd_notify
        try:
            self._stack.enter_context(self.service)
        except BaseException:
            self._stack.close()
            raise
        finally:
            os.umask(before)
        return self

    def _remove_runtime(self) -> None:
        with suppress(OSError):  # another agent uses it by now
            self.sandbox.runtime.rmdir()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def pid(self) -> int:
        return self.service.pid

    def status(self, name: str) -> str:
        """A line of /proc/<pid>/status."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        (found,) = re.findall(rf"^{name}:\s*(.*)$", text, re.MULTILINE)
        return str(found)

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command as root where the service sees its files."""
        return subprocess.run(
            ["nsenter", f"--target={self.pid}", "--mount", "--wd=/", *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    @contextmanager
    def listening(self) -> Iterator[Callable[[], dict[str, str]]]:
        """What it says to systemd from here on: each call gives the next message, by name."""
        path = self._folder / "unit.notify"
        path.unlink()
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as receiver:
            receiver.bind(str(path))
            path.chmod(0o666)
            receiver.settimeout(WAIT)
            yield lambda: dict(line.split("=", 1) for line in receiver.recv(4096).decode().splitlines())

    def reload(self) -> None:
        """Runs ExecReload."""
        command = [
            word.replace("$MAINPID", str(self.pid)) for word in self.unit.values("ExecReload")[-1].split()
        ]
        subprocess.run(command, check=True, timeout=60)
