"""Bounds, crowds, rates."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz.operations import FIN, Conversation


def rates() -> Iterator[tuple[str, Conversation]]:
    """Of each IP version."""
    new = Conversation
    for version in (1, 2, 3):
        for limit in (1, 2):
            yield (
                f"rate-{version}-{limit}",
                new(
                    rate_versions=version,
                    base_limit=limit,
                    burst_limit=3 - limit,
                    base_window_ms=1000,
                    burst_window_ms=100,
                )
                .crowd(0, 10)
                .turn(6)
                .all_ask()
                .turn(3)
                .time(50)
                .all_ask("post")
                .turn(3)
                .time(1500)
                .all_ask()
                .turn(3)
                .time(10_000)
                .turn(3)
                .connect()
                .ask()
                .turn(6),
            )


def rates_of_one_scope() -> Iterator[tuple[str, Conversation]]:
    """Beside settings with and without limits; others in their place, none, a scope that goes with its limits."""
    for settings in (0, 3):
        for versions in (0, 1, 2, 3):
            start = Conversation(rate_versions=settings, base_limit=1, base_window_ms=1000)
            yield (
                f"rate-of-a-scope-{settings}-{versions}",
                start.rates(versions, 2)
                .crowd(0, 10)
                .turn(6)
                .all_ask()
                .turn(3)
                .rates(3, 1)
                .all_ask()
                .turn(3)
                .rates(0)
                .all_ask()
                .turn(3)
                .scope(0, False)
                .turn(2)
                .rates(1)
                .scope(0, True)
                .add_listener(0)
                .connect()
                .ask()
                .turn(6),
            )


def bounds() -> Iterator[tuple[str, Conversation]]:
    """Each reached."""
    new = Conversation
    bounds = {
        "connections-per-scope": new(policy="late", max_connections_per_scope=2),
        "connections-per-address": new(policy="late", max_connections_per_address=1),
        "parked-per-scope": new(policy="late", max_parked_per_scope=1),
        "parked-per-address": new(policy="late", max_parked_per_address=1),
        "gathered": new(policy="late", max_gathered=1),
        "headers": new(policy="late", headers=1),
        "target": new(policy="late", target=16),
        "answer-timeout": new(policy="late", answer_timeout_ms=100),
    }
    for name, start in bounds.items():
        yield (
            f"bound-{name}",
            start.crowd(0, 10)
            .crowd(1, 3)
            .turn(4)
            .all_ask("post_slow")
            .late()
            .turn(4)
            .connect()
            .ask("headers", 5)
            .turn(3)
            .late()
            .turn(3)
            .guest_window(10)
            .connect()
            .ask("target", 30)
            .time(100)
            .turn(4),
        )
    yield "too-many-connections", new(max_connections=3).crowd(0, 9).turn(9).connect().ask("get").turn(3)
    yield (
        "too-many-parked",
        new(max_parked=2, policy="silent", other_policy="silent").crowd(0, 9).crowd(1, 3).turn(9),
    )
    yield (
        "few-places",
        new(max_upstream_connections=1, answers=False, upstream_timeout_ms=1000)
        .crowd(0, 5)
        .turn(6)
        .answer()
        .turn(3)
        .answer()
        .turn(3)
        .time(1000)
        .turn(3),
    )
    yield (
        "revoked-while-it-waits-for-a-place",
        new(max_upstream_connections=1, answers=False)
        .crowd(0, 6)
        .turn(6)
        .revoke(10)
        .turn(4)
        .answer()
        .turn(4)
        .answer()
        .turn(4),
    )


def crowds() -> Iterator[tuple[str, Conversation]]:
    """More than a hash table, a batch, or the ring of events is made for."""
    new = Conversation
    # Each of these has other places in the hash tables.
    for seed in range(8):
        yield (
            f"all-addresses-{seed}",
            new(seed=seed).crowd(0, 5).crowd(1, 5).turn(9).revoke(10).crowd(0, 5).crowd(1, 5).turn(9),
        )
    yield (
        "more-events-than-a-batch",
        new(max_connections_per_address=128, keepalive_timeout_ms=20000)
        .crowd(0, 255)
        .turns(250)
        .turns(250)
        .all_ask()
        .turns(4)
        .all_ask()
        .interrupt(20)
        .server_raw(b"x")
        .server_ends(FIN, server=1)
        .turns(16),
    )
    yield "more-than-a-batch", new().crowd(0, 255).turn(4).crowd(1, 255).turn(6)
    yield (
        "events-not-read",
        new().events(False).crowd(0, 15).turn(4).time(1500).crowd(0, 15).turn(4).events(True).turn(6),
    )
