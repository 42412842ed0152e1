"""list.yaml: what Neutron's own tests assert, and which tests show here what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).with_name("list.yaml")

_KEYS = ({"stock", "tests"}, {"stock", "here", "tests"}, {"stock", "not_applicable"})


@dataclass(frozen=True)
class Line:
    """stock: what Neutron's test asserts; here: what is different, "" when it is the same; tests: as pytest names them;
    not_applicable: why there are none."""

    stock: str
    here: str = ""
    tests: tuple[str, ...] = ()
    not_applicable: str = ""


@dataclass(frozen=True)
class NeutronFile:
    """Tests of Neutron's in one file, by its path in Neutron."""

    path: str
    lines: tuple[Line, ...]


def load() -> list[NeutronFile]:
    """Raises ValueError when a line is not as list.yaml says."""
    found = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return [NeutronFile(entry["file"], tuple(_line(item) for item in entry["lines"])) for entry in found]


def _line(item: dict[str, Any]) -> Line:
    if set(item) not in _KEYS or not all(item.values()):
        raise ValueError(f"a line has stock, and tests (with here, or not) or not_applicable: {item}")
    return Line(**{**item, "tests": tuple(item.get("tests", ()))})
