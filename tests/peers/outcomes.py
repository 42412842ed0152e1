"""What a reader of HTTP made of some bytes, and how that compares with what the corpus says is right."""

from __future__ import annotations

from dataclasses import dataclass

# How reading ended, when it is no status of an answer.
OPEN = "open"  # at the end of a message
REFUSES = "refuses"
CLOSES = "closes"  # without an answer
WAITS = "waits"  # for more
PASSES = "passes it on"  # as it is, without a head

# How a reading compares.
SAME = "as we do"
LAXER = "laxer"  # it takes what we refuse
STRICTER = "stricter"  # it refuses what we take
OTHER = "otherwise"  # both take it, for something else


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


def compared(right: Reading, read: Reading) -> tuple[str, str]:
    """(how it compares, what was made of it). One refusal is as good as another; and whether a connection lives on
    after its last request is not compared."""
    found, wanted = len(read.requests), len(right.requests)
    if read.requests == right.requests:
        if right.refused == read.refused or (found and read.end == CLOSES):
            return SAME, ""
        return (LAXER if right.refused else STRICTER), f"then {read.end}" if found else read.end
    if found == wanted:
        return OTHER, "other content"
    if found > wanted:
        return LAXER, "reads it" if found == 1 else f"{found} requests"
    if found == 0:
        return STRICTER, read.end
    return STRICTER, f"{found} request{'s' if found > 1 else ''}, then {read.end}"


def compared_answers(right: AnswerReading, read: AnswerReading) -> tuple[str, str]:
    """As compared, for an answer; right.end REFUSES: the upstream's answer is nonsense."""
    if right.end == REFUSES:
        if read.status:
            return LAXER, "reads it" if read.whole else "reads the head"
        return (SAME, "") if read.end == REFUSES else (LAXER, read.end)
    if read.status == 0:
        return STRICTER, read.end
    if (read.status, read.content, read.whole) == (right.status, right.content, right.whole):
        return SAME, ""
    if read.status != right.status:
        return OTHER, f"status {read.status}"
    if read.whole and not right.whole:
        return LAXER, "whole"
    return (OTHER, "other content") if read.content != right.content else (STRICTER, "cut")
