"""Blocking calls in threads of our own, none of which can hang for long.

keystoneauth1 blocks. Its calls run here, in a bounded number of threads, and not in asyncio's: those are waited for
when the process ends. Timeouts of a socket are not enough, since a server that sends a byte now and then never runs
into them. So each call has a deadline, and knows the connections that it is using (http.py tells it): when its time is
over, or whoever waits for it is gone, these are shut down from outside, whatever the thread is doing with them.

Only the resolving of a name cannot be cut off; the C library bounds it (resolv.conf(5): timeout, attempts).
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from fastmeta.exceptions import LookupFailedError, LookupUnavailableError

T = TypeVar("T")

STOP_GRACE = 1.0
"""Seconds for which the end of the threads is waited for. They hold nothing then, and end with the process."""


class Call:
    """One call: its end, in so many seconds, and what it uses. All methods may be called in any thread."""

    def __init__(self, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds
        self.asking = ""
        """Whom, for the text of an error."""
        self._lock = threading.Lock()
        self._lines: list[socket.socket] = []
        self._is_cut_off = False

    def seconds_left(self) -> float:
        """Raises LookupUnavailableError when there are none."""
        left = self.deadline - time.monotonic()
        if left <= 0 or self._is_cut_off:
            raise self.too_late()
        return left

    def too_late(self) -> LookupUnavailableError:
        """What there is to say when the time is over."""
        return LookupUnavailableError(f"{self.asking} does not answer in time (lookup_timeout)")

    def use(self, line: socket.socket) -> None:
        """line will be shut down when the call is cut off. Raises LookupUnavailableError when it is already."""
        with self._lock:
            if not self._is_cut_off:
                self._lines.append(line)
                return
        raise self.too_late()

    def let_go(self) -> None:
        """Others may use what this call has used."""
        with self._lock:
            self._lines.clear()

    def cut_off(self) -> None:
        """Whatever it waits for fails at once."""
        with self._lock:
            self._is_cut_off = True
            for line in self._lines:
                with contextlib.suppress(OSError):  # closed, or not connected any more
                    line.shutdown(socket.SHUT_RDWR)

    @property
    def is_over(self) -> bool:
        """Its time is."""
        return time.monotonic() >= self.deadline

    @property
    def is_cut_off(self) -> bool:
        """Nobody waits for it any more."""
        return self._is_cut_off


class _Waiting(Generic[T]):
    """A call with its work, and who waits for it."""

    def __init__(self, work: Callable[[Call], T], call: Call) -> None:
        self.work = work
        self.call = call
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[T] = self.loop.create_future()

    def run(self) -> None:
        """In a thread."""
        result: T | None = None
        error: BaseException | None = None
        try:
            result = self.work(self.call)
        except LookupFailedError as raised:
            # It is said and forgotten; what it came of would hold on to connections until garbage is collected.
            error = raised.with_traceback(None)
            error.__context__ = error.__cause__ = None
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self.loop.call_soon_threadsafe(self._settle, result, error)

    def _settle(self, result: T | None, error: BaseException | None) -> None:
        if self.future.done():
            return
        if error is None:
            self.future.set_result(result)  # type: ignore[arg-type]
        else:
            self.future.set_exception(error)

    def expire(self) -> None:
        """The time is over."""
        if not self.future.done():
            self.future.set_exception(self.call.too_late())


class Threads:
    """Up to most of them, each made when it is needed first. Lives in the event loop's thread."""

    def __init__(self, name: str, most: int, whom: str) -> None:
        """whom: what is asked in them, for the text of an error."""
        self._name = name
        self._most = most
        self._whom = whom
        # Guards all of the following.
        self._changed = threading.Condition()
        self._queue: collections.deque[_Waiting[object]] = collections.deque()
        self._running: set[Call] = set()
        self._count = 0
        self._idle = 0
        self._stopping = False
        self._all_ended = asyncio.Event()

    async def run(self, work: Callable[[Call], T], call: Call) -> T:
        """What work returns or raises. Raises LookupUnavailableError when the call's time is over, the wait for a
        thread included. When this is cancelled, work is cut off."""
        call.asking = f"{self._whom} (all {self._most} threads wait for it)"
        waiting = _Waiting(work, call)
        timer = waiting.loop.call_later(call.seconds_left(), waiting.expire)
        self._enqueue(waiting)  # type: ignore[arg-type]
        try:
            return await waiting.future
        finally:
            timer.cancel()
            call.cut_off()

    def _enqueue(self, waiting: _Waiting[object]) -> None:
        with self._changed:
            if self._stopping:
                raise LookupUnavailableError("fastmeta is ending")
            self._queue.append(waiting)
            if len(self._queue) <= self._idle or self._count == self._most:
                self._changed.notify()
                return
            # Counted here and not in the thread, so that the next one that comes sees it.
            self._count += 1
            self._idle += 1
            name = f"{self._name}-{self._count}"
        threading.Thread(target=self._work, args=(waiting.loop,), name=name, daemon=True).start()

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        while (waiting := self._next()) is not None:
            if not waiting.call.is_cut_off:
                waiting.run()
            with self._changed:
                self._running.discard(waiting.call)
                self._idle += 1
            del waiting  # or its result lives until the next one
        with self._changed:
            self._count -= 1
            last = self._count == 0
        if last:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._all_ended.set)

    def _next(self) -> _Waiting[object] | None:
        with self._changed:
            while not self._queue and not self._stopping:
                self._changed.wait()
            self._idle -= 1
            if self._stopping:
                return None
            waiting = self._queue.popleft()
            self._running.add(waiting.call)
            return waiting

    async def stop(self) -> None:
        """Cuts off all calls; the threads end."""
        with self._changed:
            self._stopping = True
            left = list(self._queue)
            self._queue.clear()
            running = list(self._running)
            none = self._count == 0
            self._changed.notify_all()
        for waiting in left:
            waiting.expire()
        for call in running:
            call.cut_off()
        if not none:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._all_ended.wait(), STOP_GRACE)
