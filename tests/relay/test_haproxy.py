"""Behind haproxies with the configuration that Neutron's agents write, in real namespaces: guests that ask as guests
do, and guests that try to be another."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from fastmeta.lab.topology import Lab
from tests.service.guests import Guest
from tests.service.link_local import LinkLocalGuest, until_usable
from tests.service.upstream import WAIT

from .places import NETWORK, ROUTER, RelayCloud, Scene

GUESTS = ["blue-5", "blue-6", "green-5", "red-5"]


class Served:
    """Blue and green are isolated networks, red is behind a router; a guest of each has 10.0.0.5."""

    def __init__(self, scene: Scene, loops: int) -> None:
        self.scene = scene
        self.cloud = scene.cloud
        self.upstream = scene.upstream
        # Guests of one lab have different names.
        self.blue, _ = scene.cloud.add_network(f"blue{loops}", ["10.0.0.5", "10.0.0.6"], ipv6=True)
        self.green, _ = scene.cloud.add_network(f"green{loops}", ["10.0.0.5"])
        _, self.router_id = scene.cloud.add_routed_network(f"red{loops}", ["10.0.0.5"])
        self.guests = {name.replace(str(loops), "", 1): guest for name, guest in scene.cloud.guests.items()}
        self.agent = scene.agent(loops=loops)
        scene.proxies()


@pytest.fixture(scope="module", params=[1, 3], ids=["1 loop", "3 loops"])
def module_served(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Served]:
    with Scene(RelayCloud(lab)) as scene:
        yield Served(scene, request.param)


@pytest.fixture
def served(module_served: Served) -> Iterator[Served]:
    yield module_served
    module_served.scene.check()


def test_each_gets_its_own(served: Served) -> None:
    """All at once; some keep their connection to the proxy, some make one for each request."""

    def ask(name: str) -> None:
        guest = served.guests[name]
        for turn in range(25):
            assert guest.is_served(f"/new/{name}/{turn}")
        with guest.connect() as wire:
            for turn in range(25):
                target = f"/kept/{name}/{turn}"
                wire.get(target)
                answer = wire.answer()
                assert (answer.status, answer.body) == (200, guest.mark(target))

    with ThreadPoolExecutor(len(GUESTS)) as pool:
        list(pool.map(ask, GUESTS))


def forged(served: Served) -> list[list[str]]:
    """What blue-5 may send to be green-5, red-5 or blue-6."""
    green, router = served.green.network_id, served.router_id
    return [
        ["X-Forwarded-For: 10.0.0.6"],
        ["X-Forwarded-For: 10.0.0.6", "X-Forwarded-For: 10.0.0.6"],
        ["x_forwarded_for: 10.0.0.6"],
        ["X-Forwarded-For: nonsense, 10.0.0.6"],
        [f"{NETWORK}: {green}"],
        [f"{NETWORK.lower()}: {green}", f"{NETWORK.upper()}: {green}"],
        [f"{ROUTER}: {router}"],
        [f"X_Neutron_Network_ID: {green}"],
        [f"x_neutron-router_id: {router}"],
        [f"X_Neutron_Router_ID: {router}", "X_Forwarded_For: 10.0.0.5"],
        [f"Connection: close, {NETWORK}, X-Forwarded-For"],
        [f"Connection: {NETWORK}", f"X_Neutron_Network_ID: {green}"],
        [f"X-Instance-ID: {served.guests['green-5'].instance_id}", "X-Tenant-ID: other"],
    ]


@pytest.mark.parametrize("case", range(13))
def test_nobody_becomes_another(served: Served, case: int) -> None:
    """A guest's own copies of what the proxy says are nothing, or end in 400; never in another's data."""
    guest = served.guests["blue-5"]
    headers = forged(served)[case]
    target = f"/forged/{case}"
    answer = guest.ask(target, *headers)
    if answer.status == 400:
        assert any("_" in header for header in headers), answer
        assert served.upstream.asked(target) == []
        return
    assert (answer.status, answer.body) == (200, guest.mark(target))
    (request,) = served.upstream.asked(target)
    assert request.instance == guest.instance_id
    assert request.value("x-forwarded-for") == guest.address
    assert b"neutron" not in request.head.lower()


def test_all_forgeries_are_tried(served: Served) -> None:
    assert len(forged(served)) == 13


@pytest.mark.parametrize("name", ["blue-5", "red-5"])
def test_a_body_in_pieces(served: Served, name: str) -> None:
    """Binary, larger than one read; the agent of Neutron loses what does not come with the head."""
    guest = served.guests[name]
    body = bytes(range(256)) * 300
    with guest.connect() as wire:
        head = f"POST /password/{name} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire.send(head)
        for at in range(0, len(body), 9000):
            wire.send(body[at : at + 9000])
        assert wire.answer().body == guest.mark(f"/password/{name}")
    (request,) = served.upstream.asked(f"/password/{name}")
    assert request.body == body


def test_a_chunked_body(served: Served) -> None:
    """Neutron's agent passes the chunks' sizes on as content."""
    guest = served.guests["green-5"]
    with guest.connect() as wire:
        wire.send(b"POST /chunked HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na\x00b\r\n")
        wire.send(b"2\r\n\r\n\r\n0\r\n\r\n")
        assert wire.answer().body == guest.mark("/chunked")
    (request,) = served.upstream.asked("/chunked")
    assert request.body == b"a\x00b\r\n"


def test_a_large_head(served: Served) -> None:
    """More than the 4,096 bytes that Neutron's agent reads."""
    guest = served.guests["red-5"]
    answer = guest.ask("/large", *(f"X-Header-{number}: {'v' * 600}" for number in range(12)))
    assert (answer.status, answer.body) == (200, guest.mark("/large"))


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"\x1f\x8b\x08\x00" + bytes(range(256)), ["Content-Type: text/plain"]),
        (b"\xff\xfe\x80\x00 not UTF-8", ["Content-Type: text/plain; charset=UTF-8"]),
        (bytes(range(256)) * 1000, ["Content-Type: application/octet-stream"]),
        (b"", ["Content-Type: text/html"]),
    ],
    ids=["gzip", "not UTF-8", "octet-stream", "empty"],
)
def test_content_is_passed_byte_for_byte(served: Served, content: bytes, headers: list[str]) -> None:
    """Neutron's agent unpacks what looks like gzip, and fails with the next two."""
    guest = served.guests["blue-6"]
    served.upstream.scripts["user-data"] = lambda exchange: (
        exchange.send(exchange.head(f"Content-Length: {len(content)}", *headers) + content) is None
    )
    answer = guest.ask("/user-data")
    assert (answer.status, answer.body) == (200, content)
    assert answer.values("content-type") == [headers[0].partition(": ")[2]]


@pytest.mark.parametrize("status", [201, 302, 400, 403, 404, 409, 429, 500, 502, 503, 504])
def test_any_status_of_nova_is_passed(served: Served, status: int) -> None:
    """Neutron's agent drops the connection for some of them, and the guest gets 502."""
    guest = served.guests["green-5"]
    served.upstream.scripts["status"] = lambda exchange: (
        exchange.send(exchange.whole(status=f"{status} Said")) is None
    )
    assert guest.ask(f"/status/{status}").status == status


def test_ipv6(served: Served) -> None:
    """Of a network: the proxy listens on fe80::a9fe:a9fe, the guest is found by its MAC."""
    guest = LinkLocalGuest(served.guests["blue-5"])
    until_usable(guest.namespace, "eth0", guest.address)
    assert guest.is_served("/v6")
    (request,) = served.upstream.asked("/v6")
    assert request.value("x-forwarded-for") == guest.address


def test_a_proxy_with_many_guests_at_once(served: Served) -> None:
    """Nobody is refused: 200 connections wait where the backlog of Neutron's agent is 5."""
    names = [name for name in GUESTS for _ in range(50)]
    start = threading.Barrier(len(names))

    def ask(number: int) -> bool:
        guest: Guest = served.guests[names[number]]
        start.wait(WAIT)
        return guest.is_served(f"/many/{number}")

    with ThreadPoolExecutor(len(names)) as pool:
        assert all(pool.map(ask, range(len(names))))


def test_a_slow_nova_keeps_nobody_else(served: Served) -> None:
    gate = threading.Event()
    served.upstream.scripts["slow"] = lambda exchange: (
        gate.wait(WAIT) and exchange.send(exchange.whole()) is None
    )
    with ThreadPoolExecutor(8) as pool:
        slow = [pool.submit(served.guests["blue-5"].is_served, f"/slow/{number}") for number in range(8)]
        served.upstream.until_asked("/slow", 8)
        assert served.guests["blue-6"].is_served("/quick")
        gate.set()
        assert all(answer.result() for answer in slow)
