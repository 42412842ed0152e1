"""CPU time for each request, by interleaved rounds.

For each scenario all peers are warmed up and wait. Then, in each round, every peer gets a short run, one by
one and in a new order each time. What is compared are the ratios inside a round: whatever else the machine
does in that fraction of a second meets all peers alike.
"""

import contextlib
import math
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import load, processes
from bench.peers import Running
from bench.scenarios import Scenario


@dataclass(frozen=True)
class Sample:
    """One run of one scenario on one peer. cpu_us: of the whole proxy, for each request."""

    round: int
    scenario: str
    peer: str
    requests: int
    errors: int
    error_kinds: dict[str, int]
    reconnects: int
    seconds: float
    cpu_us: float
    latency_us: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Spread:
    """A median with its quartiles, and how many values it is of."""

    median: float
    low: float
    high: float
    values: int

    @property
    def uncertainty(self) -> float:
        """How far the median itself may be off (the notch of a box plot: about 95 %)."""
        return 1.57 * (self.high - self.low) / math.sqrt(self.values)


def spread(values: Sequence[float]) -> Spread | None:
    if not values:
        return None
    if len(values) == 1:
        return Spread(values[0], values[0], values[0], 1)
    quartiles = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(statistics.median(values), quartiles[0], quartiles[2], len(values))


def take(
    program: Path,
    core: int,
    peers: Sequence[Running],
    scenario: Scenario,
    *,
    rounds: int,
    seconds: float,
    progress: Callable[[str], None],
    gap: Callable[[str], None],
) -> Iterator[Sample]:
    """Yields the samples as they come: an interrupted run keeps what it has. gap is told what failed."""
    with contextlib.ExitStack() as stack:
        loads: dict[str, load.Load] = {}
        # Bounds the whole scenario: a proxy that stalls ends as a gap, not as a bench that hangs.
        patience = 60 + rounds * len(peers) * (seconds + 1)
        for peer in peers:
            one = load.warmed_up(program, core, peer.port, scenario, seconds=seconds, patience=patience)
            try:
                loads[peer.name] = stack.enter_context(one)
            except load.LoadError as error:
                gap(f"{peer.name}, {scenario.title}: not measured: {error}")
        for number in range(rounds):
            progress(f"{scenario.title}: round {number + 1} of {rounds}")
            for peer in random.sample(peers, len(peers)):
                if peer.name not in loads:
                    continue
                try:
                    sample = _sample(loads[peer.name], peer, scenario, number)
                except load.LoadError as error:
                    gap(f"{peer.name}, {scenario.title}: no figures from round {number + 1} on: {error}")
                    del loads[peer.name]
                    continue
                if sample is None:
                    gap(f"{peer.name}, {scenario.title}: not one answer in round {number + 1}")
                else:
                    yield sample


def _sample(generator: load.Load, peer: Running, scenario: Scenario, number: int) -> Sample | None:
    pids = peer.pids()
    before = processes.cpu_ns(pids)
    result = generator.run()
    used = processes.cpu_ns(pids) - before
    if not result["requests"]:
        return None
    return Sample(
        number,
        scenario.name,
        peer.name,
        result["requests"],
        result["errors"],
        result["error_kinds"],
        result["reconnects"],
        result["seconds"],
        used / 1000 / result["requests"],
        result["latency_us"],
    )


def ratios(samples: Sequence[Sample], scenario: str, peer: str, base: Sequence[str]) -> list[float]:
    """CPU/request of peer over the mean of base, for each round that has both."""
    cost: dict[int, dict[str, float]] = {}
    for sample in samples:
        if sample.scenario == scenario:
            cost.setdefault(sample.round, {})[sample.peer] = sample.cpu_us
    found = []
    for _, costs in sorted(cost.items()):
        present = [costs[name] for name in base if name in costs]
        if peer in costs and present:
            found.append(costs[peer] / statistics.mean(present))
    return found
