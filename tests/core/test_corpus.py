"""The corpus itself: enough of it, every case with a name of its own and the section that decides it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from fastmeta._core import _parse_request
from tests.vectors import FOLDER, KINDS, files, load, variants

# "RFC 9112 section 5.1", "RFC 9110 sections 5.1 and 5.3", "RFC 9112 section 6.3 rule 3": it comes first.
SECTION = re.compile(r"RFC \d{4} sections? \d+(\.\d+)*")

STATUS = range(200, 600)
REQUIRED: dict[str, dict[str, type]] = {
    "requests accept": {"head": str, "reads": dict},
    "requests refuse": {"head": str, "status": int},
    "chunked accept": {"coded": str, "content": str},
    "chunked refuse": {"coded": str},
    "messages messages": {"sent": str, "requests": list},
    "responses accept": {"head": str, "reads": dict},
    "responses refuse": {"head": str},
    "answers answers": {"sent": str, "gets": int, "kept": bool},
}
OPTIONAL: dict[str, dict[str, type]] = {
    "requests accept": {"body": str, "then": int},
    "requests refuse": {"body": str},
    "messages messages": {"then": object},
    "responses accept": {"to_head": bool},
    "responses refuse": {"to_head": bool},
    "answers answers": {
        "method": str, "version": str, "ends": bool, "later": str, "content": str, "framing": str, "length": int,
        "headers": list, "cut": bool,
    },
}  # fmt: skip
EVERYWHERE = {"name": str, "why": str, "fill": list, "bytes": str, "peers": str, "varies": str}


def lists() -> list[tuple[str, str, dict[str, Any]]]:
    return [(kind, verdict, file) for kind in KINDS for file in files(kind) for verdict in KINDS[kind][0]]


def test_there_are_enough() -> None:
    named = [case["name"] for _, verdict, file in lists() for case in file.get(verdict, ())]
    assert len(named) >= 300, len(named)
    assert len({kind for kind, verdict, file in lists() if file.get(verdict)}) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_unique(kind: str) -> None:
    """In their folder; and so are the messages that stand behind them, but for what is compared in another way."""
    names = [case["name"] for of, verdict, file in lists() if of == kind for case in file.get(verdict, ())]
    assert sorted(names) == sorted(set(names))
    groups = [file["group"] for file in files(kind)]
    assert sorted(groups) == sorted(set(groups))


@pytest.mark.parametrize("kind", KINDS)
def test_no_case_is_another_one(kind: str) -> None:
    """Two names for the same bytes would count twice."""
    verdicts, key = KINDS[kind]
    seen: dict[tuple[Any, ...], str] = {}
    for file in files(kind):
        for verdict in verdicts:
            for case in file.get(verdict, ()):
                if "bytes" in case:
                    continue
                ((_, data),) = variants(case, key)
                how = [case.get(word) for word in ("body", "to_head", "method", "version", "ends", "later")]
                same = seen.setdefault((data, *how), case["name"])
                assert same == case["name"], (same, case["name"])


@pytest.mark.parametrize(
    ("kind", "verdict", "file"),
    lists(),
    ids=lambda value: value["group"] if isinstance(value, dict) else value,
)
def test_every_case_says_all_that_it_must(kind: str, verdict: str, file: dict[str, Any]) -> None:
    assert set(file) <= {"group", "strict", *KINDS[kind][0]}
    assert SECTION.search(file["strict"])
    required = REQUIRED[f"{kind} {verdict}"] | {"name": str, "why": str}
    allowed = required | OPTIONAL.get(f"{kind} {verdict}", {}) | EVERYWHERE
    for case in file.get(verdict, ()):
        assert set(required) <= set(case) <= set(allowed), case
        assert all(isinstance(case[key], allowed[key]) for key in case), case
        assert SECTION.match(case["why"]), case
        assert case.get("status", 400) in STATUS
        data = variants(case, KINDS[kind][1])
        assert len(dict(data)) == len(data) > 0, case
        assert ("fill" in case) == any("<fill>" in str(case[key]) for key in case), case
        if kind == "messages":
            assert case.get("then") in ("open", "closes", "waits") or case["then"] in STATUS, case


def test_no_file_is_left_out() -> None:
    known = {path for kind in KINDS for path in (FOLDER / kind).glob("*.yaml")}
    assert set(FOLDER.glob("*/*")) - known - set(FOLDER.glob("__pycache__/*")) == set()
    assert {path.name for path in FOLDER.iterdir() if path.is_dir()} - {"__pycache__"} == set(KINDS)
    assert load("hmac_sha256")


def test_a_hidden_request_is_whole() -> None:
    """A length that does not fit its content would make a harmless case of a bad one."""
    hidden = b"GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n"
    assert isinstance(_parse_request(hidden), dict)
    for case in (case for file in files("messages") for case in file["messages"]):
        sent = variants(case, "sent")[0][1]
        for claimed in re.findall(rb"\r\nContent-Length ?: (3\d)\r\n", sent):
            content = sent.split(b"\r\n\r\n", 1)[1]
            assert len(content) == int(claimed) or content.startswith((b"0\r\n", b"21\r\n")), case
