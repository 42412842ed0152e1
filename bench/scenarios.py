"""What the guests do."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scenario:
    """mode: as load's --mode: keep, close (a connection for each request), fresh (cloud-init's way)."""

    mode: str
    connections: int

    @property
    def name(self) -> str:
        return f"{self.mode}-{self.connections}"

    @property
    def title(self) -> str:
        modes = {"keep": "kept alive", "close": "closing", "fresh": "cloud-init's way"}
        return f"{modes[self.mode]}, {self.connections}"


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("keep", 1),
        Scenario("keep", 16),
        Scenario("keep", 256),
        Scenario("close", 1),
        Scenario("close", 16),
        Scenario("fresh", 1),
        Scenario("fresh", 16),
    )
}
