"""The bus killed, started again, frozen, under questions: nothing hangs, and it is used again by itself."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastmeta.bus.port_events import TOPIC
from fastmeta.exceptions import LookupUnavailableError

from .kit import Running, configuration, lines, no_secret, run
from .neutron import NeutronServer
from .rabbit import RabbitMQ
from .test_port_events import recorded


@pytest.fixture
def whole(rabbit: RabbitMQ) -> Iterator[RabbitMQ]:
    """What a test breaks is whole again for the next one."""
    yield rabbit
    rabbit.thaw()
    if not rabbit.alive:
        rabbit.start()


def test_killed_and_started_again(
    tmp_path: Path, whole: RabbitMQ, neutron: NeutronServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def test(running: Running) -> None:
        await running.ask()
        await running.until_announcing()
        whole.kill()
        await running.until_announcing(False)
        for _ in range(5):
            began = time.monotonic()
            with pytest.raises(LookupUnavailableError):
                await running.ask()
            assert time.monotonic() - began < 1.5
        await asyncio.to_thread(whole.start)
        took = await running.until_answered(40)
        announced = time.monotonic()
        await running.until_announcing()
        neutron.push(recorded("deleted")["resource_list"], "deleted", TOPIC)
        await running.until(lambda: bool(running.changes))
        print(
            f"answered {took:.1f} s, announcing {took + time.monotonic() - announced:.1f} s after the start"
        )

    run(configuration(tmp_path, whole.url, agent="report_interval = 1"), test, lookup_timeout=1.0)
    no_secret(caplog)
    assert len(lines(caplog)) < 40, "\n".join(lines(caplog))


def test_frozen_and_thawed(
    tmp_path: Path, whole: RabbitMQ, neutron: NeutronServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(running: Running) -> None:
        await running.ask()
        await running.until_announcing()
        whole.freeze()
        began = time.monotonic()
        results = await asyncio.gather(*(running.ask() for _ in range(20)), return_exceptions=True)
        assert time.monotonic() - began < 2.0
        assert {type(result) for result in results} == {LookupUnavailableError}
        await running.until_announcing(False)
        whole.thaw()
        await running.until_answered()
        await running.until_announcing()

    run(configuration(tmp_path, whole.url, agent="report_interval = 1"), test, lookup_timeout=1.0)
    no_secret(caplog)


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_stop_does_not_wait_for_a_bus_that_is_gone(
    tmp_path: Path, whole: RabbitMQ, neutron: NeutronServer, how: str
) -> None:
    """And its threads end by themselves, in bounded time."""

    async def test(running: Running) -> None:
        await running.until_announcing()
        if how == "killed":
            whole.kill()
        else:
            whole.freeze()
        asking = asyncio.ensure_future(running.ask())
        await asyncio.sleep(0.1)
        began = time.monotonic()
        await running.source.stop()
        assert time.monotonic() - began < 6.0
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    # By itself each of the library's threads waits for so long, and they wait for each other.
    more = "[oslo_messaging_rabbit]\nheartbeat_timeout_threshold = 3"
    run(
        configuration(tmp_path, whole.url, agent="report_interval = 1", more=more),
        test,
        seconds_to_end=60.0,
    )


def test_a_bus_that_comes_later(tmp_path: Path, whole: RabbitMQ, neutron: NeutronServer) -> None:
    """It is away when the agent starts."""
    whole.kill()

    async def test(running: Running) -> None:
        with pytest.raises(LookupUnavailableError, match=r"cannot be reached|does not answer"):
            await running.ask()
        await asyncio.to_thread(whole.start)
        await running.until_answered()
        await running.until_announcing()

    run(configuration(tmp_path, whole.url, agent="report_interval = 1"), test)
