"""What a result has to say about where it comes from."""

import datetime
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def describe() -> dict[str, Any]:
    return {
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(["python", "-m", "bench", *sys.argv[1:]]),
        "commit": _output(["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40"]),
        "machine": {
            "processor": _cpuinfo("model name"),
            "cores": os.cpu_count(),
            "memory_kb": _memory_kb(),
            "kernel": platform.release(),
            "load_average": os.getloadavg(),
        },
        "versions": {
            "python": platform.python_version(),
            "cc": _output([os.environ.get("CC", "cc"), "--version"]),
            "haproxy": _output(["haproxy", "-v"]),
            "nginx": _output(["nginx", "-v"]),
            "strace": _output(["strace", "--version"]),
            "valgrind": _output(["valgrind", "--version"]),
        },
    }


def _output(command: list[str]) -> str | None:
    """The first line that a program says; None when it is missing or fails."""
    env = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20, env=env)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = (done.stdout or done.stderr).splitlines()
    return lines[0] if lines else None


def _cpuinfo(name: str) -> str | None:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None


def _memory_kb() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024
