from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from fastmeta import upstream as upstream_module
from fastmeta.upstream import Upstream, host_header


class Table:
    def __init__(self) -> None:
        self.told: list[tuple[list[tuple[str, int]], str]] = []

    def set_upstream(self, addresses: Sequence[tuple[str, int]], host: str) -> None:
        self.told.append((list(addresses), host))


@pytest.mark.parametrize(
    ("host", "tcp_port", "header"),
    [
        ("192.0.2.1", 8775, "192.0.2.1:8775"),
        ("nova", 80, "nova"),
        ("2001:db8::1", 8775, "[2001:db8::1]:8775"),
        ("2001:db8::1", 80, "[2001:db8::1]"),
    ],
)
def test_host_header(host: str, tcp_port: int, header: str) -> None:
    assert host_header(host, tcp_port) == header


async def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.002)


def run(host: str, test: Callable[[Upstream, Table], Awaitable[None]]) -> Table:
    table = Table()

    async def body() -> None:
        upstream = Upstream(table, host, 8775)
        upstream.start()
        await test(upstream, table)
        await upstream.stop()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(body())
    return table


async def nothing(upstream: Upstream, table: Table) -> None: ...


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_address_is_told_at_once(host: str) -> None:
    assert run(host, nothing).told == [([(host, 8775)], host_header(host, 8775))]


def test_name_is_resolved() -> None:
    async def test(upstream: Upstream, table: Table) -> None:
        await until(lambda: table.told)
        addresses, host = table.told[0]
        assert ("127.0.0.1", 8775) in addresses or ("::1", 8775) in addresses
        assert host == "localhost:8775"

    run("localhost", test)


def found(*addresses: str) -> list[tuple[Any, ...]]:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 8775)) for address in addresses]


class Names:
    """Replies of the resolver, one after the other, the last for ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *replies: list[tuple[Any, ...]] | Exception) -> None:
        self.replies = list(replies)
        self.asked = 0
        monkeypatch.setattr(upstream_module.socket, "getaddrinfo", self)
        monkeypatch.setattr(upstream_module, "FIRST_PAUSE", 0.005)

    def __call__(self, *arguments: object, **keywords: object) -> list[tuple[Any, ...]]:
        self.asked += 1
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, Exception):
            raise reply
        return reply


def test_name_that_cannot_be_resolved_yet(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    away = socket.gaierror(-3, "Temporary failure in name resolution")
    names = Names(monkeypatch, away, found(), UnicodeError("label too long"), found("192.0.2.1", "192.0.2.1"))

    async def test(upstream: Upstream, table: Table) -> None:
        await until(lambda: table.told)
        assert table.told == [([("192.0.2.1", 8775)], "nova:8775")]
        assert names.asked == 4
        assert caplog.text.count("cannot be resolved") == 1
        assert "Temporary failure" in caplog.text

    run("nova", test)


def test_name_is_resolved_again_when_the_api_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch, found("192.0.2.1"), found("192.0.2.1"), found("192.0.2.2"))

    async def test(upstream: Upstream, table: Table) -> None:
        await until(lambda: table.told)
        upstream.away()  # the answer is fresh
        await asyncio.sleep(0.02)
        assert names.asked == 1
        monkeypatch.setattr(upstream_module, "FRESH_FOR", 0.0)
        upstream.away()
        upstream.away()
        await until(lambda: names.asked == 2)
        await asyncio.sleep(0.02)
        assert len(table.told) == 1  # nothing new
        upstream.away()
        await until(lambda: len(table.told) == 2)
        assert table.told[1] == ([("192.0.2.2", 8775)], "nova:8775")

    run("nova", test)


def test_address_is_not_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch, found("192.0.2.9"))

    async def test(upstream: Upstream, table: Table) -> None:
        upstream.away()
        await asyncio.sleep(0.02)
        assert names.asked == 0

    run("192.0.2.1", test)


def test_addresses_are_bounded_and_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, found("fe80::1%eth0", *(f"192.0.2.{n}" for n in range(100))))

    async def test(upstream: Upstream, table: Table) -> None:
        await until(lambda: table.told)
        addresses = [address for address, _ in table.told[0][0]]
        assert addresses == [f"192.0.2.{n}" for n in range(upstream_module.MAX_ADDRESSES)]

    run("nova", test)


def test_moving_to_an_address() -> None:
    async def test(upstream: Upstream, table: Table) -> None:
        upstream.move("192.0.2.2", 8775)
        upstream.move("192.0.2.2", 8775)
        upstream.move("192.0.2.2", 80)
        assert str(upstream) == "192.0.2.2"

    assert run("192.0.2.1", test).told == [
        ([("192.0.2.1", 8775)], "192.0.2.1:8775"),
        ([("192.0.2.2", 8775)], "192.0.2.2:8775"),
        ([("192.0.2.2", 80)], "192.0.2.2"),
    ]


def test_moving_to_a_name_with_the_same_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Host header is another one."""
    Names(monkeypatch, found("192.0.2.1"))

    async def test(upstream: Upstream, table: Table) -> None:
        upstream.move("nova", 8775)
        await until(lambda: len(table.told) == 2)

    assert run("192.0.2.1", test).told[1] == ([("192.0.2.1", 8775)], "nova:8775")


def test_moving_while_the_old_name_cannot_be_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not asked for any more."""
    names = Names(monkeypatch, OSError("away"))

    async def test(upstream: Upstream, table: Table) -> None:
        await until(lambda: names.asked > 2)
        upstream.move("192.0.2.2", 8775)
        await asyncio.sleep(0.02)
        asked = names.asked
        await asyncio.sleep(0.05)
        assert names.asked == asked

    assert run("nova", test).told == [([("192.0.2.2", 8775)], "192.0.2.2:8775")]
