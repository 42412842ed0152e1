"""Named network namespaces: made, entered and removed, without touching the calling thread's own."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from fastmeta.exceptions import LabError
from fastmeta.netns.namespaces import in_namespace, namespace_inode

NETNS_FOLDER = Path("/run/netns")
"""Where `ip netns` keeps names, and where Neutron's agents and ours look for them."""

_COMMAND_TIMEOUT = 30.0
"""Seconds for one call of ip or iptables; they take milliseconds unless the machine hangs."""

_T = TypeVar("_T")


def sbin_environment() -> dict[str, str]:
    """Our environment with the sbin folders in PATH: an ordinary user of Debian does not have them there."""
    path = os.environ.get("PATH", "/usr/bin:/bin")
    return {**os.environ, "PATH": f"{path}:/usr/local/sbin:/usr/sbin:/sbin"}


def run_command(command: Sequence[str], text: str = "") -> str:
    """Standard output of a program that must succeed; text goes to its standard input.

    Raises LabError with what the program said, or that it is not installed."""
    try:
        done = subprocess.run(
            command,
            input=text,
            text=True,
            capture_output=True,
            timeout=_COMMAND_TIMEOUT,
            check=False,
            env=sbin_environment(),
        )
    except FileNotFoundError as error:
        raise LabError(f"the program {command[0]!r} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{' '.join(command)}: no end after {_COMMAND_TIMEOUT:.0f} s") from error
    if done.returncode:
        raise LabError(f"{' '.join(command)}: {done.stderr.strip() or f'exit status {done.returncode}'}")
    return done.stdout


def in_thread(work: Callable[[], _T]) -> _T:
    """What work returns or raises, run in a thread of its own.

    A signal handler that raises (Ctrl-C) does so in the main thread only. The work is then finished before
    the exception goes on, so that it is always done whole or not at all, and what it records is true.
    """
    results: list[_T] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        # Programs that are started inherit this. Ctrl-C reaches the terminal's whole group, and would end ip in
        # the middle of its work.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        try:
            results.append(work())
        except BaseException as error:  # raised again in the caller's thread
            errors.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=run, name="lab", daemon=True)
    try:
        thread.start()
        done.wait()
    except BaseException:
        # Bounded, because the signal may have come before the thread did.
        done.wait(_COMMAND_TIMEOUT if thread.ident else 1.0)
        raise
    if errors:
        raise errors[0]
    return results[0]


def inside(name: str, work: Callable[[], _T]) -> _T:
    """What work returns or raises, run in a thread inside a named namespace; the caller stays where it is.

    Raises NamespaceError when it cannot be entered."""
    return in_thread(lambda: in_namespace(str(NETNS_FOLDER / name), work))


def make_namespace(name: str) -> None:
    """Raises LabError, also when the name exists already."""
    if (NETNS_FOLDER / name).exists():
        raise LabError(f"the namespace {name} exists already in {NETNS_FOLDER}, and is not this lab's")
    run_command(["ip", "netns", "add", name])


def inode_of(name: str) -> int | None:
    """The number that tells a namespace from a later one of the same name; None when there is none."""
    return namespace_inode(str(NETNS_FOLDER / name))


def remove_namespace(name: str) -> None:
    """Takes the name away; the namespace itself ends with the last process and socket in it. Raises
    LabError."""
    run_command(["ip", "netns", "delete", name])
