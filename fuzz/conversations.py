"""The conversations that fuzzing starts from, one operation a call."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz.operations import ANSWERS, ASKS, CALLS, CLOSE, FIN, POLICIES, RESET, UNBOUNDED, Conversation


def few_descriptors_left() -> Conversation:
    """60 guests that are idle, and a Nova that answers no more."""
    conversation = Conversation()
    for _ in range(4):
        conversation.crowd(0, 15).turns(8)
    return conversation.nova(answers=False).limits(80)


def conversations() -> Iterator[tuple[str, Conversation]]:
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
    for call in CALLS:
        if call == "calls":
            continue
        for error in range(0, 8, 3):
            yield (
                f"fault-{call}-{error}",
                new(access_log=True)
                .connect()
                .ask("get")
                .fault(call, error, 2, error)
                .turn(4)
                .connect()
                .ask("post", 2000, guest=1)
                .turn(4)
                .connect(1)
                .ask("get", guest=2)
                .turn(4),
            )
    for fault in range(1, 33, 2):
        yield f"start-fault-{fault}", new(start_fault=fault).connect().ask("get").turn(3)
        yield f"start-fault-memory-{fault}", new(start_fault=fault // 2 * 4 | 2).connect().ask("get").turn(3)
    yield (
        "descriptors-run-out",
        new().limits(25).crowd(0, 8).turn(8).limits(0).time(100).turn(5).to_timer().turn(5),
    )
    yield (
        "descriptors-run-out-and-nobody-goes",
        new(opens=False, answers=False).limits(25).crowd(0, 8).turn(4),
    )
    # Idle connections make room for connections to Nova while their listener drains, or the loop stops.
    yield "draining-makes-room", few_descriptors_left().all_ask().remove_listener(drain=True).turns(15)
    yield "stopping-makes-room", few_descriptors_left().all_ask().stop(1000).turns(15)
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
    for call, error in (("recv", 0), ("recv", 1), ("send", 1), ("send", 2), ("watch", 0), ("memory", 0)):
        for skip in range(0, 8, 2):
            yield (
                f"body-and-fault-{call}-{error}-{skip}",
                new(answers=False)
                .connect()
                .queue("post_slow", 600)
                .deliver(100)
                .connect()
                .queue("post_slow", 150_000, guest=1)
                .deliver(100, guest=1)
                .turn(5)
                .fault(call, skip, 2, error)
                .body(100)
                .body(100, guest=1)
                .turn(2)
                .body(600)
                .body(90_000, guest=1)
                .turn(3)
                .answer()
                .turn(3),
            )
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
    yield (
        "revoked-before-the-kernel-takes-a-byte",
        new().connect().guest_window(0).ask().turn(5).revoke(0).turn(2).guest_window(UNBOUNDED).turn(6),
    )
    yield "sends-of-one-byte", new().limits(0, 1).connect().ask("post", 40).turn(9).ask("get").turn(9)
    yield "more-than-a-batch", new().crowd(0, 255).turn(4).crowd(1, 255).turn(6)
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
    yield "too-slow-head", new().connect().queue().deliver(9).turn(2).time(10_000).turn(2)
    yield "idle-too-long", new().connect().ask("get").turn(6).time(31_000).turn(3)
    yield "pool-idle-too-long", new().connect().ask("get").turn(6).time(4000).turn(3).ask("get").turn(6)
    yield (
        "bytes-on-an-idle-connection",
        new().connect().ask("get").turn(6).server_raw(b"x").turn(2).ask("get").turn(5),
    )
    yield (
        "bytes-on-an-idle-connection-in-the-turn",
        new()
        .connect()
        .ask("get")
        .turn(6)
        .ask("get")
        .interrupt(0)
        .server_raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
        .turn(4),
    )
    yield (
        "stale-connection",
        new().connect().ask("get").turn(6).ask("get").interrupt(1).server_ends(CLOSE).turn(6),
    )
    yield (
        "answered-twice-late",
        new(answers=False)
        .connect()
        .ask("get")
        .connect(1)
        .turn(5)
        .answer("length", 20)
        .turn(2)
        .answer_queue("length", 30)
        .ask("get", guest=1)
        .turn(3)
        .server_delivers(199)
        .turn(2)
        .answer("length", 40)
        .turn(3),
    )
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
        "upstream-is-replaced",
        new().connect().ask("get").turn(3).upstream(2, ipv6=True).turn(4).ask("get").turn(6),
    )
    yield (
        "upstream-times-out",
        new(answers=False, upstream_timeout_ms=1000).connect().ask("get").turn(5).time(1000).turn(3),
    )
    yield (
        "upstream-stops-in-the-middle",
        new(answers=False, upstream_timeout_ms=1000)
        .connect()
        .ask("get")
        .turn(5)
        .answer("half", 500)
        .turn(2)
        .time(2000)
        .turn(3),
    )
    yield (
        "silent-upstream-pauses",
        new(answers=False)
        .connect()
        .ask("get")
        .turn(5)
        .server_ends(CLOSE)
        .turn(2)
        .time(300)
        .turn(5)
        .server_ends(CLOSE)
        .turn(2)
        .time(500)
        .turn(5)
        .answer()
        .turn(3),
    )
    yield (
        "events-not-read",
        new().events(False).crowd(0, 15).turn(4).time(1500).crowd(0, 15).turn(4).events(True).turn(6),
    )
    yield (
        "identities-end",
        new(policy="short", other_policy="expired")
        .crowd(0, 5)
        .crowd(1, 5)
        .turn(8)
        .time(1000)
        .turn(3)
        .crowd(0, 5)
        .turn(8),
    )
    yield (
        "absent-kept",
        new(policy="absent", max_absent=2).crowd(0, 5).turn(6).crowd(0, 5).turn(4).time(3000).turn(4),
    )
    yield (
        "drained-with-a-queue",
        new().connect().ask("get").turn(6).crowd(0, 9).remove_listener(0, drain=True).turn(9),
    )
    yield (
        "pipelined-and-mixed",
        new().connect().ask("many", 5).ask("head").ask("post", 300).ask("get_close").ask("get").turn(12),
    )
    yield from several_servers()


def several_servers() -> Iterator[tuple[str, Conversation]]:
    """Second tries, servers that go and come, two secrets."""
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
