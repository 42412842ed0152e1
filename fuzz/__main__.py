"""Fuzzes the core for a bounded time: python -m fuzz --help.

First it replays fuzz/regressions, then the seeds. What it finds on the way is kept in build/fuzz/corpus: the next run
goes on from there. A crash (or a hang, or a broken rule) ends it with status 1 and the way to see it again.

With --seed, two runs of the same commit from an empty corpus take the same way, so that continuous integration judges
the commit and not the day: new ways are looked for by runs without it.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from fuzz import build, seeds

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "fuzz"
# What part of the time each target has, and its longest input.
SHARES = {
    "conversation": (0.6, 2000),
    "request": (0.16, 1500),
    "response": (0.16, 1500),
    "chunked": (0.08, 600),
}
HANG_S = 10
MEMORY_MB = 2048


@dataclass(frozen=True)
class Outcome:
    target: str
    executions: int
    edges: int
    inputs: int
    failed: bool


def figure(pattern: str, text: str) -> int:
    found = re.findall(pattern, text)
    return int(found[-1]) if found else 0


def fixed_addresses() -> list[str]:
    """What goes before a command so that its addresses are the same each time, as libFuzzer takes values that were
    compared into its inputs, and some are addresses. Nothing where personality(2) is not allowed.
    """
    try:
        allowed = subprocess.run(["setarch", "-R", "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        allowed = False
    return ["setarch", "-R"] if allowed else []


def run(target: str, seconds: int, longest: int, seed: int) -> Outcome:
    """One target, after its regressions. Its log is kept. A seed of 0 is another one each time."""
    corpus, crashes = FOLDER / "corpus" / target, FOLDER / "crashes" / target
    for folder in (corpus, crashes):
        folder.mkdir(parents=True, exist_ok=True)
    # Nothing is ever freed at exit, and what a conversation leaves is looked for by the harness itself.
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
    regressions = sorted(map(str, (ROOT / "fuzz" / "regressions" / target).glob("*")))
    commands = [[str(FOLDER / target), *regressions]] if regressions else []
    commands.append(
        [
            *(fixed_addresses() if seed else []),
            str(FOLDER / target),
            f"-seed={seed}",
            f"-max_total_time={seconds}",
            f"-max_len={longest}",
            f"-timeout={HANG_S}",
            f"-rss_limit_mb={MEMORY_MB}",
            f"-artifact_prefix={crashes}/",
            f"-entropic_scale_per_exec_time={int(not seed)}",
            "-print_final_stats=1",
            str(corpus),
            str(FOLDER / "seeds" / target),
        ]
    )
    log = FOLDER / f"{target}.log"
    failed = False
    with log.open("wb") as output:
        for command in commands:
            limit = seconds + 120
            failed |= (
                subprocess.run(
                    command, stdout=output, stderr=subprocess.STDOUT, env=environment, timeout=limit
                ).returncode
                != 0
            )
    text = log.read_text(encoding="utf-8", errors="replace")
    if failed:
        print(text[-6000:])
        print(
            f"to see it again: FUZZ_TRACE=1 {FOLDER / target} INPUT, with the input named above; the log is {log}"
        )
    return Outcome(
        target,
        figure(r"stat::number_of_executed_units: +(\d+)", text),
        figure(r"cov: (\d+)", text),
        figure(r"corp: (\d+)/", text),
        failed,
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Fuzzes the core for a bounded time.")
    parser.add_argument("--seconds", type=int, default=60, help="in all, shared by the targets (default: 60)")
    parser.add_argument("--target", choices=build.TARGETS, help="this one alone")
    parser.add_argument("--seed", type=int, default=0, help="the same way each time (default: another one)")
    given = parser.parse_args()
    build.fuzzer(FOLDER)
    seeds.write(FOLDER / "seeds")
    outcomes = []
    for target, (share, longest) in SHARES.items():
        if given.target is None:
            outcomes.append(run(target, max(int(given.seconds * share), 1), longest, given.seed))
        elif given.target == target:
            outcomes.append(run(target, given.seconds, longest, given.seed))
    print(f"{'target':<14}{'executions':>12}{'edges':>8}{'inputs':>8}")
    for each in outcomes:
        print(
            f"{each.target:<14}{each.executions:>12,}{each.edges:>8,}{each.inputs:>8,}{'  FAILED' * each.failed}"
        )
    return int(any(each.failed for each in outcomes))


if __name__ == "__main__":
    sys.exit(main())
