"""What one run has found."""

from dataclasses import dataclass, field
from typing import Any

from bench.instructions import Instructions
from bench.namespaces import Figures
from bench.parsing import ParseTimes
from bench.peers import AGAIN, FLOOR
from bench.rounds import Sample, Spread, ratios, spread
from bench.syscalls import Count


@dataclass
class Results:
    """Raw samples, and the figures made of them. gaps: everything that could not be measured, in words."""

    scenarios: list[str]
    peers: list[str]
    samples: list[Sample] = field(default_factory=list)
    counts: list[Count] = field(default_factory=list)
    instructions: list[Instructions] = field(default_factory=list)
    parsing: ParseTimes | None = None
    namespaces: Figures | None = None
    gaps: list[str] = field(default_factory=list)

    def of(self, scenario: str, peer: str) -> list[Sample]:
        return [s for s in self.samples if s.scenario == scenario and s.peer == peer]

    def cpu_us(self, scenario: str, peer: str) -> Spread | None:
        return spread([s.cpu_us for s in self.of(scenario, peer)])

    def ratio(self, scenario: str, peer: str, *base: str) -> Spread | None:
        return spread(ratios(self.samples, scenario, peer, base))

    def to_floor(self, scenario: str, peer: str) -> Spread | None:
        """Against both measurements of the floor in the same round: their mean is the steadier yardstick."""
        return self.ratio(scenario, peer, FLOOR, AGAIN)

    def per_second(self, scenario: str, peer: str) -> Spread | None:
        return spread([s.requests / s.seconds for s in self.of(scenario, peer)])

    def latency_us(self, scenario: str, peer: str, percentile: str) -> Spread | None:
        return spread([s.latency_us[percentile] for s in self.of(scenario, peer)])

    def errors(self, scenario: str, peer: str) -> int:
        return sum(s.errors for s in self.of(scenario, peer))

    def system_calls(self, scenario: str, peer: str) -> Spread | None:
        return spread([c.all_threads for c in self.counts if c.scenario == scenario and c.peer == peer])

    def loop_system_calls(self, scenario: str, peer: str) -> Spread | None:
        return spread([c.busiest_thread for c in self.counts if c.scenario == scenario and c.peer == peer])

    def loop_instructions(self, scenario: str, peer: str) -> float | None:
        found = [i.busiest_thread for i in self.instructions if i.scenario == scenario and i.peer == peer]
        return found[0] if found else None

    def as_dict(self) -> dict[str, Any]:
        return {
            "samples": [sample.as_dict() for sample in self.samples],
            "system_calls": [count.as_dict() for count in self.counts],
            "instructions": [one.as_dict() for one in self.instructions],
            "parsing": self.parsing.as_dict() if self.parsing else None,
            "namespaces": self.namespaces.as_dict() if self.namespaces else None,
            "gaps": self.gaps,
        }
