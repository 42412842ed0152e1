"""CPU time of other processes, whatever has become of their threads."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable

from bench import processes


def family_seconds(pids: Iterable[int]) -> float:
    """Of these processes and all their descendants that live now: user and system, to the nanosecond.

    Servers in Python work in threads that come and go, and /proc/PID/task/*/schedstat knows only those that are there.
    A process's clock (clock_getcpuclockid(3)) counts those that have ended, too."""
    total = 0.0
    for member in {member for pid in pids for member in processes.family(pid)}:
        with contextlib.suppress(OSError):  # it has ended
            # What the C library's clock_getcpuclockid makes of a process id: CPUCLOCK_SCHED is 2.
            total += time.clock_gettime(~member << 3 | 2)
    return total
