"""Work in many namespaces; their addresses, and who listens there. Real namespaces."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from fastmeta.exceptions import NamespaceNotFoundError
from fastmeta.netns.addresses import AddressTable
from fastmeta.netns.listening import listening_tcp_ports
from fastmeta.netns.namespaces import Raised, in_namespace
from fastmeta.netns.visits import Visits

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 and "FASTMETA_CI" not in os.environ, reason="namespaces need root"
)

NAMES = [f"fmt-visit{number}-{os.getpid()}" for number in range(3)]
PATHS = [f"/run/netns/{name}" for name in NAMES]

METADATA = ipaddress.ip_address("169.254.169.254")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=30)


def in_first(*arguments: str) -> None:
    ip("-n", NAMES[0], *arguments)


@pytest.fixture(autouse=True)
def _namespaces() -> Iterator[None]:
    for name in NAMES:
        ip("netns", "add", name)
    yield
    for name in NAMES:
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True, timeout=30)


def where() -> int:
    return os.stat("/proc/thread-self/ns/net").st_ino


class TestVisits:
    def test_each_in_its_own(self) -> None:
        """Programs that are started there, too; whatever goes wrong is told, and nobody stays anywhere."""

        async def test() -> None:
            visits = Visits(asyncio.get_running_loop(), 2)
            told: dict[str, object] = {}

            def program() -> str:
                return subprocess.run(
                    ["readlink", "/proc/self/ns/net"], capture_output=True, text=True
                ).stdout

            def fails() -> None:
                raise ValueError("so it is")

            for path in PATHS:
                visits.visit(path, where, lambda result, path=path: told.__setitem__(path, result))
            visits.visit(PATHS[0], program, lambda result: told.__setitem__("program", result))
            visits.visit(PATHS[1], fails, lambda result: told.__setitem__("fails", result))
            visits.visit("/run/netns/none", where, lambda result: told.__setitem__("none", result))
            await visits.idle()
            inodes = [os.stat(path).st_ino for path in PATHS]
            assert [told[path] for path in PATHS] == inodes
            assert told["program"] == f"net:[{inodes[0]}]\n"
            failed, missing = told["fails"], told["none"]
            assert isinstance(failed, Raised)
            assert isinstance(failed.error, ValueError)
            assert isinstance(missing, Raised)
            assert isinstance(missing.error, NamespaceNotFoundError)

        before, here = threading.active_count(), where()
        asyncio.run(test())
        end = time.monotonic() + 5
        while threading.active_count() > before:
            assert time.monotonic() < end
        assert where() == here

    def test_so_many_at_once(self) -> None:
        """And not more; those that have not begun can be dropped."""

        async def test() -> None:
            visits = Visits(asyncio.get_running_loop(), 2)
            gate, inside, most = threading.Event(), [0], [0]
            lock = threading.Lock()
            told: list[object] = []

            def work() -> None:
                with lock:
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                gate.wait(10)
                with lock:
                    inside[0] -= 1

            for _ in range(10):
                visits.visit(PATHS[0], work, told.append)
            while inside[0] < 2:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.05)
            visits.drop()
            gate.set()
            await asyncio.wait_for(visits.idle(), 10)
            assert (most[0], told) == (2, [None, None])

        asyncio.run(test())


class TestAddresses:
    def test_those_that_are_there_and_that_come_and_go(self) -> None:
        in_first("link", "add", "tap0", "type", "veth", "peer", "name", "other")
        in_first("addr", "add", "10.0.0.2/24", "dev", "tap0")
        table = AddressTable(PATHS[0])
        try:
            index = in_namespace(PATHS[0], lambda: socket.if_nametoindex("tap0"))
            assert table.of(index) == {ipaddress.ip_address("10.0.0.2")}
            assert not table.update()
            in_first("addr", "add", "169.254.169.254/32", "dev", "tap0")
            in_first("addr", "add", "fe80::a9fe:a9fe/128", "dev", "tap0", "nodad")
            assert table.update()
            assert table.interfaces(METADATA) == {index}
            assert ipaddress.ip_address("fe80::a9fe:a9fe") in table.of(index)
            in_first("addr", "del", "169.254.169.254/32", "dev", "tap0")
            in_first("addr", "add", "169.254.169.254/32", "dev", "tap0")
            assert table.update()  # a change and back
            in_first("link", "del", "tap0")
            assert table.update()
            assert table.of(index) == table.interfaces(METADATA) == frozenset()
        finally:
            table.close()

    def test_the_address_of_a_link_between_two_is_our_end(self) -> None:
        in_first("link", "add", "tap0", "type", "veth", "peer", "name", "other")
        in_first("addr", "add", "169.254.169.254", "peer", "10.0.0.1/32", "dev", "tap0")
        table = AddressTable(PATHS[0])
        try:
            assert len(table.interfaces(METADATA)) == 1
        finally:
            table.close()

    def test_one_that_somebody_else_has_is_nobody_s(self) -> None:
        """Duplicate address detection has found out: another DHCP agent of the network has it."""
        address = "fe80::a9fe:a9fe"
        in_first("link", "add", "tap0", "type", "veth", "peer", "name", "tap0", "netns", NAMES[1])
        for name in NAMES[:2]:
            ip("-n", name, "link", "set", "tap0", "addrgenmode", "none", "up")
        ip("-n", NAMES[1], "addr", "add", f"{address}/128", "dev", "tap0", "nodad")
        table = AddressTable(PATHS[0])
        try:
            in_first("addr", "add", f"{address}/128", "dev", "tap0")
            table.update()
            end = time.monotonic() + 20
            while table.interfaces(ipaddress.ip_address(address)):
                assert time.monotonic() < end
                time.sleep(0.05)
                table.update()
            shown = subprocess.run(
                ["ip", "-n", NAMES[0], "addr", "show", "dev", "tap0"],
                capture_output=True,
                text=True,
                check=True,
            )
            assert "dadfailed" in shown.stdout
        finally:
            table.close()


class TestListening:
    def test_who_listens(self) -> None:
        """In this namespace, on any address of either family; not who is only connected."""

        def listen(family: int, address: str) -> socket.socket:
            return socket.create_server((address, 0), family=family)

        in_first("link", "set", "lo", "up")
        assert in_namespace(PATHS[0], listening_tcp_ports) == frozenset()
        four = in_namespace(PATHS[0], lambda: listen(socket.AF_INET, "127.0.0.1"))
        six = in_namespace(PATHS[0], lambda: listen(socket.AF_INET6, "::"))
        with four, six:
            ports = {one.getsockname()[1] for one in (four, six)}
            client = in_namespace(PATHS[0], lambda: socket.create_connection(four.getsockname()))
            with client:
                assert in_namespace(PATHS[0], listening_tcp_ports) == ports
            assert not ports & in_namespace(PATHS[1], listening_tcp_ports)
        assert in_namespace(PATHS[0], listening_tcp_ports) == frozenset()

    def test_many(self) -> None:
        """More than one message has room for."""

        def listen() -> list[socket.socket]:
            return [socket.create_server(("127.0.0.1", 0)) for _ in range(1000)]

        in_first("link", "set", "lo", "up")
        listeners = in_namespace(PATHS[0], listen)
        try:
            ports = {one.getsockname()[1] for one in listeners}
            assert in_namespace(PATHS[0], listening_tcp_ports) == ports
        finally:
            for one in listeners:
                one.close()
