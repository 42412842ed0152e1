"""Keeps the listeners that are configured open while their namespaces are there, and closes them when these
go."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Protocol

from oslo_log import log as logging

from fastmeta.exceptions import FastmetaError
from fastmeta.folders import FolderWatcher
from fastmeta.models import ListenSpec, Scope
from fastmeta.netns.sockets import open_listening_socket
from fastmeta.netns.watch import NamespaceWatch

LOG = logging.getLogger(__name__)

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
"""Seconds between attempts to open a listener in a namespace that is there: doubled each time."""


class ListenerTable(Protocol):
    """The part of the core's loop that owns the open listeners."""

    def add_listener(self, listener: int, scope: int, fd: int) -> None: ...

    def remove_listener(self, listener: int, *, drain: bool) -> None: ...


class _Slot:
    """One configured listener. number: the core's while it is open, else None."""

    __slots__ = ("complaint", "number", "retry", "scope_number", "spec")

    def __init__(self, spec: ListenSpec, scope_number: int) -> None:
        self.spec = spec
        self.scope_number = scope_number
        self.number: int | None = None
        self.retry: asyncio.TimerHandle | None = None
        self.complaint = ""


class Listeners:
    """All configured listeners, and the numbers by which the core knows their scopes (which must be known to
    it before start()).

    Lives in the event loop's thread. Opening a socket, also in a namespace, takes less than a millisecond, so
    it is done right there.
    """

    def __init__(
        self, table: ListenerTable, specs: Sequence[ListenSpec], netns_dir: str, folders: FolderWatcher
    ) -> None:
        self._table = table
        self._netns_dir = netns_dir
        self._next_number = 1
        numbers: dict[Scope, int] = {}
        self._slots = [_Slot(spec, numbers.setdefault(spec.scope, len(numbers) + 1)) for spec in specs]
        self.scopes: dict[int, Scope] = {number: scope for scope, number in numbers.items()}
        """The scopes by their numbers in the core."""
        self._by_namespace: dict[str, list[_Slot]] = {}
        for slot in self._slots:
            if slot.spec.namespace:
                self._by_namespace.setdefault(slot.spec.namespace, []).append(slot)
        self._places: dict[int, str] = {}
        self._watch = NamespaceWatch(
            netns_dir, self._by_namespace, folders, on_appear=self._appeared, on_gone=self._gone
        )

    @property
    def wanted(self) -> int:
        """How many are configured."""
        return len(self._slots)

    @property
    def open(self) -> int:
        """How many are open."""
        return sum(slot.number is not None for slot in self._slots)

    def start(self) -> None:
        """Opens all that can be opened now. Those of namespaces that are not there yet follow when they are;
        what fails in a namespace is tried again.

        Raises ListenError when one outside of any namespace cannot be opened: nothing will change by itself
        there.
        """
        for slot in self._slots:
            if slot.spec.namespace is None:
                self._open(slot)
        if self._by_namespace:
            self._watch.start()
        for namespace, slots in self._by_namespace.items():
            if all(slot.number is None and slot.retry is None for slot in slots):
                LOG.info(
                    "namespace %s is not there yet: waiting for it", os.path.join(self._netns_dir, namespace)
                )

    def stop(self) -> None:
        """Opens nothing more; the core closes what is open."""
        self._watch.stop()
        for slot in self._slots:
            if slot.retry is not None:
                slot.retry.cancel()
                slot.retry = None

    def closed(self, number: int) -> str | None:
        """The core has closed this listener and its connections; its place, for the log, or None if it is
        unknown."""
        return self._places.pop(number, None)

    def place(self, number: int) -> str | None:
        """Where a listener of the core is, for the log."""
        return self._places.get(number)

    def _appeared(self, namespace: str) -> None:
        for slot in self._by_namespace[namespace]:
            self._try_to_open(slot, FIRST_PAUSE)

    def _gone(self, namespace: str) -> None:
        """An open socket, and one that lingers, would keep the namespace alive: close at once."""
        for slot in self._by_namespace[namespace]:
            if slot.retry is not None:
                slot.retry.cancel()
                slot.retry = None
            if slot.number is not None:
                LOG.info("namespace %s is gone: closing %s", namespace, slot.spec)
                self._table.remove_listener(slot.number, drain=False)
                slot.number = None

    def _try_to_open(self, slot: _Slot, pause: float) -> None:
        slot.retry = None
        complaint = ""
        try:
            self._open(slot)
        except FastmetaError as error:
            complaint = str(error)
        if complaint and complaint != slot.complaint:
            LOG.error("%s; tried again until it works", complaint)
        slot.complaint = complaint
        if complaint:
            slot.retry = asyncio.get_running_loop().call_later(
                pause, self._try_to_open, slot, min(pause * 2, LONGEST_PAUSE)
            )

    def _open(self, slot: _Slot) -> None:
        spec = slot.spec
        fd = open_listening_socket(
            spec.address,
            spec.tcp_port,
            namespace_path=os.path.join(self._netns_dir, spec.namespace) if spec.namespace else None,
            interface=spec.interface,
        )
        # A number is never used twice, so that what is said of a listener that is being closed cannot be
        # mistaken.
        number, self._next_number = self._next_number, self._next_number + 1
        self._table.add_listener(number, slot.scope_number, fd)
        slot.number = number
        self._places[number] = str(spec)
        LOG.info("listening: %s", spec)
