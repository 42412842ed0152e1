"""Namespaces in a folder of names of our own: an agent that serves whatever it finds must find nobody else's."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from fastmeta.lab.namespaces import in_thread
from fastmeta.netns.namespaces import CLONE_NEWNET

_MS_BIND = 4096
_MNT_DETACH = 2
_PREFIX = "fmd-"
_LIBC = ctypes.CDLL(None, use_errno=True)


def _must(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class Namespaces:
    """The folder, from entering to leaving; afterwards nothing of it is left, nor of one of a run that was killed."""

    def __enter__(self) -> Namespaces:
        for old in Path("/tmp").glob(f"{_PREFIX}*"):
            if not os.path.exists(f"/proc/{old.name.split('-')[1]}"):
                _remove_all(old)
        self.folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir="/tmp"))
        return self

    def __exit__(self, *_: object) -> None:
        _remove_all(self.folder)

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def add(self, name: str, *, wait: float = 0.0, then: Callable[[], None] = lambda: None) -> str:
        """As `ip netns add` does it: first the name, then (wait: seconds later) what is mounted on it. Gives its path,
        which fastmeta.lab takes in place of a name. then: done in it."""
        path = self.path(name)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY, 0o644))

        def make() -> None:
            _must(_LIBC.unshare(CLONE_NEWNET))
            time.sleep(wait)
            source, target = b"/proc/thread-self/ns/net", path.encode()
            _must(_LIBC.mount(source, target, b"none", ctypes.c_ulong(_MS_BIND), None))
            then()

        in_thread(make)
        return path

    def remove(self, name: str) -> None:
        """As `ip netns delete` does it."""
        _remove(self.folder / name)

    def names(self) -> list[str]:
        return [path.name for path in self.folder.iterdir()]


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # nothing is mounted there (yet)
        _must(_LIBC.umount2(str(path).encode(), _MNT_DETACH))
    path.unlink()


def _remove_all(folder: Path) -> None:
    for path in folder.iterdir():
        _remove(path)
    shutil.rmtree(folder)
