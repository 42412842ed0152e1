#!/usr/bin/env python3
"""Writes docs/compatibility.md from the differences that the side-by-side test expects, and from the list of what
Neutron's own tests assert, so that it cannot say anything else than what was seen.

Usage: tools/compatibility.py [--check]: with --check nothing is written, and the exit status is 1 when the file in
docs/ is not what the differences say.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "docs" / "compatibility.md"
sys.path[:0] = [str(ROOT / "tests" / "openstack" / "side_by_side"), str(ROOT / "tests" / "conformance")]

from cases import CASES  # noqa: E402
from differences import ANSWERS, BEHIND_A_PROXY, GUESTS_OWN, REFUSED, REQUESTS, Difference  # noqa: E402
from lines import Line, load  # noqa: E402

INTRODUCTION = f"""\
# What is different from the stock agent and its proxies

<!-- Made by tools/compatibility.py from tests/openstack/side_by_side/differences.py and tests/conformance/list.yaml;
change it there. -->

`make test-openstack` sends {len(CASES)} requests through Neutron's own haproxies and neutron-metadata-agent, and the
same through fastmeta, and through these haproxies and fastmeta, in front of an upstream that records what it gets.
What the upstream saw, and what the guest saw, is compared: method, target, each header, content, status, reason phrase,
and how the answer ended. These are all the differences; any other one fails the test, and so does one that is listed
here and not seen any more. Headers and content of two answers with different statuses are not compared.

The stock pair is that of the OpenStack release in `tests/openstack/stack/constraints.txt`, with Debian's haproxy.
"""

CONFORMANCE = """\
## What Neutron's own tests assert

Line by line, also what Neutron itself does not run any more, and which tests of fastmeta show what becomes of it.
`tests/openstack/test_in_place.py` has Neutron's own haproxies before fastmeta and the real Nova behind it.
"""

CHAPTERS = (
    ("What Nova gets", REQUESTS),
    ("What guests say of themselves", GUESTS_OWN),
    ("What is refused", REFUSED),
    ("What guests get", ANSWERS),
    ("Only behind Neutron's haproxies", BEHIND_A_PROXY),
)


def row(difference: Difference) -> str:
    names = [case.name for case in CASES if difference.is_about(case.name)]
    cases = "all" if len(names) == len(CASES) else str(len(names))
    cells = (difference.title, difference.stock, difference.ours, difference.why, cases)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _row(line: Line) -> str:
    shown = "<br>".join(f"`{test}`" for test in line.tests)
    here = f"not applicable: {line.not_applicable}" if line.not_applicable else line.here or "the same"
    return f"| {line.stock} | {here} | {shown} |"


def conformance() -> list[str]:
    """The chapter about Neutron's tests."""
    parts = [CONFORMANCE]
    for file in load():
        rows = "\n".join(_row(line) for line in file.lines)
        head = "| there | here | shown by |\n| --- | --- | --- |"
        parts.append(f"### {file.path}\n\n{head}\n{rows}\n")
    return parts


def text() -> str:
    parts = [INTRODUCTION]
    for title, differences in CHAPTERS:
        rows = "\n".join(row(difference) for difference in differences)
        parts.append(
            f"## {title}\n\n| what | stock | fastmeta | why | cases |\n| --- | --- | --- | --- | --- |\n{rows}\n"
        )
    return "\n".join([*parts, *conformance()])


def main() -> int:
    if "--check" not in sys.argv[1:]:
        FILE.write_text(text())
        return 0
    if FILE.exists() and FILE.read_text() == text():
        return 0
    print("docs/compatibility.md is not up to date: run tools/compatibility.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
