"""What Neutron's functional tests of its metadata proxy try (it skips them since it has left eventlet), with fastmeta
in the place of its agent."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from .conftest import new_setting
from .in_place import InPlace
from .scene import Guest
from .stack.api import Api
from .stack.instances import Instances
from .stack.stack import Stack

PAUSE = 10.0
"""Seconds; no window of 5 s has anything of before."""
GUEST = "10.0.0.5"


@pytest.fixture(scope="module")
def in_place(stack: Stack, api: Api, nova: Instances) -> Iterator[InPlace]:
    with new_setting(stack, api, nova) as setting:
        yield InPlace(setting)


def new_guest(in_place: InPlace, name: str) -> Guest:
    """In a network of its own."""
    scene = in_place.scene
    network = scene.isolated(name, "10.0.0.0/24", agent_address="10.0.0.2", cidr_v6="fd00:10::/64")
    guest = scene.guest(network, GUEST, "fd00:10::5")
    scene.enable_ipv6(guest)
    return guest


@pytest.fixture(scope="module")
def guest(in_place: InPlace) -> Guest:
    return new_guest(in_place, "users")


@pytest.mark.parametrize(("user", "group"), [("", ""), ("65534", ""), ("65534", "65534")])
def test_proxies_of_any_user(in_place: InPlace, guest: Guest, user: str, group: str) -> None:
    """By IPv4, and by IPv6 from a link-local address."""
    options = [f"metadata_proxy_user = {user}", f"metadata_proxy_group = {group}"]
    with in_place.agent("rpc", more=options), in_place.haproxies(user=user, group=group) as haproxies:
        in_place.start_haproxy(haproxies, guest.instance.network.network_id)
        assert guest.is_served()
        assert guest.is_served(ipv6=True)


@dataclass(frozen=True)
class Limits:
    """options: of Neutron's haproxies; asked: what a guest does, a pause (None) or a request, with its status; ipv6:
    how it asks."""

    options: dict[str, object]
    asked: tuple[int | None, ...]
    ipv6: tuple[bool, ...] = (False,)


BASE = {"base_window_duration": 60, "base_query_rate_limit": 2}
BURST = {"burst_window_duration": 5, "burst_query_rate_limit": 2}
LIMITS = {
    "base-ipv4": Limits(BASE, (200, 200, 429)),
    "base-ipv6": Limits({**BASE, "ip_versions": 6}, (200, 200, 429), (True,)),
    "burst": Limits({**BASE, "base_query_rate_limit": 10, **BURST}, (200, 200, None, 200, 200, 429)),
    "base-over-burst": Limits({**BASE, "base_query_rate_limit": 3, **BURST}, (200, 200, None, 200, 429)),
    "both-versions": Limits({**BASE, "ip_versions": "4,6"}, (200,) * 6, (False, True)),
}


def ask(guest: Guest, limits: Limits) -> list[list[int | None]]:
    """What came of it, for each family."""
    found: list[list[int | None]] = []
    for ipv6 in limits.ipv6:
        statuses: list[int | None] = []
        for status in limits.asked:
            if status is None:
                time.sleep(PAUSE)
            statuses.append(status and guest.ask(ipv6=ipv6).status)
        found.append(statuses)
    return found


@pytest.fixture(scope="module")
def found(in_place: InPlace) -> dict[str, list[list[int | None]]]:
    """Of all limits, at the same time."""
    guests = {}
    for name, limits in LIMITS.items():
        guests[name] = new_guest(in_place, name)
        haproxies = in_place.haproxies(limits={"rate_limit_enabled": True, **limits.options})
        in_place.setting.exits.enter_context(haproxies)
        in_place.start_haproxy(haproxies, guests[name].instance.network.network_id)
    with in_place.agent("rpc"), ThreadPoolExecutor(len(LIMITS)) as pool:
        return dict(zip(LIMITS, pool.map(lambda name: ask(guests[name], LIMITS[name]), LIMITS), strict=True))


@pytest.mark.parametrize("name", LIMITS)
def test_limits_of_neutrons_proxies(found: dict[str, list[list[int | None]]], name: str) -> None:
    """They go on working: 429 is the proxy's, and what it lets through is answered."""
    limits = LIMITS[name]
    assert found[name] == [list(limits.asked)] * len(limits.ipv6)
