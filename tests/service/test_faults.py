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
from .guests import Cut, Guest, Wire
from .upstream import Exchange, Script, Upstream

STRAY = b"<stray>\n"


def answer_then_close(exchange: Exchange) -> bool:
    """A kept connection is closed while it is idle, without having said so."""
    exchange.send(exchange.whole())
    return False


def close_now(exchange: Exchange) -> bool:
    """Closes without an answer; every second request for the same target is answered."""
    if len(exchange.upstream.asked(exchange.request.target)) % 2:
        return False
    exchange.send(exchange.whole())
    return True


def reset_now(exchange: Exchange) -> bool:
    if len(exchange.upstream.asked(exchange.request.target)) % 2:
        exchange.reset()
        return False
    exchange.send(exchange.whole())
    return True


def reset_in_content(exchange: Exchange) -> bool:
    data = exchange.whole(40_000)
    exchange.send(data[: len(data) // 2])
    exchange.reset()
    return False


def close_in_content(exchange: Exchange) -> bool:
    data = exchange.whole(4_000)
    exchange.send(data[: len(data) // 2])
    return False


def close_in_head(exchange: Exchange) -> bool:
    exchange.send(exchange.whole()[:20])
    return False


def stall(exchange: Exchange) -> bool:
    """Never answers."""
    exchange.gone(20)
    return False


def stall_in_content(exchange: Exchange) -> bool:
    exchange.send(exchange.whole(2_000)[:-10])
    exchange.gone(20)
    return False


def twice_in_one_segment(exchange: Exchange) -> bool:
    whole = exchange.whole()
    exchange.send(whole + exchange.head(f"Content-Length: {len(STRAY)}") + STRAY)
    return True


def more_than_it_said(exchange: Exchange) -> bool:
    exchange.send(exchange.whole() + STRAY * 3)
    return True


def content_after_head_request(exchange: Exchange) -> bool:
    content = exchange.content(500)
    exchange.send(exchange.head(f"Content-Length: {len(content)}") + content)
    return True


def content_after_304(exchange: Exchange) -> bool:
    exchange.send(exchange.head(f"Content-Length: {len(STRAY)}", status="304 Not Modified") + STRAY)
    return True


def nonsense(exchange: Exchange) -> bool:
    exchange.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + exchange.whole())
    return True


def two_framings(exchange: Exchange) -> bool:
    exchange.send(exchange.head("Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n")
    return True


def two_lengths(exchange: Exchange) -> bool:
    exchange.send(exchange.head("Content-Length: 5", "Content-Length: 8") + STRAY)
    return True


def bytewise(exchange: Exchange) -> bool:
    for byte in exchange.whole():
        exchange.send(bytes((byte,)))
    return True


def chunked(exchange: Exchange) -> bool:
    content = exchange.content(3_000)
    sizes = random.Random(len(content)).choices((1, 7, 100, 1500), k=200)
    exchange.send(exchange.head("Transfer-Encoding: chunked"))
    while content:
        part, content = content[: sizes[-1]], content[sizes.pop() :]
        exchange.send(b"%x;x=y\r\n%s\r\n" % (len(part), part))
    exchange.send(b"0\r\nTrailer: t\r\n\r\n")
    return True


def chunked_cut(exchange: Exchange) -> bool:
    exchange.send(exchange.head("Transfer-Encoding: chunked") + b"ff\r\n" + exchange.content(100)[:50])
    return False


def chunked_and_more(exchange: Exchange) -> bool:
    content = exchange.content(10)
    exchange.send(
        exchange.head("Transfer-Encoding: chunked")
        + b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content)
        + exchange.head(f"Content-Length: {len(STRAY)}")
        + STRAY
    )
    return True


def until_close(exchange: Exchange) -> bool:
    exchange.send(exchange.head() + exchange.content(20_000))
    return False


def large(exchange: Exchange) -> bool:
    exchange.send(exchange.whole(300_000))
    return True


def interim(exchange: Exchange) -> bool:
    exchange.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 3 + exchange.whole())
    return True


def says_close(exchange: Exchange) -> bool:
    """Says that it closes, and does not: what follows belongs to nobody."""
    exchange.send(exchange.whole(0, "Connection: close") + STRAY)
    return True


WHOLE = 200
CUT = 0

FAULTS: dict[str, tuple[Script, str, tuple[int, ...]]] = {
    # name: (script, method, what a guest may get: a status, or CUT)
    "plain": (lambda exchange: exchange.send(exchange.whole()), "GET", (WHOLE,)),
    "post": (lambda exchange: exchange.send(exchange.whole()), "POST", (WHOLE,)),
    "head": (lambda exchange: exchange.send(exchange.whole(100)), "HEAD", (WHOLE,)),
    "answer-then-close": (answer_then_close, "GET", (WHOLE,)),
    "close-now": (close_now, "GET", (WHOLE,)),
    "close-now-post": (close_now, "POST", (WHOLE, 502)),
    "reset-now": (reset_now, "GET", (WHOLE,)),
    "reset-now-post": (reset_now, "POST", (WHOLE, 502)),
    "reset-in-content": (reset_in_content, "GET", (CUT, 502)),
    "close-in-content": (close_in_content, "GET", (CUT,)),
    "close-in-head": (close_in_head, "GET", (502,)),
    "twice-in-one-segment": (twice_in_one_segment, "GET", (WHOLE,)),
    "more-than-it-said": (more_than_it_said, "GET", (WHOLE,)),
    "content-after-head-request": (content_after_head_request, "HEAD", (WHOLE,)),
    "content-after-304": (content_after_304, "GET", (304,)),
    "nonsense": (nonsense, "GET", (502,)),
    "two-framings": (two_framings, "GET", (502,)),
    "two-lengths": (two_lengths, "GET", (502,)),
    "bytewise": (bytewise, "GET", (WHOLE,)),
    "chunked": (chunked, "GET", (WHOLE,)),
    "chunked-cut": (chunked_cut, "GET", (CUT,)),
    "chunked-and-more": (chunked_and_more, "GET", (WHOLE,)),
    "until-close": (until_close, "GET", (WHOLE,)),
    "large": (large, "GET", (WHOLE,)),
    "interim": (interim, "GET", (WHOLE,)),
    "says-close": (says_close, "GET", (WHOLE,)),
}
STALLS: dict[str, tuple[Script, str, tuple[int, ...]]] = {
    "stall": (stall, "GET", (504,)),
    "stall-in-content": (stall_in_content, "GET", (CUT,)),
}


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
