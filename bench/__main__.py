"""python -m bench: measures fastmeta beside its peers, and says whether its promises hold."""

import argparse
import contextlib
import importlib
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench import instructions, machine, namespaces, parsing, peers, promises, report, rounds, syscalls
from bench.build import BuildError, build
from bench.load import LoadError
from bench.output import progress, write
from bench.promises import judge
from bench.results import Results
from bench.scenarios import SCENARIOS
from fastmeta.exceptions import FastmetaError

# Counted requests under strace, which is slow: enough for a share of a hundredth of a call. With hundreds of
# connections so few requests would be mostly begin and end, so these scenarios are left out.
TRACED_REQUESTS = 500
TRACED_CONNECTIONS = 16
# Under callgrind one guest is enough: what depends on how many ask at once is the kernel's work.
INSTRUCTION_SCENARIOS = ("keep-1", "close-1")
INSTRUCTION_PEERS = ("floor", "fastmeta", "haproxy", "nginx")
COMMANDS = {"scale": "bench.scale", "compare": "bench.compare", "page": "bench.page"}
"""Beside peers: each is a module of its own."""
PARTS = ("cpu", "calls", "instructions", "parsing", "namespaces")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench [peers]",
        description=__doc__,
        epilog=f"Other commands, each with a --help of its own: {', '.join(COMMANDS)}, and python -m bench.lookups.",
    )
    parser.add_argument("--rounds", type=int, default=30, help="rounds (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.06, help="of each run (default: %(default)s)")
    parser.add_argument(
        "--scenario", action="append", choices=SCENARIOS, help="only this one; may be given many times"
    )
    parser.add_argument(
        "--peer", action="append", choices=peers.COMPARED, help="only this one; may be given many times"
    )
    parser.add_argument(
        "--part", action="append", choices=PARTS, help="measure only this; may be given many times"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything, raw samples included")
    parser.add_argument(
        "--gate", action="store_true", help="exit status 1 unless every promise was seen to hold"
    )
    parser.add_argument("--calls", action="store_true", help="list the system calls by name")
    parser.add_argument("--functions", action="store_true", help="list the user instructions by function")
    parser.add_argument(
        "--namespaces", type=int, default=namespaces.NUMBER, help="how many (default: %(default)s)"
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
    if not 1 <= options.namespaces <= 10_000:
        parser.error("--namespaces must be from 1 to 10,000")
    options.part = options.part or list(PARTS)
    return options


def measure(options: argparse.Namespace, results: Results) -> None:
    programs = build()
    with contextlib.ExitStack() as stack:
        try:
            upstream = stack.enter_context(peers.stub(programs, options.core))
        except peers.PeerMissing as error:
            results.gaps.append(str(error))
            return
        setting = peers.Setting(programs, options.core, upstream, tuple(options.fastmeta.split()))
        if "cpu" in options.part or "calls" in options.part:
            compare(options, setting, results)
        if "parsing" in options.part:
            measure_parsing(options, results)
        if "instructions" in options.part:
            count_instructions(setting, results)
        if "namespaces" in options.part:
            measure_namespaces(options, setting, results)


def compare(options: argparse.Namespace, setting: peers.Setting, results: Results) -> None:
    with contextlib.ExitStack() as stack:
        running = []
        for name in results.peers:
            progress(f"starting {name}")
            try:
                running.append(stack.enter_context(peers.running(name, setting)))
            except peers.PeerMissing as error:
                results.gaps.append(f"{name}: not measured: {error}")
        for name in results.scenarios if "cpu" in options.part else ():
            for sample in rounds.take(
                setting.programs["load"],
                options.core,
                running,
                SCENARIOS[name],
                rounds=options.rounds,
                seconds=options.seconds,
                progress=progress,
                gap=results.gaps.append,
            ):
                results.samples.append(sample)
        if "calls" in options.part:
            count_calls(options, setting, running, results)


def measure_parsing(options: argparse.Namespace, results: Results) -> None:
    progress("parsing heads")
    try:
        results.parsing = parsing.measure(options.core)
    except (BuildError, parsing.ParseError) as error:
        results.gaps.append(f"head parse: not measured: {error}")


def measure_namespaces(options: argparse.Namespace, setting: peers.Setting, results: Results) -> None:
    number = options.namespaces
    progress(f"{number} namespaces")
    results.namespaces = namespaces.Figures(number)
    try:
        namespaces.hide()
        # Python takes memory from the kernel in pieces of 1 MiB: the further ones must be many.
        more = 3 * number
        namespaces.make(namespaces.names(more))
        namespaces.measure(setting, results.namespaces, more, results.gaps.append)
        for sample in namespaces.idle(
            setting,
            [SCENARIOS[name] for name in promises.IDLE_SCENARIOS],
            number,
            rounds_of_each=options.rounds,
            seconds=options.seconds,
            progress=progress,
            gap=results.gaps.append,
        ):
            results.samples.append(sample)
    except (namespaces.NamespaceError, peers.PeerMissing, FastmetaError) as error:
        results.gaps.append(f"namespaces: not measured: {error}")


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


def count_instructions(setting: peers.Setting, results: Results) -> None:
    scenarios = [SCENARIOS[name] for name in INSTRUCTION_SCENARIOS]
    for name in results.peers:
        if name not in INSTRUCTION_PEERS:
            continue
        progress(f"instructions: {name}")
        try:
            results.instructions += instructions.count(name, setting, scenarios)
        except (instructions.CallgrindError, peers.PeerMissing, LoadError) as error:
            results.gaps.append(f"{name}: instructions not counted: {error}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command, or without one peers."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in COMMANDS:
        status: int = importlib.import_module(COMMANDS[given[0]]).main(given[1:])
        return status
    return compare_peers(given[1:] if given[:1] == ["peers"] else given)


def compare_peers(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    results = Results(
        scenarios=[name for name in SCENARIOS if not options.scenario or name in options.scenario],
        peers=[name for name in peers.COMPARED if not options.peer or name in options.peer],
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
    compared = "cpu" in options.part or "calls" in options.part
    for text in (
        report.figures(results) if compared else "",
        report.noise(results) if compared else "",
        report.calls_by_name(results) if options.calls else "",
        report.instructions(results),
        report.instructions_by_function(results) if options.functions else "",
    ):
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
        write(options.json, document)
    if interrupted:
        return 130
    return int(options.gate and not all(verdict.holds for verdict in verdicts))


if __name__ == "__main__":
    sys.exit(main())
