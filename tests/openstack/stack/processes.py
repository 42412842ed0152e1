"""Programs that go on when we end: started, found again by a file, stopped, and never anybody else's.

A process is remembered by its id and the moment of its start (proc_pid_stat(5)), so that a later one of the same id is
not taken for it. Each starts a session of its own (setsid(2)); what it forks stays in it, and ends with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

STOP_TIMEOUT = 20.0
"""Seconds after SIGTERM before SIGKILL."""
_TURN = 0.02


class ProcessError(Exception):
    """A program does not start, or does not end; says which, and the end of its output."""


class Process:
    """One program. Methods may be called by a later process of ours than the one that has started it."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        run: Path,
        logs: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """run: the folder of its pid file; logs: that of its output; environment: ours when None."""
        self.name = name
        self.log_path = logs / f"{name}.out"
        self._command = list(command)
        self._file = run / f"{name}.pid"
        self._environment = dict(environment) if environment is not None else None

    def start(self) -> None:
        """Nothing when it runs."""
        if self.running:
            return
        self.kill()  # what its last life may have left
        with self.log_path.open("ab") as output:
            try:
                process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env=self._environment,
                    cwd="/",
                )
            except OSError as error:
                raise ProcessError(f"cannot start {self.name}: {error}") from error
        # We wait for it by its number; the object's own warning on being dropped would be wrong here.
        process.returncode = 0
        started = _stat(process.pid)
        if started is not None:
            new = self._file.with_suffix(".new")
            new.write_text(json.dumps({"pid": process.pid, "started": started.started, "boot": _boot()}))
            os.rename(new, self._file)

    @property
    def pid(self) -> int:
        """0 when it does not run."""
        return self._read()[0] if self.running else 0

    @property
    def running(self) -> bool:
        pid, started = self._read()
        _reap(pid)
        found = _stat(pid) if pid else None
        return found is not None and found.started == started and found.state != "Z"

    def stop(self) -> None:
        """Asks it to end (SIGTERM), waits, and makes sure that nothing of it is left."""
        if self.running:
            self._signal_leader(signal.SIGTERM)
            end = time.monotonic() + STOP_TIMEOUT
            while self.running and time.monotonic() < end:
                time.sleep(_TURN)
        self.kill()

    def kill(self) -> None:
        """Ends it and everything of its session at once (SIGKILL), and waits until it is gone."""
        end = time.monotonic() + STOP_TIMEOUT
        while members := self.members():
            for pid in members:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > end:
                raise ProcessError(f"{self.name} does not end: {members}")
            time.sleep(_TURN)
        self._file.unlink(missing_ok=True)

    def freeze(self) -> None:
        """Stops all of its session in place (SIGSTOP): connections are accepted by the kernel and never answered."""
        for pid in self.members():
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in self.members():
            os.kill(pid, signal.SIGCONT)

    def cpu_seconds(self) -> float:
        """Of all that is in its session now."""
        ticks = sum(found.ticks for pid in self.members() if (found := _stat(pid)))
        return ticks / os.sysconf("SC_CLK_TCK")

    def output(self) -> str:
        """The end of what it has printed."""
        try:
            return self.log_path.read_text(errors="replace")[-3000:]
        except FileNotFoundError:
            return ""

    def _signal_leader(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._read()[0], number)

    def _read(self) -> tuple[int, int]:
        """Its id and the moment of its start; zeros when there is none."""
        try:
            found = json.loads(self._file.read_text())
        except (FileNotFoundError, ValueError):
            return 0, 0
        return (found["pid"], found["started"]) if found["boot"] == _boot() else (0, 0)

    def members(self) -> list[int]:
        """Whatever lives in its session. The kernel gives the number of a session that still has members to nobody
        else; one that leads it but began at another moment shows that it was given."""
        leader, started = self._read()
        if not leader:
            return []
        _reap(leader)
        members = []
        for pid in _all():
            found = _stat(pid)
            if found is None or found.session != leader or found.state == "Z":
                continue
            if pid == leader and found.started != started:
                return []
            if found.started >= started:
                members.append(pid)
        return members


class _Stat:
    """What is needed of /proc/PID/stat."""

    def __init__(self, text: str) -> None:
        # The name, in brackets, may hold anything.
        fields = text.rpartition(")")[2].split()
        self.state = fields[0]
        self.session = int(fields[3])
        self.ticks = int(fields[11]) + int(fields[12])
        self.started = int(fields[19])


def _stat(pid: int) -> _Stat | None:
    try:
        return _Stat(Path(f"/proc/{pid}/stat").read_text(errors="replace"))
    except (FileNotFoundError, ProcessLookupError):
        return None


def _all() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _reap(pid: int) -> None:
    """Takes the exit status of a child of ours that has ended."""
    if pid:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def _boot() -> str:
    """Differs after each start of the machine: process ids are counted anew then."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
