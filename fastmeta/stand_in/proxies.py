"""The proxies that stand-ins have handed over: their scopes and listeners in the core, and what may be beside what."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from oslo_log import log as logging

from fastmeta.exceptions import FastmetaError, StandInError
from fastmeta.listeners import ListenerState, ListenerTable
from fastmeta.netns.links import LinkWatch
from fastmeta.scopes import Scopes
from fastmeta.stand_in.message import HandOver
from fastmeta.stand_in.sockets import check, namespace_descriptor

LOG = logging.getLogger(__name__)


WAY = "stand-in"
"""The way in of its listeners, for operators."""


class ProxyTable(ListenerTable, Protocol):
    """The part of the core's loops that is told."""

    def set_rates(self, scope: int, rates: Mapping[str, int]) -> None: ...


class Proxy:
    """One holder's sockets, as they are served. listeners: their numbers in the core, and where they are."""

    __slots__ = ("claim", "listeners", "scope_number", "successor")

    def __init__(self, claim: HandOver, scope_number: int) -> None:
        self.claim = claim
        self.scope_number = scope_number
        self.listeners: dict[int, str] = {}
        self.successor = False
        """Whether another one has its place now: what it has begun may end then."""

    def __str__(self) -> str:
        places = ", ".join(map(str, self.claim.sockets))
        return f"{self.claim.scope} on {places} ({self.claim.place})"


class Proxies:
    """Lives in the event loop's thread. new_listener gives a number that no listener has or had."""

    def __init__(self, table: ProxyTable, scopes: Scopes, new_listener: Callable[[], int]) -> None:
        self._table = table
        self._scopes = scopes
        self._new_listener = new_listener
        self._proxies: dict[str, Proxy] = {}
        self._of_place: dict[str, list[Proxy]] = {}
        # By the core's numbers: what it has, also while it is closing it.
        self._places: dict[int, tuple[Proxy, str]] = {}
        self._links = LinkWatch(self._links_changed)
        self.on_links_changed: Callable[[int], None] = _nobody
        self.on_opened: Callable[[int], None] = _nobody
        """Both as of Listeners.start."""

    def __contains__(self, holder: object) -> bool:
        return holder in self._proxies

    def __iter__(self) -> Iterator[Proxy]:
        return iter(list(self._proxies.values()))

    @property
    def open(self) -> int:
        """Listeners."""
        return sum(len(proxy.listeners) for proxy in self._proxies.values())

    def take(self, claim: HandOver, descriptors: list[int]) -> list[Proxy]:
        """Serves these sockets from now on; descriptors that are taken are taken out of the list, the others stay the
        caller's. Gives the predecessors, whose holders are to end. Raises StandInError, CoreError: nothing of it is
        served then."""
        check(claim, descriptors)
        if claim.holder in self._proxies:
            raise StandInError(f"the sockets of {claim.holder} are here already")
        predecessors = self._beside(claim)
        proxy = Proxy(claim, self._scopes.hold(claim.scope, claim.place))
        self._proxies[claim.holder] = proxy
        self._of_place.setdefault(claim.place, []).append(proxy)
        try:
            if any(claimed.address.version == 6 for claimed in claim.sockets):
                # Before a guest is met whose link is not followed.
                self._follow(claim, descriptors[0])
            if claim.rate is not None:
                self._table.set_rates(proxy.scope_number, claim.rate.settings)
            for claimed in claim.sockets:
                number = self._new_listener()
                # The core owns it, also when it does not take it.
                self._table.add_listener(number, proxy.scope_number, descriptors.pop(0))
                proxy.listeners[number] = str(claimed)
                self._places[number] = (
                    proxy,
                    f"{claim.scope.kind.value}:{claim.scope.uuid}@{claim.place}/{claimed}",
                )
                self._scopes.hold_again(proxy.scope_number)  # until the core has closed it
        except FastmetaError:
            self.close(claim.holder)
            raise
        LOG.info("listening: %s", proxy)
        self.on_opened(proxy.scope_number)
        for predecessor in predecessors:
            predecessor.successor = True
        return predecessors

    def close(self, holder: str) -> None:
        """The holder is gone, and with it the proxy: nothing of it is served any more."""
        proxy = self._proxies.pop(holder, None)
        if proxy is None:
            return
        why = "it has a successor" if proxy.successor else "its holder has ended"
        LOG.info("%s: closing %s", why, proxy)
        for number in proxy.listeners:
            self._table.remove_listener(number, drain=proxy.successor)
        others = self._of_place[proxy.claim.place]
        others.remove(proxy)
        if not others:
            del self._of_place[proxy.claim.place]
            self._links.forget(proxy.claim.place)
        self._scopes.let_go(proxy.scope_number)

    def stop(self) -> None:
        """Links are not followed any more; the core closes what is open."""
        self._links.stop()

    def link_mac(self, number: int, index: int) -> str | None:
        """As of Listeners."""
        return (
            self._links.mac(self._scopes.place(number), index) if number in self._scopes.by_number else None
        )

    def closed(self, number: int) -> str | None:
        """As of Listeners."""
        proxy, place = self._places.pop(number, (None, None))
        if proxy is not None:
            self._scopes.let_go(proxy.scope_number)
        return place

    def place(self, number: int) -> str | None:
        """As of Listeners."""
        return self._places.get(number, (None, None))[1]

    def states(self) -> list[ListenerState]:
        """As of Listeners."""
        return [
            ListenerState(proxy.scope_number, WAY, place, self.namespace_of(proxy), open=True, error="")
            for proxy in self._proxies.values()
            for place in proxy.listeners.values()
        ]

    def namespace_of(self, proxy: Proxy) -> str | None:
        """The name of its namespace, if there is one that we know."""
        return None

    def _beside(self, claim: HandOver) -> list[Proxy]:
        """Those whose connections could come here instead; SO_REUSEPORT, which a successor needs, lets them. They are
        predecessors if they serve the same network or router; else a guest would be taken for another's."""
        beside = [
            proxy
            for proxy in self._of_place.get(claim.place, ())
            if any(mine.overlaps(its) for mine in claim.sockets for its in proxy.claim.sockets)
        ]
        for proxy in beside:
            if proxy.claim.scope != claim.scope:
                raise StandInError(
                    f"{claim.sockets[0]}: there is another proxy in that place, for {proxy.claim.scope}"
                )
        return beside

    def _follow(self, claim: HandOver, descriptor: int) -> None:
        namespace = namespace_descriptor(descriptor)
        try:
            self._links.follow(claim.place, f"/proc/self/fd/{namespace}")
        finally:
            os.close(namespace)

    def _links_changed(self, place: str | None) -> None:
        """What is known of guests by the indexes of interfaces ends. Whoever is bound to an interface stays so: it is
        Neutron who starts another proxy when that is another one."""
        for number in {proxy.scope_number for proxy in self._of_place.get(place or "", ())}:
            self.on_links_changed(number)


def _nobody(number: int) -> None:
    """Nobody wants to know."""
