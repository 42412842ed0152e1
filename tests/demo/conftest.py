"""The demo as a child process, as root and as another user, and a look at whether it left anything behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import fastmeta
from fastmeta.lab.namespaces import NETNS_FOLDER
from fastmeta.lab.registry import REGISTRY_FOLDER, remove_leftovers

OTHER_USER = 64123
"""A user id (and group id) that no account has: nothing has to be made for it, and nothing removed."""

# What the copy for another user does not need, and what is large.
LEFT_OUT = ("mypy", "mypyc", "*__mypyc*", "Cython", "pip", "setuptools", "hypothesis", "__pycache__", "*.pth")


class Demo:
    """Starts the demo as one user; what it makes in the temporary folder lies in tmpdir."""

    def __init__(
        self, python: str, tmpdir: Path, environment: dict[str, str], prefix: Sequence[str] = ()
    ) -> None:
        self.python = python
        self.tmpdir = tmpdir
        self.environment = {**environment, "TMPDIR": str(tmpdir)}
        self.prefix = list(prefix)

    def start(self, *arguments: str, code: str = "", **options: Any) -> subprocess.Popen[str]:
        """code: Python to run instead of the command line, with arguments in sys.argv."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": "/", **options}
        options.setdefault("env", self.environment)
        program = ["-c", code] if code else ["-m", "fastmeta", "demo"]
        # A session of its own, so that a signal can reach all of it, as a terminal's Ctrl-C would.
        return subprocess.Popen(
            [*self.prefix, self.python, *program, *arguments], text=True, start_new_session=True, **options
        )

    def run(self, *arguments: str, code: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
        with self.start(*arguments, code=code, **options) as process:
            try:
                out, err = process.communicate(timeout=90)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def left_over(self) -> list[str]:
        """Files, and processes that were given one of them."""
        found = sorted(str(path) for path in self.tmpdir.rglob("*"))
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    command = (entry / "cmdline").read_bytes()
                    if str(self.tmpdir).encode() in command:
                        found.append(f"process {entry.name}: {command!r}")
        return found


def labs_on_this_machine() -> set[str]:
    """Each lab has a namespace fastmeta-<tag>-switch, which goes last, and a registry file."""
    found = set(NETNS_FOLDER.glob("fastmeta-*")) | set(REGISTRY_FOLDER.glob("*.jsonl"))
    return {path.name for path in found}


def need_root() -> None:
    if os.geteuid() != 0:
        if os.environ.get("FASTMETA_CI") == "1":
            pytest.fail("CI must run as root")
        pytest.skip("needs root")


@pytest.fixture(autouse=True)
def clean_machine() -> Iterator[None]:
    """Of a test no namespace and no registry file is left on the machine."""
    need_root()
    before = labs_on_this_machine()
    yield
    left = labs_on_this_machine() - before
    deadline = time.monotonic() + 10
    while left and time.monotonic() < deadline:  # perhaps somebody else's demo that runs meanwhile
        time.sleep(0.1)
        left &= labs_on_this_machine()
    if left:
        remove_leftovers()
    assert left == set()


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """pytest's own temporary folders are closed to other users, and their names long for unix sockets."""
    folder = Path(tempfile.mkdtemp(prefix="fmt-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def root_demo(clean_machine: None, short_folder: Path) -> Iterator[Demo]:
    demo = Demo(sys.executable, short_folder, dict(os.environ))
    yield demo
    wait_until_gone(demo)


def wait_until_gone(demo: Demo) -> None:
    """A process that was sent SIGKILL takes a moment."""
    deadline = time.monotonic() + 5
    while (left := demo.left_over()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left == []


@pytest.fixture(scope="session")
def readable_copy() -> Iterator[Path]:
    """The package as it is built here, and what it needs, in a folder that every user can read."""
    folder = Path(tempfile.mkdtemp(prefix="fmt-copy-", dir="/tmp"))
    try:
        ignore = shutil.ignore_patterns(*LEFT_OUT)
        shutil.copytree(Path(fastmeta.__file__).parent, folder / "project" / "fastmeta", ignore=ignore)
        shutil.copytree(sysconfig.get_path("platlib"), folder / "packages", ignore=ignore, symlinks=True)
        for path in (folder, *folder.rglob("*")):
            if not path.is_symlink():
                mode = stat.S_IMODE(path.stat().st_mode)
                path.chmod(mode | (0o555 if path.is_dir() or mode & 0o100 else 0o444))
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def user_demo(clean_machine: None, readable_copy: Path, short_folder: Path) -> Iterator[Demo]:
    """As an ordinary user, whose PATH has no sbin folders."""
    user = str(OTHER_USER)
    prefix = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--"]
    # Not the virtual environment's: that may lie in a folder which others cannot read.
    python = os.path.realpath(sys.executable)
    if subprocess.run([*prefix, python, "-c", ""], check=False, capture_output=True).returncode:
        if os.environ.get("FASTMETA_CI") == "1":
            pytest.fail(f"other users cannot run {python}")
        pytest.skip(f"other users cannot run {python}")
    os.chown(short_folder, OTHER_USER, OTHER_USER)
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(short_folder),
        "PYTHONPATH": f"{readable_copy}/project:{readable_copy}/packages",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    demo = Demo(python, short_folder, environment, prefix)
    yield demo
    wait_until_gone(demo)
