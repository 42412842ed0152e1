"""What was said: every identity that was given to the core and may still be in force there.

The core finds identities by address. Events name ports, and a deletion nothing else; and only who remembers
what was said sees that an answer says something else. So it is remembered here, as long as it is in force.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import TypeAlias

from fastmeta.models import Port

Key: TypeAlias = "tuple[bytes, int]"
"""How the core names a guest in a scope: its address (16 bytes), and the interface of a link-local one, else 0."""

MAX_KNOWN = 65_536
"""Identities that are remembered, in all scopes together. For a further one an older one ends."""


class Given:
    """One identity that the core was given. Times are seconds of the resolver's clock.

    steady: which time of announcements it was given in (see Trust), 0 for none: then no event was to be
    expected. looked_at: whether the core was asked if a guest uses it.
    """

    __slots__ = (
        "asked_at",
        "ends_at",
        "instance",
        "key",
        "looked_at",
        "network",
        "port",
        "project",
        "scope",
        "steady",
    )

    def __init__(
        self, scope: int, key: Key, port: Port, *, asked_at: float, ends_at: float, steady: int
    ) -> None:
        self.scope = scope
        self.key = key
        self.port = port.id
        # Many have the same.
        self.network = sys.intern(port.network_id)
        self.project = sys.intern(port.project_id)
        self.instance = port.device_id
        self.asked_at = asked_at
        self.ends_at = ends_at
        self.steady = steady
        self.looked_at = False

    def says(self, port: Port) -> bool:
        """Whether this port says the same."""
        return (self.port, self.network, self.instance, self.project) == (
            port.id,
            port.network_id,
            port.device_id,
            port.project_id,
        )


class Known:
    """All of them, found by scope and address and by port. A scope in which nothing was said costs nothing.

    on_full(given) is called for one that must end to make place, before it is forgotten.
    """

    def __init__(self, on_full: Callable[[Given], None], most: int = MAX_KNOWN) -> None:
        self._on_full = on_full
        self._most = most
        self._count = 0
        self._scopes: dict[int, dict[Key, Given]] = {}
        self._ports: dict[str, tuple[Given, ...]] = {}

    def __len__(self) -> int:
        return self._count

    def get(self, scope: int, key: Key) -> Given | None:
        known = self._scopes.get(scope)
        return None if known is None else known.get(key)

    def of_port(self, port: str) -> tuple[Given, ...]:
        return self._ports.get(port, ())

    def of_scope(self, scope: int) -> list[Given]:
        known = self._scopes.get(scope)
        return [] if known is None else list(known.values())

    def add(self, given: Given) -> None:
        """It takes the place of what was said of this address before."""
        before = self.get(given.scope, given.key)
        if before is not None:
            self.forget(before)
        elif self._count >= self._most:
            # The scope's own oldest, so that none takes from another; of another scope when it has none.
            scope = given.scope if given.scope in self._scopes else next(iter(self._scopes))
            oldest = next(iter(self._scopes[scope].values()))
            self._on_full(oldest)
            self.forget(oldest)
        self._scopes.setdefault(given.scope, {})[given.key] = given
        self._ports[given.port] = (*self._ports.get(given.port, ()), given)
        self._count += 1

    def forget(self, given: Given) -> None:
        """One that is not known (any more) is fine, too."""
        known = self._scopes.get(given.scope)
        if known is None or known.get(given.key) is not given:
            return
        del known[given.key]
        if not known:
            del self._scopes[given.scope]
        self._count -= 1
        rest = tuple(other for other in self._ports[given.port] if other is not given)
        if rest:
            self._ports[given.port] = rest
        else:
            del self._ports[given.port]

    def forget_scope(self, scope: int) -> None:
        self.forget_all(self.of_scope(scope))

    def forget_all(self, given: Iterable[Given]) -> None:
        for one in given:
            self.forget(one)
