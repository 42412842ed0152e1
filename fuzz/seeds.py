"""Writes the inputs that fuzzing starts from: python -m fuzz.seeds FOLDER makes FOLDER/<target>/<name>.

The heads and chunked messages are those of tests/vectors, cut in several ways; the conversations are those of
conversations/.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fuzz.conversations import conversations
from tests.vectors import KINDS, cases, variants

WHOLE, EVERY_BYTE = 0, 13  # how a head is cut: read_cuts in heads.h
REQUEST = bytes([0, 0])  # max_head of 8192, no small limits: target_request
RESPONSE = bytes([6])  # to HTTP/1.1, kept alive: target_response
LONGEST = 4000


def vectors(kind: str) -> Iterator[tuple[str, dict[str, Any], bytes]]:
    """The cases of tests/vectors, and of those that stand for many bytes the first and last."""
    verdicts, key = KINDS[kind]
    for number, case in enumerate(case for verdict in verdicts for case in cases(kind, verdict)):
        found = variants(case, key)
        for which, data in found[:1] + found[1:][-1:]:
            if len(data) <= LONGEST:
                yield f"{kind}-{number:03}{which}", case, data


def heads(kinds: list[str], options: bytes) -> Iterator[tuple[str, bytes]]:
    """Each as a whole and byte by byte."""
    for kind in kinds:
        for name, case, data in vectors(kind):
            chosen = bytes([1]) if case.get("to_head") else options
            yield f"{name}-whole", chosen + bytes([WHOLE]) + data
            yield f"{name}-bytes", chosen + bytes([EVERY_BYTE]) + data


def chunked_messages() -> Iterator[tuple[str, bytes]]:
    for name, _, data in vectors("chunked"):
        yield f"{name}-whole", bytes([WHOLE]) + data
        yield f"{name}-pieces", bytes([2, 1, 3]) + data


def write(folder: Path) -> None:
    """Only what has changed is written; what is no seed any more goes."""
    wanted = {f"request/{name}": data for name, data in heads(["requests", "messages"], REQUEST)}
    wanted |= {f"response/{name}": data for name, data in heads(["responses", "answers"], RESPONSE)}
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
