"""Seeds and regressions hold. Fuzzing itself is `make fuzz`."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz import build

from .conftest import REGRESSIONS, Replay


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build.replayer(tmp_path_factory.mktemp("replay"))


@pytest.mark.parametrize("target", build.TARGETS)
def test_no_rule_is_broken(program: Path, replay: Replay, target: str) -> None:
    """Under AddressSanitizer and UndefinedBehaviorSanitizer."""
    done = replay(program, target)
    assert (done.returncode, done.stderr) == (0, "")


def test_regressions_are_of_targets() -> None:
    assert {path.name for path in REGRESSIONS.iterdir()} <= set(build.TARGETS)
