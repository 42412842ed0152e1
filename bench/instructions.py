"""User instructions for each request, by callgrind: of a warm proxy, start-up left out."""

import re
import shutil
import subprocess
import tempfile
from dataclasses import asdict, dataclass
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
    """For each request: of all threads, and of the busiest one."""

    scenario: str
    peer: str
    requests: int
    all_threads: float
    busiest_thread: float

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
            f"--callgrind-out-file={folder}/out",
            f"--vgdb-prefix={folder}/vgdb",
        ]
        with peers.running(name, setting, wrapper, patience=300) as peer:
            # nginx works in a child of the process that was started: the last of the family.
            pid = peer.pids()[-1]
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
    totals = [int(n) for file in dumps for n in re.findall(r"^totals: (\d+)", file.read_text(), re.MULTILINE)]
    if not totals:
        raise CallgrindError("callgrind wrote no totals")
    return Instructions(scenario.name, peer.name, REQUESTS, sum(totals) / REQUESTS, max(totals) / REQUESTS)


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
