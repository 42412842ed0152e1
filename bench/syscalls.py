"""System calls for each request, counted exactly by strace.

The proxy is warm and its pool is filled when counting begins, and all is quiet before and after the
counted requests: what it does at start and while its pool grows is not in the count.
"""

import shutil
import subprocess
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import load, processes
from bench.peers import Running
from bench.scenarios import Scenario

# A traced process is slow to come to rest.
SETTLE = 0.05
EXCERPT = 24


class StraceError(Exception):
    """strace is missing, or may not trace."""


@dataclass(frozen=True)
class Count:
    """For each request, of all threads, and of the busiest one (which is fastmeta's loop), each also by name. excerpt:
    calls of the busiest."""

    scenario: str
    peer: str
    requests: int
    all_threads: float
    busiest_thread: float
    by_name: dict[str, float]
    busiest_by_name: dict[str, float]
    excerpt: list[str]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def count(program: Path, core: int, peer: Running, scenario: Scenario, requests: int, trace: Path) -> Count:
    """trace: a file for strace to write to."""
    strace = shutil.which("strace")
    if strace is None:
        raise StraceError("strace is not installed (make bench installs it as root)")
    with load.warmed_up(program, core, peer.port, scenario, count=requests) as generator:
        pids = peer.pids()
        # Not pinned to the proxy's core, where the load and the stub need the time.
        command = [strace, "-f", "-q", "-s", "0", "-e", "signal=none", "-o", str(trace)]
        for pid in pids:
            command += ["-p", str(pid)]
        tracer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            _wait_until_traced(tracer, pids)
            begin = trace.stat().st_size
            result = generator.run()
            time.sleep(SETTLE)
            end = trace.stat().st_size
        finally:
            processes.end(tracer)
            assert tracer.stderr is not None
            tracer.stderr.close()
    if result["requests"] != requests:
        raise StraceError(f"only {result['requests']} of {requests} requests were answered")
    with trace.open("rb") as file:
        file.seek(begin)
        text = file.read(end - begin).decode(errors="replace")
    return tally(text, peer.name, scenario.name, requests)


def _wait_until_traced(tracer: subprocess.Popen[bytes], pids: list[int]) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if tracer.poll() is not None:
            assert tracer.stderr is not None
            raise StraceError(tracer.stderr.read().decode(errors="replace").strip())
        if processes.traced(pids):
            time.sleep(SETTLE)  # the calls that were under way have been written
            return
        time.sleep(0.01)
    raise StraceError("strace did not attach")


def tally(text: str, peer: str, scenario: str, requests: int) -> Count:
    """Lines are "PID name(arguments) = result"; an interrupted call has a second, "<... name resumed>"."""
    threads: dict[str, Counter[str]] = {}
    lines: dict[str, list[str]] = {}
    for line in text.splitlines():
        thread, _, call = line.partition(" ")
        call = call.strip()
        name, parenthesis, _ = call.partition("(")
        if call.startswith("<...") or not parenthesis or not name.isidentifier():
            continue
        threads.setdefault(thread, Counter())[name] += 1
        lines.setdefault(thread, []).append(call)
    if not threads:
        raise StraceError("strace saw no system calls")
    busiest = max(threads, key=lambda thread: threads[thread].total())
    total: Counter[str] = Counter()
    for counter in threads.values():
        total.update(counter)
    middle = max(0, len(lines[busiest]) // 2 - EXCERPT // 2)
    return Count(
        scenario,
        peer,
        requests,
        total.total() / requests,
        threads[busiest].total() / requests,
        {name: number / requests for name, number in total.most_common()},
        {name: number / requests for name, number in threads[busiest].most_common()},
        lines[busiest][middle : middle + EXCERPT],
    )
