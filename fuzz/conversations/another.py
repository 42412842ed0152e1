"""The source names another instance while requests of the former one are at Nova."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz.operations import FIN, UNBOUNDED, Conversation


def another_instance() -> Iterator[tuple[str, Conversation]]:
    """The source names another one, or none, while requests are at Nova, and nobody has revoked anything."""
    for ask in ("get", "head", "post", "put_nothing"):
        for policy in ("same", "known", "revoked", "absent", "refused", "short", "expired", "stale"):
            for ends in (False, True):
                start = (
                    Conversation(answers=False)
                    .connect()
                    .connect(0, 1)
                    .ask(ask, 30)
                    .ask("get", guest=1)
                    .turn(5)
                )
                if ends:
                    start.time(12_000)
                yield (
                    f"another-{ask}-{policy}-{'ended' if ends else 'in-time'}",
                    start.identity(0, policy)
                    .turn(3)
                    .answer("404")
                    .answer("length", server=1)
                    .turn(4)
                    .answer("404")
                    .turn(4),
                )
    yield (
        "another-and-the-answer-has-begun",
        Conversation(answers=False)
        .connect()
        .ask("get")
        .turn(5)
        .answer_queue("length", 5000)
        .server_delivers(1000)
        .turn(2)
        .identity(0)
        .turn(2)
        .server_delivers(UNBOUNDED)
        .turn(3)
        .ask("get")
        .turn(4),
    )
    yield (
        "another-before-the-kernel-takes-a-byte",
        Conversation()
        .connect()
        .guest_window(0)
        .ask("get")
        .turn(5)
        .identity(0)
        .turn(2)
        .guest_window(UNBOUNDED)
        .turn(6),
    )
    yield (
        "another-for-who-has-gone",
        Conversation(answers=False)
        .connect()
        .ask("get")
        .turn(5)
        .guest_ends(FIN)
        .turn(2)
        .identity(0)
        .turn(3)
        .answer()
        .turn(3),
    )
    # It has ended and is forgotten when Nova says 404; what the source says now is late.
    for policy in ("same", "known", "absent", "refused"):
        yield (
            f"held-of-one-that-is-forgotten-{policy}",
            Conversation(answers=False, policy="short")
            .connect()
            .connect()
            .ask("get")
            .turn(5)
            .policy(0, "late")
            .time(100)
            .ask("get", guest=1)
            .turn(3)
            .answer("404")
            .turn(3)
            .late(0, policy)
            .turn(4)
            .answer("404")
            .turn(4),
        )
    # It ends, somebody asks, and the source names another one, while the first request is still at Nova.
    for answer in ("404", "length"):
        yield (
            f"another-after-it-has-ended-{answer}",
            Conversation(answers=False, policy="short")
            .connect()
            .connect()
            .ask("get")
            .turn(5)
            .policy(0, "known")
            .time(100)
            .ask("get", guest=1)
            .turn(4)
            .answer(answer)
            .turn(4)
            .answer(answer, server=1)
            .turn(4),
        )
    # It is one that was not doubted, ends while the guest takes no byte of its 404, and the source names another one.
    yield (
        "another-before-the-kernel-takes-a-byte-of-404",
        Conversation(answers=False, policy="short")
        .connect()
        .connect()
        .ask("get")
        .turn(5)
        .guest_window(0)
        .answer("404")
        .turn(3)
        .policy(0, "known")
        .time(100)
        .ask("get", guest=1)
        .turn(4)
        .guest_window(UNBOUNDED)
        .turn(6),
    )
    # Connections are there at once, kept or new: what is sent again under the new name is not aborted again.
    for connecting in (0, 1):
        yield (
            f"another-for-a-crowd-{connecting}",
            Conversation(connecting=connecting)
            .crowd(0, 15)
            .turns(6)
            .nova(connecting, answers=False)
            .all_ask()
            .turns(5)
            .identity(0)
            .identity(1, "absent")
            .identity(2, "refused")
            .turns(5)
            .nova()
            .turns(6),
        )
