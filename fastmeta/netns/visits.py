"""Work in many namespaces that may take a while (programs that run there), by a few threads, while the event loop goes
on."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from fastmeta.exceptions import NamespaceError
from fastmeta.netns.namespaces import Raised, enter

Result = TypeVar("Result")


class Visit(Generic[Result]):
    """One that was asked for. done is called in the event loop's thread with what function returned or raised."""

    __slots__ = ("done", "function", "path", "result")

    def __init__(
        self, path: str, function: Callable[[], Result], done: Callable[[Result | Raised], None]
    ) -> None:
        self.path = path
        self.function = function
        self.done = done
        self.result: Result | Raised | None = None

    def make(self) -> None:
        """In a thread that will be moved."""
        try:
            enter(self.path)
            self.result = self.function()
        except BaseException as error:
            self.result = Raised(error)

    def tell(self) -> None:
        """In the event loop's thread."""
        self.done(self.result)  # type: ignore[arg-type]


class Visits:
    """Lives in the event loop's thread. most: threads at once.

    A thread goes from one namespace to the next (setns(2)), and ends with the last one: none is left where it would
    keep a namespace alive. What it starts is in the namespace that it is in.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, most: int) -> None:
        self._loop = loop
        self._most = most
        self._lock = threading.Lock()
        self._waiting: deque[Visit[Any]] = deque()
        self._made: deque[Visit[Any]] = deque()
        self._threads = 0
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def visit(
        self, path: str, function: Callable[[], Result], done: Callable[[Result | Raised], None]
    ) -> Visit[Result]:
        """Runs function in the namespace that is mounted on path, as soon as a thread is free."""
        visit = Visit(path, function, done)
        self._under_way += 1
        self._idle.clear()
        with self._lock:
            self._waiting.append(visit)
            if self._threads == self._most:
                return visit
            self._threads += 1
        try:
            threading.Thread(target=self._run, name="visits of namespaces").start()
        except RuntimeError:
            with self._lock:
                self._threads -= 1
                alone = not self._threads
                if alone:  # else the others do it
                    self._waiting.remove(visit)
            if alone:
                visit.result = Raised(
                    NamespaceError(f"namespace {path}: no thread can be started to enter it")
                )
                self._made.append(visit)
                self._loop.call_soon(self._tell)
        return visit

    def drop(self) -> None:
        """Those that have not begun are not made; nothing is called for them."""
        with self._lock:
            dropped = len(self._waiting)
            self._waiting.clear()
        self._under_way -= dropped
        if self._under_way == 0:
            self._idle.set()

    async def idle(self) -> None:
        """Until all that were asked for are over."""
        await self._idle.wait()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._threads -= 1
                    return
                visit = self._waiting.popleft()
            visit.make()
            self._made.append(visit)
            try:
                self._loop.call_soon_threadsafe(self._tell)
            except RuntimeError:
                return  # the loop is closed: nobody is there any more who wants to know

    def _tell(self) -> None:
        """All that are over by now, so that what comes of several can be done at once."""
        while self._made:
            visit = self._made.popleft()
            self._under_way -= 1
            if self._under_way == 0:
                self._idle.set()
            visit.tell()
