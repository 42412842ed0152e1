"""What all attacks have in common: who is attacked, who attacks, the innocent, and what must hold."""

from __future__ import annotations

import contextlib
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from typing_extensions import Self

from ..service.agents import SECRET, until
from .measure import FIGURES, MIB, Figures, cpu_seconds, peak, resident
from .programs_kit import Nova, Program, Teller

IDLE_CPU = 0.2
"""Part of a second that may be used in a second in which only the innocent ask: about 0.02 is usual, and who spins
uses all of it."""
OTHERS = 40
"""Connections of the innocent, theirs to Nova, and what Python opens for a moment."""


class Siege(ABC):
    """One attack, from entering to leaving; leaving it checks what holds for all of them.

    name: for the table; bound: bytes by which the peak of memory of who is attacked may be above what it had before.
    """

    def __init__(self, name: str, *, bound: int) -> None:
        self.figures = Figures(name, bound=bound)
        self.stack = ExitStack()
        self.programs: list[Teller] = []
        self.askers: list[Teller] = []
        self.most_descriptors = 0

    def __enter__(self) -> Self:
        with self.stack:
            self._start()
            self.stack = self.stack.pop_all()
        return self

    @abstractmethod
    def serve(self) -> int:
        """Starts who is attacked, before self.nova, and gives its process."""

    @abstractmethod
    def innocents(self) -> Sequence[tuple[dict[str, Any], str | None]]:
        """The plan of each innocent guest (see innocent.py), and its namespace."""

    @abstractmethod
    def namespace(self, number: int) -> str | None:
        """Where the hostile guest of this number is."""

    def _start(self) -> None:
        self.nova = self.stack.enter_context(Nova(SECRET))
        self.pid = self.serve()
        self.descriptors_before = self.descriptors()
        for plan, namespace in self.innocents():
            plan = {"pause": 0.03, **plan}
            self.askers.append(self.stack.enter_context(Teller("innocent.py", plan, namespace=namespace)))
        self.until_asked(5)
        # "5": the peak (VmHWM) begins anew, proc_pid_clear_refs(5).
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        self.memory = resident(self.pid)
        self.began = time.monotonic()
        self.cpu = cpu_seconds(self.pid)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self.stack:
            if kind is None:
                self._end()

    def attacker(self, number: int = 1, **plan: Any) -> Teller:
        """Starts a hostile guest; plan: see attacker.py."""
        program = self.stack.enter_context(Teller("attacker.py", plan, namespace=self.namespace(number)))
        self.programs.append(program)
        return program

    def start(self, *command: str, number: int = 1) -> Program:
        """Starts another program in a hostile guest."""
        return self.stack.enter_context(Program(command, namespace=self.namespace(number)))

    def descriptors(self) -> int:
        """That the process has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def asked(self) -> list[int]:
        """Requests that the innocent have made, each of them in both ways."""
        return [
            int(asker.line.get(name, {}).get("asked", 0))
            for asker in self.askers
            for name in ("fresh", "kept")
        ]

    def until_asked(self, more: int) -> None:
        """Waits until each of the innocent has got so many more answers, or failed."""
        wanted = [count + more for count in self.asked()]
        until(
            lambda: all(have >= want for have, want in zip(self.asked(), wanted, strict=True)),
            "answers to the innocent",
        )

    def until_connected(self, count: int) -> None:
        """Waits until so many connections more than before are there."""
        until(
            lambda: self.descriptors() - self.descriptors_before >= count,
            f"{count} connections, {self.descriptors()} descriptors",
        )

    def go_on(self, seconds: float) -> None:
        """Lets the attack go on for so long, and until the innocent have got answers meanwhile."""
        end = time.monotonic() + seconds
        self.until_asked(5)
        while (left := end - time.monotonic()) > 0:
            self.most_descriptors = max(self.descriptors(), self.most_descriptors)
            time.sleep(min(left, 0.1))

    def connections_were(self, most: int, *, least: int = 0) -> None:
        """As many of them as this were there at a time, of hostile guests and, of those, to Nova; seen by go_on()."""
        seen = self.most_descriptors - self.descriptors_before
        assert least <= seen <= most + OTHERS, seen

    @contextlib.contextmanager
    def nothing_spins(self) -> Iterator[None]:
        """In here only the innocent want something, for some seconds."""
        began, before = time.monotonic(), cpu_seconds(self.pid)
        yield
        seconds = time.monotonic() - began
        used = cpu_seconds(self.pid) - before
        assert seconds > 1, "too short to tell"
        assert used / seconds < IDLE_CPU, (
            f"{used:.2f} s of CPU in {seconds:.2f} s in which there was little to do"
        )

    def nothing_came_of(self, name: str) -> None:
        """Nova has not seen a request whose target begins so, nor a byte of any body."""
        seen = self.nova.seen()
        assert name not in seen["requests"]
        assert seen["body_bytes"] == 0

    def note(self, text: str) -> None:
        """What else is printed."""
        self.figures.note = text

    def end_attackers(self) -> None:
        for program in self.programs:
            program.end()

    def _end(self) -> None:
        figures = self.figures
        self.end_attackers()
        self.until_asked(3)  # they are served as before
        figures.seconds = time.monotonic() - self.began
        figures.cpu = cpu_seconds(self.pid) - self.cpu
        figures.peak = peak(self.pid) - self.memory
        seen = self.nova.seen()
        for asker in self.askers:
            asker.end()
        self._judge_innocents()
        FIGURES.append(figures)
        assert seen["wrong"] == []
        assert figures.failed == 0, [
            asker.line[name]["failures"] for asker in self.askers for name in ("fresh", "kept")
        ]
        assert figures.peak <= figures.bound, f"{figures.peak / MIB:.1f} MiB above the start"
        # Its connections to Nova end with Nova, those of guests have ended: it is as it was at its start.
        self.nova.end()
        until(
            lambda: self.descriptors() <= self.descriptors_before,
            f"descriptors as at the start: {self.descriptors_before}, not {self.descriptors()}",
        )

        self.judge_end()

    def judge_end(self) -> None:  # noqa: B027 - most have nothing to add
        """Looks for what may be left, when all others have gone."""

    def _judge_innocents(self) -> None:
        times: list[float] = []
        for asker in self.askers:
            for name in ("fresh", "kept"):
                entry = asker.line[name]
                times += entry["times"]
                self.figures.failed += entry["failed"]
        times.sort()
        self.figures.asked = len(times)
        self.figures.p50 = times[len(times) // 2]
        self.figures.p99 = times[len(times) * 99 // 100]
        self.figures.longest = times[-1]
