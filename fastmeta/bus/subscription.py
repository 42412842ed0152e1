"""Port events, and whether they can be relied on.

Queues lose what is sent while nobody takes it (the bus was started anew, a connection moved to another node of it),
and oslo.messaging connects again by itself, without a word to its user. So there are three conditions, and only while
all of them hold is it said that every change is announced:

- Neutron knows that we want events: a report of ours with the version of the events has been confirmed, long enough
  ago that each of its servers has read it (fastmeta.reports).
- A canary comes back in time: a message to ourselves, through the same bus, over the same connection as events and
  into the same thread. The next one is sent a period after it.
- oslo.messaging has complained of nothing since that canary was sent. It does at once when a connection is lost,
  before it opens another one, so that what was lost in between is not taken for announced, however fast it was.

What remains: a bus that takes messages and loses only events, silently (a policy, a full queue), is not noticed.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Callable
from typing import Any

from oslo_log import log as logging

from fastmeta.bus.connection import Bus
from fastmeta.bus.failures import explain
from fastmeta.bus.port_events import TOPIC, read_push
from fastmeta.bus.workers import Workers
from fastmeta.exceptions import LookupMalformedError
from fastmeta.models import Change
from fastmeta.repeats import Repeats, more

LOG = logging.getLogger(__name__)

CANARY_PERIOD = 3.0
CANARY_LIMIT = 3.0
"""Seconds from one canary's return to the next one, and that it may take. A bus that falls silent is noticed after both
together at most: sooner than identity_ttl (10 s), so that silence makes no identity live longer than it would without
events. One canary costs the bus about what one call does; a thousand nodes are 330 small messages in a second."""
RETRY_PAUSE = 1.0
LONGEST_PAUSE = 10.0
"""Seconds between attempts to subscribe, doubled each time, jittered down to a half."""
REPEAT_PERIOD = 60.0
EVENT_VERSION = "1.99"
"""Any 1.x of push: what is in it is judged when it is read."""

NOT_ASKED = "Neutron does not know yet that we want port events (it is told by state reports)"


class Subscription:
    """Lives in the event loop's thread; its callbacks are called there."""

    def __init__(
        self,
        bus: Bus,
        host: str,
        *,
        on_change: Callable[[Change], None],
        on_announcing: Callable[[bool], None],
        period: float = CANARY_PERIOD,
        limit: float = CANARY_LIMIT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bus = bus
        # One for each host, so that the queue of this name, which outlives us, is found again by the next process.
        self._server_name = f"fastmeta.{host}"
        self._on_change = on_change
        self._on_announcing = on_announcing
        self._period = period
        self._limit = limit
        self._workers = Workers("bus-canary", 1)
        self._clock = clock
        self._repeats = Repeats(REPEAT_PERIOD, clock)
        self._loop = asyncio.get_running_loop()
        self._us = uuid.uuid4().hex
        self._stranger: object = None
        """Who has sent us the last canary that was not ours."""
        self._server: Any = None
        self._task: asyncio.Task[None] | None = None
        self._end_trouble: Callable[[], None] | None = None
        self._stopped = False
        self._announcing = False
        self._wanted = False
        self._path_ok = False
        self._epoch = 0
        """Grows whenever messages may have been lost."""
        self._number = 0
        self._back: asyncio.Future[None] | None = None
        self._wake = asyncio.Event()
        self._reason = ""

    def start(self) -> None:
        """Subscribes as soon as the bus lets us, and for as long as stop() is not called."""
        self._end_trouble = self._bus.log.on_trouble(self._from_thread(self._trouble))
        self._task = self._loop.create_task(self._keep(), name="port events")

    def known_to_neutron(self, known: bool) -> None:
        """Whether all of Neutron's servers know that we want events."""
        if known == self._wanted:
            return
        self._wanted = known
        if known:
            self._wake.set()  # a fresh canary, then
        else:
            self._unreliable(NOT_ASKED)

    def end(self) -> None:
        """No callback any more. close_server() is still to be called."""
        self._stopped = True
        if self._task is not None:
            self._task.cancel()
        if self._end_trouble is not None:
            self._end_trouble()
        self._workers.stop()

    def close_server(self) -> None:
        """Blocks, until a call in progress has failed if the bus is away."""
        self._workers.join(60)
        if self._server is not None:
            self._server.stop()
            self._server.wait()

    def join(self, seconds: float) -> bool:
        """Waits for threads; False when not all have ended."""
        return self._workers.join(seconds)

    async def _keep(self) -> None:
        await self._subscribe()
        while True:
            began = self._clock()
            self._wake.clear()
            if await self._canary():
                self._reliable(self._clock() - began)
                pause = self._period
            else:
                pause = min(1.0, self._period)
            try:
                await asyncio.wait_for(self._wake.wait(), pause)
            except asyncio.TimeoutError:
                continue
            # Several complaints come together, of all threads that a lost connection concerns.
            await asyncio.sleep(min(0.2, self._period))

    async def _subscribe(self) -> None:
        pause = RETRY_PAUSE
        while self._server is None:
            try:
                await self._workers.run(self._serve)
            except Exception as error:
                self._unreliable(self._explained(error))
                await asyncio.sleep(pause * (0.5 + 0.5 * random.random()))  # noqa: S311
                pause = min(pause * 2, LONGEST_PAUSE)

    def _serve(self) -> None:
        # Kept here, in the worker's thread: whoever waits for this may be cancelled meanwhile.
        endpoint = _Endpoint(
            self._bus.target(EVENT_VERSION), self._from_thread(self._pushed), self._canary_back
        )
        self._server = self._bus.serve(TOPIC, self._server_name, [endpoint])

    async def _canary(self) -> bool:
        """Whether one came back in time and nothing was lost meanwhile."""
        self._number += 1
        epoch = self._epoch
        self._back = back = self._loop.create_future()
        sending = asyncio.ensure_future(self._workers.run(self._send, self._number))
        try:
            done, _ = await asyncio.wait(
                {sending, back}, timeout=self._limit, return_when=asyncio.FIRST_EXCEPTION
            )
        finally:
            back.cancel()
            sending.cancel()
        if sending in done and sending.exception() is not None:
            self._unreliable(self._explained(sending.exception()))
        elif back not in done:
            self._unreliable(
                f"a message to ourselves over {self._bus.place} did not come back in {self._limit:g} s"
            )
        elif epoch == self._epoch:
            return True
        return False

    def _send(self, number: int) -> None:
        self._bus.cast(TOPIC, "1.0", "canary", self._server_name, sender=self._us, number=number)

    def _canary_back(self, sender: object, number: object) -> None:
        """In the thread of the server."""
        if sender == self._us:
            self._from_thread(self._came_back)(number)
        else:
            self._from_thread(self._anothers)(sender)

    def _anothers(self, sender: object) -> None:
        """It was not for us: of two that have one name, each gets some of the other's messages, events not among them
        (those go to all), so neither can rely on its own."""
        # One may be of our predecessor's, which had our name.
        stranger, self._stranger = self._stranger == sender, sender
        held_back = self._repeats.admit("another") if stranger else None
        if held_back is not None:
            LOG.warning(
                "another agent that is called %s is on the message bus, too: give each its own host, in [DEFAULT]%s",
                self._server_name,
                more(held_back),
            )

    def _came_back(self, number: object) -> None:
        # One that was late says nothing: what was sent before it may have been lost while it was away.
        if number == self._number and self._back is not None and not self._back.done():
            self._back.set_result(None)

    def _pushed(self, arguments: dict[str, Any]) -> None:
        wrong = ""
        try:
            change = read_push(arguments)
        except LookupMalformedError as error:
            wrong = str(error)
            change = Change({}, everything=True)
        self._on_change(change)
        # Not above: within an except clause oslo.log adds the exception to the line, and so its text once more.
        held_back = self._repeats.admit(wrong) if wrong else None
        if held_back is not None:
            LOG.error(
                "a port event cannot be read, so all identities are asked for anew: %s%s",
                wrong,
                more(held_back),
            )

    def _trouble(self) -> None:
        self._epoch += 1
        self._unreliable(f"the connection to {self._bus.place} was lost, and events may have been")
        self._wake.set()

    def _reliable(self, seconds: float) -> None:
        if not self._path_ok:
            self._path_ok = True
            if not self._wanted:
                LOG.info("port events: %s is all right, but %s", self._bus.place, NOT_ASKED)
        if self._wanted and not self._announcing:
            self._announcing = True
            self._reason = ""
            LOG.info("port events are relied on: a message to ourselves took %.0f ms", seconds * 1000)
            self._on_announcing(True)

    def _unreliable(self, reason: str) -> None:
        self._path_ok = False
        if self._stopped:
            return
        if self._announcing:
            self._announcing = False
            self._on_announcing(False)
        if self._reason != reason:
            self._reason = reason
            held_back = self._repeats.admit(reason)
            if held_back is not None:
                LOG.warning(
                    "port events are not relied on, identities live identity_ttl: %s%s",
                    reason,
                    more(held_back),
                )

    def _explained(self, error: BaseException | None) -> str:
        assert error is not None  # noqa: S101
        return str(explain(error, place=self._bus.place, call="a message to ourselves", timeout=self._limit))

    def _from_thread(self, function: Callable[..., None]) -> Callable[..., None]:
        """The same, to be called in any thread."""

        def call(*arguments: Any) -> None:
            if not self._stopped:
                try:
                    self._loop.call_soon_threadsafe(unless_stopped, *arguments)
                except RuntimeError:
                    return  # the loop is closed

        def unless_stopped(*arguments: Any) -> None:
            if not self._stopped:
                function(*arguments)

        return call


class _Endpoint:
    """What oslo.messaging calls for each message, in its thread: only hands on, so that none waits behind another."""

    def __init__(
        self,
        target: Any,
        on_push: Callable[[dict[str, Any]], None],
        on_canary: Callable[[object, object], None],
    ) -> None:
        self.target = target
        self._on_push = on_push
        self._on_canary = on_canary

    def push(self, context: object, **arguments: Any) -> None:
        self._on_push(arguments)

    def canary(self, context: object, **arguments: Any) -> None:
        self._on_canary(arguments.get("sender"), arguments.get("number"))
