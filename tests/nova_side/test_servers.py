"""Rule 3, tried with real servers: each asker gets its own answer, byte for byte; connections are used again where the
server allows it, and never where it does not."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pytest

from tests.core.loop_kit import Rig, instance_of

from .application import content, mark
from .servers import SERVERS

SCOPES = 3
ADDRESSES = 3
REQUESTS = 25

TARGETS = (
    "/small",
    "/small/further?with=query",
    "/large/1000",
    "/large/70000",
    "/large/300000",
    "/chunked/10",
    "/chunked/200000",
    "/empty",
    "/none",
    "/absent",
)


class Talker:
    """A guest that asks, now on a kept connection, now on one for each request, and looks at every byte."""

    def __init__(self, rig: Rig, scope: int, address: str, seed: int) -> None:
        self.rig, self.scope, self.address = rig, scope, address
        self.chance = random.Random(seed)
        self.wrong: list[object] = []
        self.gets = self.posts = 0

    def talk(self) -> None:
        try:
            guest = None
            for number in range(REQUESTS):
                if guest is None:
                    guest = self.rig.guest(self.address, listener=self.scope)
                keep = self.chance.random() < 0.6
                self.ask(guest, number, keep)
                if not keep:
                    assert guest.ended() == "closed"
                    guest.close()
                    guest = None
        except BaseException as error:
            self.wrong.append(repr(error))

    def ask(self, guest, number: int, keep: bool) -> None:
        method = self.chance.choice(("GET", "GET", "GET", "HEAD", "POST"))
        more = [] if keep else ["Connection: close"]
        body = b""
        if method == "POST":
            self.posts += 1
            target = f"/echo/{number}"
            body = self.chance.randbytes(self.chance.choice((0, 1, 1000, 60_000, 200_000)))
            guest.post(body, target, *more)
        else:
            self.gets += 1
            target = self.chance.choice(TARGETS)
            guest.get(target, *more, method=method)
        answer = guest.answer(method)
        line = mark(instance_of(self.scope, self.address), f"project-{self.scope}", self.address, target)
        status, data = content(line, target, body)
        if method == "HEAD":
            data = b""
        if (answer.status, bytes(answer.body), answer.whole) != (int(status[:3]), data, True):
            self.wrong.append((method, target, answer.status, bytes(answer.body[:200]), answer.whole))


def talk(rig: Rig) -> list[Talker]:
    """Several tenants with the same addresses ask at once."""
    for scope in range(2, SCOPES + 1):
        rig.add_listener(scope, scope)
    talkers = [
        Talker(rig, scope, f"127.0.0.{number + 2}", scope * 100 + number)
        for scope in range(1, SCOPES + 1)
        for number in range(ADDRESSES)
    ]
    threads = [threading.Thread(target=talker.talk) for talker in talkers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert [wrong for talker in talkers for wrong in talker.wrong] == []
    return talkers


@pytest.mark.parametrize("name", SERVERS)
def test_everybody_gets_their_own_answer(before: Callable[..., Rig], name: str) -> None:
    """Three tenants, each with the same three addresses, all at once; no error, no stray, every byte."""
    rig = before(name)
    talkers = talk(rig)
    gets = sum(talker.gets for talker in talkers)
    posts = sum(talker.posts for talker in talkers)
    stats = rig.loop.stats()
    assert gets + posts == SCOPES * ADDRESSES * REQUESTS == stats["requests"]
    assert stats["answers_5xx"] == stats["aborted"] == stats["refused"] == stats["upstream_failures"] == 0
    print(f"{name}: {gets} + {posts}, connects {stats['upstream_connects']}, stale {stats['stale_retries']}")
    if SERVERS[name].keeps:
        # Each POST has a connection of its own, but what it leaves may be used again.
        assert stats["upstream_connects"] < posts + gets / 2
    elif SERVERS[name].says:
        assert stats["upstream_connects"] == gets + posts
        assert stats["stale_retries"] == 0
    else:
        # Some were kept until their end came, a moment after the answer; a request that took one went out again.
        assert stats["upstream_connects"] >= gets + posts
