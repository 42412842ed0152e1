"""The states of HA routers, which the L3 agent (and its neutron-keepalived-state-change) writes into files."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

from oslo_log import log as logging

from fastmeta.exceptions import ConfigError
from fastmeta.folders import FolderWatcher, Seen

LOG = logging.getLogger(__name__)

PRIMARY = frozenset({"primary", "master"})
"""The second is what it was called before Neutron 19 (Wallaby)."""
UNKNOWN = "unknown"
"""There is no state yet, or it cannot be read; Neutron calls it so."""
MAX_STATE = 64
"""Bytes of a file that are read."""


def state_in(folder: str) -> str:
    """What the file in the folder of a router says: PRIMARY, backup, UNKNOWN, or nothing."""
    try:
        with open(os.path.join(folder, "state"), "rb") as file:
            return file.read(MAX_STATE).decode("ascii", "backslashreplace").strip()
    except OSError:
        return UNKNOWN


class HaStates:
    """Lives in the event loop's thread. on_change(router id) is called for those that are followed, and perhaps also
    when nothing has changed."""

    def __init__(self, folder: str, folders: FolderWatcher, on_change: Callable[[str], None]) -> None:
        """folder: ha_confs_path, which has a folder for each HA router; it need not be there."""
        self._folder = folder
        self._folders = folders
        self._on_change = on_change
        self._followed: dict[str, functools.partial[None] | None] = {}
        """What is told of the router's own folder; None where it has none, so that it is not an HA router."""
        self._last: dict[str, str] = {}

    def start(self) -> None:
        """Raises ConfigError when the folder may not be watched."""
        self._folders.watch(self._folder, self._seen)

    def follow(self, router_id: str) -> None:
        """From now on."""
        self._followed.setdefault(router_id, None)
        self._attach(router_id)

    def forget(self, router_id: str) -> None:
        """Not any more."""
        self._detach(router_id)
        self._followed.pop(router_id, None)

    def state(self, router_id: str) -> str | None:
        """Of a router that is followed; None when it is not an HA router."""
        if self._followed.get(router_id) is None:
            return None
        # An empty file is being written at this moment; that it has been is an event of its own.
        state = state_in(self._path(router_id)) or self._last.get(router_id, UNKNOWN)
        self._last[router_id] = state
        return state

    def _path(self, router_id: str) -> str:
        return os.path.join(self._folder, router_id)

    def _attach(self, router_id: str) -> None:
        if self._followed.get(router_id) is not None or not os.path.isdir(self._path(router_id)):
            return
        told = functools.partial(self._seen_of, router_id)
        self._followed[router_id] = told
        refused = ""
        try:
            self._folders.watch(self._path(router_id), told)
        except ConfigError as error:
            refused = str(error)
        if refused:  # (outside of except, where oslo.log would say it twice)
            LOG.error("router %s: its HA state is not followed: %s", router_id, refused)

    def _detach(self, router_id: str) -> None:
        told = self._followed.get(router_id)
        if told is not None:
            self._folders.unwatch(self._path(router_id), told)
            self._followed[router_id] = None
        self._last.pop(router_id, None)

    def _seen(self, seen: Seen, name: str) -> None:
        """Something happened in ha_confs_path."""
        for router_id in tuple(self._followed) if seen is Seen.ANEW else (name,):
            if router_id not in self._followed:
                continue
            if not os.path.isdir(self._path(router_id)):
                self._detach(router_id)
            else:
                self._attach(router_id)
            self._on_change(router_id)

    def _seen_of(self, router_id: str, seen: Seen, name: str) -> None:
        """Something happened in a router's folder."""
        if name == "state" or seen is Seen.ANEW:
            self._on_change(router_id)
