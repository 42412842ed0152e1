"""What holds for every lookup source: whose an address is, and never a guess. stock.md's cases, one for each way in
which a port may be missing, double, elsewhere or broken."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fastmeta.exceptions import ConfigError, LookupMalformedError
from fastmeta.lookup.source import LookupSource
from fastmeta.models import ROUTER_INTERFACE_OWNERS, ROUTER_OWNERS, Answer, Scope

from .ports import (
    BLUE,
    GREEN,
    MALFORMED,
    NOBODY,
    OTHER_ROUTER,
    PROJECT,
    RED,
    ROUTER,
    interface,
    link_local,
    network,
    port,
    questions,
    router,
    whose,
)
from .rigs import RIGS, Rig, StaticRig


@pytest.fixture(params=sorted(RIGS))
def rig(request: pytest.FixtureRequest) -> Rig:
    return RIGS[request.param](request)


def found(rig: Rig, folder: Path, ports: Sequence[object], scope: Scope, *addresses: str) -> dict[str, str]:
    """Whose each of these addresses is, asked for in one question; of one alone the same must be said."""

    async def ask(source: LookupSource, *some: str) -> dict[str, str]:
        asked = questions(*some)
        try:
            answer = await source.ports(scope, asked)
        except LookupMalformedError:
            return dict.fromkeys(some, MALFORMED)
        return {address: whose(answer, scope, one) for address, one in zip(some, asked, strict=True)}

    async def body() -> dict[str, str]:
        try:
            async with rig.serving(folder, ports) as source:
                all_of_them = await ask(source, *addresses)
                if 1 < len(addresses) <= 5:
                    alone = [await ask(source, address) for address in addresses]
                    assert [one[address] for one, address in zip(alone, addresses, strict=True)] == list(
                        all_of_them.values()
                    )
                return all_of_them
        except ConfigError:
            return dict.fromkeys(addresses, MALFORMED)

    return asyncio.run(body())


def answer_of(rig: Rig, folder: Path, ports: Sequence[object], scope: Scope, *addresses: str) -> Answer:
    async def body() -> Answer:
        async with rig.serving(folder, ports) as source:
            return await source.ports(scope, questions(*addresses))

    return asyncio.run(body())


OVERLAPPING = [
    port(1, "10.0.0.5", "2001:db8::5"),
    port(2, "10.0.0.6"),
    port(3, "10.0.0.5", "2001:db8::5", network=GREEN),
    port(4, "10.0.0.5", network=RED),
    port(9, "10.0.0.2", device_owner="network:dhcp", device_id="dhcp-of-blue"),
]


@pytest.mark.parametrize(("where", "who"), [(BLUE, "instance-1"), (GREEN, "instance-3"), (RED, "instance-4")])
def test_one_address_in_three_networks(rig: Rig, tmp_path: Path, where: str, who: str) -> None:
    assert found(rig, tmp_path, OVERLAPPING, network(where), "10.0.0.5") == {"10.0.0.5": who}


def test_many_addresses_in_one_question(rig: Rig, tmp_path: Path) -> None:
    assert found(
        rig, tmp_path, OVERLAPPING, network(BLUE), "10.0.0.6", "10.0.0.7", "2001:db8::5", link_local(2)
    ) == {
        "10.0.0.6": "instance-2",
        "10.0.0.7": NOBODY,
        "2001:db8::5": "instance-1",
        link_local(2): "instance-2",
    }


def test_a_network_that_is_none(rig: Rig, tmp_path: Path) -> None:
    assert found(rig, tmp_path, OVERLAPPING, network(ROUTER), "10.0.0.5") == {"10.0.0.5": NOBODY}


def test_two_ports_with_one_address_are_nobody_s(rig: Rig, tmp_path: Path) -> None:
    ports = [*OVERLAPPING, port(5, "10.0.0.5")]
    assert found(rig, tmp_path, ports, network(BLUE), "10.0.0.5", "10.0.0.6") == {
        "10.0.0.5": NOBODY,
        "10.0.0.6": "instance-2",
    }


def test_two_ports_with_one_mac_are_nobody_s(rig: Rig, tmp_path: Path) -> None:
    ports = [port(1, "10.0.0.5"), port(2, "10.0.0.6", mac_address="fa:16:3e:00:00:01")]
    assert found(rig, tmp_path, ports, network(BLUE), link_local(1), "10.0.0.5") == {
        link_local(1): NOBODY,
        "10.0.0.5": "instance-1",
    }


@pytest.mark.parametrize("missing", [{"device_id": ""}, {"project_id": ""}])
def test_a_port_of_no_instance(rig: Rig, tmp_path: Path, missing: dict[str, str]) -> None:
    assert found(rig, tmp_path, [port(1, "10.0.0.5", **missing)], network(BLUE), "10.0.0.5") == {
        "10.0.0.5": NOBODY
    }


@pytest.mark.parametrize("owner", sorted(ROUTER_INTERFACE_OWNERS))
def test_behind_a_router(rig: Rig, tmp_path: Path, owner: str) -> None:
    ports = [
        *OVERLAPPING,
        interface(20, GREEN),
        interface(21, RED, device_owner=owner),
        port(6, "10.0.0.8", network=RED),
    ]
    # In both of its networks somebody has 10.0.0.5: that guest cannot be told, and is nobody.
    assert found(rig, tmp_path, ports, router(), "10.0.0.8", "2001:db8::5", "10.0.0.5", "10.0.0.6") == {
        "10.0.0.8": "instance-6",
        "2001:db8::5": "instance-3",
        "10.0.0.5": NOBODY,
        "10.0.0.6": NOBODY,
    }


def test_links_of_a_router(rig: Rig, tmp_path: Path) -> None:
    ports = [
        interface(20, GREEN),
        *(interface(21 + n, RED, device_owner=o) for n, o in enumerate(sorted(ROUTER_OWNERS))),
    ]
    ports += [interface(40, BLUE, OTHER_ROUTER), interface(41, BLUE, device_owner="compute:nova")]
    answer = answer_of(rig, tmp_path, ports, router(), link_local(20))
    assert answer.networks == {GREEN, RED}
    expected = {"fa:16:3e:00:00:14": {GREEN}}
    expected |= {f"fa:16:3e:00:00:{21 + n:02x}": {RED} for n in range(len(ROUTER_OWNERS))}
    assert {mac: set(networks) for mac, networks in answer.links.items()} == expected


@pytest.mark.parametrize(
    "own",
    [
        [],
        [interface(20, GREEN, OTHER_ROUTER)],
        [interface(20, GREEN, device_owner="compute:nova")],
        [interface(20, GREEN, device_owner="network:router_gateway")],
        [interface(20, GREEN, device_owner="network:router_ha_interface")],
        [interface(20, GREEN, device_owner="network:dhcp")],
    ],
    ids=["none", "another's", "a-tenant-s-claim", "gateway", "ha", "dhcp"],
)
def test_a_router_without_networks_finds_nobody(rig: Rig, tmp_path: Path, own: list[Any]) -> None:
    """Stock's hazard: without networks its filter was empty, and the address was looked for in the whole cloud."""
    ports = [port(3, "10.0.0.5", network=GREEN), *own]
    assert found(rig, tmp_path, ports, router(), "10.0.0.5") == {"10.0.0.5": NOBODY}
    assert answer_of(rig, tmp_path, ports, router(), "10.0.0.5").networks == frozenset()


def test_link_local_addresses_are_asked_for_by_mac(rig: Rig, tmp_path: Path) -> None:
    ports = [*OVERLAPPING, port(5, mac_address="FA:16:3E:AA:BB:CC".lower())]
    assert found(
        rig, tmp_path, ports, network(BLUE), link_local(1), link_local(3), "fe80::f816:3eff:feaa:bbcc"
    ) == {link_local(1): "instance-1", link_local(3): NOBODY, "fe80::f816:3eff:feaa:bbcc": "instance-5"}


@pytest.mark.parametrize("count", [1, 100, 101, 500])
@pytest.mark.parametrize("kind", ["IPv4", "IPv6", "link-local", "mixed"])
def test_many_addresses(rig: Rig, tmp_path: Path, count: int, kind: str) -> None:
    """Each gets its own instance, also those that nobody has; and another network's are as many."""

    def address(number: int) -> str:
        index = ["IPv4", "IPv6", "link-local"].index(kind) if kind != "mixed" else number % 3
        return [f"10.1.{number // 250}.{number % 250 + 1}", f"2001:db8::{number:x}", link_local(number)][
            index
        ]

    numbers = range(1, count + 1)
    ports = [
        port(
            n + base,
            *([address(n)] if not address(n).startswith("fe80") else []),
            network=where,
            mac_address=mac,
        )
        for base, where in ((0, BLUE), (1000, GREEN))
        for n in numbers
        for mac in [f"fa:16:3e:00:{n // 256:02x}:{n % 256:02x}"]
        if n % 7 or base
    ]
    expected = {address(n): f"instance-{n}" if n % 7 else NOBODY for n in numbers}
    assert len(expected) == count
    assert found(rig, tmp_path, ports, network(BLUE), *expected) == expected


def all_of(rig: Rig, folder: Path, ports: Sequence[object], scope: Scope, most: int = 2000) -> Answer | None:
    """What is asked before anybody asks."""

    async def body() -> Answer | None:
        async with rig.serving(folder, ports) as source:
            return await source.all_ports(scope, most)

    return asyncio.run(body())


def instances(answer: Answer | None) -> set[str]:
    assert answer is not None
    return {one.device_id for one in answer.ports}


def test_all_ports_of_a_network(rig: Rig, tmp_path: Path) -> None:
    """And each of them is whose it would be if it were asked for."""
    ports = [*OVERLAPPING, port(7, "10.0.0.7"), port(8, "10.0.0.7")]
    answer = all_of(rig, tmp_path, ports, network(BLUE))
    assert instances(answer) == {"instance-1", "instance-2", "instance-7", "instance-8", "dhcp-of-blue"}
    assert answer is not None
    said = {
        str(one.address): whose(answer, network(BLUE), one)
        for one in questions("10.0.0.5", "10.0.0.6", "10.0.0.7")
    }
    assert said == {"10.0.0.5": "instance-1", "10.0.0.6": "instance-2", "10.0.0.7": NOBODY}


def test_all_ports_behind_a_router(rig: Rig, tmp_path: Path) -> None:
    ports = [*OVERLAPPING, interface(20, GREEN), interface(21, RED), interface(22, BLUE, OTHER_ROUTER)]
    answer = all_of(rig, tmp_path, ports, router())
    assert instances(answer) == {"instance-3", "instance-4", ROUTER}
    assert answer is not None
    assert answer.networks == {GREEN, RED}
    assert set(answer.links) == {"fa:16:3e:00:00:14", "fa:16:3e:00:00:15"}


def test_all_ports_behind_a_router_without_networks(rig: Rig, tmp_path: Path) -> None:
    """Never those of the whole cloud."""
    answer = all_of(rig, tmp_path, [*OVERLAPPING, interface(20, GREEN, OTHER_ROUTER)], router())
    assert answer is not None
    assert (answer.networks, answer.ports) == (frozenset(), ())


def test_all_ports_of_a_network_without_any(rig: Rig, tmp_path: Path) -> None:
    assert instances(all_of(rig, tmp_path, OVERLAPPING, network(ROUTER))) == set()


@pytest.mark.parametrize(("most", "is_answered"), [(150, True), (149, False)])
def test_all_ports_are_bounded(rig: Rig, tmp_path: Path, most: int, is_answered: bool) -> None:
    ports = [port(n, f"10.1.0.{n}") for n in range(1, 151)] + [port(200, "10.1.0.1", network=GREEN)]
    answer = all_of(rig, tmp_path, ports, network(BLUE), most)
    assert (answer is not None) is is_answered
    assert not is_answered or len(instances(answer)) == 150


@pytest.mark.parametrize("malformation", [{"device_id": None}, {"fixed_ips": "10.0.0.5"}], ids=repr)
def test_all_ports_with_one_that_is_malformed(rig: Rig, tmp_path: Path, malformation: dict[str, Any]) -> None:
    """It is kept apart, with whom it concerns; or the source refuses it all."""
    ports = [port(1, "10.0.0.5"), port(2, "10.0.0.5") | malformation]
    try:
        answer = all_of(rig, tmp_path, ports, network(BLUE))
    except ConfigError:
        assert isinstance(rig, StaticRig)
        return
    assert answer is not None
    assert len(answer.malformed) == 1
    assert whose(answer, network(BLUE), questions("10.0.0.5")[0]) == MALFORMED


MALFORMATIONS: list[dict[str, Any]] = [
    {"device_id": None},
    {"device_id": 5},
    {"device_id": "instance\n1"},
    {"device_id": "x" * 256},
    {"project_id": None},
    {"project_id": ["a"]},
    {"network_id": "blue"},
    {"id": "5"},
    {"mac_address": "fa:16:3e"},
    {"fixed_ips": "10.0.0.5"},
    {"fixed_ips": [{"ip_address": "10.0.0.5"}, {"ip_address": "10.0.0.500"}]},
    {"fixed_ips": [{"subnet_id": BLUE}]},
]


@pytest.mark.parametrize("malformation", MALFORMATIONS, ids=lambda item: repr(item)[:60])
def test_a_malformed_port_is_no_instance_s(rig: Rig, tmp_path: Path, malformation: dict[str, Any]) -> None:
    """Never an identity for whom it concerns. (A port whose network cannot be read is not found in that network.)"""
    ports = [port(1, "10.0.0.5") | malformation]
    assert found(rig, tmp_path, ports, network(BLUE), "10.0.0.5")["10.0.0.5"] in (MALFORMED, NOBODY)


def test_a_malformed_port_does_not_make_another_the_only_one(rig: Rig, tmp_path: Path) -> None:
    ports = [port(1, "10.0.0.5"), port(2, "10.0.0.5", device_id=None)]
    assert found(rig, tmp_path, ports, network(BLUE), "10.0.0.5") == {"10.0.0.5": MALFORMED}


@pytest.mark.parametrize("item", [None, 5, "port", [], ["10.0.0.5"]], ids=repr)
def test_an_element_that_is_no_port(rig: Rig, tmp_path: Path, item: object) -> None:
    ports = [port(1, "10.0.0.5"), item]
    assert found(rig, tmp_path, ports, network(BLUE), "10.0.0.5") == {"10.0.0.5": MALFORMED}


def test_a_router_s_own_port_that_is_malformed(rig: Rig, tmp_path: Path) -> None:
    """Which networks it has is not known then: nobody behind it is anybody."""
    ports = [interface(20, GREEN), interface(21, RED, mac_address="?"), port(3, "10.0.0.5", network=GREEN)]
    assert found(rig, tmp_path, ports, router(), "10.0.0.5") == {"10.0.0.5": MALFORMED}


def test_contradicting_projects(rig: Rig, tmp_path: Path) -> None:
    """Where both are shown, as RPC does (REST asks for project_id alone)."""
    ports = [port(1, "10.0.0.5", tenant_id="another")]
    who = found(rig, tmp_path, ports, network(BLUE), "10.0.0.5")["10.0.0.5"]
    assert (
        who == MALFORMED
        or answer_of(rig, tmp_path, ports, network(BLUE), "10.0.0.5").ports[0].project_id == PROJECT
    )


def test_stops_promptly_and_says_nothing_afterwards(rig: Rig, tmp_path: Path) -> None:
    async def body() -> float:
        async with rig.serving(tmp_path, OVERLAPPING) as source:
            await source.ports(network(BLUE), questions("10.0.0.5"))
            begin = time.monotonic()
            await source.stop()
            return time.monotonic() - begin

    assert asyncio.run(body()) < 5
