"""Runs the load generator in steps, so that what is measured is the run alone: no start, no warm-up."""

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import job, processes
from bench.scenarios import Scenario

# The proxy finishes its part of the last request a little after the guest has its answer.
QUIET = 0.005


class LoadError(Exception):
    """The load generator did not do its work."""


@dataclass
class Load:
    """A load generator that has warmed the proxy up and waits for run(), which may be called again."""

    process: subprocess.Popen[bytes]

    def run(self) -> dict[str, Any]:
        """One measured run; connections stay open afterwards."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        result = json.loads(self._line())
        assert isinstance(result, dict)
        time.sleep(QUIET)
        return result

    def wait_until_warm(self) -> None:
        while self._line() != b"warm\n":
            pass
        time.sleep(QUIET)

    def _line(self) -> bytes:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise LoadError("the load generator ended early or took too long")
        return line


@contextmanager
def warmed_up(
    program: Path,
    core: int,
    port: int,
    scenario: Scenario,
    *,
    seconds: float | None = None,
    count: int | None = None,
    warmup: int | None = None,
    patience: float = 60,
) -> Iterator[Load]:
    """A load on port, warmed up. Ends after seconds or count requests; patience bounds the whole."""
    command = [
        str(program),
        f"--port={port}",
        f"--mode={scenario.mode}",
        f"--connections={scenario.connections}",
        f"--warmup={warmup or max(50, 2 * scenario.connections)}",
        f"--body={job.ANSWER_BODY_BYTES}",
        "--paused",
    ]
    if seconds is not None:
        command.append(f"--seconds={seconds}")
    if count is not None:
        command.append(f"--count={count}")
    process = subprocess.Popen(processes.pinned(core, command), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    guard = threading.Timer(patience, process.kill)
    guard.start()
    try:
        load = Load(process)
        load.wait_until_warm()
        yield load
    finally:
        guard.cancel()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def once(program: Path, core: int, port: int) -> str:
    """One request; what was wrong with it, or "" when all was right."""
    try:
        with warmed_up(program, core, port, Scenario("keep", 1), count=1, warmup=1, patience=40) as load:
            result = load.run()
    except LoadError as error:
        return str(error)
    return ", ".join(f"{kind} error" for kind, number in result["error_kinds"].items() if number)
