"""Metadata networks (enable_metadata_network of the DHCP agent): whose guests come in there. A router is attached to
such a network, and passes its guests' requests on to the DHCP port: so their scope is that router."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fastmeta.exceptions import LookupMalformedError, LookupUnavailableError
from fastmeta.lookup.source import LookupSource
from fastmeta.models import ROUTER_INTERFACE_OWNERS, Scope, ScopeKind, parse_uuid

MOST_PORTS = 2000
"""Of a network that are looked through."""
PATIENCE = 30.0
"""Seconds for all of them together."""


class MetadataNetworks:
    """source: one that has been started. confirm_every: the seconds after which a router is to be asked for again."""

    def __init__(self, source: LookupSource, confirm_every: Callable[[], float]) -> None:
        self._source = source
        self.confirm_every = confirm_every

    async def scope_of(self, network_id: str) -> Scope:
        """The router that is attached; the network itself when none is, as for the DHCP agent.

        Raises LookupFailedError when that cannot be told: also where there are several routers. (The DHCP agent takes
        one of them; guests of the others would be looked for among the wrong ones.)
        """
        network = Scope(ScopeKind.NETWORK, network_id)
        try:
            answer = await asyncio.wait_for(self._source.all_ports(network, MOST_PORTS), PATIENCE)
        except asyncio.TimeoutError:
            raise LookupUnavailableError(f"its ports have not been listed in {PATIENCE:g} s") from None
        if answer is None:
            raise LookupMalformedError(f"a metadata network with too many ports (over {MOST_PORTS})")
        if answer.malformed:
            raise LookupMalformedError(f"one of its ports cannot be read: {answer.malformed[0].reason}")
        routers = {
            port.device_id
            for port in answer.ports
            if port.network_id == network_id and port.device_owner in ROUTER_INTERFACE_OWNERS
        }
        if not routers:
            return network
        if len(routers) > 1:
            raise LookupMalformedError(
                f"a metadata network with {len(routers)} routers, so that nobody can tell whose guests ask: "
                + ", ".join(sorted(routers))
            )
        router_id = parse_uuid(routers.pop())
        if router_id is None:
            raise LookupMalformedError("the device_id of its router's port is not a UUID")
        return Scope(ScopeKind.ROUTER, router_id)
