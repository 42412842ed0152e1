"""Child processes: pinned to a core, ended with the bench, and what the kernel says about them."""

import contextlib
import os
import random
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO


def pinned(core: int, command: Sequence[str]) -> list[str]:
    """command on one core, and told to end when the bench dies. Both wrappers exec: the process id stays."""
    return ["taskset", "-c", str(core), "setpriv", "--pdeathsig", "TERM", *command]


def start(command: Sequence[str], log: IO[bytes], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """env: added to the environment."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env={**os.environ, **env},
    )


def end(process: subprocess.Popen[bytes], seconds: float = 10) -> None:
    """Asks a child of ours to end, and makes it end when it does not."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def free_port() -> int:
    """A TCP port below the ephemeral range: no outgoing connection takes it between now and its use."""
    for _ in range(1000):
        port = random.randrange(20000, 32000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no free TCP port between 20000 and 32000")


def family(pid: int) -> list[int]:
    """The process and all its descendants."""
    pids = [pid]
    for parent in pids:
        for task in _tasks(parent):
            with contextlib.suppress(OSError):
                children = Path(f"/proc/{parent}/task/{task}/children").read_text()
                pids.extend(int(child) for child in children.split())
    return pids


def threads(pids: Sequence[int]) -> list[int]:
    return [task for pid in pids for task in _tasks(pid)]


def cpu_ns(pids: Sequence[int]) -> int:
    """CPU time of all threads: the scheduler's own account, in nanoseconds, user and system together."""
    total = 0
    for pid in pids:
        for task in _tasks(pid):
            with contextlib.suppress(OSError):
                total += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
    return total


def traced(pids: Sequence[int]) -> bool:
    """Whether every thread has a tracer."""
    for pid in pids:
        for task in _tasks(pid):
            status = Path(f"/proc/{pid}/task/{task}/status").read_text()
            if "\nTracerPid:\t0\n" in status:
                return False
    return True


def wait_until_listening(port: int, process: subprocess.Popen[bytes], seconds: float) -> bool:
    """False when the process ended or the time is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        time.sleep(0.02)
    return False


def _tasks(pid: int) -> list[int]:
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []
