"""Names of namespaces in which proxies are: when a name goes, nothing of its namespace is to be served any more.

Neutron's agents end a proxy before they delete its namespace; this is for when somebody else does, or the proxy would
not end. A holder, and the sockets, would keep the namespace with all of its interfaces.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from fastmeta.folders import FolderWatcher, Seen
from fastmeta.models import ScopeKind
from fastmeta.netns.namespaces import namespace_inode
from fastmeta.stand_in.message import HandOver

_PREFIXES = {ScopeKind.NETWORK: ("qdhcp-", "ovnmeta-"), ScopeKind.ROUTER: ("qrouter-",)}


class NamespaceNames:
    """Lives in the event loop's thread. on_gone(namespace) is called with device and inode, as proxies have them."""

    def __init__(self, folder: str, on_gone: Callable[[tuple[int, int]], None]) -> None:
        self._folder = folder
        self._on_gone = on_gone
        self._names: dict[str, tuple[int, int]] = {}
        self._known: dict[tuple[int, int], str] = {}

    def start(self, folders: FolderWatcher) -> None:
        """Raises ConfigError when the folder may not be watched; it need not exist."""
        folders.watch(self._folder, self._seen)

    def follow(self, claim: HandOver) -> None:
        """A proxy is in this namespace. One that has no name here is not followed."""
        for name in self._candidates(claim):
            if self._inode(name) == claim.namespace[1]:
                self._names[name] = claim.namespace
                self._known[claim.namespace] = name
                return

    def name(self, namespace: tuple[int, int]) -> str | None:
        """Of one that is followed."""
        return self._known.get(namespace)

    def _candidates(self, claim: HandOver) -> Iterator[str]:
        """The likely ones first: there may be thousands."""
        for prefix in _PREFIXES[claim.scope.kind]:
            yield prefix + claim.scope.uuid
        try:
            yield from os.listdir(self._folder)
        except OSError:
            return

    def _inode(self, name: str) -> int | None:
        return namespace_inode(os.path.join(self._folder, name))

    def _seen(self, seen: Seen, name: str) -> None:
        if seen is Seen.ANEW:
            for known in list(self._names):
                self._look(known)
        elif seen is Seen.GONE:
            self._look(name)

    def _look(self, name: str) -> None:
        namespace = self._names.get(name)
        if namespace is not None and self._inode(name) != namespace[1]:
            del self._names[name]
            self._known.pop(namespace, None)
            self._on_gone(namespace)
