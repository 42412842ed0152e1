"""Watching folders: real inotify, folders that come and go, a queue that overflows."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import inotify_simple
import pytest

from fastmeta import folders as folders_module
from fastmeta.exceptions import ConfigError
from fastmeta.folders import FolderWatcher, Seen


class Notes:
    def __init__(self) -> None:
        self.seen: list[tuple[Seen, str]] = []

    def __call__(self, seen: Seen, name: str) -> None:
        self.seen.append((seen, name))

    async def until(self, seen: Seen, name: str = "") -> None:
        end = time.monotonic() + 5
        while (seen, name) not in self.seen:
            assert time.monotonic() < end, self.seen
            await asyncio.sleep(0.002)


def run(test: Callable[[FolderWatcher], Awaitable[None]]) -> None:
    async def body() -> None:
        watcher = FolderWatcher(asyncio.get_running_loop())
        try:
            await test(watcher)
        finally:
            watcher.close()
            watcher.close()  # twice does no harm

    before = set(os.listdir("/proc/self/fd"))
    asyncio.run(body())
    assert set(os.listdir("/proc/self/fd")) <= before


def test_what_is_seen(tmp_path: Path) -> None:
    async def test(watcher: FolderWatcher) -> None:
        notes = Notes()
        watcher.watch(str(tmp_path), notes)
        (tmp_path / "a").write_text("x")
        (tmp_path / "a").rename(tmp_path / "b")
        (tmp_path / "b").unlink()
        await notes.until(Seen.GONE, "b")
        assert notes.seen == [
            (Seen.CREATED, "a"),
            (Seen.WRITTEN, "a"),
            (Seen.GONE, "a"),
            (Seen.MOVED_IN, "b"),
            (Seen.GONE, "b"),
        ]

    run(test)


def test_two_who_watch_the_same(tmp_path: Path) -> None:
    async def test(watcher: FolderWatcher) -> None:
        first, second = Notes(), Notes()
        watcher.watch(str(tmp_path), first)
        watcher.watch(str(tmp_path), second)
        watcher.watch(str(tmp_path / "below"), Notes())  # waits in the same folder
        (tmp_path / "a").touch()
        await first.until(Seen.WRITTEN, "a")
        await second.until(Seen.WRITTEN, "a")

    run(test)


def test_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    async def test(watcher: FolderWatcher) -> None:
        notes = Notes()
        watcher.watch(str(tmp_path / "x" / "y" / "z"), notes)
        (tmp_path / "other").mkdir()
        await asyncio.sleep(0.02)
        assert notes.seen == []
        (tmp_path / "x").mkdir()
        await notes.until(Seen.ANEW)
        (tmp_path / "x" / "y").mkdir()
        await asyncio.sleep(0.02)
        notes.seen.clear()
        (tmp_path / "x" / "y" / "z").mkdir()
        await notes.until(Seen.ANEW)
        (tmp_path / "x" / "y" / "z" / "a").touch()
        await notes.until(Seen.CREATED, "a")

    run(test)


def test_folder_that_appears_with_all_above_at_once(tmp_path: Path) -> None:
    async def test(watcher: FolderWatcher) -> None:
        notes = Notes()
        watcher.watch(str(tmp_path / "x" / "y"), notes)
        (tmp_path / "x" / "y").mkdir(parents=True)
        await notes.until(Seen.ANEW)
        (tmp_path / "x" / "y" / "a").touch()
        await notes.until(Seen.CREATED, "a")

    run(test)


@pytest.mark.parametrize("how", ["removed", "renamed"])
def test_folder_that_goes_and_comes_again(tmp_path: Path, how: str) -> None:
    async def test(watcher: FolderWatcher) -> None:
        folder = tmp_path / "x"
        folder.mkdir()
        notes = Notes()
        watcher.watch(str(folder), notes)
        for n in range(3):
            notes.seen.clear()
            if how == "removed":
                folder.rmdir()
            else:
                folder.rename(tmp_path / f"old{n}")
                (tmp_path / f"old{n}" / "unseen").touch()
            await notes.until(Seen.ANEW)
            notes.seen.clear()
            folder.mkdir()
            await notes.until(Seen.ANEW)
            (folder / "a").touch()
            await notes.until(Seen.WRITTEN, "a")
            assert (Seen.CREATED, "unseen") not in notes.seen
            (folder / "a").unlink()
            await notes.until(Seen.GONE, "a")

    run(test)


def test_file_in_the_place_of_a_folder(tmp_path: Path) -> None:
    async def test(watcher: FolderWatcher) -> None:
        (tmp_path / "x").touch()
        notes = Notes()
        watcher.watch(str(tmp_path / "x" / "y"), notes)
        (tmp_path / "x").unlink()
        (tmp_path / "x" / "y").mkdir(parents=True)
        await notes.until(Seen.ANEW)

    run(test)


def test_overflow(tmp_path: Path) -> None:
    """More events than the kernel keeps: everybody is told to look anew, and what follows is seen again."""
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())

    async def test(watcher: FolderWatcher) -> None:
        here, waiting = Notes(), Notes()
        watcher.watch(str(tmp_path), here)
        watcher.watch(str(tmp_path / "later"), waiting)
        names = [tmp_path / str(n % 2) for n in range(limit + 10)]
        for name in names:  # two names by turns: the kernel joins only equal events that follow each other
            name.touch()
            name.unlink()
        (tmp_path / "later").mkdir()  # this event is dropped
        await here.until(Seen.ANEW)
        await waiting.until(Seen.ANEW)
        (tmp_path / "later" / "a").touch()
        await waiting.until(Seen.CREATED, "a")
        (tmp_path / "b").touch()
        await here.until(Seen.CREATED, "b")

    run(test)


def test_no_instance_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(nonblocking: bool) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(inotify_simple, "INotify", none_left)

    async def body() -> None:
        with pytest.raises(ConfigError, match="max_user_instances"):
            FolderWatcher(asyncio.get_running_loop())

    asyncio.run(body())


def test_folder_that_comes_and_goes_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders_module.os.path, "isdir", lambda path: True)

    async def test(watcher: FolderWatcher) -> None:
        with pytest.raises(ConfigError, match="comes and goes"):
            watcher.watch(str(tmp_path / "x"), Notes())

    run(test)


def test_not_watched_any_more(tmp_path: Path) -> None:
    """Others who watch the same are told; nothing is left of who does not: not in the kernel either."""

    async def test(watcher: FolderWatcher) -> None:
        ends, stays = Notes(), Notes()
        for notes in (ends, stays):
            watcher.watch(str(tmp_path), notes)
        alone = tmp_path / "alone"
        alone.mkdir()
        watcher.watch(str(alone), ends)
        watcher.watch(str(tmp_path / "not" / "there"), ends)
        watcher.unwatch(str(tmp_path), ends)
        watcher.unwatch(str(alone), ends)
        watcher.unwatch(str(tmp_path / "not" / "there"), ends)
        watcher.unwatch(str(alone), ends)  # twice does no harm
        (alone / "name").touch()
        (tmp_path / "not" / "there").mkdir(parents=True)
        (tmp_path / "other").touch()
        await stays.until(Seen.CREATED, "other")
        assert ends.seen == []
        assert _watches(watcher) == 1

    run(test)


def _watches(watcher: FolderWatcher) -> int:
    """How many the kernel has."""
    info = Path(f"/proc/self/fdinfo/{watcher._inotify.fileno()}").read_text()
    return sum(line.startswith("inotify ") for line in info.splitlines())
