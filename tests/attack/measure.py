"""What is measured of an attack, and how it is shown."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

KIB = 1024
MIB = 1024 * KIB


@dataclass
class Figures:
    """What is printed of an attack."""

    name: str
    peak: int = 0
    bound: int = 0
    cpu: float = 0.0
    seconds: float = 0.0
    asked: int = 0
    failed: int = 0
    p50: float = 0.0
    p99: float = 0.0
    longest: float = 0.0
    note: str = ""


FIGURES: list[Figures] = []


def resident(pid: int) -> int:
    """Resident bytes of a process."""
    return _status(pid, "VmRSS")


def peak(pid: int) -> int:
    """The most resident bytes it has had."""
    return _status(pid, "VmHWM")


def _status(pid: int, name: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(rf"{name}:\s+([0-9]+) kB", status)[0]) * KIB


def kernel_memory() -> int:
    """Bytes that all TCP connections of this machine, in whatever namespace, have in the kernel."""
    found = re.findall(r"^TCP:.* mem ([0-9]+)", Path("/proc/net/sockstat").read_text(), re.MULTILINE)
    return int(found[0]) * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def report() -> Iterator[str]:
    """A table of all attacks."""
    yield (
        f"{'attack':42} {'peak':>9} {'bound':>9} {'CPU':>7} {'time':>6}   others: asked failed "
        f"{'p50':>8} {'p99':>8} {'longest':>8}"
    )
    for row in FIGURES:
        yield (
            f"{row.name:42} {row.peak / MIB:5.1f} MiB {row.bound / MIB:5.0f} MiB {row.cpu:5.2f} s {row.seconds:4.1f} s"
            f"   {row.asked:13} {row.failed:6} {row.p50:5.1f} ms {row.p99:5.1f} ms {row.longest:5.0f} ms  {row.note}"
        )
