"""Puts the parts of discovery together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection

from oslo_log import log as logging

from fastmeta.conf.discovery import DiscoverySpec
from fastmeta.discovery.metadata_networks import MetadataNetworks
from fastmeta.discovery.names import QDHCP, QROUTER, SNAT, Names
from fastmeta.discovery.networks import Networks
from fastmeta.discovery.routers import Routers
from fastmeta.discovery.serving import Gathered, ListenersTable
from fastmeta.folders import FolderWatcher
from fastmeta.models import Change
from fastmeta.netns.visits import Visits

LOG = logging.getLogger(__name__)

THREADS_FOR_NETWORKS = 2
"""What is done there takes no time; more of them would only wait for each other, and keep the event loop waiting."""
THREADS_FOR_ROUTERS = 16
"""These wait for programs, and the programs for the kernel, which takes its time to end a chain of rules."""
FAREWELL = 30.0
"""Seconds for taking away all rules at the end; what is left then is found at the next start."""


def prefixes_of(spec: DiscoverySpec) -> list[str]:
    """Of names of namespaces that are looked at."""
    return [QROUTER, SNAT] * spec.routers + [QDHCP] * spec.networks


class Discovery:
    """Lives in the event loop's thread.

    without: names of namespaces that are left alone. on_first: called when all that were there at the start have been
    looked at.
    """

    def __init__(
        self,
        spec: DiscoverySpec,
        netns_dir: str,
        folders: FolderWatcher,
        listeners: ListenersTable,
        metadata_networks: MetadataNetworks,
        *,
        without: Collection[str | None] = (),
        on_first: Callable[[], None] = lambda: None,
    ) -> None:
        """Raises ConfigError when programs are missing."""
        loop = asyncio.get_running_loop()
        self._without = frozenset(without)
        self._on_first = on_first
        self._of_networks = Visits(loop, THREADS_FOR_NETWORKS)
        self._of_routers = Visits(loop, THREADS_FOR_ROUTERS)
        self._names = Names(
            netns_dir, folders, prefixes_of(spec), on_appear=self._appeared, on_gone=self._gone
        )
        gathered = Gathered(listeners, loop)
        self._routers = (
            Routers(spec, self._names, folders, gathered, self._of_routers) if spec.routers else None
        )
        self._networks = Networks(
            self._names, gathered, self._of_networks, metadata_networks if spec.metadata_networks else None
        )
        self._first: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Before the listeners' own start, so that a namespace which comes anew under its name is seen here first: its
        rules come before its listener. Raises ConfigError when a folder may not be watched."""
        if self._routers is not None:
            self._routers.start()
        began = time.monotonic()
        self._names.start()
        self._first = asyncio.get_running_loop().create_task(self._say_first(began))

    def changed(self, change: Change) -> None:
        """What the lookup source does not hold for true any more."""
        self._networks.changed(change)

    def stop(self) -> None:
        """Nothing is found any more. Listeners are closed by whoever has them; rules stay until the end."""
        self._names.stop()
        if self._first is not None:
            self._first.cancel()
        self._networks.stop()
        if self._routers is not None:
            self._routers.stop()

    async def end(self) -> None:
        """After stop(), when the last connection has ended: takes away the rules."""
        if self._routers is None:
            return
        try:
            await asyncio.wait_for(self._farewell(self._routers), FAREWELL)
        except asyncio.TimeoutError:
            LOG.error("after %g s the rules of some routers are still there", FAREWELL)

    async def _farewell(self, routers: Routers) -> None:
        self._of_routers.drop()
        await self._of_routers.idle()
        routers.remove_rules()
        await self._of_routers.idle()

    async def _say_first(self, began: float) -> None:
        await self._of_networks.idle()
        await self._of_routers.idle()
        LOG.info(
            "found and served: %d routers, %d networks, in %.2f s",
            self._routers.served if self._routers is not None else 0,
            self._networks.served,
            time.monotonic() - began,
        )
        # What they asked for is opened in this turn of the loop.
        asyncio.get_running_loop().call_soon(self._on_first)

    def _appeared(self, name: str) -> None:
        if name in self._without:
            return
        if name.startswith(QDHCP):
            self._networks.appeared(name)
        elif self._routers is not None:
            self._routers.appeared(name)

    def _gone(self, name: str) -> None:
        if name in self._without:
            return
        if name.startswith(QDHCP):
            self._networks.gone(name)
        elif self._routers is not None:
            self._routers.gone(name)
