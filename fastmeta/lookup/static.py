"""A lookup source for labs and tests: a JSON file in the shape in which Neutron's API answers.

``{"ports": [{"id", "network_id", "device_id", "device_owner", "project_id", "mac_address", "fixed_ips":
[{"ip_address"}]}]}``, router interfaces included: they say which networks a router has.

The file is read again when it changes (also by rename, or when it appears only later). One that is broken,
unsafe or gone leaves what was read before in force, and says so. What changed is revoked.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import stat
from collections import defaultdict
from collections.abc import Mapping, Sequence

from oslo_log import log as logging

from fastmeta.exceptions import ConfigError, LookupMalformedError, LookupUnavailableError
from fastmeta.folders import FolderWatcher, Seen
from fastmeta.lookup import strict_json
from fastmeta.lookup.parts import Heard, ignored
from fastmeta.lookup.source import OnAnnouncing, OnChange
from fastmeta.models import (
    ROUTER_INTERFACE_OWNERS,
    ROUTER_OWNERS,
    Answer,
    Change,
    IPAddress,
    Port,
    Question,
    Scope,
    ScopeKind,
    links_of,
)
from fastmeta.trusted_files import read_trusted_file

LOG = logging.getLogger(__name__)


class Content:
    """What one version of the file says, arranged for looking up."""

    def __init__(self, ports: Sequence[Port]) -> None:
        self.by_network: dict[str, list[Port]] = defaultdict(list)
        self.by_address: dict[tuple[str, IPAddress], list[Port]] = defaultdict(list)
        self.by_mac: dict[tuple[str, str], list[Port]] = defaultdict(list)
        networks: dict[str, set[str]] = defaultdict(set)
        own: dict[str, list[Port]] = defaultdict(list)
        for port in ports:
            self.by_network[port.network_id].append(port)
            for address in port.fixed_ips:
                self.by_address[port.network_id, address].append(port)
            self.by_mac[port.network_id, port.mac_address].append(port)
            if port.device_owner in ROUTER_INTERFACE_OWNERS and port.device_id:
                networks[port.device_id.lower()].add(port.network_id)
            if port.device_owner in ROUTER_OWNERS and port.device_id:
                own[port.device_id.lower()].append(port)
        self.networks_of_router = {router: frozenset(ids) for router, ids in networks.items()}
        self.links_of_router = {router: links_of(ports) for router, ports in own.items()}

    @classmethod
    def parse(cls, data: bytes) -> Content:
        """Raises LookupMalformedError that says what is wrong, for anything but a whole and valid file."""
        try:
            document = strict_json.parse(data)
        except ValueError as error:
            raise LookupMalformedError(f"not valid JSON: {error}") from error
        items = document.get("ports") if isinstance(document, dict) else None
        if not isinstance(items, list):
            raise LookupMalformedError('not a JSON object with a list "ports"')
        ports = [Port.from_api(item) for item in items]
        seen: set[str] = set()
        for port in ports:
            if port.id in seen:
                raise LookupMalformedError(f"port {port.id} is there twice")
            seen.add(port.id)
        return cls(ports)

    def change_from(self, old: Content) -> Change:
        """What is not as it was in old."""
        addresses: dict[str, frozenset[IPAddress]] = {}
        for network in self.by_network.keys() | old.by_network.keys():
            # A port that is there unchanged may still have got a double: the address is the double's too.
            changed = set(self.by_network.get(network, ())) ^ set(old.by_network.get(network, ()))
            if changed:
                addresses[network] = frozenset(address for port in changed for address in port.fixed_ips)
        routers = frozenset(
            router
            for router in self.links_of_router.keys() | old.links_of_router.keys()
            if self.links_of_router.get(router) != old.links_of_router.get(router)
            or self.networks_of_router.get(router) != old.networks_of_router.get(router)
        )
        return Change(addresses, routers)

    def answer(self, scope: Scope, questions: Sequence[Question]) -> Answer:
        """The ports of this scope that have one of the addresses asked for."""
        networks, links = self._networks(scope)
        found: dict[Port, None] = {}
        for network in networks:
            for question in questions:
                mac = question.mac
                ports = (
                    self.by_address.get((network, question.address), ())
                    if mac is None
                    else self.by_mac.get((network, mac), ())
                )
                found.update(dict.fromkeys(ports))
        return Answer(networks, tuple(found), links=links)

    def everything(self, scope: Scope, most: int) -> Answer | None:
        """All ports of this scope; None when they are more than so many."""
        networks, links = self._networks(scope)
        there = [self.by_network.get(network, []) for network in sorted(networks)]
        if sum(map(len, there)) > most:
            return None
        return Answer(networks, tuple(itertools.chain(*there)), links=links)

    def _networks(self, scope: Scope) -> tuple[frozenset[str], Mapping[str, frozenset[str]]]:
        if scope.kind is ScopeKind.NETWORK:
            return frozenset((scope.uuid,)), {}
        return (
            self.networks_of_router.get(scope.uuid, frozenset()),
            self.links_of_router.get(scope.uuid, {}),
        )


class StaticSource:
    """The LookupSource of a ports file."""

    def __init__(self, path: str, folders: FolderWatcher) -> None:
        self._path = os.path.abspath(path)
        self._name = os.path.basename(self._path)
        self._folders = folders
        self._data = b""
        self._content: Content | None = None
        self._on_change: OnChange | None = None
        self._dirty = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._complaint = ""

    async def start(self, on_change: OnChange, on_announcing: OnAnnouncing) -> None:
        """Reads the file. Raises ConfigError when it is there and broken, UnsafeFileError when others may
        change it; one that is not there yet is waited for. Changes are told, but never promised: a file that
        cannot be read is not seen to change."""
        self._on_change = on_change
        self._folders.watch(os.path.dirname(self._path), self._seen)
        try:
            await self._load()
        except ConfigError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            self._complaint = str(error)
        except LookupMalformedError as error:
            raise ConfigError(f"{self._path}: {error}") from error
        if self._complaint:
            LOG.warning("ports file %s is not there yet: guests wait until it is", self._path)
        self._task = asyncio.get_running_loop().create_task(self._load_when_dirty(), name="ports file")

    async def ports(self, scope: Scope, questions: Sequence[Question], heard: Heard = ignored) -> Answer:
        """Raises LookupUnavailableError as long as there has been no file."""
        return self._there.answer(scope, questions)

    async def all_ports(self, scope: Scope, most: int, heard: Heard = ignored) -> Answer | None:
        """Raises LookupUnavailableError as long as there has been no file."""
        return self._there.everything(scope, most)

    @property
    def _there(self) -> Content:
        if self._content is None:
            raise LookupUnavailableError(f"ports file {self._path} is not there yet")
        return self._content

    async def stop(self) -> None:
        self._on_change = None
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _seen(self, seen: Seen, name: str) -> None:
        # Any name may matter: the file may be a symbolic link that leads through another one in this folder,
        # which is what is swapped (Kubernetes does so). Comparing the content afterwards costs little.
        if seen is Seen.CREATED and name == self._name and self._is_being_written():
            return  # the end of the writing is an event of its own
        self._dirty.set()

    def _is_being_written(self) -> bool:
        """Whether a name that was just created is a new file, not a link to one that is there already."""
        try:
            status = os.lstat(self._path)
        except OSError:
            return False
        return stat.S_ISREG(status.st_mode) and status.st_nlink == 1

    async def _load_when_dirty(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            complaint = ""
            try:
                await self._load()
            except (ConfigError, LookupMalformedError) as error:
                complaint = str(error)
            if complaint and complaint != self._complaint:
                LOG.error(
                    "ports file %s is not taken, %s: %s",
                    self._path,
                    "what was read before stays in force" if self._content else "guests wait",
                    complaint,
                )
            self._complaint = complaint

    async def _load(self) -> None:
        """Reads the file in a thread, since a large one takes a while, and takes it over when it is right."""
        data, content = await asyncio.to_thread(_read, self._path, self._data if self._content else None)
        if content is None:
            return
        old, self._content, self._data = self._content, content, data
        change = Change({}, everything=True) if old is None else content.change_from(old)
        if self._on_change is not None:
            self._on_change(change)
        LOG.info("ports file %s read: %d networks", self._path, len(content.by_network))


def _read(path: str, known: bytes | None) -> tuple[bytes, Content | None]:
    """The file's bytes and what they say; no content when they are the known ones."""
    data = read_trusted_file(path)
    return data, (None if data == known else Content.parse(data))
