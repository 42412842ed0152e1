"""What a reader of HTTP made of some bytes, and how that compares with what the corpus says is right."""

from __future__ import annotations

from dataclasses import dataclass

# How reading ended, when it is no status of an answer.
OPEN = "open"  # at the end of a message
REFUSES = "refuses"
CLOSES = "closes"  # without an answer
WAITS = "waits"  # for more

SAME = "="


@dataclass(frozen=True)
class Reading:
    """Of what a guest sent. requests: (method, content) of all that are whole; end: OPEN, REFUSES, CLOSES,
    WAITS, or the status that ended it."""

    requests: tuple[tuple[str, bytes], ...]
    end: str

    @property
    def refused(self) -> bool:
        return self.end not in (OPEN, WAITS)


@dataclass(frozen=True)
class AnswerReading:
    """Of what an upstream sent. status: of the answer that a guest would get; 0 when there is none."""

    status: int
    content: bytes
    whole: bool
    end: str = OPEN


def compared(right: Reading, read: Reading) -> str:
    """SAME, or what was made of it instead. One refusal is as good as another; and whether a connection lives on after
    its last request is not compared."""
    found = len(read.requests)
    if read.requests == right.requests:
        if right.refused == read.refused or (found and read.end == CLOSES and right.end == OPEN):
            return SAME
        return f"then {read.end}" if found else read.end
    if found == 0:
        return read.end
    if len(right.requests) == 0:
        return "reads it" if found == 1 else f"{found} requests"
    if found != len(right.requests):
        return f"{found} request{'s' if found > 1 else ''}" + (f", then {read.end}" if read.refused else "")
    return "other content"


def compared_answers(right: AnswerReading, read: AnswerReading) -> str:
    """As compared, for an answer; right.status 502 and no content: the upstream's answer is nonsense."""
    nonsense = right.status == 502 and right.end == REFUSES
    if read.status == 0:
        return SAME if nonsense and read.end == REFUSES else read.end
    if nonsense:
        return "reads it" if read.whole else "reads the head"
    if (read.status, read.content, read.whole) == (right.status, right.content, right.whole):
        return SAME
    if read.status != right.status:
        return f"status {read.status}"
    if read.content != right.content:
        return "other content"
    return "whole" if read.whole else "cut"
