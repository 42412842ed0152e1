"""User instructions for each request, by callgrind: of a warm proxy, start-up left out."""

import shutil
import subprocess
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench import load, peers
from bench.scenarios import Scenario

REQUESTS = 4000
WARMUP = 1000


class CallgrindError(Exception):
    """valgrind is missing, or did not do as told."""


@dataclass(frozen=True)
class Instructions:
    """For each request: of all threads, of the busiest one (which is fastmeta's loop), and of that one by function."""

    scenario: str
    peer: str
    requests: int
    all_threads: float
    busiest_thread: float
    by_function: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def count(name: str, setting: peers.Setting, scenarios: list[Scenario]) -> list[Instructions]:
    """Runs the peer under callgrind, once, and each scenario on it."""
    valgrind = shutil.which("valgrind")
    if valgrind is None or shutil.which("vgdb") is None:
        raise CallgrindError("valgrind is not installed (make bench installs it as root)")
    with tempfile.TemporaryDirectory(prefix="fastmeta-callgrind-") as folder_name:
        folder = Path(folder_name)
        wrapper = [
            valgrind,
            "-q",
            "--tool=callgrind",
            "--separate-threads=yes",
            "--compress-strings=no",
            "--compress-pos=no",
            f"--callgrind-out-file={folder}/out",
            f"--vgdb-prefix={folder}/vgdb",
        ]
        # What is counted is requests, not questions about who asks.
        with peers.running(name, replace(setting, lasting=True), wrapper, patience=300) as peer:
            pid = peer.process.pid
            return [_scenario(peer, setting, pid, folder, scenario) for scenario in scenarios]


def _scenario(
    peer: peers.Running, setting: peers.Setting, pid: int, folder: Path, scenario: Scenario
) -> Instructions:
    with load.warmed_up(
        setting.programs["load"],
        setting.core,
        peer.port,
        scenario,
        count=REQUESTS,
        warmup=WARMUP,
        patience=300,
    ) as generator:
        _command(folder, pid, "zero")
        before = set(folder.glob("out*"))
        result = generator.run()
        _command(folder, pid, f"dump {scenario.name}")
    if result["requests"] != REQUESTS:
        raise CallgrindError(f"only {result['requests']} of {REQUESTS} requests were answered")
    dumps = set(folder.glob("out*")) - before
    threads = [by_function(file.read_text()) for file in sorted(dumps)]
    busiest = max(threads, key=Counter.total, default=Counter())
    if not busiest:
        raise CallgrindError("callgrind counted nothing")
    return Instructions(
        scenario.name,
        peer.name,
        REQUESTS,
        sum(thread.total() for thread in threads) / REQUESTS,
        busiest.total() / REQUESTS,
        {function: number / REQUESTS for function, number in busiest.most_common()},
    )


def by_function(dump: str) -> Counter[str]:
    """Instructions of each function, what it calls left out: the format is in valgrind's manual, "Callgrind Format
    Specification". The cost line after a line "calls=" is the callee's."""
    found: Counter[str] = Counter()
    function = ""
    of_callee = False
    for line in dump.splitlines():
        if line.startswith("fn="):
            function = line[3:]
        elif line.startswith("calls="):
            of_callee = True
        elif line[:1].isdigit():
            if not of_callee:
                found[function] += int(line.split()[1])
            of_callee = False
    return found


def _command(folder: Path, pid: int, command: str) -> None:
    done = subprocess.run(
        ["vgdb", f"--vgdb-prefix={folder}/vgdb", f"--pid={pid}", *command.split()],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode != 0:
        raise CallgrindError(f"callgrind does not listen: {done.stderr.strip()}")
