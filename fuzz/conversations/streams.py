"""Bodies, what is pipelined, guests that are slow."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz.operations import FIN, UNBOUNDED, Conversation


def bodies() -> Iterator[tuple[str, Conversation]]:
    """Gathered and streamed."""
    new = Conversation
    yield (
        "streamed-body",
        new(answers=False)
        .connect()
        .queue("post_slow", 150_000)
        .deliver(4096)
        .turn(5)
        .body(70_000)
        .server_window(1000)
        .turn(3)
        .body(65_536)
        .turn(3)
        .server_reads(1000)
        .turn(2)
        .server_window(UNBOUNDED)
        .turn(3)
        .body(90_000)
        .turn(4)
        .answer()
        .turn(4),
    )
    yield (
        "streamed-body-answered-early",
        new(answers=False)
        .connect()
        .ask("post_slow", 150_000)
        .turn(5)
        .body(70_000)
        .turn(3)
        .answer("length", 300)
        .turn(3)
        .body(65_536)
        .turn(3),
    )
    yield (
        "streamed-body-too-slow",
        new(answers=False, body_timeout_ms=1000)
        .connect()
        .ask("post_slow", 150_000)
        .turn(5)
        .body(100)
        .turn(3)
        .time(1500)
        .turn(3),
    )
    yield (
        "gathered-body-too-slow",
        new().connect().ask("post_slow", 600).turn(4).body(100).turn(2).time(31_000).turn(3),
    )
    yield (
        "gathered-while-the-identity-ends",
        new(policy="short").connect().ask("post_slow", 600).turn(4).time(100).body(600).turn(8),
    )


def slow_guests() -> Iterator[tuple[str, Conversation]]:
    """Heads and answers that take long."""
    new = Conversation
    yield (
        "revoked-before-the-kernel-takes-a-byte",
        new().connect().guest_window(0).ask().turn(5).revoke(0).turn(2).guest_window(UNBOUNDED).turn(6),
    )
    yield "sends-of-one-byte", new().limits(0, 1).connect().ask("post", 40).turn(9).ask("get").turn(9)
    yield "too-slow-head", new().connect().queue().deliver(9).turn(2).time(10_000).turn(2)
    yield "idle-too-long", new().connect().ask("get").turn(6).time(31_000).turn(3)
    yield "pool-idle-too-long", new().connect().ask("get").turn(6).time(4000).turn(3).ask("get").turn(6)
    yield (
        "guest-does-not-read",
        new(opens=False).connect().guest_window(10).ask("many", 5).turn(9).time(30_000).turn(3),
    )
    yield (
        "guest-lingers",
        new().connect().ask("folded").ask("get").turn(3).raw(b"more").turn(2).guest_ends(FIN).turn(2),
    )
    yield "guest-lingers-too-long", new().connect().ask("both").ask("get").turn(3).time(2000).turn(2)
    yield (
        "pipelined-and-mixed",
        new().connect().ask("many", 5).ask("head").ask("post", 300).ask("get_close").ask("get").turn(12),
    )
