"""Nova: its connections, its silence; and how long identities live."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz.operations import CLOSE, Conversation


def kept_connections() -> Iterator[tuple[str, Conversation]]:
    """Bytes that come on them, and their end."""
    new = Conversation
    yield (
        "bytes-on-an-idle-connection",
        new().connect().ask("get").turn(6).server_raw(b"x").turn(2).ask("get").turn(5),
    )
    yield (
        "bytes-on-an-idle-connection-in-the-turn",
        new()
        .connect()
        .ask("get")
        .turn(6)
        .ask("get")
        .interrupt(0)
        .server_raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
        .turn(4),
    )
    yield (
        "stale-connection",
        new().connect().ask("get").turn(6).ask("get").interrupt(1).server_ends(CLOSE).turn(6),
    )
    yield (
        "answered-twice-late",
        new(answers=False)
        .connect()
        .ask("get")
        .connect(1)
        .turn(5)
        .answer("length", 20)
        .turn(2)
        .answer_queue("length", 30)
        .ask("get", guest=1)
        .turn(3)
        .server_delivers(199)
        .turn(2)
        .answer("length", 40)
        .turn(3),
    )


def silence() -> Iterator[tuple[str, Conversation]]:
    """Nova does not answer, or stops."""
    new = Conversation
    yield (
        "upstream-is-replaced",
        new().connect().ask("get").turn(3).upstream(2, ipv6=True).turn(4).ask("get").turn(6),
    )
    yield (
        "upstream-times-out",
        new(answers=False, upstream_timeout_ms=1000).connect().ask("get").turn(5).time(1000).turn(3),
    )
    yield (
        "upstream-stops-in-the-middle",
        new(answers=False, upstream_timeout_ms=1000)
        .connect()
        .ask("get")
        .turn(5)
        .answer("half", 500)
        .turn(2)
        .time(2000)
        .turn(3),
    )
    yield (
        "silent-upstream-pauses",
        new(answers=False)
        .connect()
        .ask("get")
        .turn(5)
        .server_ends(CLOSE)
        .turn(2)
        .time(300)
        .turn(5)
        .server_ends(CLOSE)
        .turn(2)
        .time(500)
        .turn(5)
        .answer()
        .turn(3),
    )


def identities() -> Iterator[tuple[str, Conversation]]:
    """That end, and that there are none."""
    new = Conversation
    yield (
        "identities-end",
        new(policy="short", other_policy="expired")
        .crowd(0, 5)
        .crowd(1, 5)
        .turn(8)
        .time(1000)
        .turn(3)
        .crowd(0, 5)
        .turn(8),
    )
    yield (
        "absent-kept",
        new(policy="absent", max_absent=2).crowd(0, 5).turn(6).crowd(0, 5).turn(4).time(3000).turn(4),
    )
