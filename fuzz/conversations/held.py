"""Nova's 404 is held until the source has said who the guest is, and something else happens meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fuzz.conversations.not_found import doubted, held
from fuzz.operations import ANSWERS, CLOSE, FIN, RESET, UNBOUNDED, Conversation

ENDS: dict[str, Callable[[Conversation], Conversation]] = {
    "guest-ends": lambda start: start.guest_ends(FIN),
    "guest-resets": lambda start: start.guest_ends(RESET),
    "guest-closes": lambda start: start.guest_ends(CLOSE),
    "nova-ends": lambda start: start.server_ends(FIN),
    "nova-resets": lambda start: start.server_ends(RESET),
    "listener-goes": lambda start: start.remove_listener(0),
    "listener-drains": lambda start: start.remove_listener(0, drain=True),
    "scope-goes": lambda start: start.scope(0, add=False),
    "scope-is-another": lambda start: start.scope(0, add=False).scope(0, add=True).add_listener(0),
    "loop-stops": lambda start: start.stop(1000),
    "loop-stops-at-once": lambda start: start.stop(0),
    "server-goes": lambda start: start.upstream(0),
    "servers-are-others": lambda start: start.upstream(2, ipv6=True),
    "revoked": lambda start: start.revoke(0),
    "all-revoked": lambda start: start.revoke(10),
    "another-revoked": lambda start: start.revoke(1),
    "shortened": lambda start: start.shorten(0),
    "renewed": lambda start: start.renew(60_000),
    "put-same": lambda start: start.identity(0, "same"),
    "put-another": lambda start: start.identity(0),
    "put-absent": lambda start: start.identity(0, "absent"),
}


def departures() -> Iterator[tuple[str, Conversation]]:
    """Somebody goes while an answer is held, and then the source answers after all."""
    for name, end in ENDS.items():
        for policy in ("same", "known"):
            yield (
                f"held-and-{name}-{policy}",
                end(held()).turn(3).late(0, policy).turn(4).answer().turn(3).late(0).turn(4),
            )
        yield (
            f"held-and-{name}-before-it-is-known",
            end(held().events(False)).turn(2).events(True).turn(3).answer().turn(3),
        )
        yield f"held-and-{name}-until-3-s", end(held("silent")).turn(3).to_timer().turn(3).to_timer().turn(4)


def answers() -> Iterator[tuple[str, Conversation]]:
    """What Nova does with an answer that is held: it comes in pieces, it goes on, it ends."""
    for policy in ("same", "known", "absent", "silent"):
        for length in (0, 10, 5000, 150_000):
            yield (
                f"held-in-pieces-{length}-{policy}",
                doubted()
                .answer_queue("404", length)
                .server_delivers(20)
                .turn(2)
                .server_delivers(60)
                .turn(2)
                .server_delivers(3000)
                .turn(2)
                .server_delivers(70_000)
                .turn(2)
                .late(0, policy)
                .turn(3)
                .server_delivers(UNBOUNDED)
                .turn(6)
                .to_timer()
                .turn(4)
                .ask("get")
                .turn(4)
                .answer()
                .turn(4),
            )
        yield (
            f"held-and-a-second-answer-{policy}",
            held().answer("length", 300).turn(2).late(0, policy).turn(4).ask("get").turn(4).answer().turn(4),
        )
        yield f"held-and-nonsense-{policy}", held().server_raw(b"nonsense").turn(2).late(0, policy).turn(5)
        yield (
            f"held-for-a-slow-guest-{policy}",
            doubted()
            .guest_window(0)
            .answer("404", 90_000)
            .turn(3)
            .late(0, policy)
            .turn(4)
            .guest_window(UNBOUNDED)
            .turn(9),
        )
        yield (
            f"held-and-sends-of-one-byte-{policy}",
            doubted().limits(0, 1).answer("404", 40).turn(3).late(0, policy).turn(9).answer("404").turn(9),
        )
    # What is no 404 is never held.
    for name in ANSWERS:
        if name not in ("answers", "404"):
            yield f"doubted-{name}", doubted().answer(name, 300).turn(3).late(0).turn(3).answer().turn(3)
    for call, error in (("recv", 1), ("send", 1), ("watch", 0), ("memory", 0)):
        for skip in range(4):
            yield (
                f"held-and-fault-{call}-{skip}",
                doubted()
                .fault(call, skip, 1, error)
                .answer("404", 300)
                .turn(3)
                .fault(call, skip, 1, error)
                .late(0, "same" if skip & 1 else "known")
                .turn(5)
                .answer("404")
                .turn(4),
            )


def guests() -> Iterator[tuple[str, Conversation]]:
    """Guests that pipeline, come in crowds, or are at two servers."""
    for policy in ("same", "known", "revoked", "absent", "refused"):
        yield (
            f"held-pipelined-{policy}",
            held().ask("many", 5).ask("head").turn(2).late(0, policy).turn(4).nova(0, True, "404").turn(12),
        )
        yield (
            f"held-crowd-{policy}",
            Conversation(answer="404", length=300)
            .crowd(0, 10)
            .crowd(1, 5)
            .turns(9)
            .time(2500)
            .all_ask()
            .policy(0, policy)
            .policy(1, policy)
            .policy(2, "late")
            .turns(6)
            .all_ask("head")
            .turns(6)
            .late(0, policy)
            .turns(6),
        )
        yield (
            f"held-second-try-{policy}",
            Conversation(servers=2, second_try_after_ms=100, answers=False)
            .identity(0)
            .turn()
            .connect()
            .time(2500)
            .policy(0, "late")
            .ask("get")
            .turns(5)
            .time(150)
            .turns(4)
            .answer("404", 300, server=1)
            .turns(4)
            .late(0, policy)
            .turns(4)
            .time(150)
            .turns(3)
            .answer("404")
            .turns(4),
        )
        yield (
            f"held-two-secrets-{policy}",
            doubted(start=Conversation(answers=False, two_secrets=True))
            .answer("403")
            .turn(5)
            .answer("404", 300)
            .turn(3)
            .late(0, policy)
            .turn(5),
        )
    # The same connection, request after request, one of them at the edge of every time.
    yield (
        "held-at-every-age",
        Conversation(answer="404", length=50)
        .connect()
        .policy(0, "same")
        .ask("get")
        .turns(7)
        .time(1500)
        .ask("get")
        .turns(6)
        .time(500)
        .ask("get")
        .turns(6)
        .time(9000)
        .ask("get")
        .turns(6)
        .time(2000)
        .ask("get")
        .turns(6),
    )
