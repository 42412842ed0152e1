"""Port events over a real bus, and when it is said that they can be relied on."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from pathlib import Path
from typing import Any

import pytest

from fastmeta.bus.port_events import TOPIC
from fastmeta.models import Change

from .gate import Gate
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
from .rabbit import PASSWORD, USER, RabbitMQ
from .test_port_events import data_of, recorded


def through(gate: Gate) -> str:
    return f"rabbit://{USER}:{PASSWORD}@127.0.0.1:{gate.tcp_port}/"


def push(neutron: NeutronServer, event: dict[str, Any]) -> None:
    neutron.push(event["resource_list"], event["event_type"], TOPIC)


def test_events_become_changes_at_once(tmp_path: Path, rabbit: RabbitMQ, neutron: NeutronServer) -> None:
    async def test(running: Running) -> None:
        await running.until_announcing()
        for name in ("created", "updated", "interface", "deleted"):
            event, count = recorded(name), len(running.changes)
            push(neutron, event)
            await running.until(lambda count=count: len(running.changes) > count)  # type: ignore[misc]
            assert running.changes[-1].ports == {data_of(event)["id"]}
        assert running.changes[0].addresses[data_of(recorded("created"))["network_id"]] >= {
            ipaddress.ip_address("10.1.0.5")
        }
        assert running.changes[2].routers == {data_of(recorded("interface"))["device_id"]}
        assert len(running.changes) == 4

    run(configuration(tmp_path, rabbit.url), test)


def test_the_order_of_events_is_kept(tmp_path: Path, rabbit: RabbitMQ, neutron: NeutronServer) -> None:
    async def test(running: Running) -> None:
        await running.until_announcing()
        ids = []
        for number in range(100):
            event = recorded("deleted")
            data_of(event)["id"] = f"00000000-0000-4000-8000-{number:012d}"
            ids.append(data_of(event)["id"])
            push(neutron, event)
        await running.until(lambda: len(running.changes) == 100)
        assert [next(iter(change.ports)) for change in running.changes] == ids

    run(configuration(tmp_path, rabbit.url), test)


def test_an_event_that_cannot_be_read_revokes_everything(
    tmp_path: Path, rabbit: RabbitMQ, neutron: NeutronServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(running: Running) -> None:
        await running.until_announcing()
        for resources, event_type in (
            (["?"], "updated"),
            (["?"], "updated"),
            ([], "moved"),
            (None, "deleted"),
        ):
            count = len(running.changes)
            neutron.push(resources, event_type, TOPIC)
            await running.until(lambda count=count: len(running.changes) > count)  # type: ignore[misc]
            assert running.changes[-1] == Change({}, everything=True)

    run(configuration(tmp_path, rabbit.url), test)
    assert len([line for line in lines(caplog) if "cannot be read" in line]) == 3  # each kind once


def test_a_message_of_another_kind_is_no_event_but_is_not_ignored(
    tmp_path: Path, rabbit: RabbitMQ, neutron: NeutronServer
) -> None:
    """oslo.messaging refuses it and complains: who knows what it was."""

    async def test(running: Running) -> None:
        await running.until_announcing()
        neutron.tell(cast=[TOPIC, "pull", {"what": "ever"}])
        await running.until_announcing(False)
        await running.until_announcing()

    run(configuration(tmp_path, rabbit.url), test)


def test_announcing_waits_for_neutron_to_know(
    tmp_path: Path, rabbit: RabbitMQ, neutron: NeutronServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Canaries come back, but no server need have read yet that we want events."""
    caplog.set_level(logging.INFO)

    async def test(running: Running) -> None:
        await running.until(lambda: "Neutron does not know yet" in caplog.text)
        assert running.announced == []
        await running.until_announcing()

    began = time.monotonic()
    run(configuration(tmp_path, rabbit.url), test, settle=2.0)
    assert time.monotonic() - began > 2.0


@pytest.mark.parametrize("mode", ["silent", "fail"])
def test_without_confirmed_reports_nothing_is_announced(
    tmp_path: Path, rabbit: RabbitMQ, neutron: NeutronServer, mode: str
) -> None:
    """A server that takes us for dead stops sending the version that we want, while canaries come back as ever."""

    async def test(running: Running) -> None:
        await running.until_announcing()
        neutron.tell(mode=mode)
        await running.until_announcing(False)
        neutron.tell(mode="answer")
        await running.until_announcing()
        assert running.announced == [True, False, True]

    run(configuration(tmp_path, rabbit.url, agent="report_interval = 0.5"), test)


def test_without_reports_at_all_nothing_is_announced(
    tmp_path: Path, rabbit: RabbitMQ, neutron: NeutronServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def test(running: Running) -> None:
        await running.until(lambda: "Neutron does not know yet" in caplog.text)
        await asyncio.sleep(1.0)
        assert running.announced == []

    run(configuration(tmp_path, rabbit.url, agent="report_interval = 0"), test)
    assert "report_interval is 0" in caplog.text


def test_a_late_canary(
    tmp_path: Path, rabbit: RabbitMQ, neutron: NeutronServer, caplog: pytest.LogCaptureFixture
) -> None:
    with Gate(rabbit.tcp_port) as gate:

        async def test(running: Running) -> None:
            await running.until_announcing()
            gate.hold()
            began = time.monotonic()
            await running.until_announcing(False)
            # One period, and the time that a canary may take.
            assert time.monotonic() - began < 0.3 + 1.0 + 1.0
            gate.let_go()
            await running.until_announcing()
            assert running.announced == [True, False, True]

        run(configuration(tmp_path, through(gate)), test)
    assert [line for line in lines(caplog) if "did not come back in 1 s" in line]
    no_secret(caplog)


def test_a_connection_that_is_lost_and_opened_again_between_two_canaries(
    tmp_path: Path, rabbit: RabbitMQ, neutron: NeutronServer
) -> None:
    """Each canary comes back in time, and still events may have been lost: it is noticed at once."""
    with Gate(rabbit.tcp_port) as gate:

        async def test(running: Running) -> None:
            await running.until_announcing()
            began = time.monotonic()
            assert gate.cut() >= 3
            await running.until_announcing(False)
            assert time.monotonic() - began < 1.0
            await running.until_announcing()
            # No canary was late.
            push(neutron, recorded("deleted"))
            await running.until(lambda: bool(running.changes))

        run(configuration(tmp_path, through(gate)), test, period=30.0, limit=30.0)


def test_a_router_is_kept_only_while_changes_are_announced(
    tmp_path: Path, rabbit: RabbitMQ, neutron: NeutronServer
) -> None:
    one = interface(1, BLUE)
    neutron.tell(ports=[one, port(5, "10.0.0.5")])

    async def test(running: Running) -> None:
        async def asked_for_the_router() -> bool:
            count = len(neutron.filters)
            await running.ask(BEHIND_ROUTER)
            return "device_id" in neutron.filters[count]

        assert await asked_for_the_router()
        assert await asked_for_the_router()
        await running.until_announcing()
        assert await asked_for_the_router()
        assert not await asked_for_the_router()
        # Another network is attached.
        event = recorded("interface")
        data_of(event)["device_id"] = ROUTER
        push(neutron, event)
        await running.until(lambda: len(running.changes) == 1)
        neutron.tell(ports=[one, interface(2, GREEN), port(5, "10.0.0.5")])
        assert await asked_for_the_router()
        assert not await asked_for_the_router()
        assert (await running.ask(BEHIND_ROUTER)).networks == {BLUE, GREEN}
        # And one detached: of that only the id is said.
        event = recorded("deleted")
        data_of(event)["id"] = one["id"]
        push(neutron, event)
        await running.until(lambda: len(running.changes) == 2)
        assert await asked_for_the_router()

    run(configuration(tmp_path, rabbit.url), test, settle=2.0)
