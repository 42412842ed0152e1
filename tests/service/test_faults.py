"""Rule 3: whatever the metadata API does, a whole answer that a guest gets is its own.

What HTTP/1.1 cannot protect from is a second answer to one request that comes after the connection was given to the
next one: no relay can tell it from the answer to that. So no script here sends one; test_pool.py does, on a connection
that is idle, where it can be seen for what it is.
"""

from __future__ import annotations

import collections
import random
import threading

from .conftest import Setting
from .faults import CUT, FAULTS, STALLS, WHOLE
from .guests import Cut, Guest, Wire
from .upstream import Upstream


def prepared(upstream: Upstream) -> Upstream:
    upstream.scripts |= {name: script for name, (script, _, _) in (FAULTS | STALLS).items()}
    return upstream


class Tenant:
    """One thread of a guest: asks for everything in its own order, and counts what it got."""

    def __init__(self, guest: Guest, number: int, rounds: int) -> None:
        self.guest = guest
        self.number = number
        self.rounds = rounds
        self.counts: collections.Counter[tuple[str, int]] = collections.Counter()
        self.strays: list[str] = []
        self.unexpected: list[str] = []
        self.error: BaseException | None = None
        self.wire: Wire | None = None

    def run(self) -> None:
        try:
            dice = random.Random(self.number)
            for turn in range(self.rounds):
                names = [*FAULTS, *(STALLS if turn == 0 else ())]
                dice.shuffle(names)
                for place, name in enumerate(names):
                    self.ask(name, f"/{name}/{self.number}-{turn}-{place}")
        except BaseException as error:
            self.error = error
        finally:
            self.leave()

    def leave(self) -> None:
        if self.wire is not None:
            self.wire.socket.close()
            self.wire = None

    def ask(self, name: str, target: str) -> None:
        _, method, expected = (FAULTS | STALLS)[name]
        if self.wire is None:
            self.wire = self.guest.connect()
        self.wire.get(target, method=method, body=b"body" if method == "POST" else None)
        mine = self.guest.mark(target)
        try:
            answer = self.wire.answer(method=method)
        except Cut as cut:
            status, text = CUT, cut.got
            self.leave()
        else:
            status, text = answer.status, answer.body
            if status == WHOLE and method != "HEAD" and set(text.splitlines(keepends=True)) != {mine}:
                self.strays.append(f"{target}: {text[:200]!r}")
            if self.wire.unread:
                self.strays.append(f"{target}: more than one answer: {self.wire.unread[:200]!r}")
            if answer.values("connection") == ["close"]:
                self.leave()
        # Also of an answer that is not whole every mark must be its own.
        marks = {line for line in text.split(b"\n") if line.startswith(b"<") and line.endswith(b">")}
        if not marks <= {mine[:-1]}:
            self.strays.append(f"{target}: {marks}")
        if status not in expected:
            self.unexpected.append(f"{target}: {status} {text[:200]!r}")
        self.counts[name, status] += 1


def test_no_guest_ever_gets_a_strangers_answer(setting: Setting) -> None:
    """Rules 1, 3, 5: guests with equal addresses on two networks and behind a router, three threads each, under every
    fault of the metadata API. Strays: none."""
    upstream = prepared(setting.upstream())
    # Few connections, so that guests of different tenants use the same ones.
    setting.agent(upstream, upstream_timeout=1, max_upstream_connections=12)
    guests = setting.cloud.guests.values()
    tenants = [Tenant(guest, 10 * n + m, rounds=3) for n, guest in enumerate(guests) for m in range(3)]
    threads = [threading.Thread(target=tenant.run) for tenant in tenants]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [tenant.error for tenant in tenants if tenant.error] == []
    assert [stray for tenant in tenants for stray in tenant.strays] == []
    # Under load a place may take longer than upstream_timeout, which is 1 s here.
    unexpected = [text for tenant in tenants for text in tenant.unexpected if ": 504 " not in text]
    assert unexpected == []
    got = sum((tenant.counts for tenant in tenants), collections.Counter())
    for name, (_, _, expected) in (FAULTS | STALLS).items():
        assert sum(got[name, status] for status in expected) > 0, name
    # Nothing is left over: not even a connection that could still bring something.
    assert all(guest.is_served("/plain/at-the-end") for guest in guests)
