"""Test cases as data: what is accepted and refused, with the section of the RFC that says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent


def load(name: str) -> Any:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))


def cases(name: str, kind: str) -> list[dict[str, Any]]:
    return list(load(name)[kind])


def name_of(case: dict[str, Any]) -> str:
    """For pytest's ids."""
    return str(case["name"]).replace(" ", "-")


def to_bytes(text: str) -> bytes:
    """The files hold Latin-1: one character is one byte."""
    return text.encode("latin-1")


def pairs(headers: list[list[str]]) -> list[tuple[bytes, bytes]]:
    return [(to_bytes(name), to_bytes(value)) for name, value in headers]
