"""A cloud that changes, a bus that tells of it or does not, and a source that says what is so, when it likes to.

It remembers who had which address when, and what was told of it: the oracle of identity safety.
"""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastmeta.exceptions import LookupMalformedError, LookupRefusedError, LookupUnavailableError
from fastmeta.models import Answer, Change, Question, Scope, ScopeKind

BLUE, GREEN, RED = (f"{digit * 8}-1111-4111-8111-111111111111" for digit in "123")
ROUTER = "44444444-1111-4111-8111-111111111111"
SCOPES = {1: Scope(ScopeKind.NETWORK, BLUE), 2: Scope(ScopeKind.ROUTER, ROUTER)}
NETWORKS = (BLUE, GREEN, RED)
ADDRESSES = ("127.0.0.2", "127.0.0.3")


@dataclass
class Span:
    """A time in which an address of a scope was this instance's. told: since when nothing may go out under it any
    more, because an event has said that it is over."""

    instance: str
    since: float
    until: float | None = None
    told: float | None = None


@dataclass
class Event:
    """What the bus tells, or ought to. ends: what is over with it."""

    change: Change
    ends: list[Span]


@dataclass
class Cloud:
    """Ports by their ids, and whose address is whose in each scope."""

    clock: Callable[[], float]
    ports: dict[str, dict[str, Any]] = field(default_factory=dict)
    attached: set[str] = field(default_factory=lambda: {GREEN})
    spans: dict[tuple[int, str], list[Span]] = field(default_factory=dict)
    numbers: Any = field(default_factory=lambda: itertools.count(1))

    def networks(self, scope: Scope) -> frozenset[str]:
        if scope.kind is ScopeKind.NETWORK:
            return frozenset([scope.uuid])
        return frozenset(self.attached)

    def having(self, network: str, address: str) -> list[str]:
        return [
            name
            for name, port in self.ports.items()
            if port["network_id"] == network and port["fixed_ips"][0]["ip_address"] == address
        ]

    def answer(self, scope: Scope, questions: Sequence[Question]) -> Answer:
        """What is so at this moment, and more than was asked."""
        networks = self.networks(scope)
        return Answer.from_api(networks, [dict(port) for port in self.ports.values()])

    def create(self, network: str, address: str) -> Event:
        number = next(self.numbers)
        name = f"00000000-0000-4000-8000-{number:012}"
        self.ports[name] = {
            "id": name,
            "network_id": network,
            "device_id": f"instance-{number}",
            "device_owner": "compute:nova",
            "project_id": "a" * 32,
            "mac_address": f"fa:16:3e:00:{number >> 8 & 255:02x}:{number & 255:02x}",
            "fixed_ips": [{"ip_address": address}],
        }
        return self.updated(name)

    def delete(self, name: str) -> Event:
        """The event carries nothing but the id."""
        del self.ports[name]
        return Event(Change(ports=frozenset([name])), self.look())

    def move(self, name: str, address: str) -> Event:
        self.ports[name]["fixed_ips"] = [{"ip_address": address}]
        return self.updated(name)

    def give(self, name: str) -> Event:
        """The port stays, and goes to another instance."""
        self.ports[name]["device_id"] = f"instance-{next(self.numbers)}"
        return self.updated(name)

    def attach(self, network: str) -> Event:
        self.attached ^= {network}
        return Event(Change(routers=frozenset([ROUTER])), self.look())

    def updated(self, name: str) -> Event:
        port = self.ports[name]
        addresses = frozenset([ipaddress.ip_address(port["fixed_ips"][0]["ip_address"])])
        return Event(Change({port["network_id"]: addresses}, ports=frozenset([name])), self.look())

    def look(self) -> list[Span]:
        """Writes down who has which address now; what is over since the last look."""
        over = []
        for number, scope in SCOPES.items():
            for address in ADDRESSES:
                names = [name for network in self.networks(scope) for name in self.having(network, address)]
                instance = self.ports[names[0]]["device_id"] if len(names) == 1 else None
                spans = self.spans.setdefault((number, address), [])
                last = spans[-1] if spans and spans[-1].until is None else None
                if last is not None and last.instance != instance:
                    last.until = self.clock()
                    over.append(last)
                if instance is not None and (last is None or last.instance != instance):
                    spans.append(Span(instance, self.clock()))
        return over


class CloudSource:
    """Says what is so in a cloud: at once, or when it is released (then what was so at the question, or what is so
    then), or not at all."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.failure: type[Exception] | None = None
        self.holds = False
        self.gates: list[asyncio.Event] = []
        self.early = True
        self.count = 0

    async def start(self, on_change: Any, on_announcing: Any) -> None: ...

    async def stop(self) -> None: ...

    async def all_ports(self, scope: Scope, most: int, heard: Any = None) -> Answer | None:
        return await self.ports(scope, ())

    async def ports(self, scope: Scope, questions: Sequence[Question], heard: Any = None) -> Answer:
        self.count += 1
        if self.failure is not None:
            raise self.failure("it was told to fail")
        answer = self.cloud.answer(scope, questions)
        if self.holds:
            gate = asyncio.Event()
            self.gates.append(gate)
            await gate.wait()
            if not self.early:
                answer = self.cloud.answer(scope, questions)
        return answer

    def release(self, *, early: bool) -> None:
        self.early = early
        self.holds = False
        for gate in self.gates:
            gate.set()
        self.gates.clear()


FAILURES = (LookupUnavailableError, LookupMalformedError, LookupRefusedError)
