"""What the tests of the build share: the C that Cython makes, a source distribution, a wheel made of that."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOT_SOURCE = shutil.ignore_patterns(
    ".*", "build", "dist", "*.egg-info", "__pycache__", "_core.c", "_core.html", "*.so", "bin", "results"
)


def run(*command: object, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "FASTMETA_"))},
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree as a fresh clone has it: other builds may go on in the original."""
    return Path(shutil.copytree(ROOT, tmp_path_factory.mktemp("source") / "fastmeta", ignore=NOT_SOURCE))


@pytest.fixture(scope="session")
def generated_c(source: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The C of the core. Made anew: the file of the last build may be older than the sources, or traced."""
    target = tmp_path_factory.mktemp("c") / "_core.c"
    said = run(
        sys.executable, "-m", "cython", "-3", "-Werror", "fastmeta/_core.pyx", "-o", target, cwd=source
    )
    assert "performance hint" not in said, said
    return target.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def sdist(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", out, source, cwd=out)
    (archive,) = out.glob("fastmeta-*.tar.gz")
    return archive


@pytest.fixture(scope="session")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made of nothing but the source distribution, far from the tree."""
    out = tmp_path_factory.mktemp("wheel")
    run("tar", "-xzf", sdist, cwd=out)
    (unpacked,) = (folder for folder in out.iterdir() if folder.is_dir())
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, unpacked, cwd=out)
    (made,) = out.glob("fastmeta-*.whl")
    return made
