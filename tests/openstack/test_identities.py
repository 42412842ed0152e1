"""Every guest gets the data of its own instance from the real Nova, found in the real Neutron."""

from __future__ import annotations

import json

from ..service.agents import until
from .conftest import Setting
from .scene import META_DATA, Guest


def is_its_own(guest: Guest, *headers: str, ipv6: bool = False) -> None:
    answer = guest.ask(META_DATA, *headers, ipv6=ipv6)
    assert answer.status == 200, (guest.name, answer)
    data = json.loads(answer.body)
    instance = guest.instance
    assert (data["uuid"], data["project_id"]) == (instance.instance_id, instance.project_id), guest.name


def test_overlapping_networks_and_routers(setting: Setting, source: str) -> None:
    """Two networks with the same addresses, and a router with two networks, one of which has them too: by IPv4, and by
    IPv6 from link-local addresses."""
    scene = setting.scene
    networks = [
        scene.isolated(name, "10.0.0.0/24", agent_address="10.0.0.2", cidr_v6="fd00:10::/64")
        for name in ("a", "b")
    ]
    router = scene.router("router")
    networks += [
        scene.routed(router, "c", "10.0.0.0/24", gateway="10.0.0.1", cidr_v6="fd00:10::/64"),
        scene.routed(router, "d", "10.1.0.0/24", gateway="10.1.0.1"),
    ]
    guests = []
    for network in networks:
        prefix = network.cidr.rpartition(".")[0]
        for last in (5, 6):
            v6 = [f"fd00:10::{last}"] if network.cidr_v6 else []
            guests.append(scene.guest(network, f"{prefix}.{last}", *v6))
    setting.agent(source)
    for guest in guests:
        is_its_own(guest)
    for guest in guests:
        scene.enable_ipv6(guest)
        is_its_own(guest, ipv6=True)
    # Nothing that it says about itself makes it another one.
    other = guests[2]
    for header in (
        f"X-Instance-ID: {other.instance.instance_id}",
        f"X-Neutron-Network-ID: {other.instance.network.network_id}",
        f"X-Forwarded-For: {other.instance.addresses[0]}",
    ):
        is_its_own(guests[0], header)


def test_nobody(setting: Setting, source: str) -> None:
    """An address without a port, a port without an instance, and one whose instance Nova does not have: 404."""
    scene = setting.scene
    network = scene.isolated("a", "10.0.0.0/24", agent_address="10.0.0.2")
    known, deleted, owned, unknown = (scene.guest(network, f"10.0.0.{last}") for last in (5, 6, 7, 8))
    api = setting.cloud.api
    api.delete_port(deleted.instance.port_id)
    api.update_port(owned.instance.port_id, device_id="", device_owner="")
    setting.cloud.nova.delete(unknown.instance.instance_id)
    setting.agent(source)
    assert [guest.ask().status for guest in (deleted, owned, unknown)] == [404, 404, 404]
    is_its_own(known)


def test_a_port_that_comes_later(setting: Setting, source: str) -> None:
    """An address that nobody had is served as soon as somebody has it."""
    scene = setting.scene
    network = scene.isolated("a", "10.0.0.0/24", agent_address="10.0.0.2")
    early = scene.guest(network, "10.0.0.5")
    setting.cloud.api.delete_port(early.instance.port_id)
    setting.agent(source)
    assert early.ask().status == 404
    late = setting.cloud.instance(network, "10.0.0.5")
    early.instance = late
    until(early.is_served)
