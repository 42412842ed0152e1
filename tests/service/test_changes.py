"""Rule 1 from end to end: who an address belongs to changes while its guest asks."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from .agents import until
from .conftest import Served
from .guests import Guest
from .upstream import Exchange

OTHER = "11111111-2222-4333-8444-555555555555"
"""The instance that an address moves to."""


@pytest.fixture
def served(served: Served) -> Iterator[Served]:
    """Afterwards everybody is who he was."""
    yield served
    served.agent.change_ports(
        [*served.cloud.ports(), *extra_port(served.guests["blue-5"], address="10.9.9.9")]
    )


def extra_port(guest: Guest, *, address: str | None = None, **other: Any) -> list[dict[str, Any]]:
    """One more port in a guest's network, with the guest's address unless another is given."""
    item = {
        "id": str(uuid.uuid4()),
        "network_id": guest.port.network.network_id,
        "device_id": OTHER,
        "device_owner": "compute:nova",
        "project_id": guest.project_id,
        "mac_address": "fa:16:3e:99:99:99",
        "fixed_ips": [{"ip_address": address or guest.address}],
    }
    return [item | other]


class Poller:
    """Asks again and again, and notes when it asked and which instance answered."""

    def __init__(self, guest: Guest, target: str) -> None:
        self.guest = guest
        self.target = target
        self.notes: list[tuple[float, float, int, bytes]] = []
        self.stopped = False
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        try:
            wire = self.guest.connect()
            with wire:
                while not self.stopped:
                    asked_at = time.monotonic()
                    wire.get(self.target)
                    answer = wire.answer()
                    self.notes.append((asked_at, time.monotonic(), answer.status, answer.body))
        except BaseException as error:
            self.error = error


@pytest.mark.parametrize("name", ["blue_5", "red_5"])
def test_an_address_that_moves_to_another_instance(served: Served, name: str) -> None:
    """Far within the identity's time to live: once a new answer was seen, or the file was taken over, nothing of the
    old instance reaches the guest; nobody else notices."""
    guest = served.guests[name.replace("_", "-")]
    neighbour = served.guests["green-5"]
    target = f"/moves/{name}"
    old, new = guest.mark(target), guest.mark(target, instance_id=OTHER)
    pollers = [Poller(guest, target) for _ in range(3)] + [Poller(neighbour, target)]
    for poller in pollers:
        poller.thread.start()
    until(lambda: all(len(poller.notes) > 20 for poller in pollers) or any(p.error for p in pollers))
    served.agent.change_ports(served.cloud.ports(**{name: OTHER}))
    taken_over_at = time.monotonic()
    counts = [len(poller.notes) for poller in pollers]
    until(lambda: all(len(p.notes) > n + 20 for p, n in zip(pollers, counts, strict=True)))
    for poller in pollers:
        poller.stopped = True
        poller.thread.join()
    assert [poller.error for poller in pollers if poller.error] == []
    assert {status for poller in pollers for _, _, status, _ in poller.notes} == {200}
    assert {body for _, _, _, body in pollers[-1].notes} == {neighbour.mark(target)}
    notes = [note for poller in pollers[:-1] for note in poller.notes]
    assert {body for _, _, _, body in notes} == {old, new}
    first_new = min(got_at for _, got_at, _, body in notes if body == new)
    assert [n for n in notes if n[3] == old and n[0] > min(first_new, taken_over_at)] == []


@pytest.mark.parametrize("name", ["blue_6", "red_8"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_request_in_flight_is_asked_anew(served: Served, name: str, method: str) -> None:
    """The metadata API has not answered yet when the address moves: that connection is closed, and the question is
    asked again in the new name."""
    guest = served.guests[name.replace("_", "-")]
    target = f"/in-flight/{name}/{method}"
    given_up = threading.Event()

    def slow(exchange: Exchange) -> bool:
        if exchange.request.instance == guest.instance_id:
            if exchange.gone(20):
                given_up.set()
            exchange.send(exchange.whole())  # too late
            return False
        exchange.send(exchange.whole())
        return True

    served.upstream.scripts["in-flight"] = slow
    with guest.connect() as wire:
        wire.get(target, method=method)
        served.upstream.until_asked(target)
        served.agent.change_ports(served.cloud.ports(**{name: OTHER}))
        answer = wire.answer(method=method)
        assert answer.status == 200
        if method == "GET":
            assert answer.body == guest.mark(target, instance_id=OTHER)
        assert given_up.wait(20)
        wire.get("/after")
        assert wire.answer().body == guest.mark("/after", instance_id=OTHER)
    assert [request.instance for request in served.upstream.asked(target)] == [guest.instance_id, OTHER]


def test_a_post_in_flight_is_not_sent_twice(served: Served) -> None:
    """Rule 1: a request that may not be repeated gets 503."""
    guest = served.guests["blue-6"]

    def slow(exchange: Exchange) -> bool:
        exchange.gone(20)
        return False

    served.upstream.scripts["posted"] = slow
    with guest.connect() as wire:
        wire.get("/posted", method="POST", body=b"password")
        served.upstream.until_asked("/posted")
        served.agent.change_ports(served.cloud.ports(blue_6=OTHER))
        answer = wire.answer()
    assert answer.status == 503
    assert 1 <= int(answer.values("retry-after")[0]) <= 3
    assert len(served.upstream.asked("/posted")) == 1


def test_a_request_in_flight_of_an_address_that_is_nobodys_now(served: Served) -> None:
    """It ends with 404."""
    guest = served.guests["red-8"]

    def slow(exchange: Exchange) -> bool:
        exchange.gone(20)
        return False

    served.upstream.scripts["removed"] = slow
    with guest.connect() as wire:
        wire.get("/removed")
        served.upstream.until_asked("/removed")
        served.agent.change_ports(served.cloud.ports(guest))
        assert wire.answer().status == 404


def test_an_answer_that_has_begun_is_finished(served: Served) -> None:
    """Rule 1 speaks of the first byte: what began under an identity that held then comes whole."""
    guest = served.guests["green-7"]
    moved = threading.Event()

    def slow(exchange: Exchange) -> bool:
        whole = exchange.whole(50_000)
        exchange.send(whole[:20_000])
        moved.wait(20)
        exchange.send(whole[20_000:])
        return True

    served.upstream.scripts["begun"] = slow
    with guest.connect() as wire:
        wire.get("/begun")
        assert wire.socket.recv(1, 2)  # MSG_PEEK
        served.agent.change_ports(served.cloud.ports(green_7=OTHER))
        moved.set()
        assert set(wire.answer().body.splitlines(keepends=True)) == {guest.mark("/begun")}
        wire.get("/next")
        assert wire.answer().body == guest.mark("/next", instance_id=OTHER)


def everybody_else_is_served(served: Served, *but: str) -> None:
    for name, guest in served.guests.items():
        if name not in but:
            assert guest.is_served(), name


@pytest.mark.parametrize("name", ["blue-5", "red-5"])
def test_a_duplicate_address_is_nobodys(served: Served, name: str) -> None:
    """Two ports in one network (also of a router) have it: 404, for this address only; the metadata API is not asked.
    When one of them is gone, the other one is served."""
    guest = served.guests[name]
    assert guest.is_served()
    served.agent.change_ports([*served.cloud.ports(), *extra_port(guest)])
    served.upstream.received.clear()
    assert guest.ask("/double").status == 404
    assert served.upstream.received == []
    everybody_else_is_served(served, name)
    served.agent.change_ports(served.cloud.ports())
    assert guest.is_served()


def test_one_instance_with_two_ports_of_one_address(served: Served) -> None:
    """Still a doubt."""
    guest = served.guests["blue-5"]
    served.agent.change_ports([*served.cloud.ports(), *extra_port(guest, device_id=guest.instance_id)])
    assert guest.ask("/double").status == 404


def test_a_double_in_another_network_is_none(served: Served) -> None:
    """Addresses are unique in a network, and nowhere else."""
    blue, red = served.guests["blue-5"], served.guests["red-8"]
    served.agent.change_ports([*served.cloud.ports(), *extra_port(red, address="10.0.0.6")])
    everybody_else_is_served(served)
    assert blue.is_served()


@pytest.mark.parametrize("name", ["blue-6", "red-5"])
def test_a_port_that_is_removed(served: Served, name: str) -> None:
    """404 at once, also for a connection that was served before; it comes back as fast."""
    guest = served.guests[name]
    with guest.connect() as wire:
        wire.get("/before")
        assert wire.answer().body == guest.mark("/before")
        served.agent.change_ports(served.cloud.ports(guest))
        wire.get("/removed-port")
        assert wire.answer().status == 404
        assert served.upstream.asked("/removed-port") == []
        everybody_else_is_served(served, name)
        served.agent.change_ports(served.cloud.ports())
        wire.get("/again")
        assert wire.answer().body == guest.mark("/again")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not valid JSON"),
        (b'{"ports": [', "not valid JSON"),
        (b'{"ports": {}}', "not a JSON object with a list"),
        (b"\xff\xfe", "not valid JSON"),
        (b'{"ports": [{"id": "x"}]}', "id is not a UUID"),
        (b'{"ports": [], "ports": []}', "twice"),
    ],
)
def test_a_broken_file_changes_nothing(served: Served, data: bytes, reason: str) -> None:
    """What was read before stays in force, and the log says so; the next good file counts."""
    count = len(served.agent.logged("is not taken"))
    served.agent.write_ports(data)
    line = served.agent.until_logged("is not taken", count + 1)[-1]
    assert "what was read before stays in force" in line
    assert reason in line
    everybody_else_is_served(served)
    served.agent.change_ports(served.cloud.ports(blue_5=OTHER))
    assert served.guests["blue-5"].ask("/x").body == served.guests["blue-5"].mark("/x", instance_id=OTHER)


@pytest.mark.parametrize("wrong", ["mode", "owner"])
def test_a_file_that_others_may_write_changes_nothing(served: Served, wrong: str) -> None:
    """Rule 11, while running: refused with a line that says what to do."""
    agent, guest = served.agent, served.guests["blue-5"]
    new = agent.folder / "ports.json.unsafe"
    new.write_text('{"ports": []}')
    if wrong == "mode":
        new.chmod(0o666)
    else:
        new.chmod(0o600)
        os.chown(new, 12345, 0)
    count = len(agent.logged("is not taken"))
    os.rename(new, agent.ports_file)
    line = agent.until_logged("is not taken", count + 1)[-1]
    assert ("chmod go-w" if wrong == "mode" else "chown it") in line
    assert guest.is_served()


def test_a_router_without_interfaces(served: Served) -> None:
    """Its networks are unknown: 404, and the metadata API hears nothing; other scopes go on."""
    red = served.guests["red-5"]
    ports = [item for item in served.cloud.ports() if item["device_owner"] != "network:router_interface"]
    assert red.is_served()
    served.agent.change_ports(ports)
    assert red.ask("/without-interface").status == 404
    assert served.upstream.asked("/without-interface") == []
    everybody_else_is_served(served, "red-5", "red-8")
    served.agent.change_ports(served.cloud.ports())
    assert red.is_served()


def test_a_router_that_gets_another_network(served: Served) -> None:
    """The same address is another instance then: the one in the network that the router has now."""
    red, blue = served.guests["red-5"], served.guests["blue-5"]
    ports = served.cloud.ports()
    (interface,) = (item for item in ports if item["device_owner"] == "network:router_interface")
    changed = [
        item if item is not interface else item | {"network_id": blue.port.network.network_id}
        for item in ports
    ]
    served.agent.change_ports(changed)
    answer = red.ask("/other-network")
    assert answer.body == blue.mark("/other-network")
    assert red.instance_id not in [r.instance for r in served.upstream.asked("/other-network")]
