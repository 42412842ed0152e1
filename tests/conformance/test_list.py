"""Every line of the list is shown by tests that there are, or says why there are none."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from .lines import Line, load

ROOT = Path(__file__).parents[2]

LINES = [(file.path, line) for file in load() for line in file.lines]


def functions(path: Path) -> set[str]:
    """The tests of a file, as pytest names them after its path."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)}
    return {name for name in found if name.rpartition("::")[2].startswith("test")}


@pytest.mark.parametrize(
    ("file", "line"), LINES, ids=[f"{Path(file).stem}-{n}" for n, (file, _) in enumerate(LINES)]
)
def test_a_line_is_shown(file: str, line: Line) -> None:
    if line.not_applicable:
        return
    assert line.tests
    assert len(set(line.tests)) == len(line.tests)
    for test in line.tests:
        name, _, function = test.partition("::")
        path = ROOT / name
        assert name.startswith("tests/") and path.name.startswith("test_"), (
            f"pytest does not look there: {test}"
        )
        assert path.is_file(), test
        assert function in functions(path), test


def test_no_line_is_lost_or_there_twice() -> None:
    assert len({(file, line.stock) for file, line in LINES}) == len(LINES) == 55
