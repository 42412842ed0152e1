"""What is asked over the bus, and what comes of each way in which it may be answered."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from fastmeta.exceptions import (
    ConfigError,
    LookupMalformedError,
    LookupRefusedError,
    LookupUnavailableError,
)
from fastmeta.lookup.neutron_rpc import RpcSource
from fastmeta.models import ROUTER_OWNERS

from .kit import (
    BEHIND_ROUTER,
    BLUE,
    GREEN,
    ROUTER,
    Running,
    configuration,
    interface,
    lines,
    no_secret,
    port,
    run,
)
from .neutron import NeutronServer
from .rabbit import PASSWORD, RabbitMQ


def test_a_question_is_asked_as_the_stock_agent_asks(
    tmp_path: Path, rabbit: RabbitMQ, neutron: NeutronServer
) -> None:
    neutron.tell(ports=[port(5, "10.0.0.5"), port(6, "10.0.0.5", network_id=GREEN)])

    async def test(running: Running) -> None:
        answer = await running.ask()
        assert answer.networks == {BLUE}
        assert [one.device_id for one in answer.ports] == ["instance-5"]

    run(configuration(tmp_path, rabbit.url), test)
    (call,) = neutron.calls("get_ports")
    assert call["filters"] == {"network_id": [BLUE], "fixed_ips": {"ip_address": ["10.0.0.5"]}}
    assert call["context"]["is_admin"] is True


def test_addresses_and_macs_are_two_calls(tmp_path: Path, rabbit: RabbitMQ, neutron: NeutronServer) -> None:
    neutron.tell(ports=[port(5, "10.0.0.5"), port(6, "2001:db8::6"), port(7, "10.0.0.7")])

    async def test(running: Running) -> None:
        asked = ("10.0.0.5", "2001:db8::6", "fe80::f816:3eff:fe00:7")
        answer = await running.source.ports(
            *(await _with_questions(asked)),
        )
        assert sorted(one.device_id for one in answer.ports) == ["instance-5", "instance-6", "instance-7"]

    run(configuration(tmp_path, rabbit.url), test)
    assert neutron.filters == [
        {"network_id": [BLUE], "fixed_ips": {"ip_address": ["10.0.0.5", "2001:db8::6"]}},
        {"network_id": [BLUE], "mac_address": ["fa:16:3e:00:00:07"]},
    ]


async def _with_questions(addresses: tuple[str, ...]) -> Any:
    from .kit import IN_BLUE, questions

    return IN_BLUE, questions(*addresses)


@pytest.mark.parametrize(
    ("count", "sizes"), [(1, [1]), (200, [200]), (201, [200, 1]), (500, [200, 200, 100])]
)
def test_up_to_200_addresses_in_a_call(
    tmp_path: Path, rabbit: RabbitMQ, neutron: NeutronServer, count: int, sizes: list[int]
) -> None:
    first = ipaddress.ip_address("10.0.0.5")
    addresses = [str(first + number) for number in range(count)]
    neutron.tell(ports=[port(number, address) for number, address in enumerate(addresses)])

    async def test(running: Running) -> None:
        answer = await running.source.ports(*(await _with_questions(tuple(addresses))))
        assert len({one.device_id for one in answer.ports}) == len(answer.ports) == count

    run(configuration(tmp_path, rabbit.url), test)
    assert [len(filters["fixed_ips"]["ip_address"]) for filters in neutron.filters] == sizes
    asked = [address for filters in neutron.filters for address in filters["fixed_ips"]["ip_address"]]
    assert sorted(asked) == sorted(addresses)


def test_a_router_is_asked_for_its_own_ports_first(
    tmp_path: Path, rabbit: RabbitMQ, neutron: NeutronServer
) -> None:
    gateway = interface(3, "44444444-4444-4444-8444-444444444444", "network:router_gateway")
    # A tenant may write a router's id into a port of an own network.
    claim = interface(4, "55555555-5555-4555-8555-555555555555", "compute:nova")
    neutron.tell(
        ports=[interface(1, BLUE), interface(2, GREEN), gateway, claim, port(5, "10.0.0.5", network_id=GREEN)]
    )

    async def test(running: Running) -> None:
        answer = await running.ask(BEHIND_ROUTER)
        assert answer.networks == {BLUE, GREEN}
        assert [one.device_id for one in answer.ports] == ["instance-5"]
        assert {mac: set(networks) for mac, networks in answer.links.items()} == {
            "fa:16:3e:00:00:01": {BLUE},
            "fa:16:3e:00:00:02": {GREEN},
            "fa:16:3e:00:00:03": {gateway["network_id"]},
        }

    run(configuration(tmp_path, rabbit.url), test)
    assert neutron.filters == [
        {"device_id": [ROUTER], "device_owner": sorted(ROUTER_OWNERS)},
        {"network_id": [BLUE, GREEN], "fixed_ips": {"ip_address": ["10.0.0.5"]}},
    ]


@pytest.mark.parametrize(
    "ports", [[], [interface(3, GREEN, "network:router_gateway")]], ids=["none", "a gateway"]
)
def test_a_router_without_networks_leads_to_no_question(
    tmp_path: Path, rabbit: RabbitMQ, neutron: NeutronServer, ports: list[Any]
) -> None:
    """An empty filter would be none, and find the address in the whole cloud."""
    neutron.tell(ports=[*ports, port(5, "10.0.0.5")])

    async def test(running: Running) -> None:
        answer = await running.ask(BEHIND_ROUTER)
        assert (answer.networks, answer.ports) == (frozenset(), ())

    run(configuration(tmp_path, rabbit.url), test)
    assert [sorted(filters) for filters in neutron.filters] == [["device_id", "device_owner"]]


@pytest.mark.parametrize(
    ("mode", "kind", "says"),
    [
        ("garbage", LookupMalformedError, "get_ports is answered with dict, not with a list"),
        ("fail", LookupUnavailableError, r"Neutron's server failed at get_ports \(Refused\): its log"),
        (
            "fail_builtin",
            LookupUnavailableError,
            r"Neutron's server failed at get_ports \(KeyError\): its log",
        ),
        (
            "silent",
            LookupUnavailableError,
            r"no answer to get_ports in 1 s, though the message bus at 127\.0\.0\.1",
        ),
    ],
)
def test_an_answer_that_is_none(
    tmp_path: Path, rabbit: RabbitMQ, neutron: NeutronServer, mode: str, kind: type[Exception], says: str
) -> None:
    """The text is the same whatever was asked, and holds nothing of what the server said."""
    neutron.tell(mode=mode)
    texts = set()

    async def test(running: Running) -> None:
        for scope in (BEHIND_ROUTER, (await _with_questions(()))[0]):
            began = time.monotonic()
            with pytest.raises(kind, match=says) as caught:
                await running.ask(scope)
            assert time.monotonic() - began < 1.0 or mode == "silent"
            texts.add(str(caught.value))
        neutron.tell(mode="answer")
        await running.ask()

    run(configuration(tmp_path, rabbit.url), test, lookup_timeout=1.0)
    (text,) = texts
    assert "hunter2" not in text


def test_a_malformed_port_spoils_only_itself(
    tmp_path: Path, rabbit: RabbitMQ, neutron: NeutronServer
) -> None:
    neutron.tell(ports=[port(5, "10.0.0.5"), port(6, "10.0.0.5", mac_address="?"), 7])

    async def test(running: Running) -> None:
        answer = await running.ask()
        assert [one.device_id for one in answer.ports] == ["instance-5"]
        assert len(answer.malformed) == 2

    run(configuration(tmp_path, rabbit.url), test)


def test_scopes_do_not_wait_for_each_other(tmp_path: Path, rabbit: RabbitMQ, neutron: NeutronServer) -> None:
    """Some are asked about while a server is silent; what is asked later is answered meanwhile."""

    async def test(running: Running) -> None:
        await running.ask()
        neutron.tell(mode="silent")
        slow = [asyncio.ensure_future(running.ask()) for _ in range(3)]
        await running.until(lambda: len(neutron.calls("get_ports")) == 4)
        neutron.tell(mode="garbage")  # only for what comes from now on
        with pytest.raises(LookupMalformedError):
            await running.ask()
        for result in await asyncio.gather(*slow, return_exceptions=True):
            assert isinstance(result, LookupMalformedError)

    run(configuration(tmp_path, rabbit.url), test)


def test_a_wrong_password_is_refused(
    tmp_path: Path, rabbit: RabbitMQ, neutron: NeutronServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = rabbit.url.replace(PASSWORD, "wr0ng-s3cr3t")
    texts = set()

    async def test(running: Running) -> None:
        for _ in range(3):
            with pytest.raises(LookupRefusedError, match="refuses our user or password") as caught:
                await running.ask()
            texts.add(str(caught.value))

    run(configuration(tmp_path, url), test, lookup_timeout=8.0)
    assert len(texts) == 1
    assert "wr0ng-s3cr3t" not in caplog.text + "".join(texts)
    assert len(lines(caplog)) < 12


def test_a_virtual_host_that_is_not_there(tmp_path: Path, rabbit: RabbitMQ) -> None:
    async def test(running: Running) -> None:
        with pytest.raises(LookupRefusedError, match="virtual host"):
            await running.ask()

    run(configuration(tmp_path, rabbit.url + "nothere"), test, lookup_timeout=8.0)


def test_a_bus_that_accepts_and_never_speaks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither start nor stop nor a question hangs, whatever the library does meanwhile."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        url = f"rabbit://fastmeta:{PASSWORD}@127.0.0.1:{silent.getsockname()[1]}/"
        texts = set()

        async def test(running: Running) -> None:
            began = time.monotonic()
            results = await asyncio.gather(*(running.ask() for _ in range(20)), return_exceptions=True)
            assert time.monotonic() - began < 3.0
            for result in results:
                assert type(result) is LookupUnavailableError
                texts.add(str(result))
            began = time.monotonic()
            await running.source.stop()
            assert time.monotonic() - began < 6.0

        run(configuration(tmp_path, url), test, lookup_timeout=1.0)
    assert len(texts) == 1
    assert "does not answer" in texts.pop()
    no_secret(caplog)


def test_a_bus_that_is_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen

        async def test(running: Running) -> None:
            for _ in range(3):
                with pytest.raises(LookupUnavailableError, match=r"cannot be reached.*Connection refused"):
                    await running.ask()

        url = f"rabbit://fastmeta:{PASSWORD}@127.0.0.1:{taken.getsockname()[1]}/"
        run(configuration(tmp_path, url), test, lookup_timeout=4.0)
    no_secret(caplog)
    assert len(lines(caplog)) < 12


@pytest.mark.parametrize(
    ("url", "more", "says"),
    [
        ("rabbit://fastmeta:hunter2@127.0.0.1:what/", "", r"transport_url cannot be used"),
        ("carrier-pigeon://fastmeta:hunter2@127.0.0.1/", "", r"oslo\.messaging cannot use it"),
        ("rabbit://fastmeta:hunter$two@127.0.0.1/", "", r"right is \$\$"),
        (
            "rabbit://fastmeta:hunter2@127.0.0.1/",
            "[oslo_messaging_rabbit]\nssl = maybe",
            r"\[oslo_messaging_rabbit\] ssl: its value",
        ),
    ],
)
def test_what_can_never_work(tmp_path: Path, url: str, more: str, says: str) -> None:
    conf = configuration(tmp_path, url, more=more)
    with pytest.raises(ConfigError, match=says) as caught:
        RpcSource(conf, lookup_timeout=1.0)
    assert "hunter" not in str(caught.value)


def test_without_oslo_messaging_the_text_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "oslo_messaging", None)
    with pytest.raises(ConfigError, match=r"pip install 'fastmeta\[rpc\]'"):
        RpcSource(configuration(tmp_path, "rabbit://fastmeta:x@127.0.0.1/"), lookup_timeout=1.0)
