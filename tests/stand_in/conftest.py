"""haproxy's stand-in: what it reads, its program and holder, and the agent's side of them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastmeta.lab.topology import Lab
from fastmeta.stand_in import program
from tests.service import conftest as service
from tests.service.conftest import Setting

from . import kit
from .kit import Ground
from .places import Scene

lab = service.lab
no_threads_left = service.no_threads_left

SOURCES = Path(program.__file__).parent / "c"
HERE = Path(__file__).parent
FLAGS = [
    "-std=gnu11",
    "-D_GNU_SOURCE",
    "-g",
    "-O1",
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Wshadow",
    "-Werror",
]
SANITIZED = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]


def compile_c(target: Path, *sources: Path) -> Path:
    """With AddressSanitizer and UndefinedBehaviorSanitizer, whose first report ends the program."""
    command = [os.environ.get("CC", "cc"), *FLAGS, *SANITIZED, f"-I{SOURCES}", "-o", str(target)]
    subprocess.run([*command, *map(str, sources)], check=True, timeout=60)
    return target


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that prints what is made of a configuration."""
    return compile_c(
        tmp_path_factory.mktemp("reader") / "read_config",
        HERE / "programs" / "read_config.c",
        SOURCES / "config.c",
        SOURCES / "words.c",
    )


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in with sanitizers, in a folder without the holder's program, so that it is its own holder."""
    names = ("config", "hand_over", "hold", "holder", "listen", "main", "options", "real", "words")
    return compile_c(
        tmp_path_factory.mktemp("sanitized") / "haproxy", *(SOURCES / f"{name}.c" for name in names)
    )


@pytest.fixture(params=["built", "sanitized"])
def ground(request: pytest.FixtureRequest, sanitized: Path) -> Iterator[Ground]:
    """Of one test; the stand-in as it is installed, and the one with sanitizers."""
    with Ground(kit.PROGRAM if request.param == "built" else sanitized) as made:
        yield made


@pytest.fixture(scope="session")
def namespace(lab: Lab) -> str:
    """An empty one."""
    return lab.add_namespace("stand-in")


own_cloud = service.own_cloud
own_setting = service.own_setting


@pytest.fixture
def scene(own_setting: Setting) -> Scene:
    """An empty cloud, and what the test starts in it."""
    return Scene(own_setting)
