"""The harness of fuzz/, built without clang, and the inputs that it replays."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fuzz import build, seeds

REGRESSIONS = Path(build.HERE) / "regressions"

Replay = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def seed_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seeds")
    seeds.write(folder)
    return folder


@pytest.fixture(scope="session")
def replay(seed_folder: Path) -> Replay:
    """Runs all seeds and regressions of a target; with the planted defect of this number, if there are any."""

    def run(program: Path, target: str, planted: int = 0) -> subprocess.CompletedProcess[str]:
        inputs = [*sorted((seed_folder / target).iterdir()), *sorted((REGRESSIONS / target).glob("*"))]
        assert len(inputs) >= 60
        return subprocess.run(
            [str(program), target, *map(str, inputs)],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=100,
            env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0", "FUZZ_PLANTED": str(planted)},
        )

    return run
