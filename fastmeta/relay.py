"""The relay's part outside of the core: networks and routers that proxies name, and who hands which connection to
which loop."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from oslo_log import log as logging

from fastmeta.conf.relay import RelaySpec
from fastmeta.exceptions import CoreError, ListenError
from fastmeta.models import Scope
from fastmeta.repeats import Repeats, more
from fastmeta.unix_socket import UnixSocket, open_unix_socket

LOG = logging.getLogger(__name__)

LISTENER = (1 << 32) - 1
"""The number of the relay's listener; those of namespaces count from 1."""

MAX_SCOPES = 16384
"""Networks and routers that are known only because a proxy named them. No host has so many: it bounds what a fault
could do."""

IDLE = 600.0
"""Seconds without a request after which such a one is forgotten."""

LOOK_PERIOD = 1.0
"""Seconds between looks at some of them,"""
LOOK_COUNT = 256
"""at most so many each time."""

_TURNED_AWAY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)

State = tuple[bytes, int, int]


class RelayTable(Protocol):
    """The part of the core's loops that is told."""

    def __len__(self) -> int: ...

    def add_scope(self, scope: int, named: Scope | None = None) -> None: ...

    def retire_scope(self, scope: int) -> None: ...

    def scope_removed(self, scope: int) -> None: ...

    def add_relay(
        self, listener: int, scopes: Sequence[int], fd: int, *, uids: Collection[int], gids: Collection[int]
    ) -> None: ...

    def hand_over(self, fd: int, scope: int | None, state: State) -> None: ...

    def requests(self, scope: int) -> int: ...


class ScopeTable(Protocol):
    """The part of the resolver that is told."""

    def add_scope(self, number: int, scope: Scope) -> None: ...

    def remove_scope(self, number: int) -> None: ...


class _Made:
    """A scope that a proxy named. since: when its requests were last found to have become more."""

    __slots__ = ("requests", "scope", "since")

    def __init__(self, scope: Scope, since: float) -> None:
        self.scope = scope
        self.requests = 0
        self.since = since


class Relay:
    """Lives in the event loop's thread.

    configured: the scopes of listeners, by their numbers in the core; of several that are the same the first is the
    relay's, too. new_number gives one that no scope has or had. clock gives seconds.
    """

    def __init__(
        self,
        table: RelayTable,
        resolver: ScopeTable,
        configured: Mapping[int, Scope],
        new_number: Callable[[], int],
        *,
        max_scopes: int = MAX_SCOPES,
        idle: float = IDLE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._table = table
        self._resolver = resolver
        self._max_scopes = max_scopes
        self._idle = idle
        self._clock = clock
        self._numbers: dict[Scope, int] = {}
        for number, scope in configured.items():
            self._numbers.setdefault(scope, number)
        self._new_number = new_number
        self._made: dict[int, _Made] = {}
        self._repeats = Repeats(60.0, clock)
        self._look: asyncio.TimerHandle | None = None
        self._socket: UnixSocket | None = None
        self._path: str | None = None
        self.scopes: dict[int, Scope | str] = {}
        """For the log: the scopes that it has made, and its own, which belong to nobody."""

    def number_of(self, scope: Scope) -> int | None:
        """By which the relay's requests for it are found."""
        return self._numbers.get(scope)

    @property
    def path(self) -> str | None:
        """Where it listens, or did until it was stopped; None when there is no relay."""
        return self._path

    def start(self, spec: RelaySpec) -> None:
        """Opens the socket, and has it served. Raises ListenError, CoreError."""
        opened = self._socket = _open(spec)
        self._path = opened.path
        own = [self._new_number() for _ in range(len(self._table))]
        self.scopes |= dict.fromkeys(own, "relay")
        uids = spec.uids | ({opened.owner} if spec.owner_too else set())
        self._table.add_relay(LISTENER, own, opened.fd, uids=uids, gids=spec.gids)
        LOG.info(
            "listening: %s, mode %04o, for users %s%s; up to %d connections wait there (net.core.somaxconn)",
            opened.path,
            spec.mode,
            ", ".join(map(str, sorted(uids))),
            f" and groups {', '.join(map(str, sorted(spec.gids)))}" if spec.gids else "",
            opened.waiting,
        )

    def stop(self) -> None:
        """Nobody finds the socket any more; the core empties its queue and closes it."""
        if self._look is not None:
            self._look.cancel()
            self._look = None
        if self._socket is not None:
            self._socket.unlink()
            self._socket = None

    def place(self, listener: int) -> str | None:
        """Where the relay's listener is, for the log."""
        return self.path if listener == LISTENER else None

    def handed(self, fd: int, scope: Scope, state: State) -> None:
        """A loop of the core has read a request for a scope that it does not have (takes over fd)."""
        try:
            self._table.hand_over(fd, self._number(scope), state)
        except CoreError:
            # A loop has ended, so all do: who asks may ask again soon.
            with socket.socket(fileno=fd) as connection, contextlib.suppress(OSError):
                connection.setblocking(False)
                connection.send(_TURNED_AWAY)

    def scope_removed(self, number: int) -> None:
        """The core has no scope of this number any more."""
        made = self._made.pop(number, None)
        if made is None:
            return
        del self.scopes[number]
        del self._numbers[made.scope]
        self._table.scope_removed(number)
        self._resolver.remove_scope(number)
        LOG.debug("%s: forgotten, no proxy has asked for it for long", made.scope)

    def _number(self, scope: Scope) -> int | None:
        """The scope's, which is made if it is new; None when there are too many."""
        number = self._numbers.get(scope)
        if number is not None:
            return number
        if len(self._made) >= self._max_scopes:
            held_back = self._repeats.admit("full")
            if held_back is not None:
                LOG.warning(
                    "proxies name more than %d networks and routers: requests for %s get 503%s",
                    self._max_scopes,
                    scope,
                    more(held_back),
                )
            return None
        number = self._new_number()
        self._table.add_scope(number, scope)
        self._resolver.add_scope(number, scope)
        self._numbers[scope] = number
        self.scopes[number] = scope
        self._made[number] = _Made(scope, self._clock())
        if self._look is None:
            self._look_later()
        return number

    def _look_later(self) -> None:
        self._look = asyncio.get_running_loop().call_later(LOOK_PERIOD, self._look_at_some)

    def _look_at_some(self) -> None:
        """Which scopes nobody has used for long. Those that were looked at go to the end of the line."""
        self._look = None
        now = self._clock()
        for number in list(itertools.islice(self._made, LOOK_COUNT)):
            made = self._made.pop(number)
            self._made[number] = made
            requests = self._table.requests(number)
            if requests != made.requests:
                made.requests, made.since = requests, now
            elif now - made.since >= self._idle:
                made.since = now  # if somebody comes just now it stays, and this is looked at anew
                self._table.retire_scope(number)
        if self._made:
            self._look_later()


def _open(spec: RelaySpec) -> UnixSocket:
    folder = os.path.dirname(spec.path)
    if not os.path.isdir(folder):
        raise ListenError(
            f"metadata_proxy_socket = {spec.path}: there is no folder {folder}; make it, as the user that fastmeta "
            "runs as, or give another path (the same as the L3 and DHCP agents have)"
        )
    return open_unix_socket(
        spec.path,
        spec.mode,
        name="metadata_proxy_socket",
        rival="does neutron-metadata-agent still run? Stop it first",
    )
