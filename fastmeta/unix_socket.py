"""Opens unix sockets: never in place of one that somebody listens on, always in place of one that nobody does, and
with the right mode from the moment on at which they have their name. And who is at the other end of one."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
from dataclasses import dataclass

from fastmeta.exceptions import ListenError

BACKLOG = (1 << 16) - 1
"""Connections that may wait to be accepted, as far as net.core.somaxconn lets them."""

SOMAXCONN = "/proc/sys/net/core/somaxconn"

_CREDENTIALS = struct.Struct("3i")  # struct ucred of unix(7)


@dataclass(frozen=True, slots=True)
class UnixSocket:
    """An open socket. fd: the caller's, non-blocking, close-on-exec. waiting: how many connections may. owner: of its
    folder."""

    path: str
    fd: int
    waiting: int
    owner: int
    identity: tuple[int, int]

    def unlink(self) -> None:
        """Takes its name away, if it is still ours: another agent may have taken our place."""
        with contextlib.suppress(OSError):
            if _identity(self.path) == self.identity:
                os.unlink(self.path)


def open_unix_socket(
    path: str, mode: int, *, name: str, rival: str, kind: int = socket.SOCK_STREAM
) -> UnixSocket:
    """In a folder that is there. name: of what the path is, for errors; rival: what to say to who finds that somebody
    listens there already. Raises ListenError, which says who."""
    named = f"{name} = {path}"
    _check_nobody_listens(path, named, rival, kind)
    made = f"{path}.{os.getpid()}"
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
        listening.setblocking(False)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(made)  # of a process that had our number, and was killed
            # Not by chmod(2), which follows what another process of the folder's owner may have put there meanwhile.
            before = os.umask(0o777 & ~mode)
            try:
                listening.bind(made)
            finally:
                os.umask(before)
            stack.callback(_unlink_if_there, made)
            listening.listen(BACKLOG)
            identity = _identity(made)
            owner = os.stat(os.path.dirname(path)).st_uid
            os.rename(made, path)
        except OSError as error:
            raise ListenError(f"{named}: {error.strerror or error}") from error
        return UnixSocket(path, listening.detach(), _waiting(), owner, identity)


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """Process and user at the other end, as they were when they connected or listened (SO_PEERCRED of unix(7))."""
    process, user, _ = _CREDENTIALS.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    return process, user


def _check_nobody_listens(path: str, named: str, rival: str, kind: int) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise ListenError(f"{named}: that is there, and no socket; move it away")
    except FileNotFoundError:
        return
    except OSError as error:
        raise ListenError(f"{named}: {error.strerror}") from error
    with socket.socket(socket.AF_UNIX, kind) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
            who = _described(peer_of(probe)[0])
        except (ConnectionRefusedError, FileNotFoundError):
            return  # whoever made it has ended
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise ListenError(
                    f"{named}: whether somebody listens there cannot be told: {error.strerror}"
                ) from error
            who = "a process that does not accept connections fast enough"
    raise ListenError(f"{named}: somebody listens there already: {who}; {rival}")


def _described(pid: int) -> str:
    """A process, with its name if it is one that we can see."""
    if pid <= 0:  # of another PID namespace
        return "a process that cannot be seen from here"
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(4096).split(b"\0")
    except OSError:
        return f"process {pid}"
    shown = " ".join(word.decode("ascii", "replace") for word in words if word)[:120]
    return f"process {pid} ({ascii(shown)[1:-1]})" if shown else f"process {pid}"


def _identity(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def _unlink_if_there(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def _waiting() -> int:
    try:
        with open(SOMAXCONN, encoding="ascii") as file:
            return min(BACKLOG, int(file.read()))
    except (OSError, ValueError):
        return BACKLOG
