"""Never an answer under an identity that ended longer ago than was promised (docs/identity-safety.md): what machines.py
does. test_mutations.py breaks the code in one place after the other, and it must find each."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis.stateful import run_state_machine_as_test

from .machines import Anything, Dangerous


def look_for(machine: type[Dangerous], examples: int, steps: int) -> None:
    """Lets it run; raises what it finds first."""
    Dangerous.found.clear()
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=True,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            report_multiple_bugs=False,
            verbosity=Verbosity.quiet,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize(("machine", "examples", "steps"), [(Anything, 25, 30), (Dangerous, 40, 6)])
def test_never_longer_than_promised(machine: type[Dangerous], examples: int, steps: int) -> None:
    """So many answers were looked at that the rules must have met."""
    Dangerous.answers = 0
    look_for(machine, examples, steps)
    assert Dangerous.answers > 100
