"""Test cases as data: what is accepted and refused, with the section of the RFC that says so.

tests/vectors/README.md says what the files hold. Text in them is Latin-1: one character is one byte.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent

# What stands in a case for what is put in its place.
BYTE = "<byte>"
FILL = "<fill>"

# kind -> the lists of cases that its files may have; the key under which a case has its bytes.
KINDS = {
    "requests": (("accept", "refuse"), "head"),
    "chunked": (("accept", "refuse"), "coded"),
    "messages": (("messages",), "sent"),
    "responses": (("accept", "refuse"), "head"),
    "answers": (("answers",), "sent"),
}

Case = dict[str, Any]


@functools.cache
def load(name: str) -> Any:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))


def files(kind: str) -> list[Any]:
    """The files of a kind, in their order; each is a group of cases."""
    return [load(f"{kind}/{path.stem}") for path in sorted((FOLDER / kind).glob("*.yaml"))]


def cases(kind: str, verdict: str) -> list[Case]:
    """All cases of a kind; verdict: the list that they are in, such as accept or refuse."""
    return [{"group": file["group"], **case} for file in files(kind) for case in file.get(verdict, ())]


def groups(kind: str, verdict: str) -> dict[str, list[Case]]:
    """The same by the name of their group; without groups that have none."""
    found: dict[str, list[Case]] = {}
    for case in cases(kind, verdict):
        found.setdefault(case["group"], []).append(case)
    return found


def name_of(case: Case) -> str:
    """For pytest's ids."""
    return str(case["name"]).replace(" ", "-")


def to_bytes(text: str) -> bytes:
    return text.encode("latin-1")


def numbers(ranges: str) -> list[int]:
    """'00-08 0B 7F' -> the bytes that it names."""
    found: list[int] = []
    for one in str(ranges).split():
        first, _, last = one.partition("-")
        found += range(int(first, 16), int(last or first, 16) + 1)
    return found


def filled(case: Case, text: str) -> str:
    if "fill" in case:
        filling, times = case["fill"]
        text = text.replace(FILL, filling * times)
    return text


def variants(case: Case, key: str = "head") -> list[tuple[str, bytes]]:
    """What a case stands for: (which, bytes). Most stand for one message; those with `bytes` for one for each byte."""
    text = filled(case, case[key])
    if "bytes" not in case:
        return [("", to_bytes(text))]
    return [(f"{byte:02X}", to_bytes(text.replace(BYTE, chr(byte)))) for byte in numbers(case["bytes"])]


def heads(case: Case) -> list[bytes]:
    return [data for _, data in variants(case)]


def pairs(headers: list[list[str]]) -> list[tuple[bytes, bytes]]:
    return [(to_bytes(name), to_bytes(value)) for name, value in headers]
