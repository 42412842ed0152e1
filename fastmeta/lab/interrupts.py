"""SIGINT, SIGTERM and SIGHUP at chosen moments only, so that what was begun is always cleaned up."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any


class Interrupted(BaseException):
    """One of the signals has come. A BaseException as KeyboardInterrupt is: nobody catches it by mistake."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Interrupts:
    """While it is entered, a signal raises Interrupted once, in a block of ``allowed()`` or when the next one
    begins.

    Everywhere else it only leaves a note: no ``with`` block, half entered or half left, is torn by it. To be
    used in the main thread.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self._seen = 0
        self._raised = False
        self._allowed = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        self._before = {number: signal.signal(number, self._handle) for number in self.SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Around what may wait for long and cleans up after itself."""
        try:
            self._allowed = True
            self._raise_if_seen()
            yield
        finally:
            self._allowed = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._seen = self._seen or number
        if self._allowed:
            self._raise_if_seen()

    def _raise_if_seen(self) -> None:
        if self._seen and not self._raised:
            self._raised = True
            raise Interrupted(self._seen)
