"""Everything that `fastmeta status` shows, as plain data: the parts of the agent are asked, none is changed."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from fastmeta import __version__
from fastmeta.listeners import ListenerState
from fastmeta.models import Scope
from fastmeta.status.errors import LastErrors

AT_ONCE = 256
"""Scopes that are looked at before others have their turn: some milliseconds."""

RELAY = "relay"
"""The way in of scopes that proxies name on metadata_proxy_socket."""


class Counted(Protocol):
    """The core's loops, as far as they count."""

    def stats(self, scope: int | None = None) -> dict[str, int]: ...


class Listening(Protocol):
    """Listeners, of the configuration or otherwise."""

    def states(self) -> list[ListenerState]: ...


class Health(Protocol):
    """The resolver."""

    @property
    def health(self) -> str: ...


class Servers(Protocol):
    """The upstreams."""

    def states(self) -> list[tuple[str, bool]]: ...


class Relays(Protocol):
    """The relay. scopes: those that it has made, and its own, which are a text."""

    scopes: dict[int, Scope | str]

    @property
    def path(self) -> str | None: ...


class Snapshots:
    """Makes snapshots of one agent. Lives in the event loop's thread."""

    def __init__(
        self,
        *,
        core: Counted,
        scopes: Mapping[int, Scope],
        listeners: Sequence[Listening],
        relay: Relays,
        resolver: Health,
        upstreams: Servers,
        errors: LastErrors,
        lookup: str,
    ) -> None:
        self._core = core
        self._scopes = scopes
        self._listeners = listeners
        self._relay = relay
        self._resolver = resolver
        self._upstreams = upstreams
        self._errors = errors
        self._lookup = lookup
        self._started = time.time()

    async def answer(self, request: Mapping[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """The control socket's command `status`. Nothing in the request matters."""
        for descriptor in descriptors:
            os.close(descriptor)
        return await self.take()

    async def take(self) -> dict[str, Any]:
        """The agent as it is now; docs/status.md has the shape. Guests whose addresses are not known yet do not wait
        for it: the event loop goes on after some scopes."""
        of_scope: dict[int, list[ListenerState]] = {number: [] for number in self._scopes}
        for listeners in self._listeners:
            for state in listeners.states():
                of_scope.setdefault(state.scope, []).append(state)
        named = {number: scope for number, scope in self._relay.scopes.items() if isinstance(scope, Scope)}
        scopes = []
        for at, number in enumerate([*self._scopes, *named], 1):
            scope = self._scopes.get(number) or named.get(number)
            # It may have gone meanwhile.
            if scope is not None and (number in self._scopes or number in self._relay.scopes):
                scopes.append(self._scope(number, scope, of_scope.get(number, [])))
            if at % AT_ONCE == 0:
                await asyncio.sleep(0)
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started": self._started,
            "taken": time.time(),
            "lookup": {"source": self._lookup, "health": self._resolver.health},
            "upstreams": [
                {"server": text, "state": "away" if away else "in use"}
                for text, away in self._upstreams.states()
            ],
            "metadata_proxy_socket": self._relay.path,
            "totals": _figures(self._core.stats()),
            "scopes": scopes,
        }

    def _scope(self, number: int, scope: Scope, listeners: list[ListenerState]) -> dict[str, Any]:
        error = self._errors.of(number)
        return {
            "kind": scope.kind.value,
            "id": scope.uuid,
            "way": listeners[0].way if listeners else RELAY,
            "namespace": listeners[0].namespace if listeners else None,
            "listeners": [
                {"place": state.place, "open": state.open, "error": state.error or None}
                for state in listeners
            ],
            **_figures(self._core.stats(number)),
            "last_error": None if error is None else {"text": error.text, "at": error.at},
        }


def _figures(stats: Mapping[str, int]) -> dict[str, int]:
    """The few of the core's counters that say how a scope fares."""
    return {
        "connections": stats["connections_open"],
        "waiting": stats["parked"],
        "requests": stats["requests"],
        "known": stats["identities"],
        "refused": stats["refused"],
        "answers_5xx": stats["answers_5xx"],
    }
