from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fastmeta import process


def python(script: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60
    ).stdout.strip()


def test_forbid_dumps() -> None:
    assert (
        python(
            "import ctypes\nfrom fastmeta.process import forbid_dumps\n"
            "get = lambda: ctypes.CDLL(None).prctl(3)\nbefore = get()\nforbid_dumps()\nprint(before, get())"
        )
        == "1 0"
    )


def test_agent_forbids_dumps_before_it_reads_the_secret(tmp_path: Path) -> None:
    """Seen from inside, when the configuration is about to be read."""
    assert (
        python(
            "import ctypes, sys\nfrom fastmeta.cmd import agent\n"
            "def load(argv, **rest):\n    print(ctypes.CDLL(None).prctl(3))\n    sys.exit(0)\n"
            "agent.load = load\nagent.main([])"
        )
        == "0"
    )


def test_descriptor_limit_is_raised_to_the_hard_one() -> None:
    assert (
        python(
            "import resource\nfrom fastmeta.process import "
            "raise_descriptor_limit\nresource.setrlimit(resource.RLIMIT_NOFILE, (100, "
            "1000))\nprint(raise_descriptor_limit(), resource.getrlimit(resource.RLIMIT_NOFILE), "
            "raise_descriptor_limit())"
        )
        == "1000 (1000, 1000) 1000"
    )


def test_limit_that_may_not_be_raised(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(what: int, limits: tuple[int, int]) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(process.resource, "getrlimit", lambda what: (100, 1000))
    monkeypatch.setattr(process.resource, "setrlimit", refuse)
    assert process.raise_descriptor_limit() == 100
    assert "stays at 100" in caplog.text


@pytest.mark.parametrize(
    ("descriptors", "listeners", "upstream", "connections"),
    [(1024, 10, 256, 694), (1024, 10, 600, 475), (20000, 0, 256, 19680), (10, 0, 256, 1)],
)
def test_connections_allowed(descriptors: int, listeners: int, upstream: int, connections: int) -> None:
    """What connections to Nova leave, and of few descriptors half."""
    assert process.connections_allowed(descriptors, listeners, upstream) == connections


def test_connections_allowed_without_a_limit() -> None:
    assert process.connections_allowed(process.resource.RLIM_INFINITY, 1000, 256) > 1_000_000
