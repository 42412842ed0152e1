"""Writes the inputs that fuzzing starts from: python -m fuzz.seeds FOLDER makes FOLDER/<target>/<name>.

The heads and chunked messages are those of tests/vectors, cut in several ways; the conversations are those of
conversations.py.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from fuzz.conversations import conversations
from tests.vectors import Case, cases, variants

WHOLE, EVERY_BYTE = 0, 13  # how a head is cut: read_cuts in heads.h


def vectors(kind: str, key: str) -> Iterator[tuple[int, Case, bytes]]:
    """All cases, by number; of those that stand for many messages the first and the last."""
    for number, case in enumerate(cases(kind, "accept") + cases(kind, "refuse")):
        messages = [data for _, data in variants(case, key)]
        for data in messages[:1] + messages[1:][-1:]:
            yield 2 * number + (data is not messages[0]), case, data


def heads(kind: str) -> Iterator[tuple[str, bytes]]:
    """The vectors, each as a whole and byte by byte."""
    for number, case, data in vectors(kind, "head"):
        # A request's second byte sets small limits: see head_limits in heads.h.
        options = bytes([0, 0]) if kind == "requests" else bytes([1 if case.get("to_head") else 6])
        yield f"{number:03}-whole", options + bytes([WHOLE]) + data
        yield f"{number:03}-bytes", options + bytes([EVERY_BYTE]) + data


def chunked_messages() -> Iterator[tuple[str, bytes]]:
    for number, _, data in vectors("chunked", "coded"):
        yield f"{number:03}-whole", bytes([WHOLE]) + data
        yield f"{number:03}-pieces", bytes([2, 1, 3]) + data


def write(folder: Path) -> None:
    """Only what has changed is written; what is no seed any more goes."""
    wanted = {f"request/{name}": data for name, data in heads("requests")}
    wanted |= {f"response/{name}": data for name, data in heads("responses")}
    wanted |= {f"chunked/{name}": data for name, data in chunked_messages()}
    wanted |= {f"conversation/{name}": bytes(each.data) for name, each in conversations()}
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    for name in there - set(wanted):
        (folder / name).unlink()
    for name, data in wanted.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
