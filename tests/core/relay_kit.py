"""A rig with a relay: proxies connect to a unix socket, and Python's part makes the scopes that they name."""

import os
import shutil
import socket
import tempfile
import uuid
from typing import Any

from fastmeta import _core
from fastmeta.exceptions import CoreError
from fastmeta.models import Scope, ScopeKind

from .loop_kit import DEADLINE_S, Answer, Guest, instance_of
from .test_loops import LoopsRig

RELAY = 1000
"""The number of the first loop's own scope; the others follow. Also of the listener."""
FIRST_MADE = 2000

KINDS = {_core.SCOPE_NETWORK: ScopeKind.NETWORK, _core.SCOPE_ROUTER: ScopeKind.ROUTER}
NAMES = {ScopeKind.NETWORK: "X-Neutron-Network-ID", ScopeKind.ROUTER: "X-Neutron-Router-ID"}


def network(number: int) -> Scope:
    return Scope(ScopeKind.NETWORK, str(uuid.UUID(int=number << 96 | number)))


def router(number: int) -> Scope:
    return Scope(ScopeKind.ROUTER, network(number).uuid)


class RelayRig(LoopsRig):
    """Besides the listener of scope 1, which is network(1). Scopes that proxies name get numbers from FIRST_MADE on."""

    most_made = 100

    def start(self) -> "RelayRig":
        self.folder = tempfile.mkdtemp(prefix="fmr-", dir="/tmp")
        self.path = os.path.join(self.folder, "metadata_proxy")
        self.numbers: dict[Scope, int] = {}
        self.handed: list[Scope] = []
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sock.bind(self.path)
        sock.listen(1024)
        own = list(range(RELAY, RELAY + len(self.loops)))
        self.loop.add_relay(RELAY, own, sock.detach(), uids=self.uids, gids=self.gids)
        self.generation |= dict.fromkeys(own, 0)
        super().start()
        return self

    uids = (os.geteuid(),)
    gids: tuple[int, ...] = ()

    def add_listener(self, listener: int, scope: int, host: str = "127.0.0.1") -> None:
        if scope not in self.generation:
            self.name(network(scope), scope)
        super().add_listener(listener, scope, host)

    def name(self, scope: Scope, number: int) -> None:
        """A scope that the relay finds."""
        self.generation[number] = 0
        self.numbers[scope] = number
        self.loop.add_scope(number, scope)

    def take(self, event: tuple[Any, ...]) -> None:
        """What relay.py does."""
        if event[0] == _core.EVENT_SCOPE_REMOVED:
            self.numbers = {scope: number for scope, number in self.numbers.items() if number != event[1]}
            return
        if event[0] != _core.EVENT_HANDED:
            return
        _, fd, kind, identifier, state = event
        scope = Scope(KINDS[kind], str(uuid.UUID(bytes=identifier)))
        self.handed.append(scope)
        try:
            if scope not in self.numbers and self.most_made:
                self.most_made -= 1
                self.name(scope, FIRST_MADE + len(self.handed))
            self.loop.hand_over(fd, self.numbers.get(scope), state)
        except CoreError:
            with socket.socket(fileno=fd) as connection:
                connection.sendall(b"HTTP/1.1 503 Ended\r\nContent-Length: 0\r\n\r\n")

    def proxy(self) -> Guest:
        """A proxy's connection."""
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(DEADLINE_S)
        proxy = Guest(sock)
        self.guests.append(proxy)
        sock.connect(self.path)
        return proxy

    def end(self) -> None:
        try:
            super().end()
        finally:
            shutil.rmtree(self.folder)

    def instance(self, scope: Scope, address: str) -> str:
        return instance_of(self.numbers[scope], address)


def claims(scope: Scope, address: str) -> list[str]:
    """The headers that a proxy puts in."""
    return [f"{NAMES[scope.kind]}: {scope.uuid}", f"X-Forwarded-For: {address}"]


def ask(rig: RelayRig, proxy: Guest, scope: Scope, address: str, target: str = "/", *headers: str) -> Answer:
    """Asks for a guest; the answer must be that guest's own."""
    proxy.get(target, *claims(scope, address), *headers)
    found = proxy.answer()
    assert found.status == 200, found
    assert found.body.decode() == f"{rig.instance(scope, address)} GET {target}\n"
    return found
