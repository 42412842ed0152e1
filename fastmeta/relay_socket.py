"""Opens the agent's unix socket: never in place of one that somebody listens on, always in place of one that nobody
does, and with the right mode from the moment on at which it has its name."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
from dataclasses import dataclass

from fastmeta.conf.relay import RelaySpec
from fastmeta.exceptions import ListenError

BACKLOG = (1 << 16) - 1
"""Connections that may wait to be accepted, as far as net.core.somaxconn lets them."""

SOMAXCONN = "/proc/sys/net/core/somaxconn"

_CREDENTIALS = struct.Struct("3i")  # struct ucred of unix(7)


@dataclass(frozen=True, slots=True)
class RelaySocket:
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


def open_relay_socket(spec: RelaySpec) -> RelaySocket:
    """Raises ListenError, which says who is in the way."""
    path = spec.path
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise ListenError(
            f"metadata_proxy_socket = {path}: there is no folder {folder}; make it, as the user that fastmeta runs as, "
            "or give another path (the same as the L3 and DHCP agents have)"
        )
    _check_nobody_listens(path)
    made = f"{path}.{os.getpid()}"
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listening.setblocking(False)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(made)  # of a process that had our number, and was killed
            # Not by chmod(2), which follows what another process of the folder's owner may have put there meanwhile.
            before = os.umask(0o777 & ~spec.mode)
            try:
                listening.bind(made)
            finally:
                os.umask(before)
            stack.callback(_unlink_if_there, made)
            listening.listen(BACKLOG)
            identity = _identity(made)
            owner = os.stat(folder).st_uid
            os.rename(made, path)
        except OSError as error:
            raise ListenError(f"metadata_proxy_socket = {path}: {error.strerror or error}") from error
        return RelaySocket(path, listening.detach(), _waiting(), owner, identity)


def _check_nobody_listens(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise ListenError(f"metadata_proxy_socket = {path}: that is there, and no socket; move it away")
    except FileNotFoundError:
        return
    except OSError as error:
        raise ListenError(f"metadata_proxy_socket = {path}: {error.strerror}") from error
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
            credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            who = _described(_CREDENTIALS.unpack(credentials)[0])
        except (ConnectionRefusedError, FileNotFoundError):
            return  # whoever made it has ended
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise ListenError(
                    f"metadata_proxy_socket = {path}: whether somebody listens there cannot be told: {error.strerror}"
                ) from error
            who = "a process that does not accept connections fast enough"
    raise ListenError(
        f"metadata_proxy_socket = {path}: somebody listens there already: {who}; does neutron-metadata-agent still "
        "run? Stop it first"
    )


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
