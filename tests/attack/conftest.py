"""Rule 8 under attack: no other guest's request fails, memory stays under a stated bound, nothing is left behind.

Needs root. The figures of all attacks are printed at the end of the run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from fastmeta.lab.namespaces import NETNS_FOLDER
from fastmeta.lab.topology import Lab

from .field import Ground
from .measure import FIGURES, report


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    """One for the attacks of a module; of it nothing is left afterwards."""
    if os.geteuid() != 0:
        if os.environ.get("FASTMETA_CI") == "1":
            pytest.fail("CI must run as root")
        pytest.skip("needs root")
    with Lab() as lab:
        yield Ground(lab)
    assert [path.name for path in NETNS_FOLDER.iterdir() if lab.tag in path.name] == []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if FIGURES:
        terminalreporter.section("attacks")
        for line in report():
            terminalreporter.write_line(line)
