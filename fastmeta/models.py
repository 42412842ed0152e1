"""The few things that all parts talk about: scopes, ports, questions to a lookup source, listeners.

Frozen values without behaviour of their own. Whatever comes from outside is checked here once, strictly: what
these classes hold may be believed to have the form that it should have (not that it is true).
"""

from __future__ import annotations

import enum
import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from fastmeta.exceptions import ConfigError, LookupMalformedError

IPAddress: TypeAlias = "ipaddress.IPv4Address | ipaddress.IPv6Address"

MAX_FIXED_IPS = 1024
"""Fixed IPs that one port may have; Neutron's own limit (max_fixed_ips_per_port) is 5 unless an operator
raises it."""

ROUTER_INTERFACE_OWNERS = frozenset(
    {
        "network:router_interface",
        "network:router_interface_distributed",
        "network:ha_router_replicated_interface",
        "network:router_centralized_snat",
    }
)
"""Owners of ports by which a router has a network. Not network:router_ha_interface: that is the network
between the copies of an HA router, which no instance is in; nor network:router_gateway."""
ROUTER_OWNERS = ROUTER_INTERFACE_OWNERS | {"network:router_gateway", "network:router_ha_interface"}
"""Owners of ports that are a router's own."""

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.ASCII)
# An id becomes the value of a header that Nova trusts: visible ASCII, at most the 255 characters of Neutron's
# columns.
_ID = re.compile(r"[\x21-\x7e]{0,255}", re.ASCII)
_TCP_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_NAMESPACE = re.compile(r"[A-Za-z0-9_.-]{1,255}", re.ASCII)


def parse_uuid(text: object) -> str | None:
    """The UUID in its canonical, lower-case form, or None when text is not one with hyphens."""
    if not isinstance(text, str):
        return None
    text = text.lower()
    return text if _UUID.fullmatch(text) else None


def parse_address(text: object) -> IPAddress | None:
    """The IP address that text names (an IPv4-mapped one as IPv4), or None."""
    if not isinstance(text, str) or "%" in text:  # a zone is ours to know, never a part of an address
        return None
    try:
        return plain_address(ipaddress.ip_address(text))
    except ValueError:
        return None


def plain_address(address: IPAddress) -> IPAddress:
    """The address with ::ffff:a.b.c.d turned into a.b.c.d: one guest must not have two names."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def pack_address(address: IPAddress) -> bytes:
    """The 16 bytes by which the core knows an address: IPv4 as ::ffff:a.b.c.d."""
    if address.version == 4:
        return b"\0" * 10 + b"\xff\xff" + address.packed
    return address.packed


def unpack_address(packed: bytes) -> IPAddress:
    """The address of the core's 16 bytes. Raises ValueError for any other length."""
    if len(packed) != 16:
        raise ValueError(f"an address has 16 bytes, not {len(packed)}")
    return plain_address(ipaddress.IPv6Address(packed))


def mac_of(address: IPAddress) -> str | None:
    """The MAC from which a link-local address was made (modified EUI-64, RFC 4291 appendix A), or None.

    Addresses without ff:fe in the middle (privacy addresses, fe80::99) say nothing about a MAC.
    """
    if address.version != 6 or not address.is_link_local:
        return None
    packed = address.packed
    if packed[2:8] != b"\0" * 6 or packed[11:13] != b"\xff\xfe":
        return None
    mac = bytes([packed[8] ^ 0x02]) + packed[9:11] + packed[13:16]
    return mac.hex(":")


class ScopeKind(enum.Enum):
    """What a namespace belongs to."""

    NETWORK = "network"
    ROUTER = "router"


@dataclass(frozen=True, slots=True)
class Scope:
    """Where requests come in: one network or one router. Addresses are unique in it, and nowhere else."""

    kind: ScopeKind
    uuid: str

    def __str__(self) -> str:
        return f"{self.kind.value} {self.uuid}"


@dataclass(frozen=True, slots=True)
class Port:
    """What Neutron knows of a port, as far as it decides who somebody is."""

    id: str
    network_id: str
    device_id: str
    device_owner: str
    project_id: str
    mac_address: str
    fixed_ips: tuple[IPAddress, ...]

    @classmethod
    def from_api(cls, item: object) -> Port:
        """The port of one element of ``ports`` in an answer of Neutron's API (REST or RPC: the shape is the
        same).

        Raises LookupMalformedError when anything is missing or has not the form that Neutron gives it. Of
        project_id and tenant_id (RPC before 2026.1) one is enough, but they may not contradict each other.
        """
        if not isinstance(item, Mapping):
            raise LookupMalformedError(f"a port is a JSON object, not {_shown(item)}")
        port_id = parse_uuid(item.get("id"))
        if port_id is None:
            raise LookupMalformedError(f"port {_shown(item.get('id'))}: id is not a UUID")
        network_id = parse_uuid(item.get("network_id"))
        if network_id is None:
            raise LookupMalformedError(
                f"port {port_id}: network_id is not a UUID but {_shown(item.get('network_id'))}"
            )
        project_id = _id(port_id, item, "project_id", "tenant_id")
        mac_address = item.get("mac_address")
        if not isinstance(mac_address, str) or not _MAC.fullmatch(mac_address.lower()):
            raise LookupMalformedError(
                f"port {port_id}: mac_address is not like fa:16:3e:00:00:01 but {_shown(mac_address)}"
            )
        return cls(
            id=port_id,
            network_id=network_id,
            device_id=_id(port_id, item, "device_id"),
            device_owner=_id(port_id, item, "device_owner"),
            project_id=project_id,
            mac_address=mac_address.lower(),
            fixed_ips=_fixed_ips(port_id, item.get("fixed_ips")),
        )


def _id(port_id: str, item: Mapping[str, Any], *names: str) -> str:
    """The value that the first of these names gives; the others may be absent but not different."""
    values = {item[name] for name in names if isinstance(item.get(name), str)}
    wrong = [name for name in names if item.get(name) is not None and not isinstance(item[name], str)]
    if wrong:
        raise LookupMalformedError(f"port {port_id}: {wrong[0]} is not a string but {_shown(item[wrong[0]])}")
    if not values:
        raise LookupMalformedError(f"port {port_id}: {names[0]} is missing")
    if len(values) > 1:
        raise LookupMalformedError(f"port {port_id}: {' and '.join(names)} contradict each other")
    value: str = values.pop()
    if not _ID.fullmatch(value):
        raise LookupMalformedError(
            f"port {port_id}: {names[0]} has more than 255 characters or other than visible ASCII: "
            f"{_shown(value)}"
        )
    return value


def _fixed_ips(port_id: str, value: object) -> tuple[IPAddress, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise LookupMalformedError(f"port {port_id}: fixed_ips is not a list but {_shown(value)}")
    if len(value) > MAX_FIXED_IPS:
        raise LookupMalformedError(f"port {port_id}: {len(value)} fixed_ips, more than {MAX_FIXED_IPS}")
    addresses = []
    for element in value:
        address = parse_address(element.get("ip_address")) if isinstance(element, Mapping) else None
        if address is None:
            raise LookupMalformedError(f"port {port_id}: no ip_address in {_shown(element)}")
        addresses.append(address)
    return tuple(addresses)


def _shown(value: object) -> str:
    """A piece of a source's answer for an error text: short, and without control characters (repr escapes
    them)."""
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."


@dataclass(frozen=True, slots=True)
class Question:
    """One address whose port is asked for in a scope."""

    address: IPAddress

    @property
    def mac(self) -> str | None:
        """The MAC to ask for in place of the address; None asks for the fixed IP."""
        return mac_of(self.address)

    @property
    def answerable(self) -> bool:
        """False for a link-local address that no MAC can be read from: no source could name its port."""
        return not (self.address.version == 6 and self.address.is_link_local) or self.mac is not None


@dataclass(frozen=True, slots=True)
class MalformedPort:
    """A port in an answer that could not be read, and whom that concerns: addresses is None for everybody."""

    reason: str
    addresses: frozenset[IPAddress] | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a lookup source says: the networks of the scope that was asked about, and ports that may be the
    ones.

    It need not be exact: ports of other networks or addresses are left out by whoever judges it.

    links: the networks of a router's own ports by their MACs (see links_of): what tells which network a guest
    with a link-local address is in. Empty for a network.
    """

    networks: frozenset[str]
    ports: tuple[Port, ...]
    malformed: tuple[MalformedPort, ...] = ()
    links: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def from_api(
        cls,
        networks: Iterable[str],
        items: Iterable[object],
        links: Mapping[str, frozenset[str]] | None = None,
    ) -> Answer:
        """networks and links of the scope, and the elements of ``ports`` in the answer of Neutron's API.
        Raises nothing for a malformed port: it is kept apart, with the addresses that it seems to have."""
        ports: list[Port] = []
        malformed: list[MalformedPort] = []
        for item in items:
            try:
                ports.append(Port.from_api(item))
            except LookupMalformedError as error:
                malformed.append(MalformedPort(str(error), _addresses_of_malformed(item)))
        return cls(frozenset(networks), tuple(ports), tuple(malformed), links or {})


def links_of(router_ports: Iterable[Port]) -> dict[str, frozenset[str]]:
    """Answer.links of a router's own ports.

    Which ports are its own, only their device_owner tells (a tenant may write any device_id into a port, but
    no device_owner that begins with ``network:``): the ones that give it its networks, and the gateway's and
    HA ports, over which no instance may ask.
    """
    links: dict[str, frozenset[str]] = {}
    for port in router_ports:
        links[port.mac_address] = links.get(port.mac_address, frozenset()) | {port.network_id}
    return links


def _addresses_of_malformed(item: object) -> frozenset[IPAddress] | None:
    """Whom a malformed port concerns: its fixed IPs when these at least can be read, else (None) everybody.

    A guest that is asked for by its MAC is concerned by every malformed port: the MAC may be what is wrong.
    """
    if not isinstance(item, Mapping):
        return None
    try:
        return frozenset(_fixed_ips("", item.get("fixed_ips"))) or None
    except LookupMalformedError:
        return None


@dataclass(frozen=True, slots=True)
class Change:
    """What a source no longer holds for true: everything asked about these was answered too early.

    addresses: by network whose ports changed, their fixed IPs before and after (none, when they have only a
    MAC). routers: routers whose networks changed. everything: the source cannot say what changed. ports: ids of
    ports of which nothing that was said holds any more (of one that was deleted nothing else may be known).
    """

    addresses: Mapping[str, frozenset[IPAddress]]
    routers: frozenset[str] = frozenset()
    everything: bool = False
    ports: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ListenSpec:
    """One address to listen on: for which scope, in which namespace (None: our own), and where in it.

    interface: only for IPv6 link-local addresses, which mean nothing without it.
    """

    scope: Scope
    namespace: str | None
    address: IPAddress
    tcp_port: int
    interface: str | None = None

    @classmethod
    def parse(cls, text: str) -> ListenSpec:
        """Reads ``network:<uuid>@[<namespace>/]<address>:<tcp port>`` (or ``router:``), IPv6 in brackets.

        Raises ConfigError that says which part is wrong.
        """
        scope_text, at, place = text.partition("@")
        kind_text, _, uuid_text = scope_text.partition(":")
        if not at:
            raise ConfigError("there is no @ between the network or router and the address")
        try:
            kind = ScopeKind(kind_text)
        except ValueError:
            raise ConfigError(f"{kind_text!r} is neither network nor router") from None
        uuid = parse_uuid(uuid_text)
        if uuid is None:
            raise ConfigError(f"{uuid_text!r} is not a UUID")
        namespace: str | None = None
        if "/" in place:
            namespace, _, place = place.partition("/")
            if not _NAMESPACE.fullmatch(namespace) or namespace in (".", ".."):
                raise ConfigError(f"{namespace!r} is not the name of a namespace")
        address_text, colon, tcp_port_text = place.rpartition(":")
        if not colon or not _TCP_PORT.fullmatch(tcp_port_text) or not 1 <= int(tcp_port_text) <= 65535:
            raise ConfigError(f"{place!r} does not end with a colon and a TCP port from 1 to 65535")
        tcp_port = int(tcp_port_text)
        bracketed = address_text.startswith("[") and address_text.endswith("]")
        address_text, _, interface = (address_text[1:-1] if bracketed else address_text).partition("%")
        address = parse_address(address_text)
        if address is None or bracketed != (":" in address_text):
            raise ConfigError(f"{place!r} is not <IPv4>:<tcp port> or [<IPv6>]:<tcp port>")
        link_local = address.version == 6 and address.is_link_local
        if link_local != bool(interface) or len(interface) > 15:
            raise ConfigError(
                f"{place!r}: a link-local IPv6 address, and only that, needs its interface: [fe80::1%eth0]:80"
            )
        return cls(Scope(kind, uuid), namespace, address, tcp_port, interface or None)

    @property
    def place(self) -> str:
        """Address and TCP port as in the option, without the namespace."""
        if self.address.version == 4:
            return f"{self.address}:{self.tcp_port}"
        zone = f"%{self.interface}" if self.interface else ""
        return f"[{self.address}{zone}]:{self.tcp_port}"

    def __str__(self) -> str:
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.scope.kind.value}:{self.scope.uuid}@{where}{self.place}"
