"""Being in another network namespace for a moment, and knowing which one a name stands for."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from fastmeta.exceptions import NamespaceError, NamespaceNotFoundError

CLONE_NEWNET = 0x40000000

Result = TypeVar("Result")


def namespace_inode(path: str) -> int | None:
    """The inode of the namespace that is mounted on path, or None when there is none (yet).

    ``ip netns add`` creates the name first and mounts the namespace on it some time later, without an event.
    A namespace has the device of the kernel's one nsfs, which our own namespace has too. Inodes of namespaces
    that have ended are used again; one that a socket of ours is in has not ended.
    """
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino if status.st_dev == os.stat("/proc/self/ns/net").st_dev else None


def in_namespace(path: str, function: Callable[[], Result]) -> Result:
    """Runs function in the namespace that is mounted on path, in a thread of its own that ends with it.

    What function raises is raised here. Raises NamespaceNotFoundError when there is no namespace on path,
    NamespaceError when it may not be entered.
    """
    (result,) = in_namespaces([(path, function)])
    if isinstance(result, Raised):
        raise result.error
    return result


@dataclass(frozen=True)
class Raised:
    """In place of a result: what was raised instead."""

    error: BaseException


def in_namespaces(visits: Sequence[tuple[str, Callable[[], Result]]]) -> list[Result | Raised]:
    """The same for many paths, each with its function: what they return or raise, in order.

    setns(2) moves one thread, and whatever that thread starts; so none that goes on to other work may be moved. One
    thread makes all the visits and ends with the last one: to start one costs more than to open a socket.
    """
    results: list[Result | Raised] = []
    thread = threading.Thread(target=_visit_all, args=(visits, results), name="visitor of namespaces")
    try:
        thread.start()
    except RuntimeError as error:
        message = "no thread can be started to enter it"
        failed = [NamespaceError(f"namespace {path}: {message}") for path, _ in visits]
        for one in failed:
            one.__cause__ = error
        return [Raised(one) for one in failed]
    thread.join()
    return results


def _visit_all(visits: Sequence[tuple[str, Callable[[], Result]]], results: list[Result | Raised]) -> None:
    for path, function in visits:
        try:
            enter(path)
            results.append(function())
        except BaseException as error:
            results.append(Raised(error))


def enter(path: str) -> None:
    """Moves the calling thread, for good: let it end, or enter another one. Raises as in_namespace does."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise NamespaceNotFoundError(f"namespace {path}: does not exist") from None
    except OSError as error:
        raise NamespaceError(f"namespace {path}: {error.strerror}") from error
    try:
        if os.fstat(fd).st_dev != os.stat("/proc/self/ns/net").st_dev:
            raise NamespaceNotFoundError(
                f"namespace {path}: there is a file, but no namespace is mounted on it"
            )
        _setns(path, fd)
    finally:
        # An open descriptor would keep a deleted namespace alive.
        os.close(fd)


@functools.cache
def _libc() -> ctypes.CDLL:
    """For setns(2): os.setns exists only from Python 3.12."""
    return ctypes.CDLL(None, use_errno=True)


def _setns(path: str, fd: int) -> None:
    if _libc().setns(ctypes.c_int(fd), ctypes.c_int(CLONE_NEWNET)) == 0:
        return
    code = ctypes.get_errno()
    if code == errno.EPERM:
        raise NamespaceError(f"namespace {path}: may not be entered: CAP_SYS_ADMIN is missing")
    if code == errno.EINVAL:
        raise NamespaceError(f"namespace {path}: is not a network namespace")
    raise NamespaceError(f"namespace {path}: cannot be entered: {os.strerror(code)}")
