"""The programs of a lab as child processes: started, awaited until they say that they are ready, ended.

They tell by sd_notify(3), as they would tell systemd. None outlives us: leaving the ``with`` block ends it,
and the kernel does (PR_SET_PDEATHSIG, through setpriv) should we be killed.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

from fastmeta.exceptions import LabError
from fastmeta.lab.namespaces import sbin_environment

READY_TIMEOUT = 20.0
"""Seconds in which a service must say that it is ready; it takes well under one on an idle machine."""
STOP_TIMEOUT = 15.0
"""Seconds after SIGTERM before SIGKILL: the agent gives requests in progress 10 s."""
_LOG_TAIL = 4000
"""Bytes of a log that an error shows."""


def write_private(path: Path, content: str | bytes) -> Path:
    """A new file of mode 0600, whatever the umask. Raises LabError."""
    data = content.encode() if isinstance(content, str) else content
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            os.fchmod(fd, 0o600)
            file.write(data)
    except OSError as error:
        raise LabError(f"cannot write {path}: {error.strerror}") from error
    return path


class Service:
    """One child process that tells when it is ready. Its output goes to ``<folder>/<name>.log``."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        *,
        environment: Mapping[str, str] | None = None,
        waiting: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        """folder: ours alone (mode 0700), with a path short enough for a unix socket in it (about 80 bytes).
        waiting: a context around the wait for READY, the only part of starting that may be interrupted."""
        self.name = name
        self.log_path = folder / f"{name}.log"
        self.status = ""
        """The service's last STATUS= line."""
        self._command = list(command)
        self._waiting = waiting
        self._socket_path = folder / f"{name}.notify"
        self._environment = {
            **sbin_environment(),
            **(environment or {}),
            "NOTIFY_SOCKET": str(self._socket_path),
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None  # noqa: S101 - only after __enter__
        return self._process.pid

    def __enter__(self) -> Service:
        """Starts it and returns when it is ready. Raises LabError, with the end of its log, when it ends
        before or takes longer than READY_TIMEOUT; then it is ended."""
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def log(self) -> str:
        """The end of what it has printed."""
        try:
            return self.log_path.read_bytes()[-_LOG_TAIL:].decode(errors="replace").strip()
        except OSError:
            return ""

    def _start(self) -> None:
        with contextlib.ExitStack() as stack:
            try:
                receiver = stack.enter_context(
                    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
                )
                receiver.bind(str(self._socket_path))
                output = stack.enter_context(write_private(self.log_path, b"").open("ab"))
                self._process = subprocess.Popen(
                    ["setpriv", "--pdeathsig", "KILL", "--", *self._command],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=self._environment,
                    # A Ctrl-C at the terminal is for us; we end the services in the right order.
                    start_new_session=True,
                )
            except OSError as error:
                raise LabError(f"cannot start {self.name}: {error}") from error
            ended = os.pidfd_open(self.pid)
            stack.callback(os.close, ended)
            poll = select.poll()
            poll.register(receiver, select.POLLIN)
            poll.register(ended, select.POLLIN)
            with self._waiting():
                self._await_ready(receiver, ended, poll)

    def _await_ready(self, receiver: socket.socket, ended: int, poll: select.poll) -> None:
        deadline = time.monotonic() + READY_TIMEOUT
        while (left := deadline - time.monotonic()) > 0:
            events = {fd for fd, _ in poll.poll(left * 1000)}
            if receiver.fileno() in events:
                lines = receiver.recv(4096).decode(errors="replace").splitlines()
                for line in lines:
                    if line.startswith("STATUS="):
                        self.status = line.removeprefix("STATUS=")
                if "READY=1" in lines:
                    return
            elif ended in events:
                raise LabError(f"{self.name} ended before it was ready; its log:\n{self.log()}")
        raise LabError(f"{self.name} was not ready after {READY_TIMEOUT:.0f} s; its log:\n{self.log()}")

    def _end(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._socket_path.unlink()
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
