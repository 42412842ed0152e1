"""The servers of all upstreams: one for each address of each, told to the core whenever they are others."""

from __future__ import annotations

import asyncio
import datetime
import itertools
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from oslo_log import log as logging

from fastmeta.conf.settings import Settings
from fastmeta.conf.tls import TlsOptions
from fastmeta.conf.upstreams import UpstreamSpec
from fastmeta.exceptions import ConfigError, CoreError
from fastmeta.upstreams.names import Name

LOG = logging.getLogger(__name__)

MAX_SERVERS = 64
"""That the core takes."""
MAX_REMEMBERED = 1024
"""Servers whose numbers are kept, those that there are no more included: what the core says of one may come after
it has gone, and it may come again."""

WARN_BEFORE_END = 7 * 24 * 3600.0
"""Seconds before the end of a certificate of ours."""

Server: TypeAlias = tuple[int, str, int, str, Any, str]
"""number, numeric address or path, TCP port, Host header, TLS context, name for the certificate."""


class ServerTable(Protocol):
    """The part of the core's loops that is told."""

    def set_upstreams(self, servers: Sequence[Server]) -> None: ...


class TlsContext(Protocol):
    """The core's."""

    @property
    def expires(self) -> float | None: ...


MakeTls: TypeAlias = Callable[..., TlsContext]
"""Makes the core's TLS context of ca_file, insecure, certificate and private_key; raises CoreError."""


@dataclass(frozen=True)
class Prepared:
    """What can be taken up without any more doubt. context: None when no upstream wants TLS."""

    specs: tuple[UpstreamSpec, ...]
    tls: TlsOptions | None
    context: TlsContext | None


class Upstreams:
    """Keeps the core's idea of where Nova's metadata API is up to date. Lives in the event loop's thread."""

    def __init__(self, table: ServerTable, make_tls: MakeTls) -> None:
        self._table = table
        self._make_tls = make_tls
        self._in_force = Prepared((), None, None)
        self._names: dict[str, Name] = {}
        self._stopping: set[asyncio.Task[None]] = set()
        self._counter = itertools.count(1)
        self._numbers: OrderedDict[tuple[UpstreamSpec, str], int] = OrderedDict()
        self._texts: dict[int, str] = {}
        self._told: list[Server] = []
        self._hosts: dict[int, str] = {}
        """Of the servers that were told last: the names that they have their addresses from."""
        self._away: set[int] = set()
        self._too_many = 0

    def __str__(self) -> str:
        return ", ".join(map(str, self._in_force.specs))

    def __len__(self) -> int:
        """How many servers the core knows."""
        return len(self._told)

    def text(self, number: int) -> str:
        """Which server it is, for a log line; for 0 all upstreams."""
        return self._texts.get(number, f"server {number}") if number else str(self)

    def others(self, number: int) -> int:
        """How many servers there are beside this one that are not known to be away."""
        return sum(server[0] != number and server[0] not in self._away for server in self._told)

    def states(self) -> list[tuple[str, bool]]:
        """Each server that the core knows, as in the log, and whether it is away."""
        return [(self._texts[server[0]], server[0] in self._away) for server in self._told]

    def prepare(self, settings: Settings) -> Prepared:
        """Loads what certificates are to be used; changes nothing. Raises ConfigError for those that cannot be."""
        tls = settings.tls
        context = None
        if tls is not None:
            # Connections that were made with the same context may be kept.
            context = self._in_force.context if tls == self._in_force.tls else self._load(tls)
        return Prepared(settings.upstreams, tls, context)

    def _load(self, tls: TlsOptions) -> TlsContext:
        try:
            return self._make_tls(
                ca_file=tls.ca_file,
                insecure=tls.insecure,
                certificate=tls.certificate,
                private_key=tls.private_key,
            )
        except CoreError as error:
            text = str(error)
            options = {option: path for option, path in tls.files.items() if path in text}
            for path in options.values():
                if text.startswith(f"{path} cannot be used"):
                    text = text.removeprefix(f"{path} ")
            named = ", ".join(f"{option} = {path}" for option, path in options.items())
            raise ConfigError(f"{named or 'TLS'}: {text}") from None

    def take(self, prepared: Prepared) -> None:
        """It is in force from now on. The core is told at once what is known; of what must be resolved first, when
        it is. As long as nothing is known the core goes on with what it was told last."""
        self._in_force = prepared
        warn_of_end(prepared)
        hosts = {spec.host for spec in prepared.specs if not spec.numeric}
        for host in self._names.keys() - hosts:
            task = asyncio.get_running_loop().create_task(self._names.pop(host).stop())
            self._stopping.add(task)
            task.add_done_callback(self._stopping.discard)
        for host in sorted(hosts - self._names.keys()):
            self._names[host] = Name(host, self._tell)
        self._too_many = 0
        self._tell()

    def away(self, number: int) -> None:
        """The core cannot reach this server (0: none at all)."""
        self._away |= {number} if number else {server[0] for server in self._told}
        self._want()

    def back(self, number: int) -> None:
        """The core can reach this server again."""
        self._away.discard(number)
        self._want()

    def _want(self) -> None:
        self._away &= self._hosts.keys()
        wanted = {self._hosts.get(number) for number in self._away}
        for host, name in self._names.items():
            name.want(host in wanted)

    async def stop(self) -> None:
        """Resolves nothing more."""
        await asyncio.gather(*(name.stop() for name in self._names.values()), *self._stopping)

    def _tell(self) -> None:
        found = self._found()
        if len(found) > MAX_SERVERS and len(found) != self._too_many:
            LOG.warning(
                "%d addresses of Nova's metadata API are known, of which %d are used; not used: %s",
                len(found),
                MAX_SERVERS,
                ", ".join(_text(*place) for place in found[MAX_SERVERS:]),
            )
        self._too_many = len(found)
        found = found[:MAX_SERVERS]
        if not found:
            return
        servers: list[Server] = []
        for spec, where in found:
            context = self._in_force.context if spec.scheme == "https" else None
            number = self._number(spec, where)
            servers.append((number, where, spec.tcp_port, spec.host_header, context, spec.tls_name))
        if servers == self._told:
            return
        self._table.set_upstreams(servers)
        self._told = servers
        self._hosts = {server[0]: spec.host for server, (spec, _) in zip(servers, found, strict=True)}
        self._want()
        LOG.info("Nova's metadata API: %s", ", ".join(self._texts[server[0]] for server in servers))

    def _found(self) -> list[tuple[UpstreamSpec, str]]:
        """Each spec with each of its addresses: first the first of all of them, then the second, and so on, so that
        each has a part when there are too many."""
        lists = [[(spec, where) for where in self._places(spec)] for spec in self._in_force.specs]
        ranks = itertools.zip_longest(*lists)
        return [place for rank in ranks for place in rank if place is not None]

    def _places(self, spec: UpstreamSpec) -> list[str]:
        if spec.path:
            return [spec.path]
        return [spec.host] if spec.numeric else self._names[spec.host].addresses

    def _number(self, spec: UpstreamSpec, where: str) -> int:
        """The same as ever for the same server."""
        key = spec, where
        if key not in self._numbers:
            number = self._numbers[key] = next(self._counter)
            self._texts[number] = _text(spec, where)
        self._numbers.move_to_end(key)
        if len(self._numbers) > MAX_REMEMBERED:
            _, oldest = self._numbers.popitem(last=False)
            del self._texts[oldest]
        return self._numbers[key]


def _text(spec: UpstreamSpec, where: str) -> str:
    return str(spec) if spec.numeric else f"{spec} ({where})"


def warn_of_end(prepared: Prepared) -> None:
    """Said by us, and in time: when Nova's side refuses the certificate, its alert may be lost with the connection."""
    if prepared.tls is None or prepared.context is None:
        return
    expires = prepared.context.expires
    if expires is None:
        return
    left = expires - time.time()
    if left > WARN_BEFORE_END:
        return
    end = datetime.datetime.fromtimestamp(expires, datetime.timezone.utc)
    LOG.warning(
        "nova_client_cert = %s: it %s on %s; Nova's side refuses one that has expired: renew it, and send us SIGHUP",
        prepared.tls.certificate,
        "expires" if left > 0 else "expired",
        end.strftime("%Y-%m-%d %H:%M:%S UTC"),
    )
