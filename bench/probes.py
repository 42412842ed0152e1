"""What would it give? Two things that fastmeta does not do, tried on the floor: a unix socket to the upstream in place
of TCP, and io_uring in place of epoll. docs/performance.md has the answers.

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
from bench.peers import AGAIN, FLOOR, UNIX, URING
from bench.results import Results
from bench.scenarios import SCENARIOS


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.probes", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="rounds (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.06, help="of each run (default: %(default)s)")
    parser.add_argument("--core", type=int, default=0, help="everything runs on it (default: %(default)s)")
    options = parser.parse_args(arguments)
    origin = machine.describe()
    if others := os.sched_getaffinity(0) - {options.core}:
        os.sched_setaffinity(0, others)
    results = Results(list(SCENARIOS), [FLOOR, AGAIN, UNIX, URING])
    try:
        programs: dict[str, Path] = {**build(), "uring": compile_program("uring", BINARIES)}
    except BuildError as error:
        print(error, file=sys.stderr)
        return 2
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(peers.stub(programs, options.core))
        local = stack.enter_context(peers.local_stub(programs, options.core))
        setting = peers.Setting(programs, options.core, upstream, (), local=local)
        running = []
        for name in results.peers:
            try:
                running.append(stack.enter_context(peers.running(name, setting)))
            except peers.PeerMissing as error:
                # Such as: io_uring is switched off (kernel.io_uring_disabled), or the kernel is too old.
                results.gaps.append(f"{name}: not measured: {error}")
        for scenario in SCENARIOS.values():
            results.samples += rounds.take(
                programs["load"],
                options.core,
                running,
                scenario,
                rounds=options.rounds,
                seconds=options.seconds,
                progress=lambda text: None,
                gap=results.gaps.append,
            )
    print(f"kernel {origin['machine']['kernel']}; head {job.FLOOR_HEAD_BYTES} bytes")
    print(report.figures(results))
    for gap in results.gaps:
        print(f"GAP: {gap}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
