"""Namespaces that come and go, seen by inotify; and the listeners that follow them. Real namespaces."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from fastmeta.exceptions import ListenError
from fastmeta.folders import FolderWatcher
from fastmeta.listeners import Listeners
from fastmeta.models import ListenSpec
from fastmeta.netns import watch as watch_module
from fastmeta.netns.watch import NamespaceWatch
from fastmeta.scopes import Scopes

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 and "FASTMETA_CI" not in os.environ, reason="namespaces need root"
)

BLUE = "11111111-1111-4111-8111-111111111111"
GREEN = "22222222-2222-4222-8222-222222222222"
NAME = f"fmt-watch-{os.getpid()}"
OTHER = f"fmt-other-{os.getpid()}"


async def ip(*arguments: str) -> None:
    """Runs ip without blocking the event loop."""
    process = await asyncio.create_subprocess_exec("ip", *arguments)
    assert await process.wait() == 0


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    for name in (NAME, OTHER):
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True, timeout=30)


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.001)


class Watched:
    """A watch of NAME, and what it told."""

    def __init__(self, folder: str, folders: FolderWatcher) -> None:
        self.told: list[str] = []
        self.watch = NamespaceWatch(
            folder,
            folders,
            on_appear=lambda name: self.told.append(f"+{name}"),
            on_gone=lambda name: self.told.append(f"-{name}"),
        )

    def start(self) -> None:
        self.watch.start()
        self.watch.add([NAME])


def run(test: Callable[[Watched], Awaitable[None]], folder: str = "/run/netns") -> None:
    async def body() -> None:
        folders = FolderWatcher(asyncio.get_running_loop())
        watched = Watched(folder, folders)
        try:
            await test(watched)
        finally:
            watched.watch.stop()
            folders.close()

    asyncio.run(body())


class TestNamespaceWatch:
    def test_one_that_is_there(self) -> None:
        async def test(watched: Watched) -> None:
            await ip("netns", "add", NAME)
            watched.start()
            assert watched.told == [f"+{NAME}"]

        run(test)

    def test_comes_and_goes(self) -> None:
        async def test(watched: Watched) -> None:
            watched.start()
            expected = []
            for _ in range(5):
                await ip("netns", "add", OTHER)
                await ip("netns", "add", NAME)
                expected.append(f"+{NAME}")
                await until(lambda: watched.told == expected)
                await ip("netns", "del", NAME)
                expected.append(f"-{NAME}")
                await until(lambda: watched.told == expected)
                await ip("netns", "del", OTHER)

        run(test)

    def test_name_before_its_namespace(self, tmp_path: Path) -> None:
        """A name is there long before anything is mounted on it, and no event tells of the mount."""

        async def test(watched: Watched) -> None:
            watched.start()
            name = tmp_path / NAME
            name.touch()
            await asyncio.sleep(0.05)
            assert watched.told == []
            await ip("netns", "add", OTHER)
            subprocess.run(
                ["mount", "--bind", f"/run/netns/{OTHER}", str(name)],
                check=True,
                capture_output=True,
                timeout=30,
            )
            try:
                await until(lambda: watched.told == [f"+{NAME}"])
            finally:
                subprocess.run(["umount", str(name)], check=True, timeout=30)
            name.unlink()
            await until(lambda: watched.told == [f"+{NAME}", f"-{NAME}"])

        run(test, str(tmp_path))

    def test_name_without_a_namespace_that_goes_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(watch_module, "LONGEST_PAUSE", 0.01)

        async def test(watched: Watched) -> None:
            watched.start()
            (tmp_path / NAME).touch()
            await asyncio.sleep(0.05)
            (tmp_path / NAME).unlink()
            await asyncio.sleep(0.05)
            assert watched.told == []
            assert not watched.watch._retries

        run(test, str(tmp_path))

    def test_another_namespace_under_the_same_name(self) -> None:
        """While nobody looks: gone and back. The old one may not be taken for the new one."""

        async def test(watched: Watched) -> None:
            await ip("netns", "add", NAME)
            watched.start()
            keeps_it_alive = os.open(f"/run/netns/{NAME}", os.O_RDONLY)
            try:
                # Without giving the event loop a turn.
                subprocess.run(["ip", "netns", "del", NAME], check=True, timeout=30)
                subprocess.run(["ip", "netns", "add", NAME], check=True, timeout=30)
                await until(lambda: len(watched.told) == 3)
                assert watched.told == [f"+{NAME}", f"-{NAME}", f"+{NAME}"]
            finally:
                os.close(keeps_it_alive)

        run(test)

    def test_folder_that_appears_later(self, tmp_path: Path) -> None:
        folder = tmp_path / "netns"

        async def test(watched: Watched) -> None:
            watched.start()
            await ip("netns", "add", OTHER)
            folder.mkdir()
            (folder / NAME).symlink_to(f"/run/netns/{OTHER}")
            await until(lambda: watched.told == [f"+{NAME}"])

        run(test, str(folder))

    def test_nothing_is_told_after_stop(self) -> None:
        async def test(watched: Watched) -> None:
            watched.start()
            watched.watch.stop()
            await ip("netns", "add", NAME)
            await asyncio.sleep(0.02)
            assert watched.told == []

        run(test)

    def test_overflow(self) -> None:
        """The event is among those that the kernel drops: the folder is listed anew."""
        limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())

        async def test(watched: Watched) -> None:
            watched.start()
            filler = [f"/run/netns/fmt-filler-{n}-{os.getpid()}" for n in range(2)]
            for n in range(limit // 2 + 10):
                with open(filler[n % 2], "w"):
                    pass
                os.unlink(filler[n % 2])
            subprocess.run(["ip", "netns", "add", NAME], check=True, timeout=30)
            await until(lambda: watched.told == [f"+{NAME}"], 20)

        run(test)


class Table:
    """The core, as far as it has listeners: keeps the sockets open as the core would."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.open: dict[int, int] = {}

    def add_listener(self, listener: int, scope: int, fd: int) -> None:
        self.calls.append(f"+{listener}:{scope}")
        self.open[listener] = fd

    def remove_listener(self, listener: int, *, drain: bool) -> None:
        self.calls.append(f"-{listener}" + (" drained" if drain else ""))
        os.close(self.open.pop(listener))


def run_listeners(specs: list[str], test: Callable[[Listeners, Table], Awaitable[None]]) -> None:
    async def body() -> None:
        folders = FolderWatcher(asyncio.get_running_loop())
        table = Table()
        listeners = Listeners(
            table, Scopes(), [ListenSpec.parse(spec) for spec in specs], "/run/netns", folders
        )
        try:
            await test(listeners, table)
        finally:
            listeners.stop()
            folders.close()
            for fd in table.open.values():
                os.close(fd)

    asyncio.run(body())


class TestListeners:
    IN_NAMESPACE = f"network:{BLUE}@{NAME}/169.254.169.254:80"

    def test_follow_their_namespace(self) -> None:
        async def test(listeners: Listeners, table: Table) -> None:
            listeners.start()
            assert (listeners.open, listeners.wanted) == (0, 1)
            await ip("netns", "add", NAME)
            await until(lambda: listeners.open == 1)
            assert listeners.place(1) == self.IN_NAMESPACE
            inode = os.stat(f"/run/netns/{NAME}").st_ino
            await ip("netns", "del", NAME)
            await until(lambda: listeners.open == 0)
            assert table.calls == ["+1:1", "-1"]
            assert listeners.closed(1) == self.IN_NAMESPACE
            assert listeners.closed(1) is None
            await ip("netns", "add", NAME)
            await until(lambda: listeners.open == 1)
            assert table.calls[2:] == ["+2:1"]
            assert inode

        run_listeners([self.IN_NAMESPACE], test)

    def test_scopes_are_numbered_once_each(self) -> None:
        async def test(listeners: Listeners, table: Table) -> None:
            assert {number: str(scope) for number, scope in listeners.scopes.by_number.items()} == {
                1: f"network {BLUE}",
                2: f"router {GREEN}",
            }
            await ip("netns", "add", NAME)
            listeners.start()
            assert sorted(table.calls) == ["+1:1", "+2:1", "+3:2"]
            await ip("netns", "del", NAME)
            await until(lambda: listeners.open == 0)

        run_listeners(
            [self.IN_NAMESPACE, f"network:{BLUE}@{NAME}/[::]:8080", f"router:{GREEN}@{NAME}/0.0.0.0:9697"],
            test,
        )

    def test_added_and_removed_while_it_runs(self) -> None:
        """A scope comes with its first listener, and goes when the core has closed its last one."""
        more = ListenSpec.parse(f"router:{GREEN}@{NAME}/0.0.0.0:9697")
        again = ListenSpec.parse(f"router:{GREEN}@{NAME}/[::]:9698")
        later = ListenSpec.parse(f"router:{GREEN}@{OTHER}/0.0.0.0:9697")

        async def test(listeners: Listeners, table: Table) -> None:
            told: list[str] = []
            listeners.scopes.on_added = lambda number, scope: told.append(f"+{number} {scope.kind.value}")
            listeners.scopes.on_removed = lambda number: told.append(f"-{number}")
            await ip("netns", "add", NAME)
            listeners.start()
            assert table.calls == ["+1:1"]
            listeners.add([more, again], "test")
            listeners.add([more, later], "test")
            assert table.calls[1:] == ["+2:2", "+3:2"]
            assert told == ["+2 router", "+3 router"]
            assert (listeners.open, listeners.wanted) == (3, 4)
            assert [(state.scope, state.way, state.open) for state in listeners.states()] == [
                (1, "listen", True),
                (2, "test", True),
                (2, "test", True),
                (3, "test", False),
            ]
            await ip("netns", "add", OTHER)
            await until(lambda: listeners.open == 4)
            assert table.calls[3:] == ["+4:3"]

            listeners.remove([more], drain=True)
            listeners.closed(2)
            assert table.calls[4:] == ["-2 drained"]
            listeners.remove([more, again], drain=False)
            assert told[2:] == []  # its last connections are not closed yet
            listeners.closed(3)
            assert told[2:] == ["-2"]
            assert listeners.wanted == 2
            listeners.add([more], "test")
            assert table.calls[5:] == ["-3", "+5:4"]

            await ip("netns", "del", OTHER)
            await until(lambda: listeners.open == 2)
            listeners.closed(4)
            assert told[3:] == ["+4 router"]  # it is still wanted there
            listeners.remove([later], drain=True)
            assert told[4:] == ["-3"]
            await ip("netns", "add", OTHER)
            await asyncio.sleep(0.05)
            assert table.calls[7:] == ["-4"]
            await ip("netns", "del", OTHER)

        run_listeners([self.IN_NAMESPACE], test)

    def test_what_fails_is_tried_again(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("fastmeta.listeners.FIRST_PAUSE", 0.01)

        async def test(listeners: Listeners, table: Table) -> None:
            await ip("netns", "add", NAME)
            listeners.start()
            assert listeners.open == 0
            await asyncio.sleep(0.1)
            await ip("-n", NAME, "link", "add", "tap0", "type", "bridge")
            await until(lambda: listeners.open == 1)
            complaints = [record for record in caplog.records if "tap0" in record.getMessage()]
            assert len(complaints) == 1  # of several attempts
            await ip("netns", "del", NAME)
            await until(lambda: listeners.open == 0)

        run_listeners([f"network:{BLUE}@{NAME}/[fe80::a9fe:a9fe%tap0]:80"], test)

    def test_what_fails_is_not_tried_again_when_its_namespace_goes(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("fastmeta.listeners.FIRST_PAUSE", 0.01)

        async def test(listeners: Listeners, table: Table) -> None:
            await ip("netns", "add", NAME)
            listeners.start()
            await ip("netns", "del", NAME)
            await until(lambda: all(slot.retry is None for slot in listeners._slots.values()))
            assert table.calls == []

        run_listeners([f"network:{BLUE}@{NAME}/[fe80::a9fe:a9fe%tap0]:80"], test)

    def test_outside_of_namespaces_a_failure_is_the_end(self) -> None:
        async def test(listeners: Listeners, table: Table) -> None:
            with pytest.raises(ListenError, match="somebody else listens"):
                listeners.start()

        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            run_listeners([f"network:{BLUE}@127.0.0.1:{other.getsockname()[1]}"], test)
