"""python -m bench: measures fastmeta beside its peers, and says whether its promises hold."""

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench import instructions, machine, peers, report, rounds, syscalls
from bench.build import BuildError, build
from bench.load import LoadError
from bench.promises import judge
from bench.results import Results
from bench.scenarios import SCENARIOS

# Counted requests under strace, which is slow: enough for a share of a hundredth of a call. With hundreds of
# connections so few requests would be mostly begin and end, so these scenarios are left out.
TRACED_REQUESTS = 500
TRACED_CONNECTIONS = 16
# Under callgrind one guest is enough: what depends on how many ask at once is the kernel's work.
INSTRUCTION_SCENARIOS = ("keep-1", "close-1")
INSTRUCTION_PEERS = ("floor", "fastmeta", "haproxy")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="rounds (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.06, help="of each run (default: %(default)s)")
    parser.add_argument(
        "--scenario", action="append", choices=SCENARIOS, help="only this one; may be given many times"
    )
    parser.add_argument(
        "--peer", action="append", choices=peers.PEERS, help="only this one; may be given many times"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything, raw samples included")
    parser.add_argument(
        "--gate", action="store_true", help="exit status 1 unless every promise was seen to hold"
    )
    parser.add_argument("--no-strace", action="store_true", help="do not count system calls")
    parser.add_argument("--calls", action="store_true", help="list the system calls by name")
    parser.add_argument(
        "--instructions", action="store_true", help="count user instructions by callgrind (minutes)"
    )
    parser.add_argument(
        "--core", type=int, default=0, help="everything runs on this core (default: %(default)s)"
    )
    parser.add_argument(
        "--fastmeta",
        metavar="COMMAND",
        default=f"{sys.executable} -m fastmeta",
        help="how to run fastmeta (default: with this Python)",
    )
    options = parser.parse_args(arguments)
    if options.rounds < 0 or not 0 < options.seconds <= 60:
        parser.error("--rounds must not be negative, --seconds must be above 0 and at most 60")
    return options


def progress(text: str) -> None:
    """One line that is written over; nothing where there is no terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def measure(options: argparse.Namespace, results: Results) -> None:
    programs = build()
    with contextlib.ExitStack() as stack:
        try:
            upstream = stack.enter_context(peers.stub(programs, options.core))
        except peers.PeerMissing as error:
            results.gaps.append(str(error))
            return
        setting = peers.Setting(programs, options.core, upstream, tuple(options.fastmeta.split()))
        running = []
        for name in results.peers:
            progress(f"starting {name}")
            try:
                running.append(stack.enter_context(peers.running(name, setting)))
            except peers.PeerMissing as error:
                results.gaps.append(f"{name}: not measured: {error}")
        for name in results.scenarios:
            for sample in rounds.take(
                programs["load"],
                options.core,
                running,
                SCENARIOS[name],
                rounds=options.rounds,
                seconds=options.seconds,
                progress=progress,
                gap=results.gaps.append,
            ):
                results.samples.append(sample)
        if not options.no_strace:
            count_calls(options, setting, running, results)
        if options.instructions:
            count_instructions(setting, [peer.name for peer in running], results)


def count_calls(
    options: argparse.Namespace, setting: peers.Setting, running: list[peers.Running], results: Results
) -> None:
    with tempfile.TemporaryDirectory(prefix="fastmeta-strace-") as folder:
        for name in results.scenarios:
            for peer in running:
                if peer.name == peers.AGAIN or SCENARIOS[name].connections > TRACED_CONNECTIONS:
                    continue
                progress(f"system calls: {SCENARIOS[name].title}, {peer.name}")
                try:
                    results.counts.append(
                        syscalls.count(
                            setting.programs["load"],
                            options.core,
                            peer,
                            SCENARIOS[name],
                            TRACED_REQUESTS,
                            Path(folder) / f"{name}.{peer.name}",
                        )
                    )
                except (syscalls.StraceError, LoadError) as error:
                    results.gaps.append(f"{peer.name}, {name}: system calls not counted: {error}")


def count_instructions(setting: peers.Setting, names: list[str], results: Results) -> None:
    scenarios = [SCENARIOS[name] for name in INSTRUCTION_SCENARIOS]
    for name in names:
        if name not in INSTRUCTION_PEERS:
            continue
        progress(f"instructions: {name}")
        try:
            results.instructions += instructions.count(name, setting, scenarios)
        except (instructions.CallgrindError, peers.PeerMissing, LoadError) as error:
            results.gaps.append(f"{name}: instructions not counted: {error}")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    results = Results(
        scenarios=[name for name in SCENARIOS if not options.scenario or name in options.scenario],
        peers=[name for name in peers.PEERS if not options.peer or name in options.peer],
    )
    origin = machine.describe()
    # The bench itself only waits; it does so on another core if there is one.
    if others := os.sched_getaffinity(0) - {options.core}:
        os.sched_setaffinity(0, others)
    interrupted = False
    try:
        measure(options, results)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        interrupted = True
        results.gaps.append("interrupted: the figures are of what was measured until then")
    progress("")

    verdicts = judge(results)
    print(
        f"commit {origin['commit']}, {origin['machine']['cores']} cores, kernel {origin['machine']['kernel']}"
    )
    print(f"{origin['command']}\n")
    print(report.figures(results), end="\n\n")
    print(report.noise(results), end="\n\n")
    for text in (report.calls_by_name(results) if options.calls else "", report.instructions(results)):
        if text:
            print(text, end="\n\n")
    print(report.promises(verdicts))
    for gap in results.gaps:
        print(f"GAP: {gap}")
    if options.json:
        document = {
            **origin,
            "options": {key: str(value) for key, value in vars(options).items()},
            **results.as_dict(),
            "promises": [verdict.as_dict() for verdict in verdicts],
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    if interrupted:
        return 130
    return int(options.gate and not all(verdict.holds for verdict in verdicts))


if __name__ == "__main__":
    sys.exit(main())
