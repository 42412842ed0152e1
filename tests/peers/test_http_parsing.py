"""docs/http-parsing.md says what the data and the peers say, and the tool that writes it can tell readers apart."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.vectors import KINDS, files

from . import corpus, readers
from .outcomes import (
    CLOSES,
    LAXER,
    OPEN,
    OTHER,
    REFUSES,
    SAME,
    STRICTER,
    WAITS,
    AnswerReading,
    Reading,
    compared,
    compared_answers,
)

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "http-parsing.md"

needs_proxies = pytest.mark.skipif(
    any(shutil.which(name, path="/usr/sbin:/usr/bin") is None for name in ("haproxy", "nginx")),
    reason="haproxy or nginx is not installed",
)


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("http_parsing", ROOT / "tools" / "http_parsing.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def rows_of(text: str) -> list[list[str]]:
    """The rows of the tables of cases: case, we, the peers, why."""
    rows = [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [row for row in rows if len(row) == 7 and row[0] != "case"]


def test_the_document_says_what_the_data_say(tool: ModuleType) -> None:
    """All that does not depend on the peers: the reasons of groups and cases, what is right, how many there are."""
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text.startswith(tool.INTRODUCTION)
    known = {}
    for one in corpus.requests():
        known[one.kind, one.case["name"]] = tool.Row(one.kind, one.case, tool.right_of(one))
    for answer in corpus.answers():
        known[answer.kind, answer.case["name"]] = tool.Row(
            answer.kind, answer.case, tool.right_of_answer(answer)
        )
    assert f"\n{len(known)} cases, " in text
    for kind, title in tool.TITLES.items():
        part = text.split(f"\n## {title}\n")[1].split("\n## ")[0]
        right = {
            (tool.escaped(row.case["name"]), row.right, tool.why(row.case))
            for (of, _), row in known.items()
            if of == kind
        }
        written = [(row[0], row[1], row[-1]) for row in rows_of(part)]
        assert set(written) <= right, set(written) - right
        assert len(written) == len(set(written)) > 0
        for file in files(kind):
            number = sum(len(file.get(verdict, ())) for verdict in KINDS[kind][0])
            group = part.split(f"\n### {file['group']}\n\n")[1].split("\n### ")[0]
            assert group.startswith(" ".join(file["strict"].split()) + f" ({number} cases; ")


@needs_proxies
@pytest.mark.timeout(240)
def test_the_document_is_what_the_peers_do(tool: ModuleType) -> None:
    """A fresh run. Peers of other versions read some cases in another way: then most of it must still be so."""
    written = DOCUMENT.read_text(encoding="utf-8")
    fresh = tool.document(tool.measured())
    if tool.versions() not in written:
        then = {(row[0], row[-1]) for row in rows_of(written)}
        now = {(row[0], row[-1]) for row in rows_of(fresh)}
        assert len(then & now) >= 0.7 * len(then | now), then ^ now
        return
    if fresh != written:
        fresh = tool.document(tool.measured())  # a busy machine may have been too slow for a proxy's timeouts
    assert fresh == written, "run tools/http_parsing.py"


GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n"


@pytest.mark.parametrize("read", [readers.h11_requests, readers.llhttp_requests], ids=["h11", "llhttp"])
def test_readers_of_requests(read: Any) -> None:
    assert read(GET) == Reading((("GET", b""),), OPEN)
    assert read(POST + b"abc" + GET) == Reading((("POST", b"abc"), ("GET", b"")), OPEN)
    assert read(POST + b"ab") == Reading((), WAITS)
    assert read(GET[:-2]) == Reading((), WAITS)
    assert read(b"GET / HTTP/1.1\r\nA b: c\r\n\r\n") == Reading((), REFUSES)
    assert read(GET + b"\0\r\n\r\n") == Reading((("GET", b""),), REFUSES)
    closing = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    assert read(closing).requests == read(closing + GET).requests == (("GET", b""),)


@pytest.mark.parametrize("read", [readers.h11_answer, readers.llhttp_answer], ids=["h11", "llhttp"])
def test_readers_of_answers(read: Any) -> None:
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    assert read(whole, "GET", False) == AnswerReading(200, b"hello", True)
    assert read(b"HTTP/1.1 100 Continue\r\n\r\n" + whole, "GET", False) == AnswerReading(200, b"hello", True)
    assert read(b"HTTP/1.1 200 OK\r\n\r\nhello", "GET", True) == AnswerReading(200, b"hello", True)
    cut = read(whole[:-1], "GET", True)
    assert (cut.status, cut.content, cut.whole) == (200, b"hell", False)
    assert read(b"\0\r\n\r\n", "GET", False).end == REFUSES


def test_comparing_requests() -> None:
    one, two = Reading((("GET", b""),), OPEN), Reading((("GET", b""), ("GET", b"")), OPEN)
    none = Reading((), "400")
    assert compared(one, one) == (SAME, "")
    assert compared(none, Reading((), REFUSES)) == compared(none, Reading((), CLOSES)) == (SAME, "")
    assert compared(none, one) == (LAXER, "reads it")
    assert compared(none, two) == (LAXER, "2 requests")
    assert compared(none, Reading((), WAITS)) == (LAXER, WAITS)
    assert compared(one, none) == (STRICTER, "400")
    assert compared(one, two) == (LAXER, "2 requests")
    assert compared(two, Reading(one.requests, REFUSES)) == (STRICTER, "1 request, then refuses")
    assert compared(one, Reading((("GET", b"x"),), OPEN)) == (OTHER, "other content")
    assert compared(Reading(one.requests, "400"), one) == (LAXER, "then open")


def test_comparing_answers() -> None:
    good, cut = AnswerReading(200, b"x", True), AnswerReading(200, b"x", False)
    assert compared_answers(good, good) == (SAME, "")
    assert compared_answers(corpus.NONSENSE, AnswerReading(0, b"", False, REFUSES)) == (SAME, "")
    assert compared_answers(corpus.NONSENSE, good) == (LAXER, "reads it")
    assert compared_answers(corpus.NONSENSE, cut) == (LAXER, "reads the head")
    assert compared_answers(good, cut) == (STRICTER, "cut")
    assert compared_answers(cut, good) == (LAXER, "whole")
    assert compared_answers(good, AnswerReading(0, b"", False, REFUSES)) == (STRICTER, REFUSES)
    assert compared_answers(good, AnswerReading(200, b"y", True)) == (OTHER, "other content")
    assert compared_answers(good, AnswerReading(404, b"x", True)) == (OTHER, "status 404")
