"""python -m bench scale: what more and more networks cost on one node, beside one haproxy for each.

Each network is a namespace with fastmeta's listener in it. For each number of them fastmeta is started anew: how long
until all listen, until the first guest has its answer, memory, CPU while nobody asks, and what one request costs when
guests of some of the networks ask, on a connection for each request. Of haproxy, started in each namespace as Neutron
starts it: time, memory, CPU while nobody asks; not what it answers, as the stock agent behind it is not a part of
this. Beyond --haproxies its figures are extrapolated, and marked so.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import job, machine, namespaces, peers, processes
from bench.agents import ASKING, GUEST, started
from bench.build import BuildError, build
from bench.output import progress, write
from bench.report import table
from fastmeta.netns.namespaces import Raised, in_namespaces

STEPS = (1, 10, 100, 500, 1000, 2000, 5000)
REQUESTS = 50
"""Of each guest that asks."""
IDLE_SECONDS = 3.0
SETTLE = 0.5


@dataclass
class Figures:
    """Of one number of networks. Seconds and bytes; idle: CPU seconds a second; None: not measured. extrapolated: from
    a smaller number."""

    who: str
    networks: int
    listening: float | None = None
    first_answer: float | None = None
    memory: int | None = None
    idle: float | None = None
    cpu_per_request: float | None = None
    latencies: list[float] | None = None
    failed: int = 0
    extrapolated: bool = False


@dataclass
class Results:
    """gaps: what could not be measured, in words."""

    figures: list[Figures]
    gaps: list[str]

    def as_dict(self) -> dict[str, Any]:
        return {"kind": "scale", "figures": [asdict(one) for one in self.figures], "gaps": self.gaps}


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench scale", description=__doc__)
    parser.add_argument("--networks", type=int, default=5000, help="at most (default: %(default)s)")
    parser.add_argument("--haproxies", type=int, default=100, help="at most, 0: none (default: %(default)s)")
    parser.add_argument(
        "--core", type=int, default=0, help="what is measured runs on this core (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything, raw samples included")
    options = parser.parse_args(arguments)
    if not 1 <= options.networks <= 15_000 or not 0 <= options.haproxies <= 500:
        parser.error("--networks must be from 1 to 15,000, --haproxies from 0 to 500")
    return options


def steps(most: int) -> list[int]:
    """The numbers of networks to measure with."""
    return [step for step in STEPS if step < most] + [most]


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    origin = machine.describe()
    results = Results([], [])
    interrupted = False
    try:
        programs = build()
        namespaces.hide()
        progress(f"making {options.networks:,} namespaces")
        namespaces.make(namespaces.names(options.networks))
        prepare(namespaces.names(min(ASKING, options.networks)))
        measure(programs, options, results)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 2
    except (namespaces.NamespaceError, peers.PeerMissing) as error:
        results.gaps.append(str(error))
    except KeyboardInterrupt:
        interrupted = True
        results.gaps.append("interrupted: the figures are of what was measured until then")
    progress("")
    print(
        f"commit {origin['commit']}, {origin['machine']['cores']} cores, kernel {origin['machine']['kernel']}"
    )
    print(f"{origin['command']}\n")
    print(text(results))
    if options.json:
        write(options.json, {**origin, **results.as_dict()})
    return 130 if interrupted else int(bool(results.gaps))


def prepare(names: Sequence[str]) -> None:
    """The guest, and the address that it asks, are addresses of these namespaces' own loopback."""
    for name in names:
        for command in (
            ("addr", "add", f"{namespaces.ADDRESS}/32", "dev", "lo"),
            ("addr", "add", f"{GUEST}/32", "dev", "lo"),
            ("link", "set", "lo", "up"),
        ):
            subprocess.run(["ip", "-n", name, *command], check=True)


def measure(programs: dict[str, Path], options: argparse.Namespace, results: Results) -> None:
    with peers.stub(programs, options.core) as upstream:
        for number in steps(options.networks):
            progress(f"fastmeta, {number:,} networks")
            found = Figures("fastmeta", number)
            results.figures.append(found)
            fastmeta(found, upstream, options.core, results.gaps.append)
    haproxy: list[Figures] = []
    for number in [step for step in steps(options.networks) if step <= options.haproxies]:
        progress(f"haproxy, {number:,} networks")
        found = Figures("haproxy", number)
        with namespaces.haproxies(namespaces.names(number)) as (seconds, pids):
            found.listening = seconds * number
            rest(found, pids)
        haproxy.append(found)
    results.figures += haproxy
    if haproxy:
        last = haproxy[-1]
        results.figures += [
            extrapolated(last, number) for number in steps(options.networks) if number > last.networks
        ]


def extrapolated(last: Figures, number: int) -> Figures:
    """In proportion: each is a process of its own."""
    factor = number / last.networks
    return Figures(
        last.who,
        number,
        listening=None if last.listening is None else last.listening * factor,
        memory=None if last.memory is None else round(last.memory * factor),
        idle=None if last.idle is None else last.idle * factor,
        extrapolated=True,
    )


def rest(found: Figures, pids: Sequence[int]) -> None:
    """Memory, and CPU while nobody asks."""
    time.sleep(SETTLE)
    found.memory = namespaces.memory(pids)
    before = processes.cpu_ns(pids)
    time.sleep(IDLE_SECONDS)
    found.idle = (processes.cpu_ns(pids) - before) / 1e9 / IDLE_SECONDS


def fastmeta(found: Figures, upstream: int, core: int, gap: Callable[[str], None]) -> None:
    names = namespaces.names(found.networks)
    began = time.monotonic()
    with started(names, upstream, core) as process:
        found.listening = time.monotonic() - began
        pids = processes.family(process.pid)
        asking = names[:ASKING]
        answered = ask(asking[:1])
        found.first_answer = time.monotonic() - began
        rest(found, pids)
        before = processes.cpu_ns(pids)
        latencies: list[float] = []
        failed = sum(seconds is None for seconds in answered)
        for _ in range(REQUESTS):
            for seconds in ask(asking):
                if seconds is None:
                    failed += 1
                else:
                    latencies.append(seconds)
        found.cpu_per_request = (processes.cpu_ns(pids) - before) / 1e9 / (len(asking) * REQUESTS)
        found.latencies, found.failed = latencies, failed
        if failed:
            gap(f"fastmeta, {found.networks:,} networks: {failed} requests failed")


def ask(names: Sequence[str]) -> list[float | None]:
    """One request of the guest in each of these namespaces, one after the other, on connections of their own: seconds,
    None for one that was not answered rightly."""
    found: list[float | None] = []
    for made in in_namespaces([(str(namespaces.FOLDER / name), guest) for name in names]):
        if isinstance(made, Raised):
            raise made.error
        with made:
            began = time.perf_counter()
            right = answered(made)
            found.append(time.perf_counter() - began if right else None)
    return found


def guest() -> socket.socket:
    """A socket of the guest's: where it was made it stays."""
    made = socket.socket()
    made.settimeout(10)
    made.bind((GUEST, 0))
    return made


def answered(connection: socket.socket) -> bool:
    try:
        connection.connect((str(namespaces.ADDRESS), 80))
        connection.sendall(job.TYPICAL_HEAD.replace(b"keep-alive", b"close"))
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    except OSError:
        return False
    return received.startswith(b"HTTP/1.1 200 ") and len(received) > job.ANSWER_BODY_BYTES


def text(results: Results) -> str:
    """For a person."""
    rows: list[Sequence[str]] = [
        (
            "",
            "networks",
            "all listen, s",
            "first answer, s",
            "memory, MB PSS",
            "idle, CPU ms/s",
            "CPU us/req",
            "p50 us",
            "p99 us",
        )
    ]
    for one in results.figures:
        mark = "~" if one.extrapolated else ""
        latencies = sorted(one.latencies or [])
        rows.append(
            (
                one.who,
                f"{one.networks:,}",
                _number(one.listening, 1, 2, mark),
                _number(one.first_answer, 1, 2),
                _number(one.memory, 1e-6, 1, mark),
                _number(one.idle, 1e3, 2, mark),
                _number(one.cpu_per_request, 1e6, 0),
                _number(statistics.median(latencies) if latencies else None, 1e6, 0),
                _number(latencies[int(len(latencies) * 0.99)] if latencies else None, 1e6, 0),
            )
        )
    lines = [
        table(rows),
        "",
        "~ is extrapolated from the row with the most haproxies. Listening: from the start of the process on.",
    ]
    return "\n".join([*lines, *(f"GAP: {gap}" for gap in results.gaps)])


def _number(value: float | None, factor: float, digits: int, mark: str = "") -> str:
    return "-" if value is None else f"{mark}{value * factor:,.{digits}f}"
