"""What was measured of lookups, and how it is shown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.report import table
from bench.rounds import spread
from bench.storm import OK

NEUTRON = ("neutron_api", "neutron_rpc")
BEHIND = ("database", "bus")
"""What works for Neutron."""
KEYSTONE = ("keystone",)
PROXIES = ("proxies",)


@dataclass(frozen=True)
class Storm:
    """One storm on one peer. calls: to Neutron, by method (and path); cpu_seconds: by service, and of the peer; those
    and the calls are counted until quiet_after, when nobody worked on it any more. load_average: of the minute before.
    """

    run: int
    peer: str
    guests: int
    answers: list[tuple[str, float]]
    calls: dict[str, int]
    keystone_calls: int
    cpu_seconds: dict[str, float]
    quiet_after: float
    load_average: float

    @property
    def asked(self) -> int:
        """The calls that say who has an address; others come with the peer's life."""
        return sum(number for name, number in self.calls.items() if name in ("get_ports", "GET /v2.0/ports"))

    @property
    def failed(self) -> int:
        return sum(kind != OK for kind, _ in self.answers)

    @property
    def last(self) -> float:
        """Seconds until the last one had its answer, or had failed."""
        return max(seconds for _, seconds in self.answers)

    @property
    def middle(self) -> float | None:
        """Median seconds of those that were answered."""
        answered = [seconds for kind, seconds in self.answers if kind == OK]
        return statistics.median(answered) if answered else None

    def kinds(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for kind, _ in self.answers:
            found[kind] = found.get(kind, 0) + 1
        return found


@dataclass(frozen=True)
class Single:
    """Guests that ask one after the other, each twice: seconds of the first requests and of the second ones."""

    run: int
    peer: str
    first: list[float]
    again: list[float]
    load_average: float


@dataclass(frozen=True)
class Idle:
    """CPU time while nobody asks."""

    peer: str
    seconds: float
    cpu_seconds: dict[str, float]


@dataclass
class Figures:
    storms: list[Storm] = field(default_factory=list)
    singles: list[Single] = field(default_factory=list)
    idle: list[Idle] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def storms(figures: Figures, sizes: Sequence[int], peers: Sequence[str], titles: dict[str, str]) -> str:
    """Medians, with the extremes in brackets where there are several runs. "-" is what was not measured."""
    rows: list[Sequence[str]] = [
        (
            "guests",
            "asked",
            "calls to Neutron",
            "CPU s: Neutron",
            "database, bus",
            "Keystone",
            "proxies",
            "failed",
            "half answered after s",
            "all after s",
        )
    ]
    for size in sizes:
        for peer in peers:
            found = [storm for storm in figures.storms if (storm.guests, storm.peer) == (size, peer)]

            def shown(
                digits: int, value: Callable[[Storm], float | None], storms: list[Storm] = found
            ) -> str:
                return _median([v for storm in storms if (v := value(storm)) is not None], digits)

            rows.append(
                (
                    f"{size:,}",
                    titles[peer],
                    shown(0, lambda storm: storm.asked),
                    *(shown(2, _cpu_of(names)) for names in (NEUTRON, BEHIND, KEYSTONE, PROXIES)),
                    shown(0, lambda storm: storm.failed),
                    shown(2, lambda storm: storm.middle),
                    shown(2, lambda storm: storm.last),
                )
            )
    return table(rows)


def _cpu_of(names: Sequence[str]) -> Callable[[Storm], float]:
    return lambda storm: sum(storm.cpu_seconds[name] for name in names)


def failures(figures: Figures, titles: dict[str, str]) -> str:
    """A line for each storm in which guests failed."""
    lines = []
    for storm in figures.storms:
        if storm.failed:
            kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(storm.kinds().items()))
            lines.append(f"  {titles[storm.peer]}, {storm.guests:,} guests, run {storm.run + 1}: {kinds}")
    return "\n".join(["How the guests' requests ended, where any failed:", *lines]) if lines else ""


def singles(figures: Figures, peers: Sequence[str], titles: dict[str, str]) -> str:
    """Milliseconds: median (quartiles). What is between a first request and a second one is the lookup."""
    rows: list[Sequence[str]] = [
        ("one guest, ms", "first request", "second request", "from miss to identity")
    ]
    for peer in peers:
        found = [single for single in figures.singles if single.peer == peer]
        first = [seconds for single in found for seconds in single.first]
        again = [seconds for single in found for seconds in single.again]
        # Stock has no identities: it asks for each request.
        between = [] if peer == "stock" else [a - b for a, b in zip(first, again, strict=True)]
        rows.append((titles[peer], _milliseconds(first), _milliseconds(again), _milliseconds(between)))
    return table(rows)


def idle(figures: Figures, peers: Sequence[str], titles: dict[str, str]) -> str:
    """Milliseconds of CPU for each second in which nobody asks."""
    rows: list[Sequence[str]] = [("nobody asks, CPU ms/s", "Neutron", "database, bus", "Keystone", "proxies")]
    for peer in peers:
        found = [one for one in figures.idle if one.peer == peer]
        row = [titles[peer]]
        for names in (NEUTRON, BEHIND, KEYSTONE, PROXIES):
            rates = [1000 * sum(one.cpu_seconds[name] for name in names) / one.seconds for one in found]
            row.append(_median(rates, 1))
        rows.append(row)
    return table(rows)


def _median(values: Sequence[float], digits: int) -> str:
    if not values:
        return "-"
    text = f"{statistics.median(values):,.{digits}f}"
    low, high = (f"{edge:,.{digits}f}" for edge in (min(values), max(values)))
    return text if low == high else f"{text} ({low} to {high})"


def _milliseconds(values: Sequence[float]) -> str:
    found = spread(values)
    if found is None:
        return "-"
    return f"{1000 * found.median:.1f} ({1000 * found.low:.1f} to {1000 * found.high:.1f})"
