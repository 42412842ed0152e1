"""An agent between guests and several servers in Nova's place; what must hold of every failure, and what is printed."""

from __future__ import annotations

import random
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from typing_extensions import Self

from ..service.agents import Agent
from .load import REPEATABLE, GuestPlan, Load, Record, times
from .novas import TCP_PORT, EmbeddedNova, FullBacklog, Nova, Server, executions

LISTENER_PORT = 9697
SCOPES = 4
ADDRESSES = 8
SHOWN = 10
"""Failures that a failing test shows."""


@dataclass(frozen=True)
class Figures:
    """What is printed of a test."""

    name: str
    repeatable: str
    posts: str
    failed_posts: int
    note: str


FIGURES: list[Figures] = []


class Scene:
    """Networks whose listeners are on loopback, each with guests at the same addresses, and servers for them.

    Options are those of the agent; it is started by agent().
    """

    def __init__(
        self, *, scopes: int = SCOPES, addresses: int = ADDRESSES, namespace: str | None = None
    ) -> None:
        self.namespace = namespace
        self.stack = ExitStack()
        self.folder = Path(tempfile.mkdtemp(prefix="fmf-", dir="/tmp"))
        self.stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        # Nobody else has an address of this network, so nobody else can listen where a server of ours is to come back.
        self.network = f"127.{random.randrange(100, 250)}.{random.randrange(250)}"
        self.servers: list[Server] = []
        self.told: list[Server] = []
        """Those that the agent knows."""
        self.guests: list[GuestPlan] = []
        self.listen: list[str] = []
        self.ports: list[dict[str, Any]] = []
        for scope in range(scopes):
            self._add_network(scope, addresses)

    def _add_network(self, scope: int, addresses: int) -> None:
        network_id, host = str(uuid.uuid4()), f"{self.network}.{100 + scope}"
        self.listen.append(f"network:{network_id}@{host}:{LISTENER_PORT}")
        for number in range(1, addresses + 1):
            guest = GuestPlan(
                f"{scope}.{number}",
                (host, LISTENER_PORT),
                f"127.0.1.{number}",
                str(uuid.uuid4()),
                uuid.uuid5(uuid.NAMESPACE_DNS, str(scope)).hex,
            )
            self.guests.append(guest)
            self.ports.append(
                {
                    "id": str(uuid.uuid4()),
                    "network_id": network_id,
                    "device_id": guest.instance_id,
                    "device_owner": "compute:nova",
                    "project_id": guest.project_id,
                    "mac_address": "fa:16:3e:00:00:01",
                    "fixed_ips": [{"ip_address": guest.source}],
                }
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.close()

    def _next_address(self) -> str:
        return f"{self.network}.{len(self.servers) + 1}"

    def nova(self, *, start: bool = True, **options: Any) -> Nova:
        nova = Nova(self._next_address(), self.folder, namespace=self.namespace, **options)
        self.servers.append(self.stack.enter_context(nova))
        if start:
            nova.start()
        return nova

    def embedded_nova(self) -> EmbeddedNova:
        instances = [(guest.instance_id, guest.project_id) for guest in self.guests]
        nova = EmbeddedNova(self._next_address(), self.folder, instances)
        self.servers.append(self.stack.enter_context(nova))
        nova.start()
        return nova

    def full_backlog(self) -> FullBacklog:
        server = FullBacklog(self._next_address())
        self.servers.append(self.stack.enter_context(server))
        return server

    def upstreams(self, servers: Iterable[Server] | None = None) -> str:
        return ", ".join(server.url for server in (self.servers if servers is None else servers))

    def agent(self, servers: Sequence[Server] | None = None, **options: object) -> Agent:
        """servers: those that it is told of; all, if not given."""
        self.told = told = list(self.servers if servers is None else servers)
        default = ["debug = false"]
        if len(told) == 1:
            default.append(f"nova_metadata_host = {told[0].address}")
        else:
            options["upstreams"] = self.upstreams(told)
        agent = Agent(
            self.listen,
            self.ports,
            nova_tcp_port=TCP_PORT,
            default=default,
            namespace=self.namespace,
            access_log="false",
            **options,
        )
        return self.stack.enter_context(agent)

    def load(self, guests: Sequence[GuestPlan] | None = None, **options: Any) -> Load:
        """All guests ask, unless others are given."""
        load = Load(self.guests if guests is None else guests, namespace=self.namespace, **options)
        return self.stack.enter_context(load)

    def of_scope(self, scope: int) -> list[GuestPlan]:
        return [guest for guest in self.guests if guest.name.startswith(f"{scope}.")]

    def judge(
        self,
        load: Load,
        name: str,
        note: str = "",
        *,
        allowed: Callable[[Record], bool] = lambda record: False,
        all_asked: bool = True,
    ) -> None:
        """Ends the load. What must hold: a GET or HEAD was answered with what is the guest's own, whatever happened;
        no guest got anything else; a POST was not carried out twice, and if it was not answered with its own, then
        because its server went while it worked on it. allowed: failures of GET and HEAD that are right here; all_asked:
        each server that the agent was told of has been asked, so that its failure was one.
        """
        load.end()
        repeatable, posts = load.of(*REPEATABLE), load.of("POST")
        failed_posts = [record for record in posts if record.error]
        FIGURES.append(Figures(name, times(repeatable), times(posts), len(failed_posts), note))
        assert load.strays == [], load.strays[:SHOWN]
        failed = [record for record in repeatable if record.error and not allowed(record)]
        assert not failed, f"{len(failed)} of {len(repeatable)}:\n" + shown(failed)
        novas = [server for server in self.servers if isinstance(server, Nova)]
        if all_asked:
            idle = [nova.url for nova in novas if nova in self.told and nova.started and not nova.opened()]
            assert idle == [], f"never asked: {idle}"
        wrong = [text for nova in novas for text in nova.wrong()]
        assert wrong == [], wrong[:SHOWN]
        twice = {target: count for target, count in executions(novas, "POST").items() if count > 1}
        assert not twice, twice
        wrong_posts = [
            record for record in failed_posts if record.status not in (502, 503) and not allowed(record)
        ]
        assert not wrong_posts, shown(wrong_posts)

    def repeats(self) -> int:
        """Requests that servers have got in addition to one for each target."""
        novas = [server for server in self.servers if isinstance(server, Nova)]
        counts = executions(novas, *REPEATABLE)
        return sum(counts.values()) - len(counts)

    def second_times(self) -> list[tuple[str, float]]:
        """Target and time of each GET or HEAD that servers have got a second time, or more."""
        novas = [server for server in self.servers if isinstance(server, Nova)]
        requests = [request for nova in novas for request in nova.served() if request.method in REPEATABLE]
        seen: set[str] = set()
        found = []
        for request in sorted(requests, key=lambda request: request.at):
            if request.target in seen:
                found.append((request.target, request.at))
            seen.add(request.target)
        return found


def shown(records: Sequence[Record]) -> str:
    return "\n".join(str(record) for record in records[:SHOWN])


def report() -> Iterable[str]:
    """A table of all failures."""
    yield f"{'failure of Nova':44} {'GET, HEAD: p50 / p99 / longest':>34} {'POST':>30}  failed"
    for row in FIGURES:
        yield f"{row.name:44} {row.repeatable:>34} {row.posts:>30} {row.failed_posts:7}  {row.note}"
