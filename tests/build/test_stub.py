"""The hand-written stub says what the compiled core has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ALLOW_LIST = Path(__file__).parent / "stubtest-allow.txt"


def stubtest(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "fastmeta._core", *options],
        cwd=root,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )


def test_stub(root: Path) -> None:
    done = stubtest(root, "--allowlist", str(ALLOW_LIST))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_exception_is_needed(root: Path) -> None:
    """Without the list, stubtest complains of exactly what it holds."""
    done = stubtest(root, "--concise")
    complaints = {line.split()[0] for line in done.stdout.splitlines() if line.startswith("fastmeta.")}
    allowed = {line.split("#")[0].strip() for line in ALLOW_LIST.read_text().splitlines()} - {""}
    assert complaints == allowed
