"""The addresses of one name, kept up to date without blocking anybody."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading
from collections.abc import Callable

from oslo_log import log as logging

from fastmeta.conf.upstreams import is_numeric
from fastmeta.repeats import Repeats, more

LOG = logging.getLogger(__name__)

MAX_ADDRESSES = 16
"""Addresses of one name that are used."""
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
"""Seconds between failed attempts to resolve the name."""
FRESH_FOR = 5.0
"""Seconds for which an answer is not asked for again, however often servers are away."""
AGED_AFTER = 60.0
"""Seconds after which an answer is asked for again, if all is well."""
REPEAT_PERIOD = 600.0
"""Seconds for which it is not said again that the name cannot be resolved."""


class Name:
    """Lives in the event loop's thread. on_change() is called whenever addresses has become another."""

    def __init__(self, host: str, on_change: Callable[[], None]) -> None:
        self.host = host
        self.addresses: list[str] = []
        """Those that stay keep their order, whatever the order of the answer."""
        self._on_change = on_change
        self._wanted = asyncio.Event()
        self._repeats = Repeats(REPEAT_PERIOD)
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"resolve {host}")

    def want(self, wanted: bool) -> None:
        """wanted: a server of it is away, perhaps it has others by now. So it is as long as nobody says that it
        is not."""
        if wanted:
            self._wanted.set()
        else:
            self._wanted.clear()

    async def stop(self) -> None:
        """Resolves nothing more."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        pause = FIRST_PAUSE
        while True:
            if await self._resolve():
                pause = FIRST_PAUSE
                await asyncio.sleep(_jittered(FRESH_FOR, 1.0, 1.2))
                with contextlib.suppress(asyncio.TimeoutError):
                    rest = _jittered(AGED_AFTER, 0.5, 1.0) - FRESH_FOR * 1.2
                    await asyncio.wait_for(self._wanted.wait(), rest)
            else:
                await asyncio.sleep(_jittered(pause, 0.5, 1.0))
                pause = min(pause * 2, LONGEST_PAUSE)

    async def _resolve(self) -> bool:
        """Whether it has an address."""
        reason = "it has no usable address"
        found: list[str] = []
        try:
            # A scoped address (fe80::1%eth0) is of no use to the core.
            found = [address for address in await resolve(self.host) if is_numeric(address)]
        except (OSError, UnicodeError, RuntimeError) as error:
            reason = str(error)
        if not found:
            held_back = self._repeats.admit("unresolved")
            if held_back is not None:
                LOG.warning(
                    "the name %s of Nova's metadata API cannot be resolved: %s%s%s",
                    self.host,
                    reason,
                    "; the addresses that it had are used on" if self.addresses else "",
                    more(held_back),
                )
            return False
        if self._repeats.forget("unresolved"):
            LOG.info("the name %s of Nova's metadata API can be resolved again", self.host)
        self._take(found)
        return True

    def _take(self, found: list[str]) -> None:
        stay = [address for address in self.addresses if address in found]
        come = [address for address in dict.fromkeys(found) if address not in stay]
        addresses = [*stay, *come][:MAX_ADDRESSES]
        if len(stay) + len(come) > MAX_ADDRESSES:
            if self._repeats.admit("many") is not None:
                LOG.warning(
                    "%s has %d addresses, of which %d are used",
                    self.host,
                    len(stay) + len(come),
                    MAX_ADDRESSES,
                )
        else:
            self._repeats.forget("many")
        if addresses != self.addresses:
            self.addresses = addresses
            self._on_change()


def _jittered(seconds: float, least: float, most: float) -> float:
    return seconds * random.uniform(least, most)  # noqa: S311 (jitter, not a secret)


def resolve(host: str) -> asyncio.Future[list[str]]:
    """The addresses of a name. In a thread of its own: a name server that does not answer holds up neither other
    names, nor anything else that is done in the loop's executor, nor the end of the process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[list[str]] = loop.create_future()

    def tell(found: list[str], error: Exception | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(found)

    def ask() -> None:
        found: list[str] = []
        failed: Exception | None = None
        try:
            entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            found = [str(entry[4][0]) for entry in entries]
        except Exception as error:
            failed = error
        with contextlib.suppress(RuntimeError):  # the event loop has ended
            loop.call_soon_threadsafe(tell, found, failed)

    threading.Thread(target=ask, name=f"resolve {host}", daemon=True).start()
    return future
