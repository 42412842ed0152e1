"""What would it give, and what does it cost? Two things tried on the floor: a unix socket to the upstream in place of
TCP, and io_uring in place of epoll. And TLS to the upstream: fastmeta with it, and without. docs/performance.md has the
answers.

    python -m bench.probes [--rounds N]
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import job, machine, peers, report, rounds
from bench.build import BINARIES, BuildError, build, compile_program
from bench.peers import AGAIN, BEFORE_FRONT, BEFORE_FRONT_TLS, FLOOR, UNIX, URING
from bench.results import Results
from bench.scenarios import SCENARIOS


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.probes", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="rounds (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.06, help="of each run (default: %(default)s)")
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="only this one; many times")
    parser.add_argument("--core", type=int, default=0, help="everything runs on it (default: %(default)s)")
    options = parser.parse_args(arguments)
    origin = machine.describe()
    if others := os.sched_getaffinity(0) - {options.core}:
        os.sched_setaffinity(0, others)
    results = Results(
        options.scenario or list(SCENARIOS), [FLOOR, AGAIN, UNIX, URING, BEFORE_FRONT, BEFORE_FRONT_TLS]
    )
    try:
        programs: dict[str, Path] = {**build(), "uring": compile_program("uring", BINARIES)}
        measure(programs, options, results)
    except (BuildError, peers.PeerMissing) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"kernel {origin['machine']['kernel']}; head {job.FLOOR_HEAD_BYTES} bytes")
    print(report.figures(results))
    for gap in results.gaps:
        print(f"GAP: {gap}")
    return 0


def measure(programs: dict[str, Path], options: argparse.Namespace, results: Results) -> None:
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(peers.stub(programs, options.core))
        local = stack.enter_context(peers.local_stub(programs, options.core))
        front = stack.enter_context(peers.front(options.core, upstream))
        command = (sys.executable, "-m", "fastmeta")
        setting = peers.Setting(programs, options.core, upstream, command, local=local, front=front)
        running = []
        for name in results.peers:
            try:
                running.append(stack.enter_context(peers.running(name, setting)))
            except peers.PeerMissing as error:
                # Such as: io_uring is switched off (kernel.io_uring_disabled), or the kernel is too old.
                results.gaps.append(f"{name}: not measured: {error}")
        for name in options.scenario or SCENARIOS:
            results.samples += rounds.take(
                programs["load"],
                options.core,
                running,
                SCENARIOS[name],
                rounds=options.rounds,
                seconds=options.seconds,
                progress=lambda text: None,
                gap=results.gaps.append,
            )


if __name__ == "__main__":
    sys.exit(main())
