#!/usr/bin/env python3
"""Writes docs/http-parsing.md: every case of tests/vectors that h11, llhttp, haproxy or nginx read otherwise.

Usage: tools/http_parsing.py [--check]: with --check nothing is written, and the exit status is 1 when a fresh run says
something else than the file in docs/. Takes half a minute: haproxy and nginx run with real connections.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import h11  # noqa: E402
import httptools  # noqa: E402

from tests.peers import corpus, proxies, readers  # noqa: E402
from tests.peers.outcomes import LAXER, OTHER, REFUSES, SAME, STRICTER, compared, compared_answers  # noqa: E402
from tests.vectors import KINDS, files  # noqa: E402

FILE = ROOT / "docs" / "http-parsing.md"

PEERS = ("h11", "llhttp", "haproxy", "nginx")

TITLES = {
    "requests": "Heads of requests",
    "chunked": "Chunked bodies",
    "messages": "All that a guest sends",
    "responses": "Heads of answers",
    "answers": "All that Nova sends",
}

INTRODUCTION = """\
# How we read HTTP, and where others differ

<!-- Made by tools/http_parsing.py from tests/vectors and from what the peers did; the reasons are in the data. -->

fastmeta stands between guests that it cannot trust and a Nova that it shares among them. Two readers of the same bytes
that disagree on where a message ends are how requests are smuggled (RFC 9112 section 11.2), so about framing we accept
one spelling of everything, and refuse the rest; about what frames nothing (paths, Host, HTTP/1.0, harmless headers) we
take what guests send. Whatever is accepted is sent to Nova in a head of our own, with one framing, ours.

The cases are in [tests/vectors](../tests/vectors/README.md). The tests hold the core against all of them; here the same
cases are held against four peers as they are installed, each with its own defaults. haproxy (configured as Neutron does
it) and nginx run between clients and an upstream that records; h11 and llhttp (httptools) are called. In the tables:

- *we*: **reads it**, or the status with which it is refused; of a whole conversation, the requests that reach Nova.
- An empty cell: as we do. One refusal is as good as another. *waits*: it takes the bytes for the beginning of
  something; *reads it*, *2 requests*: that much reaches those behind it; *other content*: with another end than we see.
- *12 of 33*: the case stands for many bytes. *not asked*: httptools knows no HEAD.
- llhttp and h11 are parsers: what Host says, methods and limits are left to those who use them. nginx takes an answer
  without a head that it knows for one of HTTP/0.9, and *passes it on* as it is.
- *varies*: one and the same peer reads it in more than one way.

A peer that is laxer than we are is not wrong: it may be right about what stands behind it, and RFC 9112 allows much of
it. We do not know who stands before and behind us, so we choose what none of them can misread.
"""


@dataclass
class Row:
    """One case: what is right, and for each peer what it did with how many of its messages."""

    kind: str
    case: Any
    right: str
    number: int = 0
    ways: dict[str, Counter[str]] = field(default_factory=lambda: {peer: Counter() for peer in PEERS})
    says: dict[str, Counter[str]] = field(default_factory=lambda: {peer: Counter() for peer in PEERS})

    def note(self, peer: str, way: str, what: str) -> None:
        if self.case.get("varies") == peer:
            way, what = LAXER, "varies"
        self.ways[peer][way] += 1
        if way != SAME:
            self.says[peer][what] += 1

    def way(self, peer: str) -> str:
        """How the peer compares over all messages of the case: the worst of it."""
        return next((way for way in (LAXER, OTHER, STRICTER, SAME) if self.ways[peer][way]), "")

    def cell(self, peer: str) -> str:
        if not self.ways[peer]:
            return "not asked"
        if self.number == 1 or "varies" in self.says[peer]:
            return next(iter(self.says[peer]), "")
        return ", ".join(f"{what}: {n} of {self.number}" for what, n in sorted(self.says[peer].items()))


def right_of(sent: corpus.Sent) -> str:
    """In the words of the tables."""
    number = len(sent.right.requests)
    if sent.kind != "messages":
        return "reads it" if number else sent.right.end
    end = f"then {sent.right.end}" if sent.right.refused else ""
    return (
        ", ".join(filter(None, [f"{number} request{'' if number == 1 else 's'}" if number else "", end]))
        or "waits"
    )


def right_of_answer(answer: corpus.Answered) -> str:
    if answer.right.end == REFUSES:
        return "502"
    return "reads it" if answer.right.whole else "reads it, cut"


def measured() -> list[Row]:
    """Every case with what every peer does."""
    rows: dict[tuple[str, str], Row] = {}
    sent, answered = list(corpus.requests()), list(corpus.answers())

    def row(kind: str, case: Any, right: str) -> Row:
        return rows.setdefault((kind, case["name"]), Row(kind, case, right))

    for one in sent:
        row(one.kind, one.case, right_of(one)).number += 1
    for answer in answered:
        row(answer.kind, answer.case, right_of_answer(answer)).number += 1
    for peer in PEERS:
        for one, read in zip(sent, readings(peer, sent), strict=True):
            rows[one.kind, one.case["name"]].note(peer, *compared(one.right, read))
        for answer, found in zip(answered, answer_readings(peer, answered), strict=True):
            if found is not None:
                rows[answer.kind, answer.case["name"]].note(peer, *compared_answers(answer.right, found))
    return list(rows.values())


def readings(peer: str, sent: Sequence[corpus.Sent]) -> list[Any]:
    if peer in ("haproxy", "nginx"):
        return list(proxies.requests(peer, [one.data for one in sent]))
    read = readers.h11_requests if peer == "h11" else readers.llhttp_requests
    return [read(one.data) for one in sent]


def answer_readings(peer: str, answered: Sequence[corpus.Answered]) -> list[Any]:
    if peer in ("haproxy", "nginx"):
        return list(proxies.answers(peer, [one.asked() for one in answered]))
    read = readers.h11_answer if peer == "h11" else readers.llhttp_answer
    return [read(one.data + one.later, one.method, one.ends) for one in answered]


def versions() -> str:
    """The line that says which peers these are."""
    return (
        f"The peers of this table: h11 {h11.__version__}, llhttp as in httptools {httptools.__version__}, "
        f"haproxy {proxies.version('haproxy')}, nginx {proxies.version('nginx')}."
    )


def escaped(text: str) -> str:
    return (
        " ".join(text.split())
        .replace("\\", "\\\\")
        .replace("|", "\\|")
        .replace("<", "&lt;")
        .replace("*", "\\*")
    )


def why(case: Any) -> str:
    return escaped(case["why"] + (f" — {case['peers']}" if "peers" in case else ""))


def summary(rows: Sequence[Row]) -> str:
    """How many cases of each peer compare how."""
    messages = sum(row.number for row in rows)
    lines = [
        f"\n{len(rows)} cases, which stand for {messages} messages. Of the cases, each peer reads so many:\n\n",
        "| peer | as we do | laxer | stricter | otherwise | not asked |\n|---|---|---|---|---|---|\n",
    ]
    for peer in PEERS:
        count = Counter(row.way(peer) for row in rows)
        numbers = " | ".join(str(count[way]) for way in (SAME, LAXER, STRICTER, OTHER, ""))
        lines.append(f"| {peer} | {numbers} |\n")
    return "".join(lines)


def document(rows: Sequence[Row]) -> str:
    parts = [INTRODUCTION, "\n", versions(), "\n", summary(rows)]
    for kind, title in TITLES.items():
        parts.append(f"\n## {title}\n")
        for file in files(kind):
            parts.append(f"\n### {file['group']}\n\n{' '.join(file['strict'].split())}")
            cases = sum(len(file.get(verdict, ())) for verdict in KINDS[kind][0])
            here = [row for row in rows if row.kind == kind and row.case["group"] == file["group"]]
            differ = [row for row in here if any(row.says[peer] for peer in PEERS)]
            parts.append(f" ({cases} cases; on {cases - len(differ)} of them all agree.)\n")
            if differ:
                parts.append(f"\n| case | we | {' | '.join(PEERS)} | why |\n|---|---|---|---|---|---|---|\n")
            for row in differ:
                cells = " | ".join(row.cell(peer) for peer in PEERS)
                parts.append(f"| {escaped(row.case['name'])} | {row.right} | {cells} | {why(row.case)} |\n")
    return "".join(parts)


def main() -> int:
    text = document(measured())
    if "--check" in sys.argv[1:]:
        if not FILE.exists() or FILE.read_text(encoding="utf-8") != text:
            print(f"{FILE} is not what the peers do: run tools/http_parsing.py", file=sys.stderr)
            return 1
        return 0
    FILE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
