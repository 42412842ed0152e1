"""The corpus as messages that can be sent, with what is right for each: a reading of the data, by no parser."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.vectors import Case, cases, filled, to_bytes, variants

from .outcomes import CLOSES, OPEN, REFUSES, WAITS, AnswerReading, Reading

CHUNKED_HEAD = b"POST /chunks HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKED_ANSWER = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
FINAL = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@dataclass(frozen=True)
class Sent:
    """What a guest sends. case: with its group; which: of a case that stands for many, the byte."""

    kind: str
    case: Any
    which: str
    data: bytes
    right: Reading


@dataclass(frozen=True)
class Answered:
    """What an upstream sends: to which method and version, and whether the connection ends behind it."""

    kind: str
    case: Any
    which: str
    data: bytes
    method: str
    version: str
    ends: bool
    right: AnswerReading
    later: bytes = b""

    def asked(self) -> tuple[bytes, bytes, str, str, bool]:
        return self.data, self.later, self.method, self.version, self.ends


def body_of(case: Case, head: bytes) -> tuple[bytes, bytes]:
    """(what follows an accepted head, the content that it means): accepted heads have at most one framing line."""
    if "body" in case:
        return to_bytes(case["body"]), to_bytes(case["body"])
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"transfer-encoding":
            return b"3\r\nabc\r\n0\r\n\r\n", b"abc"
        if name.lower() == b"content-length" and int(value) < 1 << 21:
            return b"b" * int(value), b"b" * int(value)
    return b"", b""


def refused(status: object) -> Reading:
    return Reading((), str(status))


def requests() -> Iterator[Sent]:
    """All that guests send: heads with a content, chunked bodies behind a head, whole messages."""
    for case in cases("requests", "accept"):
        for which, head in variants(case):
            body, content = body_of(case, head)
            method = head.removeprefix(b"\r\n").split(b" ", 1)[0].decode()
            right = refused(case["then"]) if "then" in case else Reading(((method, content),), OPEN)
            yield Sent("requests", case, which, head + body, right)
    for case in cases("requests", "refuse"):
        for which, head in variants(case):
            yield Sent(
                "requests", case, which, head + to_bytes(case.get("body", "")), refused(case["status"])
            )
    for verdict in ("accept", "refuse"):
        for case in cases("chunked", verdict):
            for which, coded in variants(case, "coded"):
                right = refused(400)
                if verdict == "accept":
                    right = Reading((("POST", to_bytes(filled(case, case["content"]))),), OPEN)
                yield Sent("chunked", case, which, CHUNKED_HEAD + coded, right)
    for case in cases("messages", "messages"):
        ((which, sent),) = variants(case, "sent")
        wanted = tuple((method, to_bytes(filled(case, content))) for method, _, content in case["requests"])
        end = {"open": OPEN, "waits": WAITS, "closes": CLOSES}.get(case["then"], str(case["then"]))
        yield Sent("messages", case, which, sent, Reading(wanted, OPEN if end == CLOSES else end))


NONSENSE = AnswerReading(502, b"", True, REFUSES)


def answer_of(case: Case, head: bytes) -> Answered:
    """An accepted head of an answer with a content by its framing, as the data says that it is."""
    reads = case["reads"]
    status = int(head[9:12])
    to_head = case.get("to_head", False)
    method = "HEAD" if to_head else "GET"
    lines = [line.partition(b":") for line in head.split(b"\r\n")[1:]]
    lengths = [int(value) for name, _, value in lines if name.lower() == b"content-length"]
    chunked = any(name.lower() == b"transfer-encoding" for name, _, _ in lines)
    ends = False
    if status < 200:
        right, data = AnswerReading(200, b"hello", True), head + FINAL
    elif to_head or status in (204, 304):
        right, data = AnswerReading(status, b"", True), head
    elif chunked:
        right, data = AnswerReading(status, b"abc", True), head + b"3\r\nabc\r\n0\r\n\r\n"
    elif lengths and lengths[0] > 1000:
        right, data, ends = AnswerReading(status, b"xxxxxxxxxx", False), head + b"xxxxxxxxxx", True
    elif lengths:
        right, data = AnswerReading(status, b"x" * lengths[0], True), head + b"x" * lengths[0]
    else:
        assert reads["framing"] == "close", case
        right, data, ends = AnswerReading(status, b"abc", True), head + b"abc", True
    return Answered("responses", case, "", data, method, "1.1", ends, right)


def answers() -> Iterator[Answered]:
    """All that an upstream sends: heads with a content, chunked contents, whole answers."""
    for case in cases("responses", "accept"):
        for which, head in variants(case):
            found = answer_of(case, head)
            yield Answered(**{**vars(found), "which": which})
    for case in cases("responses", "refuse"):
        method = "HEAD" if case.get("to_head") else "GET"
        for which, head in variants(case):
            yield Answered("responses", case, which, head + b"hello", method, "1.1", False, NONSENSE)
    for case in cases("answers", "answers"):
        ((which, sent),) = variants(case, "sent")
        right = NONSENSE
        if "content" in case:
            content = to_bytes(filled(case, case["content"]))
            right = AnswerReading(case["gets"], content, not case.get("cut", False))
        method, version = case.get("method", "GET"), case.get("version", "1.1")
        later = to_bytes(case.get("later", ""))
        yield Answered("answers", case, which, sent, method, version, case.get("ends", False), right, later)
