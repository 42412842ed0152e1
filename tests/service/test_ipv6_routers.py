"""Guests behind a router that ask from link-local addresses: who they are depends on the link. Real namespaces, real
redirect, real curl."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from fastmeta.lab.topology import Lab

from .agents import Cloud
from .conftest import Setting
from .link_local import LinkLocalGuest, Router, ip
from .upstream import WAIT, Exchange

TWIN = "fa:16:3e:00:00:05"
"""The MAC of a guest on each of the two links: their link-local addresses are the same."""
LONELY = "fa:16:3e:00:00:06"
PRIVATE = "fe80::f816:3e12:3400:5"
"""Such an address tells nothing of a MAC (RFC 8981, RFC 7217), also when its bytes look like the twins'."""


class Routed:
    """A router with two links, guests on both of them, and an agent."""

    def __init__(self, setting: Setting, **options: object) -> None:
        self.setting = setting
        self.cloud = setting.cloud
        self.router = router = Router(setting.cloud)
        router.add_link(1)
        router.add_link(2)
        self.left = router.add_guest(1, 5, TWIN)
        self.right = router.add_guest(2, 5, TWIN)
        self.lonely = router.add_guest(1, 6, LONELY)
        self.impostor = router.add_guest(2, 6, LONELY, known=False)
        self.upstream = setting.upstream()
        self.agent = setting.agent(self.upstream, **options)
        for guest in (self.left, self.lonely):
            guest.behind(router.interfaces[1])
        for guest in (self.right, self.impostor):
            guest.behind(router.interfaces[2])


@pytest.fixture(scope="module")
def module_routed(lab: Lab) -> Iterator[Routed]:
    setting = Setting(Cloud(lab))
    with setting.stack:
        yield Routed(setting, identity_ttl=60, park_timeout=4)


@pytest.fixture
def routed(module_routed: Routed) -> Iterator[Routed]:
    """Afterwards everybody is who he was."""
    yield module_routed
    module_routed.setting.check()
    if module_routed.agent.ports_file.exists():
        module_routed.agent.write_ports(module_routed.cloud.ports())


def test_the_same_address_on_two_links_is_two_guests(routed: Routed) -> None:
    """Also when they ask at the same time, and again when the answers are known."""
    assert routed.left.address == routed.right.address
    for n in range(3):
        curls = [guest.start_curl(f"/twins/{n}") for guest in (routed.left, routed.right)]
        bodies = [curl.communicate(timeout=WAIT)[0].partition(b"\r\n\r\n")[2] for curl in curls]
        assert bodies == [guest.mark(f"/twins/{n}") for guest in (routed.left, routed.right)]


def test_a_guest_of_another_link_is_nobody(routed: Routed) -> None:
    """Whoever takes the MAC of a guest on another link of the router does not become it."""
    assert routed.lonely.is_served("/lonely")
    assert routed.impostor.curl("/impostor")[0] == 404
    assert routed.upstream.asked("/impostor") == []


def test_who_is_not_known_is_nobody(routed: Routed) -> None:
    guest = routed.router.add_guest(1, 7, "fa:16:3e:00:00:07", known=False)
    guest.behind(routed.router.interfaces[1])
    assert guest.curl("/unknown")[0] == 404
    assert routed.upstream.asked("/unknown") == []


def test_an_address_without_a_mac_is_nobody(routed: Routed) -> None:
    ip(routed.left.namespace, "addr", "add", f"{PRIVATE}/64", "dev", "eth0", "nodad")
    try:
        with routed.left.connect(PRIVATE) as wire:
            wire.get("/private")
            assert wire.answer().status == 404
    finally:
        ip(routed.left.namespace, "addr", "del", f"{PRIVATE}/64", "dev", "eth0")
    assert routed.upstream.asked("/private") == []


def test_ipv4_on_the_same_listener_is_ipv4(routed: Routed) -> None:
    """The kernel gives ::ffff:10.1.0.5; identity and X-Forwarded-For are those of 10.1.0.5."""
    assert routed.left.guest.address == "10.1.0.5"
    for guest in (routed.left.guest, routed.right.guest):
        done = guest.curl("/mapped")
        assert (done.returncode, done.stdout) == (0, guest.mark("/mapped"))


def test_links_that_change_places(routed: Routed) -> None:
    """Neutron says that the router's port on the left is in the network on the right, and the other way round: from
    then on the guests are others, whatever was known."""
    left, right = routed.left, routed.right
    assert left.is_served()
    assert right.is_served()
    network = {number: routed.router.networks[number].network_id for number in (1, 2)}
    items = {routed.router.item(1)["id"]: network[2], routed.router.item(2)["id"]: network[1]}
    ports = [
        item | {"network_id": items.get(item["id"], item["network_id"])} for item in routed.cloud.ports()
    ]
    routed.agent.change_ports(ports)
    assert left.curl("/swapped")[2] == right.mark("/swapped")
    assert right.curl("/swapped")[2] == left.mark("/swapped")
    assert routed.lonely.curl("/swapped/lonely")[0] == 404


@pytest.mark.parametrize("how", ["unknown", "ambiguous"])
def test_a_link_whose_network_cannot_be_told(routed: Routed, how: str) -> None:
    """Its guests wait, and then get 503; what Neutron says meanwhile is heard. The other link's, and IPv4, go on."""
    router = routed.router
    ports = [item for item in routed.cloud.ports() if item["id"] != router.item(1)["id"]]
    if how == "ambiguous":
        # One MAC in two networks of the router: whose link it is cannot be told.
        mac = router.interfaces[1].mac_address
        ports = [*routed.cloud.ports(), router.item(2, id=router.uuid, mac_address=mac)]
    routed.agent.change_ports(ports)
    target = f"/cannot-be-told/{how}"
    started = time.monotonic()
    waiting = routed.left.start_curl(target)
    assert routed.right.is_served()
    if how == "ambiguous":
        assert routed.left.guest.is_served()
    status, headers = waiting.communicate(timeout=WAIT)[0].split(b"\r\n", 1)
    assert status == b"HTTP/1.1 503 Service Unavailable"
    assert b"retry-after: " in headers.lower()
    assert time.monotonic() - started > 3
    assert routed.upstream.asked(target) == []
    mac = router.interfaces[1].mac_address
    why = "that of no port of the router" if how == "unknown" else "that of the router's ports in 2 networks"
    assert routed.agent.logged(f"cannot be told: its MAC {mac} is {why}")

    waiting = routed.left.start_curl(target)
    time.sleep(0.3)
    routed.agent.change_ports(routed.cloud.ports())
    assert waiting.communicate(timeout=WAIT)[0].endswith(b"\r\n\r\n" + routed.left.mark(target))


def test_an_index_that_is_used_again(own_setting: Setting) -> None:
    """The interface of one link goes, and one of another link gets its index: what was known of the guest on the first
    link is not believed of the guest on the second."""
    routed = Routed(own_setting, identity_ttl=60)
    router, left, right = routed.router, routed.left, routed.right
    index = router.index(1)
    assert left.is_served("/before")
    for number in (1, 2):
        ip(router.namespace, "link", "del", router.interfaces[number].interface)
    router.add_link(2, index=index, again=True)
    assert router.index(2) == index
    right.behind(router.interfaces[2])
    assert right.is_served("/after")
    assert {request.instance for request in routed.upstream.asked("/after")} == {right.guest.instance_id}


def test_an_index_of_the_namespace_before(own_setting: Setting) -> None:
    """The router's namespace is made anew, and its interfaces in another order."""
    routed = Routed(own_setting, identity_ttl=60)
    router, left, right = routed.router, routed.left, routed.right
    before = [router.index(number) for number in (1, 2)]
    assert left.is_served("/before")
    assert right.is_served("/before")
    router.lab.remove_namespace(router.namespace)
    routed.agent.until_logged(f"namespace {router.namespace} is gone")
    router.lab.add_router_namespace(router.uuid, ipv6=True)
    router.add_link(2, again=True)
    router.add_link(1, again=True)
    assert [router.index(number) for number in (2, 1)] == before
    routed.agent.until_logged(f"listening: .*{router.namespace}", 2)
    for number, guest in ((1, left), (2, right)):
        guest.behind(router.interfaces[number])
        assert guest.is_served("/after")


def test_a_link_that_ends_while_its_guest_waits_for_nova(own_setting: Setting) -> None:
    """The answer is not given under what the index stood for before."""
    routed = Routed(own_setting, identity_ttl=60, park_timeout=1)
    router = routed.router
    asked, gone = threading.Event(), threading.Event()

    def held(exchange: Exchange) -> bool:
        asked.set()
        # Its end is seen here: the agent gives the request up.
        if exchange.gone(WAIT):
            gone.set()
        return False

    routed.upstream.scripts["held"] = held
    waiting = routed.left.start_curl("/held")
    assert asked.wait(WAIT)
    ip(router.namespace, "link", "del", router.interfaces[1].interface)
    assert gone.wait(WAIT)
    waiting.kill()
    waiting.communicate()
    assert routed.right.is_served()


def test_a_link_that_comes_later(own_setting: Setting) -> None:
    """Neutron knows the port first, as it does in a cloud."""
    routed = Routed(own_setting)
    router = routed.router
    router.add_link(3)
    guest = router.add_guest(3, 5, TWIN)
    routed.agent.change_ports(routed.cloud.ports())
    guest.behind(router.interfaces[3])
    assert guest.is_served()
    assert routed.left.is_served()


def test_one_router_in_two_namespaces(own_setting: Setting) -> None:
    """As with DVR (qrouter- and snat-): the same index is one link here, and another one there."""
    setting = own_setting
    here = Router(setting.cloud)
    there = Router(setting.cloud, here.uuid, "snat")
    guests: list[LinkLocalGuest] = []
    for router, number in ((here, 1), (there, 2)):
        router.add_link(number, index=70)
        guests.append(router.add_guest(number, 5, TWIN))
    upstream = setting.upstream()
    setting.agent(upstream, identity_ttl=60)
    for router, number, guest in zip((here, there), (1, 2), guests, strict=True):
        guest.behind(router.interfaces[number])
    for _ in range(2):
        assert [guest.is_served() for guest in guests] == [True, True]
