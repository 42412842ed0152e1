"""The links (interfaces) of namespaces, followed by rtnetlink: which index is which name and which MAC, now.

A link-local peer is known by its address and the index of the interface that it was heard on; what that
interface is, only its namespace's kernel can say, and it changes. Spoken by hand (three types of messages, two
attributes: rtnetlink(7)), because a library's socket brings its own event loop and threads, for each of
thousands of namespaces.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from oslo_log import log as logging

from fastmeta.exceptions import NamespaceError
from fastmeta.netns.namespaces import in_namespace

LOG = logging.getLogger(__name__)

READ_SIZE = 64 * 1024
"""Bytes read at once; the kernel makes no message of a dump larger than 32 KiB."""
MAX_LISTINGS = 10
"""How often links are listed anew when they change, or messages are lost, while they are being listed."""
LIST_TIMEOUT = 1.0
"""Seconds for a part of the list, which the kernel makes while it is being read: it never takes any."""

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port id
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr: length, type
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_RTM_NEWLINK = 16
_RTM_DELLINK = 17
_RTM_GETLINK = 18
_NLM_F_REQUEST = 0x1
_NLM_F_DUMP_INTR = 0x10
_NLM_F_DUMP = 0x300
_RTMGRP_LINK = 1
_IFLA_ADDRESS = 1
_IFLA_IFNAME = 3


@dataclass(frozen=True, slots=True)
class Link:
    """mac: None for links that have no address of 6 bytes."""

    name: str
    mac: str | None


class LinkTable:
    """The links of one namespace. close() it when the namespace's name goes: its socket keeps that alive."""

    def __init__(self, namespace_path: str | None = None) -> None:
        """namespace_path: as of in_namespace; None for our own. Raises NamespaceError
        (NamespaceNotFoundError)."""
        self._where = f"namespace {namespace_path}" if namespace_path else "our own namespace"
        self._links: dict[int, Link] = {}
        try:
            self._socket = in_namespace(namespace_path, _open) if namespace_path else _open()
        except OSError as error:
            raise self._failure(error) from error
        try:
            self._list()
        except OSError as error:
            self._socket.close()
            raise self._failure(error) from error

    def close(self) -> None:
        """Nothing is known any more."""
        self._links = {}
        self._socket.close()

    def fileno(self) -> int:
        """Readable when the kernel has something to tell: then call update()."""
        return self._socket.fileno()

    def update(self) -> bool:
        """Takes in what the kernel has told. True when an index, a name or a MAC has changed since, even if
        it has changed back. Does not block. Raises NamespaceError: then nothing is known any more."""
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
                LOG.warning("%s: the kernel dropped messages about links: listing them anew", self._where)
                self._list()
        except OSError as error:
            self._links = {}
            raise self._failure(error) from error
        return changed or lost

    def index(self, name: str) -> int | None:
        """The index of the link of this name."""
        for index, link in self._links.items():
            if link.name == name:
                return index
        return None

    def mac(self, index: int) -> str | None:
        """The MAC of the link of this index; None when there is none, or another link has the same one: a
        MAC stands for a link only where it is the only one."""
        link = self._links.get(index)
        if link is None or link.mac is None:
            return None
        alike = sum(other.mac == link.mac for other in self._links.values())
        return link.mac if alike == 1 else None

    def _failure(self, error: OSError) -> NamespaceError:
        return NamespaceError(f"{self._where}: its links cannot be followed: {error.strerror or error}")

    def _list(self) -> None:
        """Asks for all links, on the socket that tells of changes too: its order is that of what happened, so
        that a link which goes or comes meanwhile is told of after it was listed."""
        for _ in range(MAX_LISTINGS):
            if self._list_once():
                return
        raise OSError(errno.EAGAIN, f"they changed each of {MAX_LISTINGS} times while they were listed")

    def _list_once(self) -> bool:
        """False when it must be done again: the list is not of one moment, or messages were lost."""
        self._links = {}
        request = _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        self._socket.send(
            _HEADER.pack(_HEADER.size + len(request), _RTM_GETLINK, _NLM_F_REQUEST | _NLM_F_DUMP, 0, 0)
            + request
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
            elif kind in (_RTM_NEWLINK, _RTM_DELLINK):
                taken.changed |= self._apply(kind, body)
        return taken

    def _apply(self, kind: int, body: bytes) -> bool:
        """Whether the message about one link changes anything."""
        family, _, index, _, _ = _LINK.unpack_from(body)
        # A bridge tells with messages of its own family what its ports are, and that a link is none any more.
        if family != socket.AF_UNSPEC:
            return False
        if kind == _RTM_DELLINK:
            return self._links.pop(index, None) is not None
        attributes = _attributes(body[_LINK.size :])
        address = attributes.get(_IFLA_ADDRESS, b"")
        link = Link(
            name=attributes.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode("utf-8", "backslashreplace"),
            mac=address.hex(":") if len(address) == 6 else None,
        )
        changed = self._links.get(index) != link
        self._links[index] = link
        return changed


class _Taken:
    """What was in a datagram."""

    __slots__ = ("changed", "done", "interrupted")

    def __init__(self) -> None:
        self.changed = self.done = self.interrupted = False


def _open() -> socket.socket:
    """A netlink socket belongs to the namespace in which it is made, wherever it is used afterwards."""
    opened = socket.socket(
        socket.AF_NETLINK,
        socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,
        socket.NETLINK_ROUTE,
    )
    try:
        opened.bind((0, _RTMGRP_LINK))
    except BaseException:
        opened.close()
        raise
    return opened


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size or at + length > len(data):
            raise OSError(errno.EBADMSG, "an attribute that is cut off")
        found[kind] = data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
    return found


class LinkWatch:
    """Follows the links of some namespaces, known by their names (None: our own). Lives in the event loop's
    thread.

    on_change(namespace) is called when links of a namespace have changed, or cannot be followed any more.
    """

    def __init__(self, on_change: Callable[[str | None], None]) -> None:
        self._on_change = on_change
        self._tables: dict[str | None, LinkTable] = {}

    def follow(self, namespace: str | None, path: str | None) -> None:
        """From now on; nothing happens when it is followed already. path: as of LinkTable. Raises
        NamespaceError."""
        if namespace in self._tables:
            return
        table = LinkTable(path)
        self._tables[namespace] = table
        asyncio.get_running_loop().add_reader(table.fileno(), self._update, namespace)

    def forget(self, namespace: str | None) -> None:
        """The namespace is gone, or of no interest any more."""
        table = self._tables.pop(namespace, None)
        if table is not None:
            asyncio.get_running_loop().remove_reader(table.fileno())
            table.close()

    def follows(self, namespace: str | None) -> bool:
        """Whether it is followed (still: see on_change)."""
        return namespace in self._tables

    def stop(self) -> None:
        """Forgets all."""
        for namespace in list(self._tables):
            self.forget(namespace)

    def index(self, namespace: str | None, name: str) -> int | None:
        """As of LinkTable; None when the namespace is not followed."""
        table = self._tables.get(namespace)
        return table.index(name) if table is not None else None

    def mac(self, namespace: str | None, index: int) -> str | None:
        """As of LinkTable, at this very moment: what the kernel has told is taken in before, and on_change
        called first."""
        if namespace in self._tables:
            self._update(namespace)
        table = self._tables.get(namespace)
        return table.mac(index) if table is not None else None

    def _update(self, namespace: str | None) -> None:
        failure = ""
        changed = True
        try:
            changed = self._tables[namespace].update()
        except NamespaceError as error:
            failure = str(error)
        if failure:  # (outside of except, where oslo.log would say it twice)
            LOG.error("%s", failure)
            self.forget(namespace)
        if changed:
            self._on_change(namespace)
