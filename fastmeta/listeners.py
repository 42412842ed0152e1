"""Keeps the listeners that are wanted open while their namespaces are there, and closes them when these go. One that
is bound to an interface follows that, too."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from oslo_log import log as logging

from fastmeta.exceptions import FastmetaError
from fastmeta.folders import FolderWatcher
from fastmeta.models import ListenSpec
from fastmeta.netns.links import LinkWatch
from fastmeta.netns.sockets import Place, bound_interface, open_listening_sockets
from fastmeta.netns.watch import NamespaceWatch
from fastmeta.scopes import Scopes

LOG = logging.getLogger(__name__)

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
"""Seconds between attempts to open a listener in a namespace that is there: doubled each time."""


class ListenerTable(Protocol):
    """The part of the core's loop that owns the open listeners."""

    def add_listener(self, listener: int, scope: int, fd: int) -> None: ...

    def remove_listener(self, listener: int, *, drain: bool) -> None: ...


CONFIGURED = "listen"
"""The way in of listeners of the configuration."""


@dataclass(frozen=True, slots=True)
class ListenerState:
    """What there is to see of one. scope: its number. way: who wants it. error: what was wrong at the last attempt."""

    scope: int
    way: str
    place: str
    namespace: str | None
    open: bool
    error: str


class _Slot:
    """One listener that is wanted. number: the core's while it is open, else None; index: that of the interface
    that it is bound to then, 0 for none."""

    __slots__ = ("complaint", "index", "number", "retry", "scope_number", "spec", "way")

    def __init__(self, spec: ListenSpec, scope_number: int, way: str) -> None:
        self.spec = spec
        self.scope_number = scope_number
        self.way = way
        self.number: int | None = None
        self.index = 0
        self.retry: asyncio.TimerHandle | None = None
        self.complaint = ""


class Listeners:
    """All listeners that are wanted. Those of the configuration (specs) are there for all of its life, and the core
    must know their scopes before start(); others come with add() and go with remove().

    Lives in the event loop's thread. Opening a socket, also in a namespace, takes less than a millisecond, so
    it is done right there.
    """

    def __init__(
        self,
        table: ListenerTable,
        scopes: Scopes,
        specs: Sequence[ListenSpec],
        netns_dir: str,
        folders: FolderWatcher,
    ) -> None:
        self._table = table
        self._netns_dir = netns_dir
        self.scopes = scopes
        self._next_number = 1
        self._slots: dict[ListenSpec, _Slot] = {}
        self._slots_of: dict[str | None, list[_Slot]] = {}
        for spec in specs:
            self._want(spec, CONFIGURED)
        # By the core's numbers: what it has, also while it is closing it.
        self._places: dict[int, _Slot] = {}
        self._links = LinkWatch(self._links_changed)
        self._on_links_changed: Callable[[int], None] = _nobody
        self._on_opened: Callable[[int], None] = _nobody
        # While several are begun: those that can be opened, all together.
        self._gathered: list[_Slot] | None = None
        self._watch = NamespaceWatch(netns_dir, folders, on_appear=self._appeared, on_gone=self._gone)

    @property
    def wanted(self) -> int:
        """How many there are to be."""
        return len(self._slots)

    @property
    def open(self) -> int:
        """How many are open."""
        return sum(slot.number is not None for slot in self._slots.values())

    def start(
        self,
        on_links_changed: Callable[[int], None] | None = None,
        on_opened: Callable[[int], None] | None = None,
    ) -> None:
        """Opens all that can be opened now. Those of namespaces that are not there yet follow when they are;
        what fails in a namespace is tried again.

        on_links_changed(scope) is called with the number of a scope when the indexes of interfaces may mean
        something else in its namespace than before; on_opened(scope) for each of its listeners that is open from
        then on. Raises ListenError when a listener outside of any namespace cannot be opened: nothing will change by
        itself there.
        """
        if on_links_changed is not None:
            self._on_links_changed = on_links_changed
        if on_opened is not None:
            self._on_opened = on_opened
        for error in self._open(self._slots_of.get(None, ())):
            if error is not None:
                raise error
        names = [name for name in self._slots_of if name is not None]
        if names:
            self._watch.start()
            self._follow(names)
        for namespace in names:
            if all(slot.number is None and slot.retry is None for slot in self._slots_of[namespace]):
                LOG.info(
                    "namespace %s is not there yet: waiting for it", os.path.join(self._netns_dir, namespace)
                )

    def add(self, specs: Sequence[ListenSpec], way: str) -> None:
        """These are wanted, too, from now on (those that are already stay as they are): opened at once, or as soon as
        their namespaces are there. way: who wants them, for operators. Only after start(), and only in namespaces."""
        fresh = [self._want(spec, way) for spec in specs if spec not in self._slots]
        names = {slot.spec.namespace for slot in fresh}
        there = [slot for slot in fresh if self._watch.knows(slot.spec.namespace or "")]
        self._watch.start()
        self._try_to_open(there, FIRST_PAUSE)
        self._follow([name for name in names if name is not None])

    def remove(self, specs: Sequence[ListenSpec], *, drain: bool) -> None:
        """These are not wanted any more. drain: who waits to be accepted, and requests in progress, are served first;
        else their connections close at once."""
        for spec in specs:
            slot = self._slots.pop(spec, None)
            if slot is None:
                continue
            self._cancel(slot)
            of_namespace = self._slots_of[spec.namespace]
            of_namespace.remove(slot)
            if not of_namespace:
                del self._slots_of[spec.namespace]
                self._watch.forget(spec.namespace or "")
                self._links.forget(spec.namespace)
            if slot.number is not None:
                LOG.info("not wanted any more: closing %s", spec)
                self._table.remove_listener(slot.number, drain=drain)
                slot.number = None
            self.scopes.let_go(slot.scope_number)

    def stop(self) -> None:
        """Opens nothing more; the core closes what is open."""
        self._watch.stop()
        for slot in self._slots.values():
            self._cancel(slot)
        self._links.stop()

    def new_number(self) -> int:
        """For a listener. None is used twice, so that what is said of one that is being closed cannot be mistaken."""
        number, self._next_number = self._next_number, self._next_number + 1
        return number

    def link_mac(self, number: int, index: int) -> str | None:
        """The MAC of the interface that has this index now, in the namespace of the scope of this number;
        None when that cannot be told. If links have changed, on_links_changed is called first."""
        return self._links.mac(self.scopes.place(number), index) if number in self.scopes.by_number else None

    def closed(self, number: int) -> str | None:
        """The core has closed this listener and its connections; its place, for the log, or None if it is
        unknown."""
        slot = self._places.pop(number, None)
        if slot is None:
            return None
        self.scopes.let_go(slot.scope_number)
        return str(slot.spec)

    def place(self, number: int) -> str | None:
        """Where a listener of the core is, for the log."""
        slot = self._places.get(number)
        return None if slot is None else str(slot.spec)

    def states(self) -> list[ListenerState]:
        """All of them."""
        return [
            ListenerState(
                slot.scope_number,
                slot.way,
                str(slot.spec),
                slot.spec.namespace,
                slot.number is not None,
                slot.complaint,
            )
            for slot in self._slots.values()
        ]

    def _want(self, spec: ListenSpec, way: str) -> _Slot:
        slot = self._slots[spec] = _Slot(spec, self.scopes.hold(spec.scope, spec.namespace), way)
        self._slots_of.setdefault(spec.namespace, []).append(slot)
        return slot

    def _follow(self, names: Sequence[str]) -> None:
        """Opens what can be opened in these namespaces, all together, and the rest when they are there."""
        self._gathered = []
        self._watch.add(names)
        gathered, self._gathered = self._gathered, None
        self._try_to_open(gathered, FIRST_PAUSE)

    @staticmethod
    def _cancel(slot: _Slot) -> None:
        if slot.retry is not None:
            slot.retry.cancel()
            slot.retry = None

    def _appeared(self, namespace: str) -> None:
        if self._gathered is not None:
            self._gathered += self._slots_of[namespace]
        else:
            self._try_to_open(self._slots_of[namespace], FIRST_PAUSE)

    def _gone(self, namespace: str) -> None:
        """An open socket, and one that lingers, would keep the namespace alive: close at once."""
        for slot in self._slots_of[namespace]:
            self._cancel(slot)
            self._close(slot, f"namespace {namespace} is gone")
        # So would the one that tells of links. In another namespace of the same name indexes are others'.
        self._links.forget(namespace)
        self._tell_of_links(namespace)

    def _links_changed(self, namespace: str | None) -> None:
        """What is known of guests by the indexes of interfaces ends first. Then whoever is bound to an
        interface that is gone, or was made anew, is bound to the one that has its name now: the old socket
        would refuse everybody. When links cannot be followed any more, all is done anew."""
        self._tell_of_links(namespace)
        lost = not self._links.follows(namespace)
        for slot in self._slots_of[namespace]:
            interface = slot.spec.interface
            if slot.spec.address.version != 6 or not (interface or lost):
                continue
            index = self._links.index(namespace, interface) if interface else None
            if slot.number is not None:
                if slot.index == index:
                    continue
                why = f"interface {interface} is gone or another one"
                self._close(slot, "links cannot be followed any more" if lost else why)
            if index is not None or lost:  # else it is waited for
                self._try_to_open([slot], FIRST_PAUSE)

    def _tell_of_links(self, namespace: str | None) -> None:
        for number in {slot.scope_number for slot in self._slots_of[namespace]}:
            self._on_links_changed(number)

    def _close(self, slot: _Slot, why: str) -> None:
        if slot.number is not None:
            LOG.info("%s: closing %s", why, slot.spec)
            self._table.remove_listener(slot.number, drain=False)
            slot.number = None

    def _try_to_open(self, slots: Sequence[_Slot], pause: float) -> None:
        for slot in slots:
            self._cancel(slot)
        for slot, error in zip(slots, self._open(slots), strict=True):
            complaint = str(error) if error is not None else ""
            if complaint and complaint != slot.complaint:
                LOG.error("%s; tried again until it works", complaint)
            slot.complaint = complaint
            if complaint:
                slot.retry = asyncio.get_running_loop().call_later(
                    pause, self._try_to_open, [slot], min(pause * 2, LONGEST_PAUSE)
                )

    def _open(self, slots: Sequence[_Slot]) -> list[FastmetaError | None]:
        """Opens these; what was wrong with each, or None."""
        errors: dict[_Slot, FastmetaError] = {}
        places: dict[_Slot, Place] = {}
        for slot in slots:
            spec = slot.spec
            path = os.path.join(self._netns_dir, spec.namespace) if spec.namespace else None
            try:
                if spec.address.version == 6:
                    # Before there is a socket, so that no guest is met whose link is not followed.
                    self._links.follow(spec.namespace, path)
            except FastmetaError as error:
                errors[slot] = error
            else:
                places[slot] = Place(spec.address, spec.tcp_port, path, spec.interface)
        for slot, found in zip(places, open_listening_sockets(list(places.values())), strict=True):
            try:
                if isinstance(found, FastmetaError):
                    raise found
                self._opened(slot, found)
            except FastmetaError as error:
                errors[slot] = error
        return [errors.get(slot) for slot in slots]

    def _opened(self, slot: _Slot, fd: int) -> None:
        slot.index = bound_interface(fd) if slot.spec.interface else 0
        number = self.new_number()
        self._table.add_listener(number, slot.scope_number, fd)
        slot.number = number
        self._places[number] = slot
        self.scopes.hold_again(slot.scope_number)  # until the core has closed it
        LOG.info("listening: %s", slot.spec)
        self._on_opened(slot.scope_number)


def _nobody(*_: object) -> None:
    """Nobody wants to know."""
