"""Rule 7: Nova says 404, and the source is asked who it is before that goes down."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz.operations import RESET, Conversation


def doubted(policy: str = "late", ask: str = "get", start: Conversation | None = None) -> Conversation:
    """A guest whose identity is old enough to be doubted has asked, and Nova, which does not answer by itself, has its
    request."""
    start = start or Conversation(answers=False)
    return start.identity(0).turn().connect().time(2500).policy(0, policy).ask(ask).turn(6)


def held(policy: str = "late", ask: str = "get", start: Conversation | None = None) -> Conversation:
    """The same, and it has been answered with 404."""
    return doubted(policy, ask, start).answer("404", 200).turn(3)


def named() -> Iterator[tuple[str, Conversation]]:
    """What the source says, for every method, of those that wait and of those that do not."""
    for ask in ("get", "head", "get_close", "get_10", "post", "put_nothing", "delete", "passed"):
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
        ):
            yield (
                f"not-found-{ask}-{policy}",
                held(policy, ask)
                .turn(3)
                .answer("length", 40)
                .turn(4)
                .ask("get")
                .turn(6)
                .answer("404")
                .turn(4),
            )
    for policy in ("same", "known", "revoked", "absent", "refused", "stale", "short", "expired"):
        yield (
            f"not-found-late-{policy}",
            held(start=Conversation(answers=False, access_log=True))
            .time(1000)
            .turn(2)
            .late(0, policy)
            .turn(4)
            .answer("404")
            .turn(4)
            .late(0)
            .turn(4),
        )
        # The answer to a question that was sent before the guest had asked.
        yield (
            f"not-found-renewed-before-{policy}",
            Conversation(answers=False)
            .identity(0)
            .turn()
            .connect()
            .ask("get")
            .turn(5)
            .answer()
            .turn(3)
            .policy(0, "late")
            .renew(60_000)
            .turn(2)
            .time(3000)
            .ask("get")
            .turn(4)
            .answer("404")
            .turn(3)
            .late(0, policy)
            .turn(4)
            .late(0, "same")
            .turn(4),
        )
        # Two guests of one address, whose requests are both at Nova.
        yield (
            f"not-found-two-{policy}",
            Conversation(answers=False)
            .identity(0)
            .turn()
            .connect()
            .connect()
            .time(2500)
            .policy(0, "late")
            .ask("get")
            .ask("head", guest=1)
            .turn(6)
            .answer("404", 100)
            .answer("404", 100, server=1)
            .turn(3)
            .late(0, policy)
            .turn(5)
            .answer("404")
            .answer("404", server=1)
            .turn(4),
        )
        # The second one's 404 comes while the first one's is held, or its guest has gone; a third one's later.
        for end in ("", "-the-first-goes"):
            conversation = (
                Conversation(answers=False)
                .identity(0)
                .turn()
                .connect()
                .connect()
                .time(2500)
                .policy(0, "late")
                .ask("get")
                .ask("get", guest=1)
                .turn(6)
                .answer("404", 100)
                .turn(3)
                .time(1000)
                .turn(2)
            )
            if end:
                conversation.guest_ends(RESET).turn(3)
            yield (
                f"not-found-second-{policy}{end}",
                conversation.answer("404", 100, server=0 if end else 1)
                .turn(3)
                .time(1000)
                .turn(2)
                .late(0, policy)
                .turn(5)
                .answer("404")
                .answer("404", server=1)
                .turn(4)
                .ask("get")
                .turn(5)
                .answer("404")
                .turn(4),
            )
    yield "not-found-young", doubted().identity(0, "same").turn(2).answer("404").turn(3)
    yield (
        "not-found-again-and-again",
        held("same")
        .ask("get")
        .turn(4)
        .answer("404")
        .turn(3)
        .time(12_000)
        .ask("get")
        .turn(5)
        .answer("404")
        .turn(5),
    )
    yield "not-found-silence-passes", held("silent").time(1000).turn(2).time(2000).turn(4).ask("get").turn(4)
    yield (
        "not-found-silence-then-again",
        held("silent").to_timer().turn(3).ask("get").turn(4).answer("404").turn(3),
    )
    yield (
        "not-found-silence-and-a-short-time",
        held("silent", start=Conversation(answers=False, upstream_timeout_ms=1000))
        .to_timer()
        .turn(2)
        .to_timer()
        .turn(3)
        .late(0)
        .turn(3),
    )
    yield (
        "not-found-of-an-identity-that-ended",
        doubted("same").time(10_000).turn(2).answer("404").turn(4).answer("length").turn(4),
    )
    yield (
        "not-found-and-events-are-not-read",
        doubted("same").events(False).answer("404").turn(4).events(True).turn(4),
    )
    yield (
        "not-found-while-the-identity-ends",
        held().time(2500).turn(2).late(0, "same").turn(4).answer().turn(3),
    )
