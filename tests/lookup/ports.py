"""Ports as Neutron's API shows them, and what follows from an answer for who asks."""

from __future__ import annotations

import ipaddress
from typing import Any

from fastmeta.models import Answer, Question, Scope, ScopeKind

BLUE = "11111111-1111-4111-8111-111111111111"
GREEN = "22222222-2222-4222-8222-222222222222"
RED = "33333333-3333-4333-8333-333333333333"
ROUTER = "44444444-4444-4444-8444-444444444444"
OTHER_ROUTER = "55555555-5555-4555-8555-555555555555"
PROJECT = "c6eb4f29e6ac45dc9ec518b1f22c5547"

MALFORMED = "malformed"
NOBODY = "nobody"


def network(uuid: str) -> Scope:
    return Scope(ScopeKind.NETWORK, uuid)


def router(uuid: str = ROUTER) -> Scope:
    return Scope(ScopeKind.ROUTER, uuid)


def port(number: int, *addresses: str, network: str = BLUE, **changes: Any) -> dict[str, Any]:
    """Of an instance, whose name is instance-<number>."""
    item = {
        "id": f"00000000-0000-4000-8000-{number:012x}",
        "network_id": network,
        "device_id": f"instance-{number}",
        "device_owner": "compute:nova",
        "project_id": PROJECT,
        "mac_address": f"fa:16:3e:00:{number // 256:02x}:{number % 256:02x}",
        "fixed_ips": [{"subnet_id": BLUE, "ip_address": address} for address in addresses],
        "status": "ACTIVE",
        "name": "",
    }
    return item | changes


def interface(number: int, network: str, router: str = ROUTER, **changes: Any) -> dict[str, Any]:
    """By which a router has a network."""
    owner = {"device_id": router, "device_owner": "network:router_interface"}
    return port(number, "10.0.0.1", network=network, **(owner | changes))


def link_local(number: int) -> str:
    """The address that the instance with this number makes of its MAC."""
    return f"fe80::f816:3eff:fe00:{number:x}"


def questions(*addresses: str) -> list[Question]:
    return [Question(ipaddress.ip_address(address)) for address in addresses]


def whose(answer: Answer, scope: Scope, question: Question) -> str:
    """Whom the address belongs to by the rules of identity safety: the oracle of these tests.

    Written down anew, and not the resolver's: what is tested are sources.
    """
    for malformed in answer.malformed:
        if malformed.addresses is None or question.mac or question.address in malformed.addresses:
            return MALFORMED
    networks = answer.networks if scope.kind is ScopeKind.ROUTER else answer.networks & {scope.uuid}
    fitting = {
        one
        for one in answer.ports
        if one.network_id in networks
        and (one.mac_address == question.mac if question.mac else question.address in one.fixed_ips)
    }
    if len(fitting) == 1:
        (one,) = fitting
        if one.device_id and one.project_id:
            return one.device_id
    return NOBODY
