"""Which index is which interface, as the kernel of a real namespace tells it; and the listeners that follow
it."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from fastmeta.exceptions import NamespaceError, NamespaceNotFoundError
from fastmeta.folders import FolderWatcher
from fastmeta.listeners import Listeners
from fastmeta.models import ListenSpec
from fastmeta.netns.links import LinkTable, LinkWatch
from fastmeta.netns.namespaces import in_namespace
from fastmeta.netns.sockets import bound_interface, open_listening_socket
from fastmeta.scopes import Scopes

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 and "FASTMETA_CI" not in os.environ, reason="namespaces need root"
)

NAME = f"fmt-links-{os.getpid()}"
OTHER = f"fmt-links2-{os.getpid()}"
PATH = f"/run/netns/{NAME}"
MAC = "fa:16:3e:00:00:01"
OTHER_MAC = "fa:16:3e:00:00:02"
BLUE = "11111111-1111-4111-8111-111111111111"
GREEN = "22222222-2222-4222-8222-222222222222"


def ip(*arguments: str, text: str | None = None) -> str:
    """Runs ip, in the namespace unless arguments say otherwise."""
    where = () if arguments[0] == "netns" else ("-n", NAME)
    done = subprocess.run(
        ["ip", *where, *arguments], check=True, timeout=30, input=text, text=True, capture_output=True
    )
    return done.stdout


def add(name: str, mac: str = MAC, *more: str) -> None:
    ip("link", "add", name, *more, "address", mac, "type", "bridge")


@pytest.fixture(autouse=True)
def _namespace() -> Iterator[None]:
    ip("netns", "add", NAME)
    yield
    for name in (NAME, OTHER):
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True, timeout=30)


@pytest.fixture
def table() -> Iterator[LinkTable]:
    """Of the namespace, in which there is a link one with the index 100 already."""
    add("one", MAC, "index", "100")
    table = LinkTable(PATH)
    yield table
    table.close()


class TestLinkTable:
    def test_lists_what_is_there(self, table: LinkTable) -> None:
        assert (table.index("one"), table.mac(100)) == (100, MAC)
        assert (table.index("lo"), table.index("two"), table.mac(99)) == (1, None, None)
        assert not table.update()

    def test_many_are_listed(self) -> None:
        """More than one message holds."""
        ip("-batch", "-", text="".join(f"link add d{n} type bridge\n" for n in range(200)))
        table = LinkTable(PATH)
        try:
            assert all(table.index(f"d{n}") for n in range(200))
        finally:
            table.close()

    def test_follows(self, table: LinkTable) -> None:
        add("two", OTHER_MAC)
        assert table.update()
        index = table.index("two")
        assert index is not None
        assert table.mac(index) == OTHER_MAC
        ip("link", "set", "two", "name", "three")
        assert table.update()
        assert (table.index("two"), table.index("three")) == (None, index)
        ip("link", "set", "three", "address", "fa:16:3e:00:00:03")
        assert table.update()
        assert table.mac(index) == "fa:16:3e:00:00:03"
        ip("link", "set", "three", "up")
        assert not table.update()
        ip("link", "del", "three")
        assert table.update()
        assert (table.index("three"), table.mac(index)) == (None, None)

    def test_a_change_and_back_is_a_change(self, table: LinkTable) -> None:
        ip("link", "set", "one", "address", OTHER_MAC)
        ip("link", "set", "one", "address", MAC)
        assert table.update()
        ip("link", "del", "one")
        add("one", MAC, "index", "100")
        assert table.update()
        assert table.mac(100) == MAC

    def test_a_link_that_is_moved_away(self, table: LinkTable) -> None:
        ip("netns", "add", OTHER)
        ip("link", "add", "two", "type", "veth", "peer", "name", "three")
        assert table.update()
        ip("link", "set", "two", "netns", OTHER)
        assert table.update()
        assert table.index("two") is None

    def test_a_mac_that_two_links_have_tells_of_none(self, table: LinkTable) -> None:
        add("two", MAC)
        assert table.update()
        assert table.mac(100) is None
        ip("link", "del", "two")
        assert table.update()
        assert table.mac(100) == MAC

    def test_a_bridge_s_port_that_is_none_any_more_is_still_a_link(self, table: LinkTable) -> None:
        """The bridge tells of it with a DELLINK of its own."""
        ip("link", "add", "name", "br", "address", OTHER_MAC, "type", "bridge")
        ip("link", "add", "two", "index", "200", "type", "veth", "peer", "name", "three")
        ip("link", "set", "two", "master", "br")
        table.update()
        ip("link", "set", "two", "nomaster")
        assert not table.update()
        assert table.index("two") == 200

    def test_messages_that_are_lost(self, table: LinkTable) -> None:
        """More than the socket's queue holds: counts as a change, and what is there is known."""
        ip("-batch", "-", text="".join(f"link add d{n} type bridge\n" for n in range(400)))
        ip("link", "del", "one")
        assert table.update()
        assert table.index("one") is None
        assert all(table.index(f"d{n}") for n in range(400))
        assert not table.update()

    def test_only_the_kernel_is_believed(self, table: LinkTable) -> None:
        before = table.index("one")

        def tell() -> None:
            with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as other:
                name = table._socket.getsockname()
                # RTM_DELLINK of link 100; who has CAP_NET_ADMIN may send to others.
                message = (
                    (32).to_bytes(4, "little")
                    + (17).to_bytes(2, "little")
                    + b"\0" * 10
                    + b"\0\0\0\0"
                    + (100).to_bytes(4, "little")
                    + b"\0" * 8
                )
                try:
                    other.sendto(message, name)
                except OSError as error:
                    assert error.errno in (errno.EPERM, errno.ECONNREFUSED)

        in_namespace(PATH, tell)
        table.update()
        assert table.index("one") == before

    def test_does_not_keep_its_namespace_alive_once_closed(self, table: LinkTable) -> None:
        ip("netns", "add", OTHER)
        ip("link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", OTHER)
        table.close()
        ip("netns", "del", NAME)
        end = time.monotonic() + 15
        while (
            "v1"
            in subprocess.run(
                ["ip", "-n", OTHER, "link"], capture_output=True, text=True, check=True, timeout=30
            ).stdout
        ):
            assert time.monotonic() < end
            time.sleep(0.01)

    def test_no_namespace(self) -> None:
        with pytest.raises(NamespaceNotFoundError):
            LinkTable(f"/run/netns/{OTHER}")

    def test_what_cannot_be_followed_is_said_and_forgotten(self, table: LinkTable) -> None:
        table._socket.close()
        with pytest.raises(NamespaceError, match=f"{NAME}: its links cannot be followed"):
            table.update()
        assert table.index("one") is None

    def test_no_descriptor_is_left(self) -> None:
        before = len(os.listdir("/proc/self/fd"))
        LinkTable(PATH).close()
        with pytest.raises(NamespaceNotFoundError):
            LinkTable(f"/run/netns/{OTHER}")
        assert len(os.listdir("/proc/self/fd")) == before


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.001)


class TestLinkWatch:
    def test_tells_of_changes_by_itself_and_before_it_is_asked(self) -> None:
        async def body() -> None:
            told: list[str | None] = []
            watch = LinkWatch(told.append)
            watch.follow("x", PATH)
            watch.follow("x", PATH)
            assert watch.follows("x")
            add("one", MAC, "index", "100")
            # Before the event loop could tell.
            assert (watch.mac("x", 100), told) == (MAC, ["x"])
            assert (watch.index("x", "one"), watch.mac("y", 100), watch.index("y", "one")) == (
                100,
                None,
                None,
            )
            ip("link", "del", "one")
            await until(lambda: told == ["x", "x"])
            watch.forget("x")
            watch.forget("x")
            assert not watch.follows("x")
            add("two")
            await asyncio.sleep(0.02)
            assert told == ["x", "x"]
            watch.stop()

        asyncio.run(body())

    def test_what_cannot_be_followed_any_more_is_told(self) -> None:
        async def body() -> None:
            told: list[str | None] = []
            watch = LinkWatch(told.append)
            watch.follow(None, None)
            watch.follow("x", PATH)
            os.dup2(os.open("/dev/null", os.O_RDONLY), watch._tables["x"].fileno())
            assert watch.mac("x", 1) is None
            assert told == ["x"]
            assert (watch.follows("x"), watch.follows(None)) == (False, True)
            watch.stop()

        asyncio.run(body())


class Table:
    """The core, as far as it has listeners: keeps the sockets open as the core would."""

    def __init__(self) -> None:
        self.open: dict[int, tuple[int, int]] = {}

    def add_listener(self, listener: int, scope: int, fd: int) -> None:
        self.open[listener] = (scope, fd)

    def remove_listener(self, listener: int, *, drain: bool) -> None:
        assert not drain
        os.close(self.open.pop(listener)[1])


class Followed:
    """Listeners, and what they told of links."""

    def __init__(self, specs: list[str], folders: FolderWatcher) -> None:
        self.table = Table()
        self.told: list[int] = []
        parsed = [ListenSpec.parse(spec) for spec in specs]
        self.listeners = Listeners(self.table, Scopes(), parsed, "/run/netns", folders)

    def indexes(self) -> list[int]:
        """Of the interfaces that the open listeners are bound to."""
        return [bound_interface(fd) for _, fd in self.table.open.values()]


def run(specs: list[str], test: Callable[[Followed], Awaitable[None]]) -> None:
    async def body() -> None:
        folders = FolderWatcher(asyncio.get_running_loop())
        followed = Followed(specs, folders)
        try:
            followed.listeners.start(followed.told.append)
            await test(followed)
        finally:
            followed.listeners.stop()
            folders.close()
            for _, fd in followed.table.open.values():
                os.close(fd)

    asyncio.run(body())


ON_TAP = f"network:{BLUE}@{NAME}/[fe80::a9fe:a9fe%tap0]:80"
ON_ALL = f"router:{GREEN}@{NAME}/[::]:9697"


class TestListeners:
    def test_an_interface_that_comes_goes_and_comes_anew(self) -> None:
        """At once: not when the next attempt is due."""

        async def test(followed: Followed) -> None:
            await asyncio.sleep(0.02)
            assert followed.table.open == {}
            for index in (70, 71, 70):
                add("tap0", MAC, "index", str(index))
                await until(lambda index=index: followed.indexes() == [index], 0.8)
                add("other", OTHER_MAC)
                ip("link", "del", "other")
                await asyncio.sleep(0.01)
                assert followed.indexes() == [index]
                ip("link", "del", "tap0")
                await until(lambda: followed.table.open == {}, 0.8)
            assert max(followed.listeners._places) == 3  # it was left alone in between

        run([ON_TAP], test)

    def test_an_interface_that_is_replaced_between_two_looks(self) -> None:
        async def test(followed: Followed) -> None:
            add("tap0", MAC, "index", "70")
            await until(lambda: followed.indexes() == [70])
            ip("link", "del", "tap0")
            add("tap0", MAC, "index", "71")
            await until(lambda: followed.indexes() == [71], 0.8)

        run([ON_TAP], test)

    def test_a_listener_for_all_stays_and_its_scope_is_told(self) -> None:
        async def test(followed: Followed) -> None:
            (listener,) = followed.table.open
            add("qr-0", MAC, "index", "70")
            await until(lambda: followed.told == [1])
            assert followed.listeners.link_mac(1, 70) == MAC
            assert followed.listeners.link_mac(1, 71) is None
            assert followed.listeners.link_mac(9, 70) is None
            assert list(followed.table.open) == [listener]
            ip("netns", "del", NAME)
            await until(lambda: followed.told == [1, 1])
            assert followed.listeners.link_mac(1, 70) is None
            assert followed.table.open == {}
            # Another namespace: another link has this index.
            ip("netns", "add", NAME)
            await until(lambda: followed.table.open)
            add("qr-1", OTHER_MAC, "index", "70")
            assert followed.listeners.link_mac(1, 70) == OTHER_MAC

        run([ON_ALL], test)

    def test_links_that_cannot_be_followed_any_more_are_followed_anew(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def test(followed: Followed) -> None:
            add("tap0", MAC, "index", "70")
            await until(lambda: len(followed.table.open) == 2)
            table = followed.listeners._links._tables[NAME]
            os.dup2(os.open("/dev/null", os.O_RDONLY), table.fileno())
            assert followed.listeners.link_mac(1, 70) == MAC
            assert sorted(followed.table.open) == [2, 3]  # that on the interface is the right one still
            assert "links cannot be followed" in caplog.text

        run([ON_ALL, ON_TAP], test)

    def test_without_ipv6_no_links_are_followed(self) -> None:
        async def test(followed: Followed) -> None:
            assert len(followed.table.open) == 1
            assert followed.listeners._links._tables == {}

        run([f"router:{GREEN}@{NAME}/0.0.0.0:9697"], test)

    def test_a_scope_in_two_namespaces_is_two_scopes_of_the_core(self) -> None:
        """The same index may be one of its networks in one of them, and another in the other."""
        ip("netns", "add", OTHER)

        async def test(followed: Followed) -> None:
            add("qr-0", MAC, "index", "70")
            command = f"ip -n {OTHER} link add sg-0 index 70 address {OTHER_MAC} type bridge"
            subprocess.run(command.split(), check=True, timeout=30)
            assert {scope for scope, _ in followed.table.open.values()} == {1, 2}
            assert {str(scope) for scope in followed.listeners.scopes.by_number.values()} == {
                f"router {GREEN}"
            }
            assert [followed.listeners.link_mac(number, 70) for number in (1, 2)] == [MAC, OTHER_MAC]

        run([ON_ALL, ON_ALL.replace(NAME, OTHER)], test)


class TestTentativeAddresses:
    ADDRESS = ipaddress.IPv6Address("fe80::a9fe:a9fe")

    def test_a_listener_on_one_works_when_it_is_one_no_more(self) -> None:
        """Duplicate address detection takes a second: RFC 4862, 5.4."""
        ip("link", "set", "lo", "up")
        ip("link", "add", "tap0", "type", "veth", "peer", "name", "peer")
        ip("link", "set", "peer", "up")
        ip("link", "set", "tap0", "up")
        ip("addr", "add", f"{self.ADDRESS}/128", "dev", "tap0")
        assert "tentative" in ip("addr", "show", "dev", "tap0", "to", f"{self.ADDRESS}")
        fd = open_listening_socket(self.ADDRESS, 80, namespace_path=PATH, interface="tap0")
        try:
            end = time.monotonic() + 10
            while "tentative" in ip("addr", "show", "dev", "tap0", "to", f"{self.ADDRESS}"):
                assert time.monotonic() < end
                time.sleep(0.05)
            index = int(ip("-o", "link", "show", "tap0").partition(":")[0])

            def connect() -> None:
                with socket.socket(socket.AF_INET6) as guest:
                    guest.settimeout(5)
                    guest.connect((str(self.ADDRESS), 80, 0, index))

            in_namespace(PATH, connect)
        finally:
            os.close(fd)


def test_bound_interface() -> None:
    add("tap0", MAC, "index", "70")
    address = ipaddress.ip_address("fe80::1")
    for fd, index in (
        (open_listening_socket(address, 80, namespace_path=PATH, interface="tap0"), 70),
        (open_listening_socket(ipaddress.ip_address("::"), 81, namespace_path=PATH), 0),
        (open_listening_socket(ipaddress.ip_address("127.0.0.1"), 82, namespace_path=PATH), 0),
    ):
        assert bound_interface(fd) == index
        os.close(fd)


def test_nothing_of_the_folder_is_needed() -> None:
    """Our own namespace has no name."""
    table = LinkTable()
    try:
        assert table.index("lo") == int(Path("/sys/class/net/lo/ifindex").read_text())
    finally:
        table.close()
