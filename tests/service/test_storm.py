"""A thousand guests ask at once for the first time: each gets its own answer, and Neutron is asked a few times
(docs/lookups.md)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from fastmeta.lab.topology import Lab
from tests.bus.neutron import NeutronServer
from tests.bus.rabbit import RabbitMQ
from tests.lookup import cloud as keystone_and_neutron

from .conftest import Setting
from .crowds import Place, isolated, routed, storm

GUESTS = 1000
MOST_CALLS = 10
"""For one network or router."""
NEUTRON = """
[neutron]
auth_url = {url}/v3
username = {user}
password = {password}
project_name = {project}
user_domain_name = Default
project_domain_name = Default
"""

Calls = Callable[[], int]
Start = Callable[[Sequence[Place]], Calls]
"""An agent that serves these places; says how many calls Neutron has had since."""


@pytest.fixture(scope="module")
def places(lab: Lab) -> dict[str, list[Place]]:
    """The two networks have the same addresses."""
    return {
        "a network": [isolated(lab, "storm", GUESTS)],
        "two networks": [isolated(lab, name, GUESTS // 2) for name in ("storm-blue", "storm-green")],
        "a router": [routed(lab, "storm-router", GUESTS)],
    }


@pytest.fixture
def ports(places: dict[str, list[Place]]) -> list[dict[str, Any]]:
    """All that Neutron has."""
    return [port for some in places.values() for place in some for port in place.ports]


@pytest.fixture
def rest(setting: Setting, ports: list[dict[str, Any]]) -> keystone_and_neutron.Cloud:
    """A Keystone and a Neutron of ours, until the agents have ended."""
    return setting.stack.enter_context(keystone_and_neutron.Cloud(ports))


def start_rest(setting: Setting, cloud: keystone_and_neutron.Cloud, places: Sequence[Place]) -> Calls:
    section = NEUTRON.format(
        url=cloud.keystone.url,
        user=keystone_and_neutron.USER,
        password=keystone_and_neutron.PASSWORD,
        project=keystone_and_neutron.PROJECT,
    )
    listen = [place.listen for place in places]
    setting.agent(setting.upstream(), lookup="rest", listen=listen, ports=None, sections=section)
    before = len(cloud.calls)
    return lambda: len(cloud.calls) - before


def start_rpc(setting: Setting, bus: RabbitMQ, neutron: NeutronServer, places: Sequence[Place]) -> Calls:
    setting.agent(
        setting.upstream(),
        lookup="rpc",
        listen=[place.listen for place in places],
        ports=None,
        default=(f"transport_url = {bus.url}", "host = storm"),
    )
    return lambda: len(neutron.calls("get_ports"))


def check(where: str, source: str, places: Sequence[Place], calls: Calls) -> None:
    answers = storm(places)
    asked = calls()
    print(
        f"\n{where}, {source}: {GUESTS:,} guests, {asked} calls, "
        f"all answered after {max(seconds for _, seconds in answers):.2f} s"
    )
    # OK is an answer with the id of the guest's own instance, under its own address: see Crowd.answers.
    assert Counter(how for how, _ in answers) == {"200": GUESTS}
    assert len(places) <= asked <= MOST_CALLS * len(places)


@pytest.mark.parametrize("where", ["a network", "two networks", "a router"])
def test_by_neutrons_api(
    setting: Setting, places: dict[str, list[Place]], rest: keystone_and_neutron.Cloud, where: str
) -> None:
    check(where, "rest", places[where], start_rest(setting, rest, places[where]))


@pytest.mark.parametrize("where", ["a network", "two networks", "a router"])
def test_over_the_bus(
    setting: Setting,
    places: dict[str, list[Place]],
    ports: list[dict[str, Any]],
    rabbit: RabbitMQ,
    neutron: NeutronServer,
    where: str,
) -> None:
    """A real RabbitMQ, and a server of ours on it that answers within a few milliseconds, as no Neutron does."""
    neutron.tell(ports=ports)
    check(where, "rpc", places[where], start_rpc(setting, rabbit, neutron, places[where]))


def test_before_a_slow_api(
    setting: Setting, places: dict[str, list[Place]], rest: keystone_and_neutron.Cloud
) -> None:
    """It takes a second for 500 ports: all wait, and it is asked no more often for that."""

    def slowly(request: keystone_and_neutron.Request) -> None:
        request.wait(min(int((request.values("limit") or ["0"])[0]), GUESTS) / 500)
        request.as_usual()

    calls = start_rest(setting, rest, places["a network"])
    rest.neutron.fault = slowly
    check("a network", "slow rest", places["a network"], calls)
