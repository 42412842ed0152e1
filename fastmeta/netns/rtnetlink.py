"""Tables that the kernel keeps for a namespace (its links, its addresses), listed once and followed from then on, by
rtnetlink(7). Spoken by hand, because a library's socket brings its own event loop and threads, for each of thousands of
namespaces."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct

from oslo_log import log as logging

from fastmeta.exceptions import NamespaceError
from fastmeta.netns.namespaces import in_namespace

LOG = logging.getLogger(__name__)

READ_SIZE = 64 * 1024
"""Bytes read at once; the kernel makes no message of a dump larger than 32 KiB."""
MAX_LISTINGS = 10
"""How often a table is listed anew when it changes, or messages are lost, while it is being listed."""
LIST_TIMEOUT = 1.0
"""Seconds for a part of the list, which the kernel makes while it is being read: it never takes any."""

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port id
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr: length, type
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLM_F_REQUEST = 0x1
_NLM_F_DUMP_INTR = 0x10
_NLM_F_DUMP = 0x300


class KernelTable:
    """One table of one namespace. close() it when the namespace's name goes: its socket keeps that alive."""

    what = ""
    """What is in it, for texts."""
    groups = 0
    """Of rtnetlink(7): where its changes are told."""
    request = (0, b"")
    """The type and the body of the message that asks for all of it."""

    def __init__(self, namespace_path: str | None = None, *, entered: bool = False) -> None:
        """namespace_path: as of in_namespace; None for our own. entered: the calling thread is in it already. Raises
        NamespaceError (NamespaceNotFoundError)."""
        self._where = f"namespace {namespace_path}" if namespace_path else "our own namespace"
        try:
            if namespace_path and not entered:
                self._socket = in_namespace(namespace_path, self._open)
            else:
                self._socket = self._open()
        except OSError as error:
            raise self._failure(error) from error
        try:
            self._list()
        except OSError as error:
            self._socket.close()
            raise self._failure(error) from error

    def clear(self) -> None:
        """Forgets what it has."""
        raise NotImplementedError

    def take(self, kind: int, body: bytes) -> bool:
        """Takes in one message (of any type); whether it changes anything. Raises OSError."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing is known any more."""
        self.clear()
        self._socket.close()

    def fileno(self) -> int:
        """Readable when the kernel has something to tell: then call update()."""
        return self._socket.fileno()

    def update(self) -> bool:
        """Takes in what the kernel has told. True when anything has changed since, even if it has changed back. Does
        not block. Raises NamespaceError: then nothing is known any more."""
        changed = lost = False
        try:
            while True:
                try:
                    data, sender = self._socket.recvfrom(READ_SIZE)
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        raise
                    lost = True  # netlink(7): messages were dropped, what was kept is read first
                else:
                    changed |= self._take(data, sender).changed
            if lost:
                LOG.warning(
                    "%s: the kernel dropped messages about %s: listing them anew", self._where, self.what
                )
                self._list()
        except OSError as error:
            self.clear()
            raise self._failure(error) from error
        return changed or lost

    def _failure(self, error: OSError) -> NamespaceError:
        return NamespaceError(f"{self._where}: its {self.what} cannot be followed: {error.strerror or error}")

    def _open(self) -> socket.socket:
        """A netlink socket belongs to the namespace in which it is made, wherever it is used afterwards."""
        opened = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,
            socket.NETLINK_ROUTE,
        )
        try:
            opened.bind((0, self.groups))
        except BaseException:
            opened.close()
            raise
        return opened

    def _list(self) -> None:
        """Asks for all of it, on the socket that tells of changes too: its order is that of what happened, so that
        what goes or comes meanwhile is told of after it was listed."""
        for _ in range(MAX_LISTINGS):
            if self._list_once():
                return
        raise OSError(errno.EAGAIN, f"they changed each of {MAX_LISTINGS} times while they were listed")

    def _list_once(self) -> bool:
        """False when it must be done again: the list is not of one moment, or messages were lost."""
        self.clear()
        kind, body = self.request
        self._socket.send(
            _HEADER.pack(_HEADER.size + len(body), kind, _NLM_F_REQUEST | _NLM_F_DUMP, 0, 0) + body
        )
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        whole = True
        while True:
            try:
                data, sender = self._socket.recvfrom(READ_SIZE)
            except BlockingIOError:
                if not poll.poll(LIST_TIMEOUT * 1000):
                    raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None
                continue
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                whole = False
                continue
            taken = self._take(data, sender)
            whole = whole and not taken.interrupted
            if taken.done:
                return whole

    def _take(self, data: bytes, sender: tuple[int, int]) -> _Taken:
        """Takes in one datagram of messages. Raises OSError when one of them reports an error."""
        taken = _Taken()
        if sender[0] != 0:  # netlink(7): only the kernel has port id 0
            return taken
        at = 0
        while at + _HEADER.size <= len(data):
            length, kind, flags, _, _ = _HEADER.unpack_from(data, at)
            if length < _HEADER.size or at + length > len(data):
                raise OSError(errno.EBADMSG, "a message that is cut off")
            body = data[at + _HEADER.size : at + length]
            at += (length + 3) & ~3
            taken.interrupted |= bool(flags & _NLM_F_DUMP_INTR)
            if kind == _NLMSG_DONE:
                taken.done = True
            elif kind == _NLMSG_ERROR:
                code = -struct.unpack_from("=i", body)[0]
                raise OSError(code, os.strerror(code))
            else:
                taken.changed |= self.take(kind, body)
        return taken


class _Taken:
    """What was in a datagram."""

    __slots__ = ("changed", "done", "interrupted")

    def __init__(self) -> None:
        self.changed = self.done = self.interrupted = False


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes of a message, by their types. Raises OSError."""
    found = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size or at + length > len(data):
            raise OSError(errno.EBADMSG, "an attribute that is cut off")
        found[kind] = data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
    return found
