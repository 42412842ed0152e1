"""Guests that keep asking, each for itself, and what they got."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from ..service.guests import Cut, Wire
from .scene import META_DATA, Guest, who

PAUSE = 0.05
"""Seconds between two requests of a guest."""


@dataclass(frozen=True)
class Record:
    """One request."""

    began: float
    """When it was sent (time.monotonic)."""
    ended: float
    status: int
    """0: no whole answer."""
    instance_id: str
    """Whose data came, or ""."""
    retry_after: str
    error: str

    def __str__(self) -> str:
        what = self.error or f"{self.status} {self.instance_id}"
        return f"at {self.began:.3f}, after {self.ended - self.began:.3f} s: {what}"


class Asking:
    """One guest in a thread of its own, from entering to leaving."""

    def __init__(self, guest: Guest, *, ipv6: bool = False, pause: float = PAUSE) -> None:
        self.guest = guest
        self.records: list[Record] = []
        self._ipv6 = ipv6
        self._pause = pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"guest {guest.name}")

    def __enter__(self) -> Asking:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """After the answer that it waits for."""
        self._stop.set()
        self._thread.join()

    def since(self, moment: float) -> list[Record]:
        """What was asked later."""
        return [record for record in list(self.records) if record.began >= moment]

    def last_of(self, instance_id: str) -> float:
        """When it last got data of this instance; 0: never."""
        return max(
            (record.ended for record in list(self.records) if record.instance_id == instance_id), default=0.0
        )

    def _run(self) -> None:
        wire: Wire | None = None
        try:
            while not self._stop.is_set():
                wire = self._ask(wire)
                self._stop.wait(self._pause)
        finally:
            if wire is not None:
                wire.socket.close()

    def _ask(self, wire: Wire | None) -> Wire | None:
        """One request; gives the connection if it can be used again."""
        began = time.monotonic()
        status, instance_id, retry_after, error = 0, "", "", ""
        try:
            if wire is None:
                wire = self.guest.connect(ipv6=self._ipv6)
            wire.get(META_DATA)
            answer = wire.answer()
            status, instance_id = answer.status, who(answer)
            retry_after = "".join(answer.values("retry-after"))
            if "close" in answer.values("connection"):
                wire.socket.close()
                wire = None
        except (OSError, Cut) as problem:
            error = f"{type(problem).__name__}: {problem}"
            if wire is not None:
                wire.socket.close()
            wire = None
        self.records.append(Record(began, time.monotonic(), status, instance_id, retry_after, error))
        return wire


def spread(seconds: Sequence[float]) -> str:
    """Median and extremes, for a report."""
    ordered = sorted(seconds)
    middle = ordered[len(ordered) // 2]
    return f"median {middle:.3f} s, {ordered[0]:.3f} to {ordered[-1]:.3f} s, {len(ordered)} times"
