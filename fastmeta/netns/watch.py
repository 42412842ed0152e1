"""Sees namespaces come and go in the folder of their names (``/run/netns``), by inotify."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable

from fastmeta.folders import FolderWatcher, Seen
from fastmeta.netns.namespaces import namespace_inode

FIRST_PAUSE = 0.001
LONGEST_PAUSE = 1.0
"""Seconds until a name on which nothing is mounted yet is looked at again: doubled each time. The mount comes
0.5 ms after the name, usually; no event tells of it."""


class NamespaceWatch:
    """Follows the namespaces of the names that are added. Lives in the event loop's thread.

    on_appear(name) is called when a namespace is there and can be entered, on_gone(name) when its name was
    deleted (the namespace itself lives on while any socket is in it). Another namespace under the same name
    is gone and appear.
    """

    def __init__(
        self,
        folder: str,
        folders: FolderWatcher,
        *,
        on_appear: Callable[[str], None],
        on_gone: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._names: set[str] = set()
        self._folders = folders
        self._on_appear = on_appear
        self._on_gone = on_gone
        self._inodes: dict[str, int] = {}
        self._retries: dict[str, asyncio.TimerHandle] = {}
        self._started = False
        self._stopped = False

    def start(self) -> None:
        """Follows (once is enough). Raises ConfigError when the folder may not be watched; it need not exist
        (``ip netns add`` creates it)."""
        if not self._started:
            self._folders.watch(self._folder, self._seen)
            self._started = True

    def add(self, names: Iterable[str]) -> None:
        """Calls on_appear for those that are there, then follows them, if started. Those that were added before are
        not told of again."""
        for name in names:
            self._names.add(name)
            self._look(name, FIRST_PAUSE)

    def forget(self, name: str) -> None:
        """It is not followed any more, and nothing is called for it."""
        self._names.discard(name)
        self._inodes.pop(name, None)
        retry = self._retries.pop(name, None)
        if retry is not None:
            retry.cancel()

    def knows(self, name: str) -> bool:
        """Whether its namespace is there, as far as has been told."""
        return name in self._inodes

    def stop(self) -> None:
        """Nothing is called any more."""
        self._stopped = True
        for retry in self._retries.values():
            retry.cancel()
        self._retries.clear()

    def path(self, name: str) -> str:
        """The file on which the namespace of this name is mounted."""
        return os.path.join(self._folder, name)

    def _seen(self, seen: Seen, name: str) -> None:
        if self._stopped:
            return
        if seen is Seen.ANEW:
            self._look_at_all()
        elif seen is not Seen.WRITTEN and name in self._names:
            self._look(name, FIRST_PAUSE)

    def _look_at_all(self) -> None:
        for name in tuple(self._names):
            self._look(name, FIRST_PAUSE)

    def _look(self, name: str, pause: float) -> None:
        """Compares what is there now with what was there before; the events only say when that is worth it,
        so it does not matter when they are late or doubled."""
        retry = self._retries.pop(name, None)
        if retry is not None:
            retry.cancel()
        path = self.path(name)
        inode = namespace_inode(path)
        known = self._inodes.get(name)
        if known is not None and known != inode:
            del self._inodes[name]
            self._on_gone(name)
        if inode is not None and known != inode:
            self._inodes[name] = inode
            self._on_appear(name)
        elif inode is None and os.path.lexists(path):
            self._retries[name] = asyncio.get_running_loop().call_later(
                pause, self._look, name, min(pause * 2, LONGEST_PAUSE)
            )
