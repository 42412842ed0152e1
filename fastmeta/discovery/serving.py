"""What routers and networks have in common: listeners that come and go together, and saying a thing once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from oslo_log import log as logging

from fastmeta.exceptions import FastmetaError
from fastmeta.models import ListenSpec

LOG = logging.getLogger(__name__)

WAY = "discover"
"""The way in of listeners that were found, for operators."""

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
"""Seconds until what could not be served is tried again: doubled each time."""


class ListenersTable(Protocol):
    """The part of fastmeta.listeners.Listeners that is used here."""

    def add(self, specs: Sequence[ListenSpec], way: str) -> None: ...

    def remove(self, specs: Sequence[ListenSpec], *, drain: bool) -> None: ...


class Gathered:
    """Adds listeners, those of one turn of the event loop all together: one thread opens them all."""

    def __init__(self, listeners: ListenersTable, loop: asyncio.AbstractEventLoop) -> None:
        self._listeners = listeners
        self._loop = loop
        self._waiting: dict[ListenSpec, None] = {}

    def add(self, spec: ListenSpec) -> None:
        """At the end of this turn."""
        if not self._waiting:
            self._loop.call_soon(self._add)
        self._waiting[spec] = None

    def remove(self, spec: ListenSpec, *, drain: bool) -> None:
        """At once."""
        if spec in self._waiting:
            del self._waiting[spec]
        else:
            self._listeners.remove([spec], drain=drain)

    def _add(self) -> None:
        waiting, self._waiting = self._waiting, {}
        self._listeners.add(list(waiting), WAY)


class Served:
    """A namespace that was found: what keeps it from being served, and when that is tried again."""

    __slots__ = ("_complaint", "_pause", "_retry", "busy", "gone", "name", "uuid")

    def __init__(self, name: str, uuid: str) -> None:
        self.name = name
        self.uuid = uuid
        self.busy = False
        """A thread is there, or on its way."""
        self.gone = False
        self._complaint = ""
        self._pause = FIRST_PAUSE
        self._retry: asyncio.TimerHandle | None = None

    def hindered(self, why: str, again: Callable[[], None], *, level: int = logging.ERROR) -> None:
        """Says it, once, and tries again later."""
        if why != self._complaint:
            LOG.log(level, "%s is not served: %s; tried again until it works", self.name, why)
            self._complaint = why
        self.later(self._pause, again)
        self._pause = min(self._pause * 2, LONGEST_PAUSE)

    def waits(self, why: str) -> None:
        """Says it, once: an event will tell when that is over."""
        if why != self._complaint:
            LOG.info("%s is not served: %s", self.name, why)
            self._complaint = why

    def works(self) -> None:
        """Nothing keeps it from being served any more: whatever does, later, is news."""
        self._complaint = ""
        self._pause = FIRST_PAUSE

    def later(self, seconds: float, function: Callable[[], None]) -> None:
        """In place of what was to be done later so far."""
        self.not_later()
        self._retry = asyncio.get_running_loop().call_later(seconds, function)

    def not_later(self) -> None:
        """Nothing is to be done any more."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None


def reason(error: BaseException) -> str:
    """Why a visit failed, for the log. What nobody expects is raised."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if not isinstance(error, FastmetaError):
        raise error
    return str(error)
