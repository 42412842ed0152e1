"""What the libraries log: once, in one line, without secrets; and what counts as a complaint."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from fastmeta.bus.library_log import LIBRARIES, MAX_TEXT, LibraryLog

RABBIT = logging.getLogger("oslo.messaging._drivers.impl_rabbit")


def ours(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What comes out. (Newer versions of pytest look at loggers that do not propagate, too.)"""
    return [record for record in caplog.records if record.name.startswith("fastmeta")]


@pytest.fixture
def log() -> Iterator[LibraryLog]:
    log = LibraryLog.in_use()
    log.strike_out(["hunter2"])
    yield log
    log.give_back()


def test_the_same_line_is_said_once(log: LibraryLog, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(1000):
        RABBIT.error("[%s] AMQP server is unreachable: %s", number, OSError(111, "Connection refused"))
    (record,) = ours(caplog)
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(
        "oslo.messaging._drivers.impl_rabbit: [0] AMQP server is unreachable"
    )


def test_no_secret_and_no_traceback(log: LibraryLog, caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError("rabbit://me:hunter2@here\nand more")
    except ValueError:
        RABBIT.exception("hunter2 does not %s", "work " * 1000)
        RABBIT.exception("and again")
    first, second = (record.getMessage() for record in ours(caplog))
    assert "hunter2" not in first + second
    assert [record.exc_info for record in ours(caplog)] == [None, None]
    assert len(first) < MAX_TEXT + 200
    assert second.endswith("and again (ValueError: rabbit://me:***@here and more)")


def test_what_is_no_complaint(log: LibraryLog, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    heard: list[None] = []
    end = log.on_trouble(lambda: heard.append(None))
    for library in LIBRARIES:
        logging.getLogger(library).info("connected")
        logging.getLogger(library).debug("a message")
    logging.getLogger("amqp").warning("a connection was closed")
    assert (heard, ours(caplog)) == ([], [])
    RABBIT.warning("a message could not be acknowledged")
    RABBIT.error("and the connection is gone")
    assert len(heard) == 2
    end()
    RABBIT.error("again")
    assert len(heard) == 2


def test_others_levels_do_not_matter(caplog: pytest.LogCaptureFixture) -> None:
    """default_log_levels of an operator may silence them; complaints are heard. Afterwards all is as it was."""
    logger = logging.getLogger("oslo.messaging")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        log = LibraryLog.in_use()
        assert LibraryLog.in_use() is log
        heard: list[None] = []
        log.on_trouble(lambda: heard.append(None))
        RABBIT.error("the connection is gone")
        log.give_back()
        assert log in logger.handlers
        log.give_back()
        assert heard == [None]
        assert (logger.level, logger.propagate, log in logger.handlers) == (logging.CRITICAL, True, False)
    finally:
        logger.setLevel(before)


def test_a_broken_line_does_no_harm(log: LibraryLog, caplog: pytest.LogCaptureFixture) -> None:
    record = logging.LogRecord(RABBIT.name, logging.ERROR, "", 0, "%s %s", ("one",), None)
    log.handle(record)
    assert [record.getMessage() for record in ours(caplog)] == [f"{RABBIT.name}: %s %s"]
