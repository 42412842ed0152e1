"""Networks of the DHCP agent: served where it has put the metadata address on its port, and nobody listens."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import os
import socket
from typing import NamedTuple

from oslo_log import log as logging

from fastmeta.discovery.metadata_networks import MetadataNetworks
from fastmeta.discovery.names import QDHCP, Names, uuid_of
from fastmeta.discovery.serving import FIRST_PAUSE, Gathered, Served, reason
from fastmeta.exceptions import (
    LookupFailedError,
    LookupUnavailableError,
    NamespaceError,
    NamespaceNotFoundError,
)
from fastmeta.models import Change, ListenSpec, Scope, ScopeKind
from fastmeta.netns.addresses import AddressTable
from fastmeta.netns.listening import listening_tcp_ports
from fastmeta.netns.namespaces import Raised, namespace_inode
from fastmeta.netns.visits import Visits

LOG = logging.getLogger(__name__)

TCP_PORT = 80
ADDRESS = ipaddress.IPv4Address("169.254.169.254")
ADDRESS_V6 = ipaddress.IPv6Address("fe80::a9fe:a9fe")
METADATA_SUBNETS = ipaddress.IPv4Network("169.254.0.0/16")
"""Neutron's METADATA_DEFAULT_CIDR: a network with a subnet in it is a metadata network."""


class Wish(NamedTuple):
    """What the addresses of a namespace ask for. link: index of the interface that has ADDRESS; ipv6: it has
    ADDRESS_V6, too; metadata_network: it has an address in METADATA_SUBNETS besides."""

    link: int
    ipv6: bool
    metadata_network: bool


class Look(NamedTuple):
    """What was seen in a namespace. interface: the name of the one of the wish; taken: somebody listens on TCP_PORT."""

    wish: Wish
    interface: str
    taken: bool


class Seen(NamedTuple):
    """What a visit brings back. inode: of the namespace that it was in. look: None when there is no such interface."""

    inode: int
    table: AddressTable | None
    look: Look | None


class _Network(Served):
    """scope: of a metadata network, once it is known."""

    __slots__ = ("asking", "look", "scope", "specs", "table")

    def __init__(self, name: str, uuid: str) -> None:
        super().__init__(name, uuid)
        self.table: AddressTable | None = None
        self.look: Look | None = None
        self.scope: Scope | None = None
        self.specs: frozenset[ListenSpec] = frozenset()
        self.asking: asyncio.Task[None] | None = None


class Networks:
    """All that are there. Lives in the event loop's thread.

    metadata_networks: None where such networks are like others.
    """

    def __init__(
        self, names: Names, listeners: Gathered, visits: Visits, metadata_networks: MetadataNetworks | None
    ) -> None:
        self._names = names
        self._listeners = listeners
        self._visits = visits
        self._metadata_networks = metadata_networks
        self._networks: dict[str, _Network] = {}
        self._stopped = False

    @property
    def served(self) -> int:
        """How many have a listener."""
        return sum(bool(network.specs) for network in self._networks.values())

    def stop(self) -> None:
        """Nothing is begun any more."""
        self._stopped = True
        for network in self._networks.values():
            self._leave(network)

    def appeared(self, name: str) -> None:
        """A namespace of a network."""
        uuid = uuid_of(name, QDHCP)
        if uuid is not None:
            network = self._networks[uuid] = _Network(name, uuid)
            self._consider(network)

    def gone(self, name: str) -> None:
        """Whatever of us is in it would keep it alive."""
        network = self._networks.pop(name.removeprefix(QDHCP), None)
        if network is not None:
            network.gone = True
            self._leave(network)
            self._serve(network, frozenset())

    def changed(self, change: Change) -> None:
        """Neutron's ports have: whose guests come in over a metadata network may not hold any more."""
        for network in self._networks.values():
            if network.scope is None and network.asking is None:
                continue  # nobody has to be asked whose guests they are
            known = network.scope is not None and network.scope.uuid not in change.routers
            if network.uuid in change.addresses or (change.routers and not known):
                network.scope = None
                self._serve(network, frozenset())
                self._ask(network)
            elif change.everything:
                self._ask(network)

    def _leave(self, network: _Network) -> None:
        network.not_later()
        if network.asking is not None:
            network.asking.cancel()
            network.asking = None
        if network.table is not None:
            asyncio.get_running_loop().remove_reader(network.table.fileno())
            network.table.close()
            network.table = None

    def _consider(self, network: _Network) -> None:
        """Takes the next step towards what should be."""
        if network.busy or network.gone or self._stopped:
            return
        network.not_later()
        if network.table is None:
            self._visit(network, None)
            return
        wish = wish_of(network.table)
        if wish is None:
            network.look = None
            self._serve(network, frozenset())
            network.waits(f"no interface in it has {ADDRESS}")
        elif network.look is None or network.look.wish != wish:
            self._visit(network, wish)
        elif network.look.taken and not network.specs:
            network.look = None
            network.hindered(
                f"somebody else listens on its TCP port {TCP_PORT} (a haproxy of the DHCP agent?)",
                functools.partial(self._consider, network),
            )
        elif not wish.metadata_network or self._metadata_networks is None:
            self._found(network, Scope(ScopeKind.NETWORK, network.uuid), network.look)
        elif network.scope is None:
            if network.asking is None:
                self._ask(network)
        else:
            self._found(network, network.scope, network.look)
            network.later(self._metadata_networks.confirm_every(), functools.partial(self._ask, network))

    def _found(self, network: _Network, scope: Scope, look: Look) -> None:
        """Whose guests come in here is known."""
        network.works()
        specs = {ListenSpec(scope, network.name, ADDRESS, TCP_PORT)}
        if look.wish.ipv6:
            specs.add(ListenSpec(scope, network.name, ADDRESS_V6, TCP_PORT, look.interface))
        self._serve(network, frozenset(specs))

    def _serve(self, network: _Network, specs: frozenset[ListenSpec]) -> None:
        """These from now on, and no others. Who is connected to others may not be who he was."""
        for spec in network.specs - specs:
            self._listeners.remove(spec, drain=False)
        for spec in specs - network.specs:
            self._listeners.add(spec)
        network.specs = specs

    def _visit(self, network: _Network, wish: Wish | None) -> None:
        """wish: what is to be looked for; None: what its addresses ask for has to be found out, too."""
        network.busy = True
        path = self._names.path(network.name)
        function = functools.partial(first_look, path) if wish is None else functools.partial(_look, wish)
        self._visits.visit(path, function, functools.partial(self._looked, network))

    def _looked(self, network: _Network, result: Seen | Raised) -> None:
        network.busy = False
        again = functools.partial(self._consider, network)
        over = network.gone or self._stopped
        if isinstance(result, Raised):
            if over:
                return
            if isinstance(result.error, NamespaceNotFoundError):
                network.later(FIRST_PAUSE, again)  # it is going, and we will be told
            else:
                network.hindered(reason(result.error), again)
            return
        # Of another one, that came under this name meanwhile, we will be told.
        if over or result.inode != namespace_inode(self._names.path(network.name)):
            if result.table is not None:
                result.table.close()
            return
        if result.table is not None:
            network.table = result.table
            loop = asyncio.get_running_loop()
            loop.add_reader(result.table.fileno(), self._addresses_changed, network)
        network.look = result.look
        self._consider(network)

    def _addresses_changed(self, network: _Network) -> None:
        if network.table is None:
            return
        failure = ""
        try:
            network.table.update()
        except NamespaceError as error:
            failure = str(error)
        if failure:  # (outside of except, where oslo.log would say it twice)
            self._leave(network)
            network.hindered(failure, functools.partial(self._consider, network))
        else:
            self._consider(network)

    def _ask(self, network: _Network) -> None:
        """Whose guests come in here; again, if that is being asked: what comes of it may be too old already."""
        if network.asking is not None:
            network.asking.cancel()
        network.asking = asyncio.get_running_loop().create_task(self._asked(network))

    async def _asked(self, network: _Network) -> None:
        doubt, away = "", ""
        scope: Scope | None = None
        try:
            if self._metadata_networks is not None:
                scope = await self._metadata_networks.scope_of(network.uuid)
        except LookupUnavailableError as error:
            away = str(error)
        except LookupFailedError as error:
            doubt = str(error)
        network.asking = None
        if network.gone or self._stopped:
            return
        if not away:  # while nobody can be asked, guests' identities end by themselves
            network.scope = scope
        if away or doubt:
            if doubt:
                self._serve(network, frozenset())
            network.hindered(away or doubt, functools.partial(self._ask, network))
        else:
            self._consider(network)


def wish_of(table: AddressTable) -> Wish | None:
    """None when nobody wants metadata there."""
    for index in sorted(table.interfaces(ADDRESS)):
        addresses = table.of(index)
        others = (one for one in addresses if one.version == 4 and one != ADDRESS)
        return Wish(index, ADDRESS_V6 in addresses, any(one in METADATA_SUBNETS for one in others))
    return None


def first_look(path: str) -> Seen:
    """In a thread that is in the namespace."""
    table = AddressTable(path, entered=True)
    try:
        wish = wish_of(table)
        seen = _look(wish) if wish is not None else Seen(_inode(), None, None)
    except BaseException:
        table.close()
        raise
    return seen._replace(table=table)


def _look(wish: Wish) -> Seen:
    """Likewise."""
    try:
        interface = socket.if_indextoname(wish.link)
    except OSError:
        return Seen(_inode(), None, None)  # it has just gone
    return Seen(_inode(), None, Look(wish, interface, TCP_PORT in listening_tcp_ports()))


def _inode() -> int:
    return os.stat("/proc/thread-self/ns/net").st_ino
