"""Guests that are served, and what their own software finds."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from tests.openstack.conftest import Setting
from tests.openstack.scene import Guest

from . import running

USER_DATA = {
    "blue": b"#!/bin/sh\necho \xe9\xff\r\n\0 not UTF-8\n",
    "green": gzip.compress(b"#!/bin/sh\necho green\n" * 50, mtime=0),
    "red": "#cloud-config\nfinal_message: \u00fc\u4e16\n".encode(),
}
"""By network."""


class Places:
    """Two networks and one behind a router, with the same addresses, and a guest in each."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        scene = setting.scene
        networks = [
            scene.isolated(name, "10.0.0.0/24", agent_address="10.0.0.2", cidr_v6="fd00:10::/64")
            for name in ("blue", "green")
        ]
        router = scene.router("router")
        networks.append(
            scene.routed(router, "red", "10.0.0.0/24", gateway="10.0.0.1", cidr_v6="fd00:10::/64")
        )
        self.guests = [
            scene.guest(network, "10.0.0.5", "fd00:10::5", user_data=USER_DATA[network.name])
            for network in networks
        ]
        for guest in self.guests:
            scene.enable_ipv6(guest)


@contextmanager
def for_a_while(setting: Setting) -> Iterator[Setting]:
    """The same, with what is started with it ended when this is left."""
    with ExitStack() as exits:
        yield Setting(setting.stack, setting.scene, exits)


Booted: TypeAlias = list[tuple[Guest, running.Running, dict[str, Any]]]
"""Guests, what ran there, and what it has found."""


def boot(
    places: Places,
    folders: Mapping[str, Path],
    modules: list[str],
    data_source: str,
    *,
    meanwhile: Callable[[list[running.Running]], None] = lambda programs: None,
    **settings: Any,
) -> Booted:
    """All guests at once. folders: by guest; modules, data_source, settings: of running.cloud_init; meanwhile: is
    called when all have started."""
    with ExitStack() as exits:
        programs = []
        for guest in places.guests:
            home = folders[guest.name]
            programs.append(running.cloud_init(guest, modules, data_source, home, **settings))
            exits.callback(programs[-1].end)
        meanwhile(programs)
        results = [program.result() for program in programs]
    for guest, program, found in zip(places.guests, programs, results, strict=True):
        assert found["found"], program.log
        assert (folders[guest.name] / "run/instance-data.json").exists(), "what it writes is in the folder"
    return list(zip(places.guests, programs, results, strict=True))


def check_openstack(guest: Guest, found: Mapping[str, Any]) -> None:
    """The instance's id, user-data byte for byte, and what it configures the guest's interface with."""
    instance = guest.instance
    assert found["instance_id"] == instance.instance_id, guest.name
    assert base64.b64decode(found["user_data"]) == USER_DATA[instance.network.name], guest.name
    metadata = found["metadata"]
    assert (metadata["project_id"], metadata["name"]) == (instance.project_id, instance.name)
    mac = instance.port["mac_address"]
    [link] = found["network_data"]["links"]
    [network] = found["network_data"]["networks"]
    assert (link["ethernet_mac_address"], link["vif_id"]) == (mac, instance.port_id)
    assert (network["ip_address"], network["network_id"]) == (
        "10.0.0.5",
        instance.network.network_id,
    )
    [interface] = found["network_config"]["config"]
    assert (interface["name"], interface["mac_address"]) == ("eth0", mac)
    assert [subnet["address"] for subnet in interface["subnets"]] == ["10.0.0.5"]
    assert found["ec2_metadata"]["local-ipv4"] == "10.0.0.5"
    assert found["ec2_metadata"]["hostname"].partition(".")[0] == instance.name
