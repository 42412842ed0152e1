"""Two secrets: servers that accept one, the other, or both."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz.operations import Conversation


def secrets() -> Iterator[tuple[str, Conversation]]:
    """One server, or several."""
    new = Conversation
    # How many servers accept which secret.
    for accepts in ((1,), (2,), (1, 2), (2, 1), (2, 2), (1, 2, 2), (2, 0, 1)):
        conversation = new(servers=len(accepts), two_secrets=True, second_try_after_ms=100)
        for place, secret in enumerate(accepts):
            conversation.server(place, secret=secret)
        yield (
            f"secrets-{'-'.join(map(str, accepts))}",
            conversation.crowd(0, 4)
            .turns(6)
            .all_ask("head")
            .turns(6)
            .all_ask("put_nothing")
            .turns(6)
            .secrets(two=False)
            .revoke(10)
            .all_ask()
            .turns(6),
        )
    yield (
        "secrets-and-a-second-try",
        new(servers=2, two_secrets=True, second_try_after_ms=100)
        .server(1, secret=2)
        .server(0, secret=1, answers=False)
        .crowd(0, 4)
        .turns(6)
        .all_ask()
        .turns(4)
        .time(150)
        .turns(5)
        .answer("403")
        .turns(6),
    )
    # The first request is refused, the answer to the second one is late; so another server is asked, with the other
    # secret.
    for secret in (1, 2):
        yield (
            f"secrets-refused-then-slow-{secret}",
            new(servers=2, two_secrets=True, second_try_after_ms=100, answers=False)
            .connect()
            .ask("get")
            .turns(5)
            .answer("403")
            .turns(4)
            .server(0, secret=secret)
            .time(150)
            .turns(9),
        )
    yield (
        "secrets-and-what-may-not-be-repeated",
        new(two_secrets=True).server(0, secret=2).connect().ask("put_nothing").turns(9).ask("get").turns(9),
    )
    # One server is known to accept the next secret, and has the second try of a request that the other one refuses.
    yield (
        "secrets-of-two-servers-at-once",
        new(servers=2, two_secrets=True, second_try_after_ms=100)
        .server(1, secret=2)
        .server(0, answers=False)
        .connect()
        .ask("get")
        .turns(9)
        .connect(0, 1)
        .ask("get", guest=0)
        .ask("get", guest=1)
        .turns(9)
        .server(1, answers=False)
        .time(150)
        .turns(5)
        .answer("403", server=1)
        .turns(5)
        .nova()
        .server(0, secret=2)
        .turns(9),
    )
