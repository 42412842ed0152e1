"""What port events say, read as Neutron 29 sends them."""

from __future__ import annotations

import copy
import ipaddress
import json
from pathlib import Path
from typing import Any

import pytest

from fastmeta.bus.port_events import read_push
from fastmeta.exceptions import LookupMalformedError
from fastmeta.models import ROUTER_OWNERS, Change

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "recorded_events.json").read_text())


def recorded(name: str) -> dict[str, Any]:
    return copy.deepcopy(RECORDED[name])


def data_of(event: dict[str, Any]) -> dict[str, Any]:
    data: dict[str, Any] = event["resource_list"][0]["versioned_object.data"]
    return data


def test_created_and_updated() -> None:
    for name, count in (("created", 2), ("updated", 1)):
        event = recorded(name)
        data = data_of(event)
        addresses = frozenset(
            ipaddress.ip_address(ip["versioned_object.data"]["ip_address"]) for ip in data["fixed_ips"]
        )
        assert len(addresses) == count
        assert read_push(event) == Change({data["network_id"]: addresses}, ports=frozenset({data["id"]}))


def test_deleted() -> None:
    """Of all that matters only the id is there."""
    event = recorded("deleted")
    assert not {"network_id", "fixed_ips", "device_id", "device_owner"} & set(data_of(event))
    assert read_push(event) == Change({}, ports=frozenset({data_of(event)["id"]}))


def test_router_interface() -> None:
    event = recorded("interface")
    change = read_push(event)
    assert change.routers == {data_of(event)["device_id"]}
    assert change.ports == {data_of(event)["id"]}


@pytest.mark.parametrize("owner", sorted(ROUTER_OWNERS))
def test_every_port_of_a_router_s_own(owner: str) -> None:
    event = recorded("updated")
    data_of(event).update(device_owner=owner, device_id="ABCDEF00-0000-4000-8000-000000000000")
    assert read_push(event).routers == {"abcdef00-0000-4000-8000-000000000000"}


def test_several_ports_in_one() -> None:
    one, other = recorded("updated"), recorded("interface")
    one["resource_list"] += other["resource_list"]
    change = read_push(one)
    assert len(change.ports) == 2
    assert len(change.addresses) == 1  # one network
    assert change.routers


def test_a_port_without_addresses() -> None:
    for nothing in ([], None):
        event = recorded("updated")
        data_of(event)["fixed_ips"] = nothing
        assert read_push(event).addresses == {data_of(event)["network_id"]: frozenset()}


@pytest.mark.parametrize(
    "break_it",
    [
        lambda event: event.pop("event_type"),
        lambda event: event.pop("resource_list"),
        lambda event: event.update(event_type="moved"),
        lambda event: event.update(event_type=["updated"]),
        lambda event: event.update(resource_list="x"),
        lambda event: event.update(resource_list=["x"]),
        lambda event: event["resource_list"].append(None),
        lambda event: event["resource_list"][0].update({"versioned_object.name": "Network"}),
        lambda event: event["resource_list"][0].update({"versioned_object.version": "2.0"}),
        lambda event: event["resource_list"][0].update({"versioned_object.version": 1.4}),
        lambda event: event["resource_list"][0].update({"versioned_object.data": []}),
        lambda event: data_of(event).pop("id"),
        lambda event: data_of(event).update(id="?"),
        lambda event: data_of(event).update(network_id=None),
        lambda event: data_of(event).update(device_id=None),
        lambda event: data_of(event).update(device_owner=7),
        lambda event: data_of(event).update(fixed_ips="10.0.0.5"),
        lambda event: data_of(event).update(fixed_ips=["10.0.0.5"]),
        lambda event: data_of(event)["fixed_ips"][0]["versioned_object.data"].update(ip_address="?"),
        lambda event: data_of(event)["fixed_ips"][0].update({"versioned_object.name": "Port"}),
        lambda event: data_of(event).update(fixed_ips=data_of(event)["fixed_ips"] * 2000),
    ],
)
def test_whatever_is_not_understood_in_full(break_it: Any) -> None:
    event = recorded("updated")
    break_it(event)
    with pytest.raises(LookupMalformedError) as caught:
        read_push(event)
    assert len(str(caught.value)) < 200
