"""What fastmeta promises, held against what was measured."""

from dataclasses import asdict, dataclass
from typing import Any

from bench.peers import FLOOR
from bench.results import Results
from bench.rounds import Spread

SUBJECT = "fastmeta"


@dataclass(frozen=True)
class Verdict:
    """holds is None when it could not be measured. uncertainty: how far measured may be off."""

    promise: str
    measured: float | None
    limit: float | None
    holds: bool | None
    uncertainty: float = 0

    @property
    def close_call(self) -> bool:
        """Measured, but nearer to the limit than the measurement is exact: more rounds would tell."""
        if self.measured is None or self.limit is None:
            return False
        return abs(self.measured - self.limit) < self.uncertainty

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def judge(results: Results) -> list[Verdict]:
    """One verdict for each promise, always all of them."""
    return [
        _cpu("keep-16", "floor", 1.15, results.to_floor("keep-16", SUBJECT)),
        _cpu("keep-16", "haproxy", 0.80, results.ratio("keep-16", SUBJECT, "haproxy")),
        _system_calls(results, "keep-16", 0.15),
        _system_calls(results, "close-16", 0.5),
        _no_errors(results),
    ]


def _cpu(scenario: str, base: str, limit: float, ratio: Spread | None) -> Verdict:
    promise = f"CPU/request, {scenario}: at most {limit:.2f} x {base}"
    if ratio is None:
        return Verdict(promise, None, limit, None)
    return Verdict(promise, ratio.median, limit, ratio.median <= limit, ratio.uncertainty)


def _system_calls(results: Results, scenario: str, more: float) -> Verdict:
    ours = results.system_calls(scenario, SUBJECT)
    floor = results.system_calls(scenario, FLOOR)
    promise = f"system calls/request, {scenario}: at most the floor's + {more:.2f}"
    measured = ours.median if ours else None
    limit = floor.median + more if floor else None
    holds = None if measured is None or limit is None else measured <= limit
    return Verdict(promise, measured, limit, holds)


def _no_errors(results: Results) -> Verdict:
    runs = [sample for sample in results.samples if sample.peer == SUBJECT]
    errors = sum(sample.errors for sample in runs)
    return Verdict("no wrong or missing answer", errors if runs else None, 0, errors == 0 if runs else None)
