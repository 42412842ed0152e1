"""Threads for calls that block, and that may hang for as long as a bus is away."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Workers:
    """At most so many threads, made when they are needed.

    They are daemons, so that none of them can hold up the end of the process; and own ones, so that nobody else's work
    waits behind a call that hangs.
    """

    def __init__(self, name: str, count: int) -> None:
        self._name = name
        self._count = count
        self._limit = count
        self._changed = threading.Condition()
        self._jobs: collections.deque[tuple[concurrent.futures.Future[Any], Callable[[], Any]]] = (
            collections.deque()
        )
        self._busy = 0
        self._stopped = False
        self._threads: list[threading.Thread] = []

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """What function gives or raises. When this is cancelled a call that has not begun does not take place; one that
        has goes on, and nobody learns what came of it."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        with self._changed:
            if self._stopped:
                raise RuntimeError(f"{self._name}: stopped")
            self._jobs.append((future, lambda: function(*arguments)))
            if self._busy + len(self._jobs) > len(self._threads) and len(self._threads) < self._count:
                name = f"{self._name}-{len(self._threads)}"
                thread = threading.Thread(target=self._work, name=name, daemon=True)
                thread.start()
                self._threads.append(thread)
            self._changed.notify()
        return await asyncio.wrap_future(future)

    def limit(self, count: int | None) -> None:
        """How many may be at work at the same time from now on; None: as many as there are threads."""
        with self._changed:
            self._limit = self._count if count is None else count
            self._changed.notify_all()

    def stop(self) -> None:
        """Nothing new begins. Threads end when their call does."""
        with self._changed:
            self._stopped = True
            for future, _ in self._jobs:
                future.cancel()
            self._jobs.clear()
            self._changed.notify_all()

    def join(self, seconds: float) -> bool:
        """Waits for the threads; False when not all have ended in this time."""
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._stopped or (self._jobs and self._busy < min(self._limit, self._count))
                )
                if self._stopped:
                    return
                future, function = self._jobs.popleft()
                if not future.set_running_or_notify_cancel():
                    continue
                self._busy += 1
            _fulfil(future, function)
            with self._changed:
                self._busy -= 1
                self._changed.notify()
            # A result must not live until the next one comes.
            del future, function


def _fulfil(future: concurrent.futures.Future[Any], function: Callable[[], Any]) -> None:
    try:
        result = function()
    except BaseException as error:
        # What a library raises must not end the thread, whatever it is.
        _tell(future.set_exception, error)
    else:
        _tell(future.set_result, result)


def _tell(setter: Callable[[Any], None], value: Any) -> None:
    try:
        setter(value)
    except RuntimeError:
        # The event loop that waited for it has been closed meanwhile.
        return
