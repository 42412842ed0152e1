"""Which namespaces are ours: remembered in a file, so that the next lab can remove what a killed one has
left.

A lab's file lies in /run/fastmeta-lab (mode 0700) and is locked as long as its process lives. It has one line
of JSON before a namespace is made ("planned") and one after ("made", with its inode). A namespace is removed
only if a line says that it was made and its inode is still the same: never somebody else's of the same name.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
from pathlib import Path
from types import TracebackType

from fastmeta.exceptions import LabError
from fastmeta.lab.namespaces import inode_of, remove_namespace

LOG = logging.getLogger(__name__)

REGISTRY_FOLDER = Path("/run/fastmeta-lab")


class Registry:
    """The file of one living lab. Open it with ``with``; leaving removes every namespace that it made."""

    def __init__(self, tag: str) -> None:
        """tag: unique, part of a file name."""
        self.path = REGISTRY_FOLDER / f"{tag}.jsonl"
        self._fd = -1
        self._made: dict[str, int] = {}

    def __enter__(self) -> Registry:
        """Raises LabError when the file cannot be made (no right to write in /run)."""
        try:
            REGISTRY_FOLDER.mkdir(mode=0o700, exist_ok=True)
            while True:
                self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
                fcntl.flock(self._fd, fcntl.LOCK_EX)
                if _same_file(self._fd, self.path):
                    return self
                # Another lab took it for a leftover in the moment before it was locked.
                os.close(self._fd)
        except OSError as error:
            raise LabError(f"cannot write in {REGISTRY_FOLDER}: {error.strerror}") from error

    def plan(self, name: str) -> None:
        """Raises LabError when it was made already: planned once more and failed, it would be forgotten."""
        if name in self._made:
            raise LabError(f"the namespace {name} exists already, made by this lab")
        self._write({"planned": name})

    def made(self, name: str) -> None:
        """To be called right after the namespace was made. Raises LabError when it is already gone."""
        inode = inode_of(name)
        if inode is None:
            raise LabError(f"the namespace {name} went away as soon as it was made")
        self._made[name] = inode
        self._write({"made": name, "inode": inode})

    def forget(self, name: str) -> None:
        """The namespace was removed on purpose."""
        self._made.pop(name, None)
        self._write({"removed": name})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _remove(self._made)
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        os.close(self._fd)
        self._fd = -1

    def _write(self, line: dict[str, str | int]) -> None:
        os.write(self._fd, json.dumps(line).encode() + b"\n")


def remove_leftovers() -> list[str]:
    """Removes the namespaces of labs whose process has died without cleaning up; gives their names."""
    removed: list[str] = []
    for path in sorted(REGISTRY_FOLDER.glob("*.jsonl")):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        with open(fd, encoding="utf-8") as file:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # its lab lives
            if not _same_file(fd, path):
                continue
            removed += _remove(_read(path, file.read()))
            path.unlink()
    return removed


def _read(path: Path, text: str) -> dict[str, int]:
    made: dict[str, int] = {}
    planned: set[str] = set()
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # the last line of a process that was killed while writing it
        if "planned" in entry:
            planned.add(entry["planned"])
        elif "made" in entry:
            made[entry["made"]] = entry["inode"]
        elif "removed" in entry:
            made.pop(entry["removed"], None)
            planned.discard(entry["removed"])
    for name in sorted(planned - made.keys()):
        if inode_of(name) is not None:
            LOG.warning("%s: the lab may have made the namespace %s, which is left alone", path, name)
    return made


def _remove(made: dict[str, int]) -> list[str]:
    """Removes those that still are what we made; the failure of one does not keep the others."""
    removed = []
    for name, inode in reversed(made.items()):
        present = inode_of(name)
        if present is None:
            continue
        if present != inode:
            LOG.warning("the namespace %s is another one than the lab made: it is left alone", name)
            continue
        try:
            remove_namespace(name)
        except LabError as error:
            LOG.error("%s", error)
        else:
            removed.append(name)
    return removed


def _same_file(fd: int, path: Path) -> bool:
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    opened = os.fstat(fd)
    return (opened.st_dev, opened.st_ino) == (named.st_dev, named.st_ino)
