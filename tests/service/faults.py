"""What a metadata API may do wrong: a script for each."""

from __future__ import annotations

import random

from .upstream import Exchange, Script

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
