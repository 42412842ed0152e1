"""python -m bench compare BEFORE.json AFTER.json: what changed beyond noise, between two runs of the bench.

Of CPU times the ratios to the floor are compared, which hardly depend on the hour and the machine's other work. A
difference counts when it is larger than what both medians may be off together, and than what the floor differed from
itself in either run. Counts (instructions, system calls) are exact, but for half a percent. Memory and times of many
networks are single values: what is within a tenth is called equal.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.peers import AGAIN, FLOOR
from bench.report import table
from bench.rounds import Sample, Spread, ratios, spread

EXACT = 0.005
"""Part by which counts may differ and still be called equal,"""
SINGLE = 0.10
"""and single values."""


class CompareError(Exception):
    """A file is none of the bench's results: the text says which."""


@dataclass(frozen=True)
class Change:
    """Of one figure, of which less is better. noise: a difference that is none."""

    what: str
    before: float
    after: float
    noise: float
    digits: int = 2

    @property
    def verdict(self) -> str:
        """In one word."""
        if abs(self.after - self.before) <= self.noise:
            return "equal"
        return "better" if self.after < self.before else "WORSE"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("before", type=Path, metavar="BEFORE.json")
    parser.add_argument("after", type=Path, metavar="AFTER.json")
    parser.add_argument("--gate", action="store_true", help="exit status 1 when something is worse")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    try:
        before, after = load(options.before), load(options.after)
    except CompareError as error:
        print(error)
        return 2
    found = list(changes(before, after))
    for name, document in (("before", before), ("after", after)):
        print(f"{name}: {document['commit']}, {document['time']}, {document['command']}")
    for key in ("processor", "cores", "kernel"):
        if before["machine"].get(key) != after["machine"].get(key):
            print(
                f"another {key}: {before['machine'].get(key)}, then {after['machine'].get(key)}: only ratios compare"
            )
    if not found:
        print("Nothing was measured in both.")
        return 2
    print(f"\n{text(found)}")
    return int(options.gate and any(change.verdict == "WORSE" for change in found))


def load(path: Path) -> dict[str, Any]:
    """A result of the bench. Raises CompareError."""
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CompareError(f"{path}: cannot be read: {error}") from error
    if not isinstance(document, dict) or not {"commit", "time", "command", "machine"} <= document.keys():
        raise CompareError(f"{path}: is no result of python -m bench (written by --json)")
    return document


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    """Of everything that both have."""
    yield from _cpu(_samples(before), _samples(after))
    for key, title in (("instructions", "user instructions"), ("system_calls", "system calls")):
        old, new = _counts(before, key), _counts(after, key)
        for place in [place for place in old if place in new]:
            yield Change(
                f"{title}, {' '.join(place)}",
                old[place],
                new[place],
                old[place] * EXACT,
                0 if old[place] > 100 else 2,
            )
    yield from _networks(before.get("figures", []), after.get("figures", []))


def _samples(document: Mapping[str, Any]) -> list[Sample]:
    return [Sample(**sample) for sample in document.get("samples", [])]


def _cpu(before: Sequence[Sample], after: Sequence[Sample]) -> Iterator[Change]:
    there = dict.fromkeys((sample.scenario, sample.peer) for sample in before)
    for scenario, peer in there:
        if peer in (FLOOR, AGAIN):
            continue
        old, new = (spread(ratios(samples, scenario, peer, (FLOOR, AGAIN))) for samples in (before, after))
        if old is None or new is None:
            continue
        itself = max(_itself(samples, scenario) for samples in (before, after))
        noise = max(old.uncertainty + new.uncertainty, itself * old.median)
        yield Change(f"CPU to the floor, {scenario} {peer}", old.median, new.median, noise)


def _itself(samples: Sequence[Sample], scenario: str) -> float:
    """By which part the floor differed from itself; 0 when it was measured once only."""
    found: Spread | None = spread(ratios(samples, scenario, AGAIN, (FLOOR,)))
    return 0.0 if found is None else abs(found.median - 1) + found.uncertainty


def _counts(document: Mapping[str, Any], key: str) -> dict[tuple[str, str], float]:
    return {(one["scenario"], one["peer"]): one["busiest_thread"] for one in document.get(key) or []}


def _networks(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> Iterator[Change]:
    old, new = ({(one["who"], one["networks"]): one for one in figures} for figures in (before, after))
    for place in [place for place in old if place in new]:
        for name, title, factor in (
            ("listening", "seconds until all listen", 1.0),
            ("memory", "MB", 1e-6),
            ("cpu_per_request", "CPU us/request", 1e6),
        ):
            first, second = old[place][name], new[place][name]
            if first is not None and second is not None and not old[place]["extrapolated"]:
                what = f"{title}, {place[0]}, {place[1]:,} networks"
                yield Change(what, first * factor, second * factor, first * factor * SINGLE)


def text(found: Sequence[Change]) -> str:
    """For a person: what changed first."""
    rows: list[Sequence[str]] = [("", "before", "after", "change", "noise", "")]
    for change in sorted(found, key=lambda change: change.verdict == "equal"):
        part = (change.after / change.before - 1) * 100 if change.before else 0.0
        rows.append(
            (
                change.what,
                f"{change.before:,.{change.digits}f}",
                f"{change.after:,.{change.digits}f}",
                f"{part:+.1f} %",
                f"{change.noise / change.before * 100 if change.before else 0:.1f} %",
                change.verdict,
            )
        )
    return table(rows)
