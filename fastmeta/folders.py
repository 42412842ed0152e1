"""Watching folders by inotify, with one instance for the whole process (a user has 128 of them by default).

A folder need not be there yet: then the nearest one above it that exists is watched until it appears. When it
is removed, renamed or unmounted, it is waited for again. When the kernel's queue overflows, everybody is told
to look anew.
"""

from __future__ import annotations

import asyncio
import enum
import os
from collections.abc import Callable
from typing import TypeAlias

import inotify_simple
from oslo_log import log as logging

from fastmeta.exceptions import ConfigError

LOG = logging.getLogger(__name__)

READ_SIZE = 64 * 1024
"""Bytes of events read at once: some hundreds, so that a flood leaves the event loop time for others."""
MAX_ATTEMPTS = 100
"""How often a folder that comes and goes while it is being attached is tried before we say so."""

_FLAGS = inotify_simple.flags
# One mask for all, because two watches on one folder are one for the kernel.
_MASK = (
    _FLAGS.CREATE
    | _FLAGS.DELETE
    | _FLAGS.MOVED_FROM
    | _FLAGS.MOVED_TO
    | _FLAGS.CLOSE_WRITE
    | _FLAGS.ATTRIB
    | _FLAGS.MOVE_SELF
    | _FLAGS.ONLYDIR
)


class Seen(enum.Enum):
    """What happened in a watched folder."""

    CREATED = "created"
    """A name that was not there; if it is a file, somebody may still be writing it (WRITTEN follows)."""
    MOVED_IN = "moved in"
    GONE = "gone"
    WRITTEN = "written"
    ANEW = "anew"
    """Events may have been missed: look at the whole folder (the name is empty)."""


OnSeen: TypeAlias = Callable[[Seen, str], None]


class _Target:
    """A folder that somebody wants to know about. waits_for: the name in the watched folder above it that
    must appear first; None when the folder itself is watched."""

    __slots__ = ("on_seen", "path", "waits_for")

    def __init__(self, path: str, on_seen: OnSeen) -> None:
        self.path = path
        self.on_seen = on_seen
        self.waits_for: str | None = None


class FolderWatcher:
    """Lives in the event loop's thread. close() when done."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Raises ConfigError when the kernel gives no inotify instance."""
        try:
            self._inotify = inotify_simple.INotify(nonblocking=True)
        except OSError as error:
            raise ConfigError(
                f"no inotify instance: {error.strerror}; sysctl fs.inotify.max_user_instances says how "
                "many a user may have"
            ) from error
        self._loop = loop
        self._targets: list[_Target] = []
        self._by_watch: dict[int, list[_Target]] = {}
        loop.add_reader(self._inotify.fileno(), self._read)

    def watch(self, folder: str, on_seen: OnSeen) -> None:
        """Calls on_seen for what happens in folder from now on; look at what is there already after this
        call.

        Raises ConfigError when the folder, or the one above that it must appear in, may not be watched.
        """
        target = _Target(os.path.abspath(folder), on_seen)
        try:
            self._attach(target)
        except OSError as error:
            raise ConfigError(f"{folder}: cannot be watched: {error.strerror}") from error
        self._targets.append(target)

    def unwatch(self, folder: str, on_seen: OnSeen) -> None:
        """Ends what a watch() with the same arguments has begun."""
        path = os.path.abspath(folder)
        target = next((one for one in self._targets if one.path == path and one.on_seen == on_seen), None)
        if target is None:
            return
        self._targets.remove(target)
        for watch, targets in list(self._by_watch.items()):
            if target in targets:
                targets.remove(target)
                if not targets:
                    del self._by_watch[watch]
                    self._drop_if_unused(watch)

    def close(self) -> None:
        """Nothing is called any more."""
        if not self._inotify.closed:
            self._loop.remove_reader(self._inotify.fileno())
            self._inotify.close()

    def _attach(self, target: _Target) -> None:
        """Watches the folder, or the nearest one above that exists. Raises OSError."""
        for _ in range(MAX_ATTEMPTS):
            path, waits_for = target.path, None
            while True:
                try:
                    watch = self._inotify.add_watch(path, _MASK)
                    break
                except (FileNotFoundError, NotADirectoryError):
                    path, waits_for = os.path.split(path)
            target.waits_for = waits_for
            if waits_for is not None and os.path.isdir(os.path.join(path, waits_for)):
                # It appeared between the two calls, and its event may have come before the watch.
                self._drop_if_unused(watch)
                continue
            self._by_watch.setdefault(watch, []).append(target)
            return
        raise OSError(0, f"comes and goes ({MAX_ATTEMPTS} attempts)")

    def _attach_again(self, targets: list[_Target]) -> None:
        """After a folder has gone or come: tells those concerned, whatever they can see now."""
        for target in targets:
            reason = None
            try:
                self._attach(target)
            except OSError as error:
                reason = error.strerror
            if reason is not None:  # (outside of except, where oslo.log would say it twice)
                LOG.error("%s cannot be watched any more: %s; restart when mended", target.path, reason)
            target.on_seen(Seen.ANEW, "")

    def _drop_if_unused(self, watch: int) -> None:
        if watch not in self._by_watch:
            try:
                self._inotify.rm_watch(watch)
            except OSError:
                LOG.debug("watch %d had ended already", watch)

    def _read(self) -> None:
        try:
            data = os.read(self._inotify.fileno(), READ_SIZE)
        except BlockingIOError:
            return
        for event in inotify_simple.parse_events(data):
            if event.mask & _FLAGS.Q_OVERFLOW:
                LOG.warning("the kernel dropped events of watched folders: looking at all of them anew")
                self._start_over()
                return
            self._dispatch(event.wd, event.mask, event.name)

    def _start_over(self) -> None:
        """Among the dropped events may have been those of a folder's end: all watches are made anew. What is
        left in the queue belongs to the old ones and is known to nobody, which is right: everybody looks
        anew."""
        for watch in list(self._by_watch):
            del self._by_watch[watch]
            self._drop_if_unused(watch)
        self._attach_again(self._targets)

    def _dispatch(self, watch: int, mask: int, name: str) -> None:
        if mask & _FLAGS.IGNORED:  # the folder was removed or unmounted, or we ended the watch ourselves
            self._attach_again(self._by_watch.pop(watch, []))
            return
        if mask & _FLAGS.MOVE_SELF:  # it has another path now, so it is not what is watched
            targets = self._by_watch.pop(watch, [])
            self._drop_if_unused(watch)
            self._attach_again(targets)
            return
        for target in list(self._by_watch.get(watch, ())):
            if target.waits_for is None:
                seen = _seen(mask)
                if seen is not None:
                    target.on_seen(seen, name)
            elif target.waits_for == name and mask & (_FLAGS.CREATE | _FLAGS.MOVED_TO):
                self._by_watch[watch].remove(target)
                if not self._by_watch[watch]:
                    del self._by_watch[watch]
                self._attach_again([target])
                self._drop_if_unused(watch)


def _seen(mask: int) -> Seen | None:
    if mask & _FLAGS.CREATE:
        return Seen.CREATED
    if mask & _FLAGS.MOVED_TO:
        return Seen.MOVED_IN
    if mask & (_FLAGS.DELETE | _FLAGS.MOVED_FROM):
        return Seen.GONE
    if mask & (_FLAGS.CLOSE_WRITE | _FLAGS.ATTRIB):
        return Seen.WRITTEN
    return None
