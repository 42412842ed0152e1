"""Several servers: second tries, servers that go and come, warm connections."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz.operations import CLOSE, FIN, RESET, Conversation


def second_tries() -> Iterator[tuple[str, Conversation]]:
    """Who answers first, goes, or fails."""
    new = Conversation
    for connecting in range(8):
        for answers in (True, False):
            yield (
                f"servers-one-differs-{connecting}-{answers}",
                new(servers=3, second_try_after_ms=100)
                .server(0, connecting, answers=answers)
                .crowd(0, 5)
                .turns(6)
                .time(150)
                .turns(6)
                .all_ask()
                .turns(6)
                .time(2000)
                .turns(4)
                .all_ask("head")
                .turns(9),
            )
    for first in range(3):
        for ends in (FIN, RESET, CLOSE):
            yield (
                f"second-try-{first}-ends-{ends}",
                new(servers=2, second_try_after_ms=100, answers=False)
                .connect()
                .ask("get")
                .turns(5)
                .time(150)
                .turns(4)
                .server_ends(ends, server=first)
                .turns(3)
                .answer("length", 3000, server=1)
                .turns(4)
                .ask("get")
                .turns(4),
            )
    for late in ("length", "chunked", "close", "cut", "both", "101", "403", "half"):
        for first in range(2):
            yield (
                f"second-try-answers-{late}-{first}",
                new(servers=2, second_try_after_ms=100, answers=False)
                .connect()
                .ask("get")
                .turns(5)
                .time(150)
                .turns(4)
                .answer(late, 3000, server=first)
                .turns(4)
                .answer("length", 200, server=1 - first)
                .turns(6)
                .ask("head")
                .turns(5),
            )
    yield (
        "second-try-of-an-identity-that-ended",
        new(servers=2, second_try_after_ms=100, answers=False, policy="short")
        .connect()
        .ask("get")
        .turns(5)
        .policy(0, "known")
        .time(150)
        .turns(6)
        .time(100)
        .turns(5)
        .nova()
        .turns(5),
    )


def comings_and_goings() -> Iterator[tuple[str, Conversation]]:
    """In the middle of a second try, and otherwise."""
    new = Conversation
    for turns in range(1, 8):
        yield (
            f"second-try-and-revoked-{turns}",
            new(servers=2, second_try_after_ms=100, answers=False)
            .connect()
            .ask("get")
            .turns(5)
            .time(150)
            .turns(turns)
            .revoke(0)
            .turns(4)
            .nova()
            .turns(6),
        )
        yield (
            f"second-try-and-guest-goes-{turns}",
            new(servers=2, second_try_after_ms=100, answers=False)
            .connect()
            .ask("get")
            .turns(5)
            .time(150)
            .turns(turns)
            .guest_ends(CLOSE)
            .turns(4)
            .answer()
            .turns(3),
        )
        yield (
            f"second-try-and-servers-go-{turns}",
            new(servers=2, second_try_after_ms=100, answers=False, connecting=1)
            .connect()
            .ask("get")
            .turns(5)
            .time(150)
            .turns(turns)
            .upstream(1)
            .turns(3)
            .upstream(4)
            .turns(2)
            .nova(1)
            .turns(6),
        )
        yield (
            f"servers-go-and-come-{turns}",
            new(servers=3, warm_connections=2)
            .crowd(0, 5)
            .turns(turns)
            .upstream(1)
            .turns(2)
            .all_ask()
            .upstream(0)
            .turns(3)
            .time(50)
            .upstream(4)
            .turns(5)
            .upstream(4, other_host=True)
            .all_ask()
            .turns(5)
            .upstream(2, ipv6=True)
            .turns(8),
        )


def warm() -> Iterator[tuple[str, Conversation]]:
    """Connections that are made before somebody asks."""
    new = Conversation
    for connecting in range(8):
        for most in (1, 2, 256):
            yield (
                f"warm-{connecting}-{most}",
                new(servers=2, warm_connections=3, connecting=connecting, max_upstream_connections=most)
                .turns(3)
                .crowd(0, 5)
                .turns(5)
                .to_timer()
                .turns(4)
                .nova()
                .to_timer()
                .turns(8),
            )
