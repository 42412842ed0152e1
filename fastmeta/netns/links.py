"""The links (interfaces) of namespaces, followed: which index is which name and which MAC, now.

A link-local peer is known by its address and the index of the interface that it was heard on; what that
interface is, only its namespace's kernel can say, and it changes.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from oslo_log import log as logging

from fastmeta.exceptions import NamespaceError
from fastmeta.netns.rtnetlink import KernelTable, attributes

LOG = logging.getLogger(__name__)

_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_RTM_NEWLINK = 16
_RTM_DELLINK = 17
_RTM_GETLINK = 18
_RTMGRP_LINK = 1
_IFLA_ADDRESS = 1
_IFLA_IFNAME = 3


@dataclass(frozen=True, slots=True)
class Link:
    """mac: None for links that have no address of 6 bytes."""

    name: str
    mac: str | None


class LinkTable(KernelTable):
    """The links of one namespace."""

    what = "links"
    groups = _RTMGRP_LINK
    request = (_RTM_GETLINK, _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0))

    def __init__(self, namespace_path: str | None = None) -> None:
        """As of KernelTable. What update() tells of is an index, a name or a MAC."""
        self._links: dict[int, Link] = {}
        super().__init__(namespace_path)

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

    def clear(self) -> None:
        self._links = {}

    def take(self, kind: int, body: bytes) -> bool:
        if kind not in (_RTM_NEWLINK, _RTM_DELLINK):
            return False
        family, _, index, _, _ = _LINK.unpack_from(body)
        # A bridge tells with messages of its own family what its ports are, and that a link is none any more.
        if family != socket.AF_UNSPEC:
            return False
        if kind == _RTM_DELLINK:
            return self._links.pop(index, None) is not None
        found = attributes(body[_LINK.size :])
        address = found.get(_IFLA_ADDRESS, b"")
        link = Link(
            name=found.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode("utf-8", "backslashreplace"),
            mac=address.hex(":") if len(address) == 6 else None,
        )
        changed = self._links.get(index) != link
        self._links[index] = link
        return changed


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
