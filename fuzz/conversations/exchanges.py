"""What guests ask, what Nova answers, what the source says."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz.operations import ANSWERS, ASKS, POLICIES, UNBOUNDED, Conversation


def requests() -> Iterator[tuple[str, Conversation]]:
    """Of every kind."""
    new = Conversation
    yield "nothing", new()
    for name in ASKS:
        if name == "asks":
            continue
        yield f"ask-{name}", new(access_log=True).connect().ask(name, 30).turn(6).ask("get").turn(6)
        yield (
            f"ask-{name}-piecewise",
            new()
            .connect()
            .turn()
            .queue(name, 30)
            .deliver(5)
            .turn(3)
            .deliver(30)
            .turn(3)
            .deliver(100)
            .turn(3),
        )
        yield f"ask-{name}-large", new().connect().ask(name, 5000).turn(8).ask("get_close").turn(6)


def answers() -> Iterator[tuple[str, Conversation]]:
    """Of every kind, after the head and behind it."""
    new = Conversation
    for name in ANSWERS:
        if name == "answers":
            continue
        start = new(answers=False).connect().ask("get").turn(5)
        yield f"answer-{name}", start.answer(name, 30).turn(3).ask("get").turn(3).answer("length").turn(3)
        yield (
            f"answer-{name}-piecewise",
            new(answers=False)
            .connect()
            .ask("get")
            .turn(5)
            .answer_queue(name, 200)
            .server_delivers(10)
            .turn()
            .server_delivers(100)
            .turn()
            .server_delivers(199)
            .turn()
            .ask("head")
            .turn(3)
            .answer(name, 30)
            .turn(3),
        )
        yield (
            f"answer-{name}-large-slow-guest",
            new(answers=False)
            .connect()
            .guest_window(1000)
            .ask("get_10")
            .turn(5)
            .answer(name, 150_000)
            .turn(3)
            .guest_reads(1000)
            .turn(2)
            .guest_window(UNBOUNDED)
            .turn(9),
        )
        yield (
            f"answer-{name}-11",
            new(answer=name, length=70_000)
            .connect()
            .ask("get")
            .turn(5)
            .connect(1)
            .ask("get", guest=1)
            .turn(9),
        )


def sources() -> Iterator[tuple[str, Conversation]]:
    """Every policy; answers that come late."""
    new = Conversation
    for name in POLICIES:
        if name == "policies":
            continue
        yield (
            f"policy-{name}",
            new(policy=name)
            .connect()
            .ask("get")
            .turn(4)
            .late(0)
            .turn(3)
            .connect(1)
            .ask("get", guest=1)
            .turn(4)
            .time(1000)
            .turn(2)
            .connect()
            .ask("get", guest=2)
            .turn(3)
            .late(0, "absent")
            .time(10_000)
            .turn(3),
        )
    yield (
        "late-answer-after-revocation",
        new(policy="late").connect().ask("get").turn(3).revoke(0).turn(2).late(0).turn(3).late(0).turn(4),
    )


def connecting() -> Iterator[tuple[str, Conversation]]:
    """Every way in which Nova accepts."""
    new = Conversation
    for how in range(8):
        yield (
            f"nova-connects-{how}",
            new(connecting=how)
            .connect()
            .ask("get")
            .turn(4)
            .connected(0)
            .turn(3)
            .time(100)
            .turn(2)
            .connect(1)
            .ask("post", 10, guest=1)
            .turn(4)
            .time(3000)
            .turn(4)
            .nova()
            .to_timer()
            .turn(6),
        )
        yield (
            f"nova-connects-{how}-away-then-back",
            new(connecting=how, max_upstream_connections=2)
            .crowd(0, 6)
            .turn(6)
            .connected(1)
            .turn(2)
            .connected(2)
            .turn(2)
            .to_timer()
            .turn(2)
            .to_timer()
            .turn(2)
            .upstream(3)
            .turn(2)
            .nova(0)
            .to_timer()
            .turn(9),
        )
