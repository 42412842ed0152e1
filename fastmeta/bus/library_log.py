"""What oslo.messaging, kombu and amqp log, cut down to what an operator can use.

By themselves they log several lines for each attempt of each of their threads, for as long as a bus is away, some with
a traceback. Here each kind of line is said once in a while, in one line, with every secret of the transport URL struck
out; and whoever needs to know at once that a connection was lost is told of it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import TypeAlias

from oslo_log import log as oslo_logging

from fastmeta.repeats import Repeats, more

LOG = oslo_logging.getLogger(__name__)

LIBRARIES = ("oslo.messaging", "oslo_messaging", "kombu", "amqp", "oslo.service", "oslo_service", "futurist")
"""Loggers below which they log."""
REPEAT_PERIOD = 600.0
"""Seconds for which the same line, whatever numbers are in it, is not said again: one outage is some six of them."""
MAX_TEXT = 500
"""Characters of one line."""

OnTrouble: TypeAlias = Callable[[], None]


class LibraryLog(logging.Handler):
    """The one handler of these libraries. Get it from in_use(), and give it back with give_back()."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._users = 0
        self._secrets: tuple[str, ...] = ()
        self._listeners: tuple[OnTrouble, ...] = ()
        self._repeats = Repeats(REPEAT_PERIOD)
        self._before: dict[str, tuple[int, bool]] = {}

    @classmethod
    def in_use(cls) -> LibraryLog:
        """The handler that is there, or a new one."""
        with _LOCK:
            there = [
                handler for handler in logging.getLogger(LIBRARIES[0]).handlers if isinstance(handler, cls)
            ]
            handler = there[0] if there else cls()
            handler._users += 1
            if not there:
                handler._attach()
            return handler

    def strike_out(self, secrets: Iterable[str]) -> None:
        """What must not be seen in any line from now on."""
        with _LOCK:
            known = set(self._secrets) | {secret for secret in secrets if secret}
            self._secrets = tuple(sorted(known, key=len, reverse=True))

    def give_back(self) -> None:
        """As often as in_use() was called: with the last one the libraries log as they did before."""
        with _LOCK:
            self._users -= 1
            if self._users == 0:
                self._detach()

    def on_trouble(self, listener: OnTrouble) -> Callable[[], None]:
        """listener is called, in the thread that it happens in, whenever oslo.messaging complains: then a connection
        may have been lost, and messages with it. Returns what ends this."""
        with _LOCK:
            self._listeners = (*self._listeners, listener)

        def end() -> None:
            with _LOCK:
                self._listeners = tuple(other for other in self._listeners if other is not listener)

        return end

    def clean(self, text: str) -> str:
        """In one line, not too long, and without a secret."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        text = " ".join(text.split())
        return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 3] + "..."

    def emit(self, record: logging.LogRecord) -> None:
        """Called by logging, in any thread."""
        # It complains on WARNING when a message cannot be taken from a connection that is gone, on ERROR when one is
        # lost. This comes before anything is received over the new connection.
        complaint = record.levelno >= logging.WARNING and record.name.startswith(LIBRARIES[:2])
        if complaint:
            for listener in self._listeners:
                listener()
        # amqp warns of what is common, as when a connection is closed.
        if not complaint and record.levelno < logging.ERROR:
            return
        held_back = self._repeats.admit((record.name, record.levelno, str(record.msg)[:MAX_TEXT]))
        if held_back is None:
            return
        try:
            text = record.getMessage()
        except Exception:  # a library's mistake in its own line
            text = str(record.msg)
        if record.exc_info and record.exc_info[1] is not None:
            text += f" ({type(record.exc_info[1]).__name__}: {record.exc_info[1]})"
        # It is they who say so, not we: what it means for guests is said elsewhere, and louder.
        LOG.warning("%s: %s%s", record.name, self.clean(text), more(held_back))

    def _attach(self) -> None:
        for name in LIBRARIES:
            logger = logging.getLogger(name)
            self._before[name] = (logger.level, logger.propagate)
            # Whatever default_log_levels says: on_trouble depends on it.
            logger.setLevel(logging.INFO)
            logger.propagate = False
            logger.addHandler(self)

    def _detach(self) -> None:
        for name, (level, propagate) in self._before.items():
            logger = logging.getLogger(name)
            logger.removeHandler(self)
            logger.setLevel(level)
            logger.propagate = propagate


_LOCK = threading.Lock()
