"""In the agent's place: guests, the haproxies that Neutron started for them, fastmeta's socket, the real Nova.

How Neutron's haproxies and its agent differ from this is in side_by_side, before an upstream that records; here nothing
stands in for anything.
"""

from __future__ import annotations

import gzip
import json
import random
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ..service.agents import until
from .conftest import Setting, new_setting
from .forwarder import Forwarder
from .in_place import InPlace, Places
from .scene import META_DATA, Guest
from .stack.api import Api
from .stack.files import VENDOR_DATA
from .stack.instances import Instances
from .stack.stack import Stack
from .storm import storm

PASSWORD = "/openstack/2013-04-04/password"
USER_DATA = "/openstack/latest/user_data"
EC2_USER_DATA = "/latest/user-data"
SLOW = 25.0
"""Seconds. Neutron's haproxies wait 32."""


@pytest.fixture(scope="module")
def places(stack: Stack, api: Api, nova: Instances) -> Iterator[Places]:
    with new_setting(stack, api, nova) as setting:
        yield Places(setting)


def is_its_own(guest: Guest, *, ipv6: bool = False) -> None:
    """Instance, project and host name, in both trees, on one connection and on new ones."""
    instance = guest.instance
    asked = (META_DATA, "/latest/meta-data/hostname")
    with guest.connect(ipv6=ipv6) as wire:
        for target in asked:
            wire.get(target)
        answers = [wire.answer() for _ in asked]
    answers += [guest.ask(target, ipv6=ipv6) for target in asked]
    assert [answer.status for answer in answers] == [200] * 4, (guest.name, answers)
    for meta_data, hostname in (answers[:2], answers[2:]):
        data = json.loads(meta_data.body)
        found = (data["uuid"], data["project_id"], data["name"], hostname.body.decode().partition(".")[0])
        expected = (instance.instance_id, instance.project_id, instance.name, instance.name)
        assert found == expected, guest.name


def test_each_gets_its_own(places: Places, source: str) -> None:
    """All at once; three of the four networks have the same addresses, and the first guest of each has IPv6, too."""
    by_ipv6 = [guest for name, guest in places.guests.items() if name.endswith("-5")]
    with places.agent(source), ThreadPoolExecutor(16) as pool:
        for _ in range(3):
            asking = [pool.submit(is_its_own, guest) for guest in places.guests.values()]
            asking += [pool.submit(is_its_own, guest, ipv6=True) for guest in by_ipv6]
            for one in asking:
                one.result()


def test_the_instance_of_another_project(places: Places, source: str) -> None:
    """A port with the id of another project's instance as its device: Nova's 404, as before (CVE-2013-6419)."""
    victim = places.guests["green-5"]
    stolen = places.cloud.give_port(victim.instance.instance_id, places.blue, "10.0.0.66", "fd00:10::66")
    guest = places.scene.boot(stolen)
    places.scene.enable_ipv6(guest)
    with places.agent(source):
        for target in (META_DATA, USER_DATA, PASSWORD, "/latest/meta-data/instance-id"):
            assert guest.ask(target).status == 404, target
        assert guest.ask(ipv6=True).status == 404
        assert guest.ask(PASSWORD, method="POST", body=b"stolen").status == 404
        is_its_own(victim)
        assert victim.ask(PASSWORD).body == b""
    places.scene.shut_down(guest)
    places.cloud.api.delete_port(stolen.port_id)


def test_another_secret(places: Places) -> None:
    """Nova's 403 reaches the guest, as before: nothing of the instance, and no other status that would say less."""
    with places.agent("rpc", secret="not the one that Nova has"):
        for guest in places.one_of_each:
            for ipv6 in (False, True):
                answer = guest.ask(ipv6=ipv6)
                assert answer.status == 403, answer
                assert guest.instance.instance_id.encode() not in answer.body
    with places.agent("rpc"):
        is_its_own(places.guests["blue-5"])


def test_an_instance_that_is_deleted(places: Places) -> None:
    """404: Nova's as soon as it has forgotten the instance, and ours when the port is gone, too."""
    guests = [places.new_guest(network, 7) for network in (places.blue, places.red)]
    with places.agent("rpc"):
        for guest in guests:
            is_its_own(guest)
            places.cloud.nova.delete(guest.instance.instance_id)
        places.nova.restart()  # it keeps what it knows of an instance for an hour
        for guest in guests:
            assert refused_by(guest) == "Nova"
            places.cloud.api.delete_port(guest.instance.port_id)
        for guest in guests:
            until(lambda guest=guest: refused_by(guest) == "fastmeta", f"the end of {guest.name}")
        for guest in places.guests.values():
            is_its_own(guest)


def refused_by(guest: Guest) -> str:
    """Whose 404 it gets."""
    answer = guest.ask()
    assert answer.status == 404, answer
    return "Nova" if b"The resource could not be found." in answer.body else "fastmeta"


def post_in_pieces(guest: Guest, target: str, body: bytes) -> int:
    """The content comes later than the head, as with cloudbase-init and curl; the status."""
    with guest.connect() as wire:
        wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire.send(f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        for at in range(0, len(body), 100):
            time.sleep(0.02)
            wire.send(body[at : at + 100])
        return wire.answer().status


def test_a_password(places: Places) -> None:
    """Posted once, kept by Nova, and nobody else's."""
    passwords = {"blue-6": b"cGFzc3dvcmQ=" * 28, "red-6": b"YW5vdGhlcg==" * 85}
    assert len(passwords["red-6"]) == 1020, "the most that Nova takes"
    with places.agent("rpc"):
        for name, password in passwords.items():
            guest = places.guests[name]
            empty = guest.ask(PASSWORD)
            assert (empty.status, empty.body) == (200, b"")
            assert guest.ask(PASSWORD, method="POST", body=b"a" * 1021).status == 400
            assert post_in_pieces(guest, PASSWORD, password) == 200
        places.nova.restart()  # what it says from now on it has read from its database
        for name, guest in places.guests.items():
            answer = guest.ask(PASSWORD)
            assert (answer.status, answer.body) == (200, passwords.get(name, b"")), name
        for name in passwords:
            guest = places.guests[name]
            assert guest.ask(PASSWORD, method="POST", body=b"again").status == 409
            assert guest.ask(PASSWORD).body == passwords[name]


def test_vendor_data(places: Places) -> None:
    with places.agent("rpc"):
        for guest in places.one_of_each:
            first, second = (guest.ask(f"/openstack/latest/vendor_data{n}.json") for n in ("", "2"))
            assert [answer.values("content-type") for answer in (first, second)] == [["application/json"]] * 2
            assert json.loads(first.body) == VENDOR_DATA
            assert json.loads(second.body) == {"static": VENDOR_DATA}


SCRIPT = b"#!/bin/sh\necho " + "h\u00e9\u4e16".encode() + b"\n"
USER_DATAS = {
    "gzip": gzip.compress(SCRIPT * 100, mtime=0),
    "not a whole gzip": gzip.compress(SCRIPT)[:-9],
    "every byte": bytes(range(256)) * 3 + b"\r\n\r\n0\r\n\r\n",
    "not UTF-8": b"#!/bin/sh\necho \xe9\xff\n",
    # The most that Nova takes: 65,535 characters in base64.
    "large": random.Random(6).randbytes(49_149),
}


def test_user_data_byte_for_byte(places: Places) -> None:
    """Also to a guest that says that it takes gzip."""
    with places.agent("rpc"):
        for network in (places.blue, places.red):
            for last, (name, data) in enumerate(USER_DATAS.items(), 20):
                guest = places.new_guest(network, last, user_data=data)
                for target in (USER_DATA, EC2_USER_DATA):
                    for headers in ([], ["Accept-Encoding: gzip, deflate"]):
                        answer = guest.ask(target, *headers)
                        assert (answer.status, answer.body) == (200, data), (name, target, headers)
                        assert answer.values("content-encoding") == []


@pytest.mark.timeout(150)
def test_an_answer_that_takes_25_seconds(places: Places) -> None:
    """As long as vendor data may take: it reaches the guest, by either family and behind a router, and content that was
    sent is not lost."""
    with (
        Forwarder(places.setting.stack.layout.tcp_ports.nova) as forwarder,
        places.agent("rpc", nova_port=forwarder.tcp_port),
        ThreadPoolExecutor(8) as pool,
    ):
        guests = places.one_of_each
        posts = [places.new_guest(network, 8) for network in (places.blue, places.red)]
        for guest in (*guests, *posts):
            is_its_own(guest)
        forwarder.silence()
        began = time.monotonic()
        asking = [
            pool.submit(guest.ask, ipv6=ipv6, seconds=SLOW * 2) for guest in guests for ipv6 in (False, True)
        ]
        posting = [
            pool.submit(guest.ask, PASSWORD, method="POST", body=b"slow", seconds=SLOW * 2)
            for guest in guests
        ]
        time.sleep(SLOW)
        early = [one for one in (*asking, *posting) if one.done()]
        forwarder.resume()
        answers = [one.result() for one in asking]
        assert time.monotonic() - began >= SLOW
        assert early == []
        expected = [guest.instance.instance_id for guest in guests for _ in range(2)]
        assert [json.loads(answer.body)["uuid"] for answer in answers] == expected
        assert [one.result().status for one in posting] == [200, 200]


@pytest.mark.timeout(300)
def test_a_storm(setting: Setting) -> None:
    """200 guests at once, 15 requests each, and Nova has not seen any of them before: every request is answered, once
    sent."""
    in_place = InPlace(setting)
    scene = in_place.scene
    addresses = [f"10.0.0.{last}" for last in range(11, 111)]
    networks = [
        scene.isolated("blue", "10.0.0.0/24", agent_address="10.0.0.2"),
        scene.routed(scene.router("router"), "red", "10.0.0.0/24", gateway="10.0.0.1"),
    ]
    in_place.start_haproxies()
    crowds = {
        scene.crowd(network, addresses): in_place.cloud.instances(network, addresses) for network in networks
    }
    with in_place.agent("rpc"):
        began = time.monotonic()
        requests = storm(crowds)
        took = time.monotonic() - began
    failed = [request for request in requests if request.problem]
    seconds = sorted(request.seconds for request in requests)
    setting.note(
        f"storm of 200 guests: {len(failed)} of {len(requests):,} requests failed, {took:.1f} s in all; "
        f"{sum(each > 10 for each in seconds)} took more than 10 s, the longest {seconds[-1]:.1f} s, "
        f"half of them at most {seconds[len(seconds) // 2]:.2f} s"
    )
    assert len(requests) == 3000
    assert failed == [], "\n".join(map(str, failed[:50]))
