"""The programs of the attacks as child processes: started in a namespace, read line by line, ended."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from fastmeta.lab.namespaces import sbin_environment
from fastmeta.lab.topology import in_namespace_command

PROGRAMS = Path(__file__).parent / "programs"
END = 30.0
"""Seconds that a program has to end when its standard input does."""


class Program:
    """A child process that ends with its standard input. It dies with us, whatever happens to us."""

    def __init__(self, command: Sequence[str], *, namespace: str | None = None, told: bool = False) -> None:
        """told: what it prints is read here; else it is shown when it fails."""
        command = ["setpriv", "--pdeathsig", "KILL", "--", *command]
        if namespace is not None:
            command = in_namespace_command(namespace, command)
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - end() closes it
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if told else self.errors,
            stderr=self.errors,
            env=sbin_environment(),
            text=True,
        )

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Ends it; that it fails is a failure here, too. Once more is fine."""
        process = self.process
        if process.stdin is not None and not process.stdin.closed:
            process.stdin.close()
        try:
            status = process.wait(END)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        self.read_rest()
        if process.stdout is not None:
            process.stdout.close()
        if not self.errors.closed:
            self.errors.seek(0)
            text = self.errors.read().decode(errors="replace")
            self.errors.close()
            assert status == 0, f"{process.args} ended with {status}:\n{text}"

    def read_rest(self) -> None:
        """For those that read in a thread."""


class Teller(Program):
    """One that tells how it is going: a line of JSON now and then, of which the last one counts."""

    def __init__(self, name: str, *arguments: object, namespace: str | None = None) -> None:
        shown = [item if isinstance(item, str) else json.dumps(item) for item in arguments]
        super().__init__([sys.executable, str(PROGRAMS / name), *shown], namespace=namespace, told=True)
        self.first: dict[str, Any] = {}
        self.line: dict[str, Any] = {}
        self.thread = threading.Thread(target=self._read, name=name)
        self.thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.line = json.loads(line)
            self.first = self.first or self.line

    def read_rest(self) -> None:
        self.thread.join(END)

    def get(self, name: str) -> int:
        """A count that it has told; 0 before it has."""
        return int(self.line.get(name, 0))

    def statuses(self) -> dict[str, int]:
        return dict(self.line.get("statuses", {}))


class Nova(Program):
    """The server in Nova's place."""

    def __init__(self, secret: str) -> None:
        super().__init__([sys.executable, str(PROGRAMS / "nova.py"), secret], told=True)
        assert self.process.stdout is not None
        self.tcp_port = int(self.process.stdout.readline())

    def seen(self) -> dict[str, Any]:
        """What came to it: requests by the first part of their target, body_bytes, connections, wrong."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("?\n")
        self.process.stdin.flush()
        seen: dict[str, Any] = json.loads(self.process.stdout.readline())
        return seen
