"""Each lookup source, with whatever it asks, for the tests that hold for all of them.

A new source adds a rig to RIGS; the tests stay as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest
from oslo_config import cfg

from fastmeta.conf.settings import load
from fastmeta.folders import FolderWatcher
from fastmeta.lookup.neutron_rest import RestSource
from fastmeta.lookup.neutron_rpc import RpcSource
from fastmeta.lookup.source import LookupSource
from fastmeta.lookup.static import StaticSource
from tests.bus.neutron import NeutronServer
from tests.bus.rabbit import RabbitMQ

from .cloud import PASSWORD, PROJECT, USER, Cloud

NETWORK = "11111111-1111-4111-8111-111111111111"


class Rig(Protocol):
    """One kind of source."""

    def serving(self, folder: Path, ports: Sequence[object]) -> AbstractAsyncContextManager[LookupSource]:
        """A source that has started, of a Neutron that has these ports, each as its API shows it (or as malformed as it
        is). folder is for files. Raises ConfigError where the source refuses such ports at its start."""


class StaticRig:
    """A ports file."""

    @asynccontextmanager
    async def serving(self, folder: Path, ports: Sequence[object]) -> AsyncIterator[LookupSource]:
        path = folder / "ports.json"
        path.write_text(json.dumps({"ports": list(ports)}))
        path.chmod(0o600)
        folders = FolderWatcher(asyncio.get_running_loop())
        source = StaticSource(str(path), folders)
        try:
            await source.start(lambda change: None, lambda announcing: None)
            yield source
        finally:
            await source.stop()
            folders.close()


class RestRig:
    """Real keystoneauth1, before a Keystone and Neutron of ours."""

    @asynccontextmanager
    async def serving(self, folder: Path, ports: Sequence[object]) -> AsyncIterator[LookupSource]:
        with Cloud(ports) as cloud:
            async with rest_source(folder, cloud) as source:
                yield source


class RpcRig:
    """Real oslo.messaging and RabbitMQ, before a Neutron server of ours."""

    def __init__(self, rabbit: RabbitMQ, neutron: NeutronServer) -> None:
        self._rabbit = rabbit
        self._neutron = neutron

    @asynccontextmanager
    async def serving(self, folder: Path, ports: Sequence[object]) -> AsyncIterator[LookupSource]:
        self._neutron.tell(ports=list(ports))
        # Its threads look around often, and so end at once.
        often = "[oslo_messaging_rabbit]\nheartbeat_rate = 100"
        conf = configuration(folder, default=f"transport_url = {self._rabbit.url}\n{often}")
        source = RpcSource(conf, lookup_timeout=3.0)
        try:
            await source.start(lambda change: None, lambda announcing: None)
            yield source
        finally:
            await source.stop()


RIGS: dict[str, Callable[[pytest.FixtureRequest], Rig]] = {
    "static": lambda request: StaticRig(),
    "rest": lambda request: RestRig(),
    "rpc": lambda request: RpcRig(request.getfixturevalue("rabbit"), request.getfixturevalue("neutron")),
}


def configuration(
    folder: Path, cloud: Cloud | None = None, *, default: str = "", **neutron: str
) -> cfg.ConfigOpts:
    """With credentials for this cloud, but for what is given in neutron: another value, or empty for none."""
    lines = {
        "auth_url": f"{cloud.keystone.url}/v3" if cloud else "",
        "username": USER,
        "password": PASSWORD,
        "project_name": PROJECT,
        "user_domain_name": "Default",
        "project_domain_id": "default",
    } | neutron
    section = "\n".join(f"{name} = {value}" for name, value in lines.items() if value)
    path = folder / "fastmeta.conf"
    path.write_text(
        f"[DEFAULT]\nmetadata_proxy_shared_secret = s3cret\n{default}\n[fastmeta]\n"
        f"listen = network:{NETWORK}@127.0.0.1:8080\n[neutron]\n{section}\n"
    )
    path.chmod(0o600)
    return load(["--config-file", str(path)], prog="fastmeta agent", version="0")


@asynccontextmanager
async def rest_source(
    folder: Path,
    cloud: Cloud,
    *,
    lookup_timeout: float = 3.0,
    conf: cfg.ConfigOpts | None = None,
    **neutron: str,
) -> AsyncIterator[RestSource]:
    """A REST source that has started."""
    source = RestSource(conf or configuration(folder, cloud, **neutron), lambda: lookup_timeout)
    try:
        await source.start(lambda change: None, lambda announcing: None)
        yield source
    finally:
        with contextlib.suppress(asyncio.CancelledError):
            await source.stop()
