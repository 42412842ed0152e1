"""What an import brings along."""

from __future__ import annotations

import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from fastmeta import _core
from tests.build.conftest import run

SHOW = (
    "import sys; before = set(sys.modules); import {name}; "
    "print(*sorted({{module.split('.')[0] for module in set(sys.modules) - before}}))"
)


def brought_by(name: str, root: Path) -> set[str]:
    return set(run(sys.executable, "-c", SHOW.format(name=name), cwd=root).split())


def test_the_package_brings_nothing(root: Path) -> None:
    assert brought_by("fastmeta", root) == {"fastmeta"}


def test_the_core_brings_only_the_exceptions(root: Path) -> None:
    """The core imports nothing of ours but the exceptions; what it needs of the standard library is small."""
    show = "import sys, fastmeta._core; print(*(name for name in sys.modules if name.startswith('fastmeta')))"
    modules = set(run(sys.executable, "-c", show, cwd=root).split())
    assert modules == {"fastmeta", "fastmeta._core", "fastmeta.exceptions"}
    assert not brought_by("fastmeta._core", root) & {
        "asyncio",
        "ssl",
        "socket",
        "oslo_config",
        "pyroute2",
        "yaml",
        "typing",
    }


def test_the_core_is_the_compiled_one() -> None:
    assert _core.__file__.endswith(tuple(EXTENSION_SUFFIXES))
    assert Path(_core.__file__).read_bytes()[:4] == b"\x7fELF"
    assert type(_core._sign).__name__ == "cython_function_or_method"


def test_what_is_not_configured_is_not_loaded(root: Path) -> None:
    """Discovery costs nothing where there is none."""
    show = "import sys, fastmeta.agent, fastmeta.cmd.agent, fastmeta.cmd.config_check; print(*sys.modules)"
    modules = set(run(sys.executable, "-c", show, cwd=root).split())
    assert "fastmeta.agent" in modules
    assert not any(
        module.startswith(("fastmeta.discovery", "fastmeta.check.discovery")) for module in modules
    )
