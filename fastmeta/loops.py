"""The loops of the core and their threads, as if they were one loop.

A scope is on one loop for all of its life, so all that is counted and bounded for a scope, or for an address of
one, needs no word between threads. What holds for all guests together is divided over the loops.
"""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from oslo_log import log as logging

from fastmeta import _core
from fastmeta.exceptions import CoreError
from fastmeta.models import Scope, ScopeKind

LOG = logging.getLogger(__name__)

DIVIDED = ("max_connections", "max_parked", "max_gathered", "max_upstream_connections")
"""Settings of a loop that bound what all guests together have."""

DESCRIPTORS_OF_A_LOOP = 4
"""epoll, two eventfds, a timerfd."""

_KINDS = {ScopeKind.NETWORK: _core.SCOPE_NETWORK, ScopeKind.ROUTER: _core.SCOPE_ROUTER}

START_PAUSE = 0.0005
"""Seconds between looks whether a thread has begun to run its loop."""


def share(total: int, count: int, place: int) -> int:
    """What the loop at this place (from 0) of so many gets of a bound. All shares together are the bound, but
    each is one at least: a loop without any would serve nobody. A bound of 0 stays one."""
    if total == 0:
        return 0
    return max(1, total // count + (place < total % count))


def divided(settings: Mapping[str, int], count: int) -> list[dict[str, int]]:
    """The settings of each of so many loops. A bound for a scope or an address stays what it is: a scope is on
    one loop, whose share bounds it as well."""
    return [
        {name: share(value, count, place) if name in DIVIDED else value for name, value in settings.items()}
        for place in range(count)
    ]


class Loops:
    """Takes what a loop takes, and hands it to the one that it is for; to all, when it is for all.

    A new scope goes to the loop that has the fewest. What is said of a scope or a listener that there is not
    goes to the first one, which takes it as a single loop does.

    All methods are for one thread, but for stats() and histograms().
    """

    def __init__(self, loops: Sequence[_core.Loop]) -> None:
        self._loops = tuple(loops)
        self._place_of_scope: dict[int, int] = {}
        self._scope_counts = [0] * len(self._loops)
        self._scope_of_listener: dict[int, int] = {}
        self._listeners_of_scope: dict[int, list[int]] = {}
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []

    def __len__(self) -> int:
        return len(self._loops)

    @property
    def error(self) -> BaseException | None:
        """Why the first loop that could not go on has ended."""
        return self._errors[0] if self._errors else None

    def start(self, on_end: Callable[[], object]) -> None:
        """Runs each loop in a thread of its own; returns when all of them run. on_end() is called in the
        thread of a loop that has ended, whatever the reason. Raises CoreError when there cannot be so many
        threads; none is left then."""
        for place, loop in enumerate(self._loops):
            thread = threading.Thread(target=self._run, args=(loop, on_end), name=f"core {place}")
            try:
                thread.start()
            except RuntimeError as error:
                self.stop()
                for started in self._threads:
                    started.join()
                raise CoreError(f"thread {place + 1} of {len(self)} for the core: {error}") from error
            self._threads.append(thread)
        for loop, thread in zip(self._loops, self._threads, strict=True):
            # Only a loop that runs makes room in its mailbox.
            while not loop.running and thread.is_alive():
                thread.join(START_PAUSE)

    def _run(self, loop: _core.Loop, on_end: Callable[[], object]) -> None:
        try:
            loop.run()
        except BaseException as error:
            self._errors.append(error)
        on_end()

    def stop(self, drain_ms: int = 0) -> None:
        """Asks all of them to end."""
        for loop in self._loops:
            failure = ""
            try:
                loop.stop(drain_ms)
            except CoreError as error:
                # The others must hear of it, too; who waits for the threads sees that one does not end.
                failure = str(error)
            if failure:  # (outside of except, where oslo.log would say it twice)
                LOG.error("a loop cannot be told to end: %s", failure)

    def filenos(self) -> list[int]:
        """Descriptors, one of which is readable when events() has something to give."""
        return [loop.fileno() for loop in self._loops]

    def events(self) -> list[tuple[Any, ...]]:
        """Takes all waiting events; those of one loop are in order."""
        return [event for loop in self._loops for event in loop.events()]

    def place(self, scope: int) -> int:
        """At which place the loop is that has this scope."""
        return self._place_of_scope.get(scope, 0)

    def _of(self, scope: int) -> _core.Loop:
        return self._loops[self.place(scope)]

    def add_scope(self, scope: int, named: Scope | None = None) -> None:
        """named: by which the relay's requests find it; one of several that are the same."""
        if scope in self._place_of_scope:
            raise ValueError("a scope's number is above 0 and not in use")
        place = self._scope_counts.index(min(self._scope_counts))
        if named is None:
            self._loops[place].add_scope(scope)
        else:
            self._loops[place].add_scope(scope, _KINDS[named.kind], uuid.UUID(named.uuid).bytes)
        self._place_of_scope[scope] = place
        self._scope_counts[place] += 1
        self._listeners_of_scope[scope] = []

    def set_rates(self, scope: int, rates: Mapping[str, int]) -> None:
        self._of(scope).set_rates(scope, rates)

    def remove_scope(self, scope: int) -> None:
        self._of(scope).remove_scope(scope)
        self.scope_removed(scope)

    def retire_scope(self, scope: int) -> None:
        """As remove_scope, if nobody is in it. Who is told that it is done says so with scope_removed."""
        self._of(scope).retire_scope(scope)

    def scope_removed(self, scope: int) -> None:
        """There is no scope of this number any more (none is fine too)."""
        place = self._place_of_scope.pop(scope, None)
        if place is not None:
            self._scope_counts[place] -= 1
            for listener in self._listeners_of_scope.pop(scope):
                del self._scope_of_listener[listener]

    def add_relay(
        self, listener: int, scopes: Sequence[int], fd: int, *, uids: Collection[int], gids: Collection[int]
    ) -> None:
        """scopes: one for each loop, where connections are counted that belong to no other. The first loop accepts."""
        for place, (loop, scope) in enumerate(zip(self._loops, scopes, strict=True)):
            loop.add_relay(listener, scope, fd if place == 0 else -1, uids=uids, gids=gids)
            self._place_of_scope[scope] = place
            self._scope_counts[place] += 1
            self._listeners_of_scope[scope] = []

    def hand_over(self, fd: int, scope: int | None, state: tuple[bytes, int, int]) -> None:
        """A connection of the relay to the loop that has its scope. None: there is no such scope, and can be none."""
        self._of(scope or 0).hand_over(fd, state, refused=scope is None)

    def add_listener(self, listener: int, scope: int, fd: int) -> None:
        self._of(scope).add_listener(listener, scope, fd)
        if scope in self._listeners_of_scope:
            self._listeners_of_scope[scope].append(listener)
            self._scope_of_listener[listener] = scope

    def remove_listener(self, listener: int, *, drain: bool) -> None:
        scope = self._scope_of_listener.pop(listener, 0)
        if scope:
            self._listeners_of_scope[scope].remove(listener)
        self._of(scope).remove_listener(listener, drain=drain)

    def put_identity(
        self,
        scope: int,
        address: bytes,
        interface: int,
        *,
        instance_id: str,
        project_id: str,
        asked_at: float,
        ttl_ms: int,
        generation: int,
    ) -> None:
        self._of(scope).put_identity(
            scope,
            address,
            interface,
            instance_id=instance_id,
            project_id=project_id,
            asked_at=asked_at,
            ttl_ms=ttl_ms,
            generation=generation,
        )

    def put_absent(
        self, scope: int, address: bytes, interface: int, *, asked_at: float, ttl_ms: int, generation: int
    ) -> None:
        self._of(scope).put_absent(
            scope, address, interface, asked_at=asked_at, ttl_ms=ttl_ms, generation=generation
        )

    def put_refused(self, scope: int, address: bytes, interface: int, *, generation: int) -> None:
        self._of(scope).put_refused(scope, address, interface, generation=generation)

    def revoke(self, scope: int, generation: int, address: bytes | None = None, interface: int = 0) -> None:
        self._of(scope).revoke(scope, generation, address, interface)

    def renew(self, scope: int, before: float) -> None:
        self._of(scope).renew(scope, before)

    def shorten(self, scope: int, ttl_ms: int) -> None:
        self._of(scope).shorten(scope, ttl_ms)

    def set_upstream(self, addresses: Sequence[tuple[str, int]], host: str) -> None:
        for loop in self._loops:
            loop.set_upstream(addresses, host)

    def set_upstreams(self, servers: Sequence[tuple[int, str, int, str, Any, str]]) -> None:
        """Each loop has connections of its own to each of them, and finds out by itself who is away."""
        for loop in self._loops:
            loop.set_upstreams(servers)

    def set_settings(self, settings: Mapping[str, int]) -> None:
        """settings: for all loops together."""
        for loop, part in zip(self._loops, divided(settings, len(self)), strict=True):
            loop.set_settings(part)

    def set_secret(self, secret: bytes, next_secret: bytes | None = None) -> None:
        for loop in self._loops:
            loop.set_secret(secret, next_secret)

    def requests(self, scope: int) -> int:
        """That a scope has had."""
        return self._of(scope).requests(scope)

    def stats(self, scope: int | None = None) -> dict[str, int]:
        """Of all loops together, or of one scope."""
        if scope is not None:
            return self._of(scope).stats(scope)
        total: Counter[str] = Counter()
        for loop in self._loops:
            total.update(loop.stats())
        return dict(total)

    def histograms(self, scope: int | None = None) -> dict[str, tuple[int, ...]]:
        """Of all loops together, or of one scope."""
        if scope is not None:
            return self._of(scope).histograms(scope)
        each = [loop.histograms() for loop in self._loops]
        return {
            name: tuple(map(sum, zip(*(histograms[name] for histograms in each), strict=True)))
            for name in each[0]
        }
