"""The lookup source that asks Neutron's servers over the message bus, as the stock agent does.

get_ports(filters=…) on topic q-plugin, version 1.0, with an admin context. The answer holds whole ports; there are no
pages. A router's own ports are asked for first, then the ports in the networks that they are in: without networks there
is no second question, since a filter that is empty is none for Neutron, and would find addresses of the whole cloud.

While port events can be relied on (fastmeta.bus.subscription) their changes are announced, and a router's ports are
kept for a moment.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from oslo_config import cfg
from oslo_log import log as logging

from fastmeta.bus.connection import Bus
from fastmeta.bus.failures import explain
from fastmeta.bus.port_events import PORT_VERSION
from fastmeta.bus.subscription import CANARY_LIMIT, CANARY_PERIOD, Subscription
from fastmeta.bus.workers import Workers
from fastmeta.conf.bus import host_name
from fastmeta.exceptions import LookupFailedError, LookupMalformedError, LookupUnavailableError
from fastmeta.lookup.parts import Heard, ignored
from fastmeta.lookup.source import OnAnnouncing, OnChange
from fastmeta.models import (
    ROUTER_INTERFACE_OWNERS,
    ROUTER_OWNERS,
    Answer,
    Change,
    Port,
    Question,
    Scope,
    ScopeKind,
    links_of,
)
from fastmeta.reports import SETTLE, StateReports, close

LOG = logging.getLogger(__name__)

TOPIC = "q-plugin"
VERSION = "1.0"
MAX_ADDRESSES = 200
"""Of one call; more are asked for in further calls, one after the other."""
CALLS_AT_ONCE = 8
"""Threads, and so scopes that are asked about at the same time; others wait for their turn. With the one for what
nobody waits for, and that of reports, not more than the 10 waiting calls beyond which oslo.messaging warns."""
ROUTER_KEPT = 5.0
"""Seconds for which a router's ports are kept while changes are announced. Long enough for a storm of guests, so short
that an event that was lost without a trace adds next to nothing to the life of an identity."""
MAX_ROUTERS_KEPT = 4096
MAX_OWN_PORTS = 65_536
"""Ports of routers that are remembered, so that a deletion, which names nothing but the port, is known to be a
router's."""
STOP_GRACE = 4.0
"""Seconds that stop() waits for calls in progress; their threads end by themselves some ten seconds later at most."""
MARGIN = 0.05
"""The part of lookup_timeout that is left for saying what went wrong, before the resolver stops waiting."""


@dataclass(frozen=True, slots=True)
class _Router:
    """What the own ports of a router say."""

    networks: frozenset[str]
    links: Mapping[str, frozenset[str]]
    port_ids: frozenset[str]
    asked_at: float


class RpcSource:
    """The LookupSource of the message bus."""

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        *,
        lookup_timeout: float | Callable[[], float],
        canary_period: float = CANARY_PERIOD,
        canary_limit: float = CANARY_LIMIT,
        settle: float = SETTLE,
    ) -> None:
        """conf: the agent's. lookup_timeout: seconds that each call has, or what gives them.
        Raises ConfigError when oslo.messaging is missing, or cannot use transport_url."""
        self._conf = conf
        self._bus = Bus(conf)
        self._lookup_timeout = lookup_timeout
        self._canary_period = canary_period
        self._canary_limit = canary_limit
        self._settle = settle
        self._workers = Workers("bus-call", CALLS_AT_ONCE)
        # Until an answer has shown that the bus is there a single call tries it: all others would only hang behind it.
        self._workers.limit(1)
        # For what nobody waits for.
        self._lister = Workers("bus-list", 1)
        self._subscription: Subscription | None = None
        self._reports: StateReports | None = None
        self._on_change: OnChange | None = None
        self._on_announcing: OnAnnouncing | None = None
        self._announcing = False
        self._routers: dict[str, _Router] = {}
        self._router_of_port: dict[str, str] = {}
        # Events that may be about a router; these, and times at which nothing that is kept holds any more.
        self._router_events = 0
        self._router_changes = 0

    async def start(self, on_change: OnChange, on_announcing: OnAnnouncing) -> None:
        """Begins to subscribe and to report; waits for nothing."""
        self._on_change = on_change
        self._on_announcing = on_announcing
        self._subscription = subscription = Subscription(
            self._bus,
            host_name(self._conf),
            on_change=self._changed,
            on_announcing=self._set_announcing,
            period=self._canary_period,
            limit=self._canary_limit,
        )
        self._reports = StateReports(
            self._conf,
            self._bus,
            resource_versions={"Port": PORT_VERSION},
            on_known=subscription.known_to_neutron,
            settle=self._settle,
        )
        subscription.start()
        self._reports.start()
        LOG.info("lookup: Neutron's servers are asked over %s", self._bus.place)

    async def stop(self) -> None:
        """Ends everything; a bus that does not answer is not waited for."""
        self._on_change = self._on_announcing = None
        self._workers.stop()
        self._lister.stop()
        subscription, reports = self._subscription, self._reports
        if reports is not None:
            reports.end()
        if subscription is not None:
            subscription.end()

        def join(seconds: float) -> bool:
            end = time.monotonic() + seconds
            return (
                self._workers.join(seconds)
                and self._lister.join(max(0.0, end - time.monotonic()))
                and (reports is None or reports.join(seconds))
            )

        def close_bus() -> None:
            try:
                if subscription is not None:
                    subscription.close_server()
            finally:
                self._bus.close()

        await close(join, close_bus, seconds=STOP_GRACE)

    async def ports(self, scope: Scope, questions: Sequence[Question], heard: Heard = ignored) -> Answer:
        """Raises LookupUnavailableError, LookupRefusedError, LookupMalformedError."""

        async def ask(networks: frozenset[str]) -> list[object]:
            items: list[object] = []
            for count, filters in enumerate(_filters(networks, questions)):
                if count:
                    heard()
                items += await self._get_ports(filters, self._workers)
            return items

        networks, links, items = await self._asked(scope, ask, self._workers, heard)
        return Answer.from_api(networks, items, links)

    async def all_ports(self, scope: Scope, most: int, heard: Heard = ignored) -> Answer | None:
        """As ports(). There are no pages: what is too much has come then."""

        async def ask(networks: frozenset[str]) -> list[object]:
            return await self._get_ports({"network_id": sorted(networks)}, self._lister)

        networks, links, items = await self._asked(scope, ask, self._lister, heard)
        if len(items) > most:
            return None
        # Reading so many takes a while.
        return await self._lister.run(Answer.from_api, networks, items, links)

    async def _asked(
        self,
        scope: Scope,
        ask: Callable[[frozenset[str]], Awaitable[list[object]]],
        workers: Workers,
        heard: Heard,
    ) -> tuple[frozenset[str], Mapping[str, frozenset[str]], list[object]]:
        """The scope's networks, its links, and what ask gives for these networks; it is not asked without any."""
        if scope.kind is ScopeKind.NETWORK:
            networks = frozenset((scope.uuid,))
            return networks, {}, await ask(networks)
        while True:
            events = self._router_events
            router = await self._router(scope.uuid, workers)
            heard()
            items = await ask(router.networks) if router.networks else []
            if events == self._router_events:
                return router.networks, router.links, items
            # What was deleted meanwhile may have been a port of this router, by which it had one of these networks.

    async def _router(self, router_id: str, workers: Workers) -> _Router:
        """Its own ports: kept, or asked for."""
        kept = self._routers.get(router_id)
        if kept is not None and time.monotonic() - kept.asked_at < ROUTER_KEPT:
            return kept
        announcing, changes = self._announcing, self._router_changes
        asked_at = time.monotonic()
        items = await self._get_ports(
            {"device_id": [router_id], "device_owner": sorted(ROUTER_OWNERS)}, workers
        )
        ports = [Port.from_api(item) for item in items]
        # Whatever else the server may have answered: a port that is not the router's own gives it no network.
        own = [
            port
            for port in ports
            if port.device_owner in ROUTER_OWNERS and port.device_id.lower() == router_id
        ]
        router = _Router(
            frozenset(port.network_id for port in own if port.device_owner in ROUTER_INTERFACE_OWNERS),
            links_of(own),
            frozenset(port.id for port in own),
            asked_at,
        )
        for port in own:
            self._router_of_port.pop(port.id, None)
            self._router_of_port[port.id] = router_id
        while len(self._router_of_port) > MAX_OWN_PORTS:
            del self._router_of_port[next(iter(self._router_of_port))]
        self._routers.pop(router_id, None)
        if announcing and self._announcing and changes == self._router_changes:
            while len(self._routers) >= MAX_ROUTERS_KEPT:
                del self._routers[next(iter(self._routers))]
            self._routers[router_id] = router
        return router

    async def _get_ports(self, filters: Mapping[str, Any], workers: Workers) -> list[object]:
        seconds = self._timeout() * (1 - MARGIN)
        try:
            # The call itself ends a little sooner, so that it is the one to say what it waited for.
            answer = await asyncio.wait_for(workers.run(self._call, filters, seconds * (1 - MARGIN)), seconds)
        except asyncio.TimeoutError:
            raise LookupUnavailableError(f"{self._bus.place} does not answer") from None
        except LookupFailedError:
            raise
        except Exception as error:
            raise explain(error, place=self._bus.place, call="get_ports", timeout=self._timeout()) from error
        if not isinstance(answer, list):
            raise LookupMalformedError(f"get_ports is answered with {type(answer).__name__}, not with a list")
        return answer

    def _timeout(self) -> float:
        return self._lookup_timeout() if callable(self._lookup_timeout) else self._lookup_timeout

    def _call(self, filters: Mapping[str, Any], timeout: float) -> Any:
        """In a worker's thread."""
        if timeout <= 0:
            raise LookupUnavailableError(f"{self._bus.place} does not answer")
        try:
            answer = self._bus.call(TOPIC, VERSION, "get_ports", timeout, filters=filters)
        except BaseException as error:
            away = "Delivery" in type(error).__name__ or "Operational" in type(error).__name__
            self._workers.limit(1 if away else None)
            raise
        self._workers.limit(None)
        return answer

    def _changed(self, change: Change) -> None:
        """Before anybody is told: nobody must be answered with what no longer holds."""
        if change.everything:
            self._router_events += 1
            self._forget_routers()
        else:
            # What is known of instances behind a router holds only as long as it has their network.
            routers = {self._router_of_port.pop(port, "") for port in change.ports} - {""}
            change = replace(change, routers=change.routers | routers)
            event = bool(change.routers) or not change.addresses
            self._router_events += event
            self._router_changes += event
            for router_id, router in list(self._routers.items()):
                if router_id in change.routers or not router.port_ids.isdisjoint(change.ports):
                    del self._routers[router_id]
        if self._on_change is not None:
            self._on_change(change)

    def _set_announcing(self, announcing: bool) -> None:
        self._announcing = announcing
        self._forget_routers()
        if self._on_announcing is not None:
            self._on_announcing(announcing)

    def _forget_routers(self) -> None:
        self._router_changes += 1
        self._routers.clear()


def _filters(networks: frozenset[str], questions: Sequence[Question]) -> Iterator[dict[str, Any]]:
    """One for each call. networks: never empty."""
    ids = sorted(networks)
    macs = sorted({question.mac for question in questions if question.mac is not None})
    addresses = [str(question.address) for question in questions if question.mac is None]
    for batch in _batches(addresses):
        yield {"network_id": ids, "fixed_ips": {"ip_address": batch}}
    for batch in _batches(macs):
        yield {"network_id": ids, "mac_address": batch}


def _batches(values: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(values), MAX_ADDRESSES):
        yield list(values[start : start + MAX_ADDRESSES])
