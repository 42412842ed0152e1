"""Identities that are asked for again before they end, that end earlier, and that are others all at once."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz.operations import UNBOUNDED, Conversation


def used() -> Conversation:
    """Five identities in each scope; guests have used two of the first and one of the second."""
    start = Conversation()
    for key in range(10):
        start.identity(key)
    return (
        start.turn()
        .connect(0, 0)
        .connect(0, 1)
        .connect(1, 0)
        .ask("get")
        .ask("get", guest=1)
        .ask("get", guest=2)
        .turns(6)
    )


def renewals() -> Iterator[tuple[str, Conversation]]:
    for policy in (
        "same",
        "known",
        "revoked",
        "absent",
        "refused",
        "stale",
        "short",
        "expired",
        "silent",
        "late",
    ):
        start = used()
        for key in range(10):
            start.policy(key, policy)
        yield (
            f"renew-{policy}",
            start.time(8000)
            .renew(1500)
            .turn(2)
            .renew(3000)
            .turn(2)
            .renew(3000, scope=1)
            .turn(3)
            .all_ask()
            .turns(5)
            .late(0)
            .late(0, "same")
            .turn(2)
            .time(1500)
            .renew(60_000)
            .turn(2)
            .all_ask()
            .turns(5),
        )
        # Requests are at Nova meanwhile, and one of them has been answered in part.
        yield (
            f"renew-in-flight-{policy}",
            Conversation(answers=False, policy="known")
            .crowd(0, 4)
            .turns(6)
            .answer_queue("length", 5000)
            .server_delivers(300)
            .policy(0, policy)
            .policy(1, policy)
            .renew(60_000)
            .turn(3)
            .server_delivers(UNBOUNDED)
            .answer("length", server=1)
            .turn(2)
            .nova()
            .turns(8)
            .late(0, "known")
            .turns(4),
        )
    yield (
        "renew-nothing",
        used().renew(0).turn(2).renew(5).turn(2).renew(0, scope=1).turn(2).time(12_000).renew(5).turn(2),
    )
    yield (
        "renew-twice-in-a-second",
        used()
        .policy(0, "silent")
        .renew(60_000)
        .turn()
        .renew(60_000)
        .turn(2)
        .time(1000)
        .renew(60_000)
        .turn(3),
    )
    yield (
        "renew-what-nobody-uses-any-more",
        used().policy(0, "same").renew(60_000).turn(4).renew(60_000).turn(4),
    )
    yield (
        "renew-a-scope-that-is-gone",
        used().scope(0, add=False).renew(60_000).turn(2).scope(0, add=True).renew(5).turn(2),
    )
    yield (
        "renew-a-crowd",
        Conversation(policy="same").crowd(0, 255).turns(9).renew(60_000).turns(4).renew(60_000).turns(4),
    )
    yield (
        "renew-and-events-are-not-read",
        used().events(False).renew(60_000).turn(3).time(1500).renew(60_000).events(True).turn(3),
    )
    yield (
        "renew-of-one-that-has-ended",
        used().time(10_000).renew(60_000).turn(2).all_ask().turns(5).renew(60_000).turn(3),
    )
    # Used, though not sent: there is no place at Nova.
    yield (
        "renew-of-one-that-waits-for-a-place",
        Conversation(max_upstream_connections=1, answers=False)
        .crowd(0, 4)
        .turns(6)
        .renew(60_000)
        .turns(3)
        .identity(0, "same")
        .turn(2)
        .renew(60_000)
        .turn(2)
        .nova()
        .answer()
        .turns(9),
    )


def shorter_times() -> Iterator[tuple[str, Conversation]]:
    for ms in (0, 1, 1000, 5000, 9000, 60_000):
        for passed in (0, 1500, 8000):
            yield (
                f"shorten-to-{ms}-after-{passed}",
                used().time(passed).shorten(ms).turn(2).all_ask().turns(6).time(1000).all_ask().turns(6),
            )
        # Before anything is known; and what is confirmed later has its own time.
        yield (
            f"shorten-to-{ms}-first",
            Conversation()
            .shorten(ms)
            .turn()
            .crowd(0, 4)
            .turns(6)
            .shorten(ms, scope=1)
            .time(1000)
            .all_ask()
            .turns(6),
        )
        yield (
            f"shorten-to-{ms}-then-confirmed",
            used()
            .time(1500)
            .shorten(ms)
            .identity(0, "same")
            .identity(1)
            .turn(2)
            .all_ask()
            .turns(6)
            .shorten(5000)
            .turn(3),
        )
    yield (
        "shorten-in-flight",
        Conversation(answers=False)
        .crowd(0, 4)
        .turns(6)
        .time(100)
        .shorten(0)
        .turn(3)
        .nova()
        .turns(8)
        .all_ask()
        .turns(6),
    )
    yield (
        "shorten-before-it-is-sent",
        Conversation(connecting=2)
        .crowd(0, 4)
        .turns(6)
        .time(100)
        .shorten(50)
        .turn(2)
        .connected(0)
        .connected(0, server=1)
        .turns(9),
    )
    yield (
        "shorten-twice",
        used()
        .shorten(5000)
        .turn()
        .shorten(60_000)
        .turn()
        .time(4000)
        .all_ask()
        .turns(6)
        .time(1500)
        .all_ask()
        .turns(6),
    )
    yield (
        "shorten-what-is-absent",
        Conversation(policy="absent").crowd(0, 4).turns(4).shorten(0).turn().all_ask().turns(4),
    )
    yield (
        "shorten-a-body-that-is-gathered",
        Conversation()
        .connect()
        .ask("post_slow", 600)
        .turn(4)
        .body(100)
        .turn()
        .shorten(0)
        .turn(2)
        .body(600)
        .turn(8),
    )
