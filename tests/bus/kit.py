"""A source under test in an event loop of its own, and what it said."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg

from fastmeta.conf.settings import load
from fastmeta.lookup.neutron_rpc import RpcSource
from fastmeta.models import Answer, Change, Question, Scope, ScopeKind

from .rabbit import PASSWORD

BLUE = "11111111-1111-4111-8111-111111111111"
GREEN = "22222222-2222-4222-8222-222222222222"
ROUTER = "33333333-3333-4333-8333-333333333333"
IN_BLUE = Scope(ScopeKind.NETWORK, BLUE)
BEHIND_ROUTER = Scope(ScopeKind.ROUTER, ROUTER)
WAIT = 30.0


def uuid_of(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


def port(number: int, *addresses: str, **changes: Any) -> dict[str, Any]:
    """As get_ports answers it, but for the fields that do not matter."""
    return {
        "id": uuid_of(number),
        "network_id": BLUE,
        "device_id": f"instance-{number}",
        "device_owner": "compute:nova",
        "project_id": "a" * 32,
        "tenant_id": "a" * 32,
        "mac_address": f"fa:16:3e:00:{number >> 8:02x}:{number & 255:02x}",
        "fixed_ips": [{"subnet_id": uuid_of(9), "ip_address": address} for address in addresses],
    } | changes


def interface(number: int, network: str, owner: str = "network:router_interface") -> dict[str, Any]:
    return port(number, f"10.0.{number}.1", network_id=network, device_id=ROUTER, device_owner=owner)


def questions(*addresses: str) -> list[Question]:
    return [Question(ipaddress.ip_address(address)) for address in addresses]


def configuration(
    folder: Path, url: str, *, agent: str = "", default: str = "", more: str = ""
) -> cfg.ConfigOpts:
    path = folder / "fastmeta.conf"
    path.write_text(
        f"[DEFAULT]\ntransport_url = {url}\nhost = node-1\n{default}\n"
        f"[fastmeta]\nlisten = network:{BLUE}@127.0.0.1:8080\n[agent]\n{agent}\n{more}\n"
    )
    path.chmod(0o600)
    return load(["--config-file", str(path)], prog="fastmeta agent", version="0")


def threads() -> set[threading.Thread]:
    return set(threading.enumerate())


class Running:
    """A source that has started. changes and announced: what it said, with the time."""

    def __init__(self, source: RpcSource) -> None:
        self.source = source
        self.changes: list[Change] = []
        self.changed_at = 0.0
        self.announced: list[bool] = []
        self._said = asyncio.Event()

    async def start(self) -> None:
        await self.source.start(self._change, self._announcing)

    def _change(self, change: Change) -> None:
        self.changes.append(change)
        self.changed_at = time.monotonic()
        self._said.set()

    def _announcing(self, announcing: bool) -> None:
        self.announced.append(announcing)
        self._said.set()

    async def until(self, condition: Callable[[], Any], what: str = "", seconds: float = WAIT) -> None:
        end = time.monotonic() + seconds
        while not condition():
            self._said.clear()
            left = end - time.monotonic()
            assert left > 0, what or f"not in {seconds:g} s: {self.announced} {self.changes}"
            try:
                await asyncio.wait_for(self._said.wait(), min(left, 0.05))
            except asyncio.TimeoutError:
                continue

    async def until_announcing(self, announcing: bool = True, after: int = 0) -> None:
        """after: how much had been announced before."""
        await self.until(lambda: len(self.announced) > after and self.announced[-1] is announcing)

    async def ask(self, scope: Scope = IN_BLUE, *addresses: str) -> Answer:
        return await self.source.ports(scope, questions(*(addresses or ("10.0.0.5",))))

    async def until_answered(self, seconds: float = WAIT) -> float:
        """Asks until there is an answer; gives the seconds that it took."""
        began = time.monotonic()
        while True:
            try:
                await self.ask()
            except Exception as error:
                assert time.monotonic() - began < seconds, error
                await asyncio.sleep(0.1)
            else:
                return time.monotonic() - began


def run(
    conf: cfg.ConfigOpts,
    test: Callable[[Running], Awaitable[None]],
    *,
    lookup_timeout: float = 3.0,
    period: float = 0.3,
    limit: float = 1.0,
    settle: float = 0.0,
    seconds_to_end: float = 30.0,
) -> None:
    """Runs test with a source; afterwards no thread of it is left."""
    before = threads()

    async def body() -> None:
        source = RpcSource(
            conf, lookup_timeout=lookup_timeout, canary_period=period, canary_limit=limit, settle=settle
        )
        running = Running(source)
        try:
            await running.start()
            await test(running)
        finally:
            await source.stop()

    asyncio.run(body())
    end = time.monotonic() + seconds_to_end
    while left := {thread.name for thread in threads() - before}:
        assert time.monotonic() < end, left
        time.sleep(0.02)


def no_secret(caplog: pytest.LogCaptureFixture) -> None:
    assert PASSWORD not in caplog.text


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    """Of ours: what an operator sees."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= level and record.name.startswith("fastmeta")
    ]
