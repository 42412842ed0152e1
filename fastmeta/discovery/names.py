"""The names of namespaces that Neutron's agents make, as they come and go in the folder of names."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection

from fastmeta.folders import FolderWatcher, Seen
from fastmeta.models import parse_uuid
from fastmeta.netns.watch import NamespaceWatch

QROUTER, SNAT, QDHCP = "qrouter-", "snat-", "qdhcp-"
"""What stands before the id of the router or network."""


def uuid_of(name: str, prefix: str) -> str | None:
    """The id in the name of a namespace, None where it is not one of these."""
    uuid = parse_uuid(name.removeprefix(prefix)) if name.startswith(prefix) else None
    return uuid if name == f"{prefix}{uuid}" else None


def namespaces_in(folder: str, prefixes: Collection[str]) -> list[str]:
    """Names there that have one of these prefixes and then an id, whether anything is mounted on them or not."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return sorted(name for name in names if any(uuid_of(name, prefix) for prefix in prefixes))


class Names:
    """Follows the namespaces whose names begin with one of the prefixes. Lives in the event loop's thread.

    on_appear(name) and on_gone(name) as of NamespaceWatch.
    """

    def __init__(
        self,
        folder: str,
        folders: FolderWatcher,
        prefixes: Collection[str],
        *,
        on_appear: Callable[[str], None],
        on_gone: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._folders = folders
        self._prefixes = prefixes
        self._on_gone = on_gone
        self._names: set[str] = set()
        self._watch = NamespaceWatch(folder, folders, on_appear=on_appear, on_gone=self._gone)

    def start(self) -> None:
        """Calls on_appear for those that are there, then follows them. Raises ConfigError as NamespaceWatch.start."""
        # Before the watch's own, so that it knows a name when it is told of it.
        self._folders.watch(self._folder, self._seen)
        self._watch.start()
        self._look_at_all()

    def stop(self) -> None:
        """Nothing is called any more."""
        self._watch.stop()

    def path(self, name: str) -> str:
        """The file on which the namespace of this name is mounted."""
        return self._watch.path(name)

    def _seen(self, seen: Seen, name: str) -> None:
        if seen is Seen.ANEW:
            self._look_at_all()
        elif seen in (Seen.CREATED, Seen.MOVED_IN):
            self._add([name])
        elif seen is Seen.GONE and not self._watch.knows(name):
            self._forget(name)  # it went before anything was mounted on it

    def _look_at_all(self) -> None:
        self._add(namespaces_in(self._folder, self._prefixes))

    def _add(self, names: Collection[str]) -> None:
        fresh = [
            name
            for name in names
            if name not in self._names and any(uuid_of(name, prefix) for prefix in self._prefixes)
        ]
        self._names.update(fresh)
        self._watch.add(fresh)

    def _gone(self, name: str) -> None:
        self._forget(name)
        self._on_gone(name)

    def _forget(self, name: str) -> None:
        # Under a name that is there (again) another namespace may be, or come.
        if name in self._names and not os.path.lexists(self._watch.path(name)):
            self._names.discard(name)
            self._watch.forget(name)
