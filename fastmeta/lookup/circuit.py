"""One gate for all questions to the source: so many at once, and hardly any while it is away.

Scopes go through in the order in which they come, and each has one question at a time, so none gets more than
its turn. A place is given back when the answer has come, or after SLOW_AFTER: a source that hangs for some
scopes does not hold up the others.

After some failures in a row the circuit is open: one question at a time tries whether the source is back, after
pauses that grow. It stops questions, not guests: whoever waits goes on waiting. Nobody waits: nobody is asked.
After it has closed there is one place, and one more with each answer, so that not everybody comes at once to a
server that has only just started.
"""

from __future__ import annotations

import asyncio
import enum
import random
import time
from collections import deque
from collections.abc import Callable

from oslo_log import log as logging

from fastmeta.repeats import Repeats, more

LOG = logging.getLogger(__name__)

PLACES = 32
"""Questions that are under way at once, not counting those that have taken SLOW_AFTER."""
SLOW_AFTER = 0.5
"""Seconds after which a question gives its place to another one."""
OPEN_AFTER = 5
"""Failures in a row that open the circuit."""
OPEN_SCOPES = 3
"""So many scopes must have failed, when it may be the fault of what was asked: a malformed answer, or none in time."""
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0
"""Seconds between questions while it is open: doubled each time, then jittered down to a half."""
LONGEST_REFUSED = 15.0
"""The same while we are refused: each attempt may count against us (lockout_failure_attempts of Keystone), and only an
operator can change it."""
REPEAT_PERIOD = 60.0
"""Seconds for which it is not said again that the source is away, and why."""


class Failure(enum.Enum):
    """What a failed question says of the source."""

    AWAY = "away"
    SILENT = "silent"
    """Perhaps only for this question: there was no answer in time."""
    MALFORMED = "malformed"
    """Perhaps only for this question: it answers."""
    REFUSED = "refused"
    """Only an operator can change that: more failures are not waited for."""


def pause_after(
    failures: int, first: float, jitter: Callable[[], float], longest: float = LONGEST_PAUSE
) -> float:
    """Seconds to wait after so many failures in a row (from 1)."""
    pause: float = min(first * 2 ** min(failures - 1, 16), longest)
    return pause * (0.5 + 0.5 * jitter())


class Place:
    """The right to ask one question. Whoever has it says what became of it, or gives it back."""

    def __init__(self, circuit: Circuit, *, probes: bool) -> None:
        self._circuit = circuit
        self._probes = probes
        self._held = True
        # Of one that probes there is no other.
        self._timer = None if probes else asyncio.get_running_loop().call_later(SLOW_AFTER, self.give_back)

    def answered(self) -> None:
        """The source has answered."""
        self._circuit._answered()
        self.give_back()

    def failed(self, scope: int, failure: Failure, why: str) -> None:
        """It has not. why: the same text for the same cause."""
        self._circuit._failed(scope, failure, why, probed=self._probes)
        self.give_back()

    def give_back(self) -> None:
        """Once it is given back, nothing happens."""
        if not self._held:
            return
        self._held = False
        if self._timer is not None:
            self._timer.cancel()
        self._circuit._given_back(probed=self._probes)


class Circuit:
    """on_change() is called whenever it opens, closes, or is open for another reason.

    Lives in the event loop's thread. Times are seconds; jitter gives numbers from 0 to 1.
    """

    def __init__(
        self,
        on_change: Callable[[], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
        first_pause: float = FIRST_PAUSE,
    ) -> None:
        self._on_change = on_change
        self._clock = clock
        self._jitter = jitter
        self._first_pause = first_pause
        self._repeats = Repeats(REPEAT_PERIOD, clock)
        self._waiting: deque[asyncio.Future[Place]] = deque()
        self._for_quiet: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._places = PLACES
        self._taken = 0
        self._failed_scopes: set[int] = set()
        self._failures = 0
        # While it is open.
        self.reason = ""
        """Why it is open; empty while it is closed."""
        self._kind: Failure | None = None
        self._opened_at = 0.0
        self._said = False
        self._probing = False
        self._probes = 0
        self._next_probe = 0.0

    @property
    def is_open(self) -> bool:
        return bool(self.reason)

    async def enter(self) -> Place:
        """Waits for a place."""
        future: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._let_in()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                future.result().give_back()
            elif future in self._waiting:
                self._waiting.remove(future)
                self._let_in()  # somebody may wait for it to be quiet
            raise

    async def quiet(self) -> None:
        """Waits until nobody waits for a place, and it is closed: for what gives way to everybody, and takes none."""
        while self.is_open or self._waiting:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._for_quiet.append(future)
            try:
                await future
            finally:
                if future in self._for_quiet:
                    self._for_quiet.remove(future)

    def try_now(self) -> None:
        """Something has changed, so that a pause is not worth it."""
        self._next_probe = 0.0
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self._has_place():
            future = self._waiting.popleft()
            if future.done():  # cancelled
                continue
            probes = self.is_open
            if probes:
                self._probing = True
            else:
                self._taken += 1
            future.set_result(Place(self, probes=probes))
        if self._for_quiet and not self._waiting and not self.is_open:
            for quiet in self._for_quiet:
                if not quiet.done():
                    quiet.set_result(None)
            self._for_quiet.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting and self.is_open and not self._probing:
            self._timer = asyncio.get_running_loop().call_at(self._next_probe, self._let_in)

    def _has_place(self) -> bool:
        if self.is_open:
            return not self._probing and asyncio.get_running_loop().time() >= self._next_probe
        return self._taken < self._places

    def _given_back(self, *, probed: bool) -> None:
        if probed:
            self._probing = False
        else:
            self._taken -= 1
        self._let_in()

    def _answered(self) -> None:
        self._failures = 0
        self._failed_scopes.clear()
        if self.is_open:
            self._close()
        elif self._places < PLACES:
            self._places += 1

    def _failed(self, scope: int, failure: Failure, why: str, *, probed: bool) -> None:
        if self.is_open and failure is Failure.MALFORMED and self._kind is not Failure.MALFORMED:
            self._answered()  # it is there again, after all; whether what it says can be used is another question
        if not self.is_open:
            self._failures += 1
            self._failed_scopes.add(scope)
            if self._must_open(failure):
                self._open(failure, why)
            return
        news = why != self.reason
        self.reason, self._kind = why, failure
        if probed:
            self._probes += 1
            self._wait()
        self._say()
        if news:
            self._on_change()

    def _must_open(self, failure: Failure) -> bool:
        if failure is Failure.REFUSED:
            return True
        if self._failures < OPEN_AFTER:
            return False
        return failure is Failure.AWAY or len(self._failed_scopes) >= OPEN_SCOPES

    def _open(self, failure: Failure, why: str) -> None:
        self.reason, self._kind = why, failure
        self._opened_at = self._clock()
        self._said = False
        self._probes = 1
        self._wait()
        self._say()
        self._on_change()

    def _longest(self) -> float:
        return LONGEST_REFUSED if self._kind is Failure.REFUSED else LONGEST_PAUSE

    def _wait(self) -> None:
        pause = pause_after(self._probes, self._first_pause, self._jitter, self._longest())
        self._next_probe = asyncio.get_running_loop().time() + pause

    def _say(self) -> None:
        """Each reason once in a while: it may last, and it may come and go."""
        held_back = self._repeats.admit(self.reason)
        if held_back is None:
            return
        self._said = True
        LOG.log(
            logging.ERROR if self._kind is Failure.REFUSED else logging.WARNING,
            "lookup: %s; guests whose identity is not known wait, and get 503 after park_timeout; the source is "
            "tried again every %g seconds at most while somebody waits%s",
            _by_kind(self._kind, self.reason),
            self._longest(),
            more(held_back),
        )

    def _close(self) -> None:
        lasted = self._clock() - self._opened_at
        self.reason, self._kind = "", None
        self._places = 1
        if self._said:
            LOG.info("lookup: the source answers again, after %.1f seconds", lasted)
        self._on_change()


def _by_kind(kind: Failure | None, reason: str) -> str:
    what = {
        Failure.REFUSED: "the source refuses us",
        Failure.MALFORMED: "the source's answers cannot be trusted",
    }.get(kind or Failure.AWAY, "the source is away")
    return f"{what}: {reason}"
