"""Listeners on [fe80::a9fe:a9fe%tap]:80 in the namespaces of networks: with duplicate address detection, and with
interfaces that come, go and are made anew. Real namespaces, real curl."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

from fastmeta.lab.namespaces import inside
from fastmeta.lab.topology import METADATA_ADDRESS, METADATA_ADDRESS_V6, Network, Port

from .agents import until
from .conftest import Setting
from .guests import Guest
from .link_local import LinkLocalGuest, flags, ip, link_local, until_usable
from .upstream import mark

TAP = "tap0"


class Place:
    """A network's namespace as the DHCP agent leaves it, with IPv4 and IPv6, that can be taken apart."""

    def __init__(self, setting: Setting, network: Network | None = None) -> None:
        """network: a new one when None; else this is a second namespace of it, as on another node."""
        self.lab = setting.cloud.lab
        self.cloud = setting.cloud
        self.network = network or self.lab.add_network(f"v6-{uuid.uuid4().hex[:8]}")
        prefix = "second" if network else "qdhcp"
        self.namespace = self.lab.add_namespace(f"{prefix}-{self.network.network_id}")
        self.address = "10.0.0.3" if network else "10.0.0.2"
        scope = f"network:{self.network.network_id}@{self.namespace}"
        self.cloud.listen += [
            f"{scope}/{METADATA_ADDRESS}:80",
            f"{scope}/[{METADATA_ADDRESS_V6}%{TAP}]:80",
        ]
        self.listening = rf"listening: {scope}/\[{METADATA_ADDRESS_V6}%{TAP}\]:80"

    def add_tap(self, *addresses: str, index: int | None = None) -> Port:
        """addresses: besides IPv4's; without duplicate address detection."""
        return self.lab.add_port(
            self.network,
            self.namespace,
            TAP,
            [f"{self.address}/24"],
            extra_addresses=[f"{METADATA_ADDRESS}/32", *addresses],
            index=index,
        )

    def add_address(self) -> None:
        """With duplicate address detection."""
        ip(self.namespace, "addr", "add", f"{METADATA_ADDRESS_V6}/128", "dev", TAP)

    def set_carrier(self, state: str) -> None:
        """up or down: by the other end of the tap, at the bridge."""
        peer = json.loads(ip(self.namespace, "-j", "link", "show", TAP))[0]["link_index"]
        switch = f"fastmeta-{self.lab.tag}-switch"
        (name,) = (link["ifname"] for link in json.loads(ip(switch, "-j", "link")) if link["ifindex"] == peer)
        ip(switch, "link", "set", name, state)

    def flags(self) -> set[str] | None:
        return flags(self.namespace, TAP, METADATA_ADDRESS_V6)

    def add_guest(self, last: int, *, known: bool = True) -> LinkLocalGuest:
        """Its address may be used when this returns."""
        route = (f"{METADATA_ADDRESS}/32", self.address)
        guest = LinkLocalGuest(self.cloud.add_guest(self.network, f"10.0.0.{last}", [route], known=known))
        until_usable(guest.namespace, "eth0", guest.address)
        return guest


def tap_index(place: Place) -> int:
    return int(json.loads(ip(place.namespace, "-j", "link", "show", TAP))[0]["ifindex"])


def test_both_addresses(own_setting: Setting) -> None:
    """A guest is found by its MAC; one that is not known is nobody, on the same link."""
    place = Place(own_setting)
    place.add_tap(f"{METADATA_ADDRESS_V6}/128")
    guest, stranger = place.add_guest(5), place.add_guest(6, known=False)
    upstream = own_setting.upstream()
    own_setting.agent(upstream)
    assert guest.address == link_local(guest.guest.port.mac_address)
    assert guest.is_served("/v6")
    assert guest.guest.curl("/v4").stdout == guest.guest.mark("/v4")
    assert stranger.curl("/stranger")[0] == 404
    assert upstream.asked("/stranger") == []
    # Several requests on one connection, as on any.
    with guest.connect() as wire:
        for n in range(3):
            wire.get(f"/kept/{n}")
            assert wire.answer().body == guest.mark(f"/kept/{n}")


def test_the_same_guest_on_two_networks(own_setting: Setting) -> None:
    """Two networks may have guests with the same MAC: the listener tells which one asks."""
    places = [Place(own_setting) for _ in range(2)]
    guests = []
    for place in places:
        place.add_tap(f"{METADATA_ADDRESS_V6}/128", index=70)
        port = place.lab.add_guest(
            place.network, place.network.name, "10.0.0.5/24", routes=[], mac_address="fa:16:3e:00:00:05"
        )
        guest = Guest(port, str(uuid.uuid4()), uuid.uuid4().hex)
        place.cloud.guests[place.network.name] = guest
        guests.append(LinkLocalGuest(guest))
    own_setting.agent(own_setting.upstream())
    for guest in guests:
        until_usable(guest.namespace, "eth0", guest.address)
    for _ in range(2):
        assert [guest.is_served() for guest in guests] == [True, True]


def test_a_global_address_is_a_fixed_ip(own_setting: Setting) -> None:
    """From such an address the same guest is found as any is; one that is not known is nobody, whatever its MAC."""
    place = Place(own_setting)
    place.add_tap(f"{METADATA_ADDRESS_V6}/128", "2001:db8::2/64")
    guest = place.add_guest(5)
    for last in (5, 6):
        ip(guest.namespace, "addr", "add", f"2001:db8::{last}/64", "dev", "eth0", "nodad")
    upstream = own_setting.upstream()
    agent = own_setting.agent(upstream)
    ports = own_setting.cloud.ports()
    for item in ports:
        if item["id"] == guest.guest.port.port_id:
            item["fixed_ips"].append({"ip_address": "2001:DB8:0::5"})
    agent.change_ports(ports)
    with guest.connect("2001:db8::5") as wire:
        wire.get("/global")
        right = mark(guest.guest.instance_id, guest.guest.project_id, "2001:db8::5", "/global")
        assert wire.answer().body == right
    with guest.connect("2001:db8::6") as wire:
        wire.get("/unknown")
        assert wire.answer().status == 404
    assert guest.is_served("/link-local")
    assert upstream.asked("/unknown") == []


def test_an_address_that_is_tentative(own_setting: Setting) -> None:
    """The listener is there before duplicate address detection ends, and serves as soon as it has ended."""
    place = Place(own_setting)
    guest = place.add_guest(5)
    place.add_tap()
    # Without a carrier the detection does not even begin.
    place.set_carrier("down")
    place.add_address()
    assert place.flags() == {"tentative"}
    agent = own_setting.agent(own_setting.upstream())
    agent.until_logged(place.listening)
    assert place.flags() == {"tentative"}
    place.set_carrier("up")
    until(lambda: place.flags() == set())
    assert guest.is_served("/v6")
    assert guest.guest.is_served("/v4")
    assert len(agent.logged(place.listening)) == 1
    assert agent.logged("ERROR") == []


def test_an_address_that_somebody_else_has(own_setting: Setting) -> None:
    """Duplicate address detection fails in the second namespace of a network: there IPv4 is served all the same, and
    IPv6 when the address is given anew and is the only one."""
    setting = own_setting
    first = Place(setting)
    first.add_tap(f"{METADATA_ADDRESS_V6}/128")
    second = Place(setting, first.network)
    second.add_tap()
    guest = second.add_guest(5)
    second.add_address()
    until(lambda: second.flags() == {"tentative", "dadfailed"}, "failure of the detection")
    agent = setting.agent(setting.upstream())
    assert guest.guest.is_served("/v4")
    assert guest.is_served("/v6/first")

    setting.cloud.lab.remove_namespace(first.namespace)
    agent.until_logged(f"namespace {first.namespace} is gone")
    ip(second.namespace, "addr", "del", f"{METADATA_ADDRESS_V6}/128", "dev", TAP)
    second.add_address()
    until(lambda: second.flags() == set())
    ip(guest.namespace, "neigh", "flush", "dev", "eth0")
    assert guest.is_served("/v6/second")
    assert len(agent.logged(second.listening)) == 1


def test_an_interface_that_comes_goes_and_is_made_anew(own_setting: Setting) -> None:
    """The listener follows it; connections over the one that is gone end at once. IPv4's is left alone."""
    place = Place(own_setting)
    guest = place.add_guest(5)
    agent = own_setting.agent(own_setting.upstream())
    agent.until_logged(f"there is no interface {TAP}")
    indexes = set()
    for n in (1, 2, 3):
        place.add_tap(f"{METADATA_ADDRESS_V6}/128")
        agent.until_logged(place.listening, n)
        indexes.add(tap_index(place))
        ip(guest.namespace, "neigh", "flush", "dev", "eth0")
        assert guest.is_served(f"/{n}")
        if n == 3:
            break
        with guest.connect() as kept, guest.connect() as replaced:
            for wire in (kept, replaced):
                wire.get("/kept")
                assert wire.answer().body == guest.mark("/kept")
            ip(place.namespace, "link", "del", TAP)
            agent.until_logged(f"interface {TAP} is gone or another one: closing", n)
            until(lambda: not connections(place), "end of the connections")
    assert len(indexes) == 3
    assert len(agent.logged("ERROR")) == 1  # at the start
    assert len(agent.logged(rf"listening: .*{place.namespace}/{METADATA_ADDRESS}:80")) == 1


def connections(place: Place) -> list[str]:
    """TCP connections over IPv6 in its namespace, by the lines of /proc/net/tcp6."""

    def lines() -> list[str]:
        text = Path("/proc/thread-self/net/tcp6").read_text()
        # State 0A listens; 06 and 07 are of nobody any more.
        return [line for line in text.splitlines()[1:] if line.split()[3] not in ("0A", "06", "07")]

    return inside(place.namespace, lines)
