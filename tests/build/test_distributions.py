"""The source distribution is complete, and a wheel built of it alone works; neither holds what is not for it."""

from __future__ import annotations

import os
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.build.conftest import run

PROGRAMS = ("haproxy", "fastmeta-holder")

pytestmark = pytest.mark.timeout(600)


def sources(source: Path) -> set[str]:
    wanted = {".py", ".pyx", ".pxi", ".pxd", ".pyi", ".typed", ".h"}
    return {
        str(path.relative_to(source))
        for path in (source / "fastmeta").rglob("*")
        if path.suffix in wanted or path.name == "py.typed" or path.parent.name == "c"
    }


def test_sdist(sdist: Path, source: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert sources(source) <= names
    assert {
        "fastmeta/_core.pyx",
        "fastmeta/core/http.pxi",
        "fastmeta/_core.pyi",
        "fastmeta/py.typed",
        "fastmeta/stand_in/c/main.c",
        "fastmeta/stand_in/c/stand_in.h",
    } <= names
    assert {"pyproject.toml", "setup.py", "README.md", "LICENSE"} <= names
    assert {"etc/systemd/fastmeta.service", "etc/fastmeta.conf.sample", "docs/operations.md"} <= names
    # Generated and compiled files: a build must make its own.
    assert not {
        name
        for name in names
        if name.startswith(("fastmeta/_core", "fastmeta/stand_in/bin"))
        and not name.endswith((".pyx", ".pyi"))
    }
    assert not {name for name in names if name.endswith((".so", ".html", ".pyc"))}


def test_wheel(wheel: Path, source: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    outside = {name for name in names if not name.startswith("fastmeta/") and ".dist-info/" not in name}
    assert outside == set()
    inside = {name for name in names if name.startswith("fastmeta/")}
    compiled = {name for name in inside if name.endswith(".so")}
    assert len(compiled) == 1
    python = {name for name in sources(source) if name.endswith((".py", ".pyi", "py.typed"))}
    programs = {f"fastmeta/stand_in/bin/{name}" for name in PROGRAMS}
    assert inside - compiled - programs == python
    assert programs <= inside
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_works(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    run(sys.executable, "-m", "venv", environment)
    python = environment / "bin" / "python"
    # Without its dependencies: the core needs none of them.
    run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-index", "--no-deps", wheel)
    said = run(
        python,
        "-c",
        "from fastmeta import _core; print(_core.__file__); print(_core._sign(b'', b'')[:8]);"
        "print(_core._parse_request(b'GET / HTTP/1.1\\r\\nHost: h\\r\\n\\r\\n')['length']); _core.Loop()",
        cwd=tmp_path,
    ).split()
    assert said[0].startswith(str(environment))
    assert said[1:] == ["b613679a", "27"]
    assert (environment / "bin" / "fastmeta").exists()
    folder = Path(run(environment / "bin" / "fastmeta-haproxy", "--where", cwd=tmp_path).strip())
    assert folder.is_relative_to(environment)
    for name in PROGRAMS:
        assert os.access(folder / name, os.X_OK)
