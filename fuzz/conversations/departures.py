"""Somebody goes, or is revoked, after so many turns."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz.operations import CLOSE, FIN, RESET, Conversation


def departures() -> Iterator[tuple[str, Conversation]]:
    """Guests, Nova, identities, listeners, scopes, the loop itself."""
    new = Conversation
    for how in (FIN, RESET, CLOSE):
        for turns in range(1, 7):
            yield (
                f"guest-goes-{how}-after-{turns}",
                new(answers=False).connect().ask("post", 500).turn(turns).guest_ends(how).turn(3),
            )
            yield (
                f"nova-goes-{how}-after-{turns}",
                new(answers=False)
                .connect()
                .ask("get")
                .connect(1)
                .ask("put_nothing", guest=1)
                .turn(turns)
                .server_ends(how)
                .server_ends(how, server=1)
                .turn(3)
                .time(300)
                .turn(4)
                .answer()
                .turn(3),
            )
            yield (
                f"revoked-after-{turns}",
                new(answers=False)
                .connect()
                .ask("get")
                .connect()
                .ask("post", 40, guest=1)
                .turn(turns)
                .revoke(0)
                .turn(4)
                .answer()
                .answer(server=1)
                .turn(4),
            )
            yield (
                f"all-revoked-after-{turns}",
                new(answers=False)
                .connect()
                .ask("get")
                .connect(1)
                .ask("head", guest=1)
                .turn(turns)
                .revoke(10)
                .revoke(11)
                .turn(4)
                .answer()
                .answer(server=1)
                .turn(4),
            )
            yield (
                f"listener-ends-{how}-after-{turns}",
                new(answers=False)
                .connect()
                .ask("get")
                .connect()
                .turn(turns)
                .remove_listener(0, drain=how != FIN)
                .turn(2)
                .answer()
                .turn(2)
                .add_listener(0)
                .turn()
                .connect()
                .ask("get")
                .turn(4),
            )
            yield (
                f"scope-ends-after-{turns}-{how}",
                new(answers=False)
                .connect()
                .ask("get")
                .turn(turns)
                .scope(0, add=False)
                .scope(0, add=True)
                .add_listener(0)
                .turn(3)
                .connect(1)
                .ask("get")
                .turn(6),
            )
            yield (
                f"stops-after-{turns}-{how}",
                new(answers=how == FIN)
                .connect()
                .ask("get")
                .connect()
                .turn(turns)
                .stop(1000 if how == RESET else 0)
                .turn(2)
                .answer()
                .turn(2),
            )


def bodies_that_end() -> Iterator[tuple[str, Conversation]]:
    """Guests that go in the middle of what they send."""
    new = Conversation
    for how in (FIN, RESET, CLOSE):
        for ask, length in (("post_slow", 600), ("post_slow", 150_000), ("post_chunked", 3000)):
            yield (
                f"body-{ask}-{length}-ends-{how}",
                new()
                .connect()
                .queue(ask, length)
                .deliver(100)
                .turn(5)
                .body(100)
                .deliver(100)
                .turn(2)
                .guest_ends(how)
                .turn(3),
            )


def loop_ends() -> Iterator[tuple[str, Conversation]]:
    """With requests that wait."""
    new = Conversation
    yield (
        "drained-with-a-queue",
        new().connect().ask("get").turn(6).crowd(0, 9).remove_listener(0, drain=True).turn(9),
    )
