"""Reads what Neutron announces about ports: the primitives of versioned objects, without Neutron's classes.

ML2 pushes each port that was created, changed or deleted, after the commit, to the topic neutron-vo-Port-<version> of
every version that it knows an agent to want. A change carries the whole port, a deletion only its id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastmeta.exceptions import LookupMalformedError
from fastmeta.models import MAX_FIXED_IPS, ROUTER_OWNERS, Change, IPAddress, parse_address, parse_uuid

PORT_VERSION = "1.4"
"""The version of Neutron's Port that we ask for. A server that has an older one than an agent names fails to push to
any agent, so it must be one that all have: 1.4 is of 2018 (Rocky). Servers take away what came later; of all that only
id, network, owner and fixed IPs matter here, which every version has."""
TOPIC = f"neutron-vo-Port-{PORT_VERSION}"


def read_push(arguments: Mapping[str, Any]) -> Change:
    """The change that one push(resource_list, event_type) tells of. Raises LookupMalformedError for anything that is
    not understood in full."""
    event_type = arguments.get("event_type")
    resources = arguments.get("resource_list")
    if event_type not in ("created", "updated", "deleted"):
        raise LookupMalformedError("the event is none of created, updated, deleted")
    if not isinstance(resources, list):
        raise LookupMalformedError("resource_list is not a list")
    ports: set[str] = set()
    routers: set[str] = set()
    addresses: dict[str, frozenset[IPAddress]] = {}
    for resource in resources:
        data = _data(resource, "Port")
        port_id = parse_uuid(data.get("id"))
        if port_id is None:
            raise LookupMalformedError("the id of a port is not a UUID")
        ports.add(port_id)
        if event_type == "deleted":
            continue
        network_id = parse_uuid(data.get("network_id"))
        if network_id is None:
            raise LookupMalformedError("the network_id of a port is not a UUID")
        addresses[network_id] = addresses.get(network_id, frozenset()) | _fixed_ips(data.get("fixed_ips"))
        owner, device = data.get("device_owner"), data.get("device_id")
        if not isinstance(owner, str) or not isinstance(device, str):
            raise LookupMalformedError("device_owner or device_id of a port is not a string")
        if owner in ROUTER_OWNERS and device:
            routers.add(device.lower())
    return Change(addresses, frozenset(routers), ports=frozenset(ports))


def _data(primitive: object, name: str) -> Mapping[str, Any]:
    """The fields of a versioned object's primitive."""
    if not isinstance(primitive, Mapping) or primitive.get("versioned_object.name") != name:
        raise LookupMalformedError(f"not a versioned object of the name {name}")
    version = primitive.get("versioned_object.version")
    if not isinstance(version, str) or version.partition(".")[0] != "1":
        raise LookupMalformedError(f"the version of a {name} is not 1.x")
    data = primitive.get("versioned_object.data")
    if not isinstance(data, Mapping):
        raise LookupMalformedError(f"a {name} has no fields")
    return data


def _fixed_ips(value: object) -> frozenset[IPAddress]:
    if value is None:  # the field may be that
        return frozenset()
    if not isinstance(value, Sequence) or isinstance(value, str | bytes) or len(value) > MAX_FIXED_IPS:
        raise LookupMalformedError("fixed_ips of a port is not a list, or too long a one")
    addresses = set()
    for element in value:
        address = parse_address(_data(element, "IPAllocation").get("ip_address"))
        if address is None:
            raise LookupMalformedError("a fixed IP of a port is not an IP address")
        addresses.add(address)
    return frozenset(addresses)
