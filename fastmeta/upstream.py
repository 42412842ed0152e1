"""Where Nova's metadata API is: turns its name into addresses, without blocking anybody."""

from __future__ import annotations

import asyncio
import ipaddress
import random
import socket
from collections.abc import Sequence
from typing import Protocol

from oslo_log import log as logging

from fastmeta.repeats import Repeats, more

LOG = logging.getLogger(__name__)

MAX_ADDRESSES = 16
"""Addresses of one name that are used."""
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
"""Seconds between failed attempts to resolve the name."""
FRESH_FOR = 5.0
"""Seconds for which an answer is not asked for again, however often the API is away."""


class UpstreamTable(Protocol):
    """The part of the core's loop that is told."""

    def set_upstream(self, addresses: Sequence[tuple[str, int]], host: str) -> None: ...


def host_header(host: str, tcp_port: int) -> str:
    """The value of the Host header: IPv6 in brackets, the TCP port unless it is 80."""
    shown = f"[{host}]" if ":" in host else host
    return shown if tcp_port == 80 else f"{shown}:{tcp_port}"


class Upstream:
    """Keeps the core's idea of where Nova's metadata API is up to date. Lives in the event loop's thread."""

    def __init__(self, table: UpstreamTable, host: str, tcp_port: int) -> None:
        self._table = table
        self._set(host, tcp_port)
        self._told: tuple[list[tuple[str, int]], str] | None = None
        self._resolved_at = float("-inf")
        self._task: asyncio.Task[None] | None = None
        self._repeats = Repeats(60.0)

    def __str__(self) -> str:
        return host_header(self._host, self._tcp_port)

    def start(self) -> None:
        """Tells the core at once when the host is an address, else as soon as the name is resolved."""
        if self._numeric:
            self._tell([(self._host, self._tcp_port)])
        else:
            self._resolve_soon()

    def _set(self, host: str, tcp_port: int) -> None:
        self._host = host.strip("[]")
        self._tcp_port = tcp_port
        self._numeric = _is_numeric(self._host)

    def move(self, host: str, tcp_port: int) -> None:
        """From now on it is there. Until a name is resolved the core goes on with what it was told last."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._set(host, tcp_port)
        self._repeats.forget("unresolved")
        self.start()

    def away(self) -> None:
        """The core finds none of the addresses answering: perhaps the name has others by now."""
        if not self._numeric and asyncio.get_running_loop().time() - self._resolved_at >= FRESH_FOR:
            self._resolve_soon()

    async def stop(self) -> None:
        """Resolves nothing more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _resolve_soon(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._resolve(), name="resolve upstream")

    async def _resolve(self) -> None:
        loop = asyncio.get_running_loop()
        pause = FIRST_PAUSE
        while True:
            addresses: list[str] = []
            reason = "it has no usable address"
            try:
                # In a thread of the loop's executor.
                found = await loop.getaddrinfo(self._host, self._tcp_port, type=socket.SOCK_STREAM)
                # A scoped address (fe80::1%eth0) is of no use to the core.
                addresses = [str(entry[4][0]) for entry in found if _is_numeric(str(entry[4][0]))]
            except (OSError, UnicodeError) as error:
                reason = str(error)
            if addresses:
                self._resolved_at = loop.time()
                self._repeats.forget("unresolved")
                unique = list(dict.fromkeys(addresses))[:MAX_ADDRESSES]
                self._tell([(address, self._tcp_port) for address in unique])
                return
            held_back = self._repeats.admit("unresolved")
            if held_back is not None:
                LOG.warning(
                    "nova_metadata_host %s cannot be resolved: %s%s", self._host, reason, more(held_back)
                )
            await asyncio.sleep(pause * (0.5 + 0.5 * random.random()))  # noqa: S311 (jitter, not a secret)
            pause = min(pause * 2, LONGEST_PAUSE)

    def _tell(self, addresses: list[tuple[str, int]]) -> None:
        if (addresses, str(self)) != self._told:
            self._told = addresses, str(self)
            self._table.set_upstream(addresses, str(self))
            LOG.info(
                "Nova's metadata API: %s (%s)",
                self,
                ", ".join(host_header(*address) for address in addresses),
            )


def _is_numeric(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return "%" not in host
