"""The shape of the core's sources: parts that can be read one by one, in order of dependency."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.build.test_nogil_audit import DEFINITION

ROOT = Path(__file__).parents[2]
LONGEST_PART = 400

ENTRY = (ROOT / "fastmeta" / "_core.pyx").read_text(encoding="utf-8")
ORDER = re.findall(r'^include "core/(\w+)\.pxi"$', ENTRY, re.M)
TEXTS = {name: (ROOT / "fastmeta" / "core" / f"{name}.pxi").read_text(encoding="utf-8") for name in ORDER}

# The prefixes of a part's functions.
PREFIXES = {
    "extern": {"at", "by"},  # macros
    "bytes": {"by"},
    "names": {"h1"},
    "http": {"h1"},
    "chunked": {"ck"},
    "signature": {"sg"},
    "head": {"hd"},
    "counters": {"ct", "rf"},
    "claim": {"ry"},
}

# A state machine's parts call each other: what a part calls of those behind it, by prefix. All others call only what is
# before them, above all the pure ones, and those that only keep books.
UPWARD = {
    "timer": {"lp"},
    "identity": {"gs", "so", "up"},
    "scope": {"ln", "ry", "up"},
    "guest": {"bd", "ex", "gs", "ln", "rc", "ry", "up"},
    "parking": {"ex", "rc"},
    "exchange": {"bd", "pl", "ry", "se", "sv", "up"},
    "body": {"up"},
    "places": {"sv", "up"},
    "server": {"up"},
    "pool": {"up"},
    "second": {"up"},
    "recheck": {"an", "up"},
    "upstream": {"up"},
    "listener": {"ry"},
}


def code(text: str) -> str:
    """Without comments and docstrings."""
    return re.sub(r'""".*?"""', "", re.sub(r"#.*", "", text), flags=re.S)


DEFINED_IN = {name: part for part in ORDER for name in DEFINITION.findall(TEXTS[part])}


def test_every_part_is_included_once() -> None:
    files = {path.stem for path in (ROOT / "fastmeta" / "core").glob("*.pxi")}
    assert sorted(ORDER) == sorted(files)
    assert len(DEFINED_IN) >= 120


@pytest.mark.parametrize("part", ORDER)
def test_a_part_is_short_and_says_what_it_is_for(part: str) -> None:
    lines = TEXTS[part].splitlines()
    assert len(lines) <= LONGEST_PART
    assert lines[0].startswith("# ")


@pytest.mark.parametrize("part", ORDER)
def test_a_part_holds_nothing_of_python(part: str) -> None:
    """Objects are touched in _core.pyx only."""
    text = code(TEXTS[part])
    assert not re.search(r"^\s*(def|class|cpdef|import|raise|try|with|assert)\b", text, re.M)
    assert not re.search(r"^\s*from (?!libc\.\w+ cimport)", text, re.M)
    for line in re.findall(r"^cdef [^\n(]*\([^:]*?\)[^:\n]*:", text, re.M):
        assert line.endswith("noexcept nogil:"), line


@pytest.mark.parametrize("part", ORDER)
def test_a_part_uses_what_is_before_it(part: str) -> None:
    at = ORDER.index(part)
    called = set(re.findall(r"\b([a-z][a-z0-9]_\w+)\(", code(TEXTS[part])))
    behind = {name for name in called if name in DEFINED_IN and ORDER.index(DEFINED_IN[name]) > at}
    assert {name[:2] for name in behind} <= UPWARD.get(part, set()), behind


@pytest.mark.parametrize("part", ORDER)
def test_a_part_defines_under_its_prefixes(part: str) -> None:
    """A prefix belongs to one part; where a part was split, to the parts that its header names."""
    own = {name[:2] for name, where in DEFINED_IN.items() if where == part}
    header = "\n".join(line for line in TEXTS[part].split("\n\n")[0].splitlines() if line.startswith("#"))
    assert own <= PREFIXES.get(part, own)
    for prefix in own:
        assert f"{prefix}_" in header, f"{part} defines {prefix}_ and does not say so"


def test_there_are_no_public_or_python_visible_c_functions() -> None:
    everything = code(ENTRY) + "".join(map(code, TEXTS.values()))
    assert not re.search(r"\bcpdef\b|^cdef (public|api)\b", everything, re.M)
