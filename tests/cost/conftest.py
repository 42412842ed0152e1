"""Exact counts of what one request costs: the agent as an operator runs it, one guest, the bench's upstream."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import build, peers
from bench.peers import Setting

CORE = 0


@pytest.fixture(scope="session")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    """lasting: identities do not end during the run, so that no question about who asks is in the count."""
    for program in ("strace", "valgrind", "vgdb"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: tools/setup.sh does it as root")
    folder = tmp_path_factory.mktemp("cost-bin")
    programs: dict[str, Path] = {name: build.compile_program(name, folder) for name in build.PROGRAMS}
    with peers.stub(programs, CORE) as upstream:
        yield Setting(programs, CORE, upstream, (sys.executable, "-m", "fastmeta"), lasting=True)
