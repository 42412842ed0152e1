"""What stand-ins have in the control folder, which nobody but root and our own user gets into: the socket on which they
hand over, and the folder of the holders' sockets."""

from __future__ import annotations

import contextlib
import os
import socket

from fastmeta.control.server import make_folder
from fastmeta.unix_socket import UnixSocket, open_unix_socket

SOCKET = "stand-ins"
HOLDERS = "holders"


class StandInFolder:
    """From open() to close()."""

    def __init__(self, control_dir: str) -> None:
        self.path = os.path.join(control_dir, SOCKET)
        self.holders = os.path.join(control_dir, HOLDERS)
        self._control_dir = control_dir
        self._descriptor = -1
        self._socket: UnixSocket | None = None

    def open(self) -> socket.socket:
        """Makes what is missing, and gives the listening socket. Raises ListenError."""
        for folder in (self._control_dir, self.holders):
            make_folder(folder)
        self._descriptor = os.open(self.holders, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._socket = open_unix_socket(
            self.path,
            0o600,
            name="the stand-ins' socket",
            rival="give each agent a [fastmeta] control_dir of its own",
            kind=socket.SOCK_SEQPACKET,
        )
        return socket.socket(fileno=self._socket.fd)

    def close(self) -> None:
        """Stand-ins find nobody any more; the holders' sockets stay."""
        if self._socket is not None:
            self._socket.unlink()
            self._socket = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def names(self) -> list[str]:
        """Of the holders that have a socket, and perhaps of others; those that began last come last, so that a
        successor is met after its predecessor."""
        with os.scandir(self.holders) as entries:
            return [entry.name for entry in sorted(entries, key=_began)]

    def connect(self, holder: str) -> socket.socket:
        """To a holder, without blocking. Raises OSError: ConnectionRefusedError when it has ended, FileNotFoundError,
        BlockingIOError when it does not accept."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.setblocking(False)
            # However long the folder's path is, that of a socket may have 107 bytes.
            connection.connect(f"/proc/self/fd/{self._descriptor}/{holder}")
        except BaseException:
            connection.close()
            raise
        return connection

    def forget(self, holder: str) -> None:
        """Removes the socket of a holder that has ended."""
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self.holders, holder))


def _began(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_mtime_ns
    except OSError:  # it has just gone
        return 0
