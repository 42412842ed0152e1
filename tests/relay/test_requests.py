"""Requests that a client of ours hands over, as a haproxy of Neutron's would: who asks, and what is refused."""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from fastmeta.lab.topology import Lab
from tests.service.agents import Agent
from tests.service.link_local import link_local
from tests.service.upstream import WAIT

from .places import NETWORK, ROUTER, RelayCloud, Scene, ask, router_port

BLUE, GREEN, RED, GREY = (str(uuid.uuid4()) for _ in range(4))
ROUTED = BLUE
"""A router with the UUID of a network: nothing forbids that, and they are two."""
TWO = str(uuid.uuid4())
"""A router of two networks."""
TWIN = "fa:16:3e:00:00:66"
LONELY = "fa:16:3e:00:00:67"


class Served:
    """One agent for several tests, and the ports that it knows."""

    def __init__(self, scene: Scene, loops: int) -> None:
        self.scene = scene
        self.upstream = scene.upstream
        self.blue = scene.add_known(BLUE, "10.0.0.5")
        self.green = scene.add_known(GREEN, "10.0.0.5")
        self.blue6 = scene.add_known(BLUE, "2001:db8::5", mac="fa:16:3e:00:00:06")
        self.red = scene.add_known(RED, "10.0.0.5")
        self.lonely = scene.add_known(RED, "10.0.0.7", mac=LONELY)
        scene.add_known(RED, "10.0.0.66", mac=TWIN)
        scene.add_known(GREY, "10.1.0.66", mac=TWIN)
        scene.ports += [router_port(ROUTED, RED), router_port(TWO, RED), router_port(TWO, GREY)]
        self.agent: Agent = scene.agent(loops=loops)

    @property
    def guests(self) -> list[tuple[str, str, str, bytes]]:
        """header, id, address, and what their answers are made of."""
        return [
            (NETWORK, BLUE, "10.0.0.5", self.blue.mark("@")),
            (NETWORK, GREEN, "10.0.0.5", self.green.mark("@")),
            (NETWORK, BLUE, "2001:db8::5", self.blue6.mark("@")),
            (ROUTER, ROUTED, "10.0.0.5", self.red.mark("@")),
        ]

    def info(self, text: str) -> list[str]:
        """Lines of the log that operators see by default."""
        return [line for line in self.agent.logged(re.escape(text)) if " DEBUG " not in line]


@pytest.fixture(scope="module", params=[1, 3], ids=["1 loop", "3 loops"])
def module_served(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Served]:
    with Scene(RelayCloud(lab)) as scene:
        yield Served(scene, request.param)


@pytest.fixture
def served(module_served: Served) -> Iterator[Served]:
    yield module_served
    module_served.scene.check()


def test_each_gets_its_own(served: Served) -> None:
    """The same address in two networks and behind a router, at once: three instances."""

    def ask_often(guest: tuple[str, str, str, bytes]) -> None:
        header, identifier, address, own = guest
        for turn in range(50):
            target = f"/own/{turn}"
            answer = ask(served.scene, header, identifier, address, target)
            assert answer == (200, own.replace(b"@", target.encode()))

    with ThreadPoolExecutor(len(served.guests)) as pool:
        list(pool.map(ask_often, served.guests))


def test_one_connection_for_all(served: Served) -> None:
    """Each request says whose it is; what the one before it said is forgotten."""
    with served.scene.wire() as wire:
        for turn in range(10):
            for header, identifier, address, own in served.guests:
                target = f"/kept/{turn}"
                wire.get(target, f"{header}: {identifier}", f"X-Forwarded-For: {address}")
                answer = wire.answer()
                assert (answer.status, answer.body) == (200, own.replace(b"@", target.encode()))
        wire.get("/kept/nobody", f"X-Forwarded-For: {address}")
        assert wire.answer().status == 400
    assert served.upstream.asked("/kept/nobody") == []


def test_pipelined(served: Served) -> None:
    with served.scene.wire() as wire:
        wire.send(
            b"".join(
                f"GET /pipelined/{turn} HTTP/1.1\r\nHost: x\r\n{header}: {identifier}\r\n"
                f"X-Forwarded-For: {address}\r\n\r\n".encode()
                for turn in range(10)
                for header, identifier, address, _ in served.guests
            )
        )
        for turn in range(10):
            for *_, own in served.guests:
                assert wire.answer().body == own.replace(b"@", f"/pipelined/{turn}".encode())


@pytest.mark.parametrize("known", [True, False], ids=["somebody", "nobody"])
@pytest.mark.parametrize("kind", ["ipv4", "mapped", "link-local"])
@pytest.mark.parametrize("where", ["network", "router"])
def test_each_kind_of_address(served: Served, where: str, kind: str, known: bool) -> None:
    """IPv4, IPv4 that is written as IPv6 (so does haproxy where it listens on [::]), and what has a MAC in it."""
    scopes = {"network": (NETWORK, BLUE, served.blue), "router": (ROUTER, ROUTED, served.red)}
    header, identifier, owner = scopes[where]
    last = "05" if known else "99"
    v4 = f"10.0.0.{int(last)}"
    link = link_local(f"fa:16:3e:00:00:{last}")
    target = f"/kinds/{where}/{kind}/{last}"
    sent = {"ipv4": v4, "mapped": f"::ffff:{v4}", "link-local": link}[kind]
    status, body = ask(served.scene, header, identifier, sent, target)
    if known:
        assert (status, body) == (200, owner.mark(target, link if kind == "link-local" else v4))
    else:
        assert status == 404
        assert served.upstream.asked(target) == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 400),
        (["X-Forwarded-For: 10.0.0.5"], 400),
        ([f"{NETWORK}: {BLUE}"], 400),
        ([f"{NETWORK}: {BLUE}", f"{ROUTER}: {ROUTED}", "X-Forwarded-For: 10.0.0.5"], 400),
        ([f"{NETWORK}: {BLUE}", f"{NETWORK}: {BLUE}", "X-Forwarded-For: 10.0.0.5"], 400),
        ([f"{NETWORK}: {BLUE}", f"x_neutron_network_id: {GREEN}", "X-Forwarded-For: 10.0.0.5"], 400),
        ([f"{NETWORK}: {BLUE}", "X-Forwarded-For: 10.0.0.5, 10.0.0.6"], 400),
        ([f"{NETWORK}: {BLUE}", "X-Forwarded-For: ten"], 400),
        ([f"{NETWORK}: {BLUE}", "X-Forwarded-For: 10.0.0.5", "X-Forwarded-For: ten"], 400),
        ([f"{NETWORK}: pings", "X-Forwarded-For: 10.0.0.5"], 404),
        ([f"{NETWORK}: pings"], 404),
        ([f"{ROUTER}: {ROUTED[:-1]}", "X-Forwarded-For: 10.0.0.5"], 404),
        ([f"{NETWORK}: {BLUE}", "X-Forwarded-For: 10.0.0.99"], 404),
        ([f"{NETWORK}: {uuid.uuid4()}", "X-Forwarded-For: 10.0.0.5"], 404),
        ([f"{ROUTER}: {uuid.uuid4()}", "X-Forwarded-For: 10.0.0.5"], 404),
    ],
)
def test_refused(served: Served, headers: list[str], status: int) -> None:
    """At once, and Nova is not asked."""
    target = f"/refused/{uuid.uuid4()}"
    with served.scene.wire() as wire:
        wire.get(target, *headers)
        assert wire.answer().status == status
    assert served.upstream.asked(target) == []


def test_a_probe_leaves_no_line(served: Served) -> None:
    """openstack-helm asks like this, all the time, and takes anything from 500 on for a dead agent."""
    before = len(served.agent.log.splitlines())
    for _ in range(20):
        with served.scene.wire() as wire:
            wire.get("/probe", f"{NETWORK}: pings", "X-Forwarded-For: 169.254.169.254")
            assert wire.answer().status == 404
    # The access log is on, and what comes after this is in it.
    assert ask(served.scene, NETWORK, BLUE, "10.0.0.5", "/after")[0] == 200
    served.agent.until_logged("/after")
    assert served.info("/probe") == []
    assert not [
        line for line in served.agent.log.splitlines()[before:] if "lookup" in line and "pings" in line
    ]


def test_the_access_log_names_the_guest(served: Served) -> None:
    """Not the proxy."""
    target = f"/logged/{uuid.uuid4()}"
    ask(served.scene, ROUTER, ROUTED, "10.0.0.5", target)
    (line,) = served.agent.until_logged(re.escape(target))
    assert f" router {ROUTED} 10.0.0.5 instance {served.red.instance_id} " in line
    with served.scene.wire() as wire:
        wire.get(f"{target}/nobody", "X-Forwarded-For: 10.0.0.5")
        assert wire.answer().status == 400
    (line,) = served.agent.until_logged(re.escape(f"{target}/nobody"))
    assert " relay - instance - " in line


def test_link_local_guests(served: Served) -> None:
    """Of a network and behind a router by the MAC; one that two of the router's networks have is nobody's."""
    lonely = link_local(LONELY)
    for header, identifier in ((NETWORK, RED), (ROUTER, ROUTED), (ROUTER, TWO)):
        target = f"/link-local/{header}"
        assert ask(served.scene, header, identifier, lonely, target) == (
            200,
            served.lonely.mark(target, lonely),
        )
    assert ask(served.scene, ROUTER, TWO, link_local(TWIN), "/twins")[0] == 404
    assert ask(served.scene, NETWORK, BLUE, lonely, "/twins")[0] == 404
    assert served.upstream.asked("/twins") == []


def test_a_guest_that_becomes_another(served: Served) -> None:
    """A change of its port ends what is known."""
    scene = served.scene
    assert ask(scene, NETWORK, GREEN, "10.0.0.5", "/before") == (200, served.green.mark("/before"))
    others = [port for port in scene.ports if port["device_id"] != served.green.instance_id]
    served.agent.change_ports(others)
    try:
        assert ask(scene, NETWORK, GREEN, "10.0.0.5", "/gone")[0] == 404
        assert ask(scene, NETWORK, BLUE, "10.0.0.5", "/still") == (200, served.blue.mark("/still"))
    finally:
        served.agent.change_ports(scene.ports)
    assert ask(scene, NETWORK, GREEN, "10.0.0.5", "/again") == (200, served.green.mark("/again"))
    assert served.upstream.asked("/gone") == []


def test_an_answer_that_takes_long(served: Served) -> None:
    """Others are served meanwhile: an agent that is asked for something slow is not busy."""
    gate = threading.Event()
    served.upstream.scripts["slow"] = lambda exchange: (
        gate.wait(WAIT) and exchange.send(exchange.whole()) is None
    )
    with ThreadPoolExecutor(10) as pool:
        slow = [
            pool.submit(ask, served.scene, NETWORK, BLUE, "10.0.0.5", f"/slow/{number}")
            for number in range(10)
        ]
        served.upstream.until_asked("/slow", 10)
        assert ask(served.scene, NETWORK, GREEN, "10.0.0.5", "/quick")[0] == 200
        gate.set()
        assert {answer.result()[0] for answer in slow} == {200}
