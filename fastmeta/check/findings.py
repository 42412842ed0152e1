"""What a check has found, as a person reads it and as a program does."""

from __future__ import annotations

import enum
import json
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

WIDTH = 110
"""Characters of a line of names; what is longer is broken."""

ALL_RIGHT, SOMETHING_IS_WRONG, NOT_USABLE = 0, 1, 2
"""Exit statuses. Of the last the agent would not start at all."""


class State(enum.Enum):
    """Of a finding; the values are what is printed."""

    OK = "ok"
    NOTE = "note"
    """Right, and good to know."""
    DOUBT = "doubt"
    """Valid, and most likely not meant."""
    WRONG = "WRONG"


@dataclass(frozen=True, slots=True)
class Finding:
    """About one thing that was looked at. part: the heading under which it belongs. ends: the agent would not start."""

    part: str
    state: State
    text: str
    ends: bool = False


@dataclass(frozen=True, slots=True)
class Used:
    """An option that is set and has an effect. where: the files, or what else sets it."""

    name: str
    value: str
    where: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """Options that are set and have no effect. why: empty for those of other services."""

    names: tuple[str, ...]
    where: str
    why: str = ""


@dataclass(slots=True)
class Report:
    """All that is printed."""

    version: str
    user: str
    files: list[str] = field(default_factory=list)
    used: list[Used] = field(default_factory=list)
    ignored: list[Ignored] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        """Whether the agent would start with it, as far as its configuration goes."""
        return not any(finding.ends for finding in self.findings)

    @property
    def status(self) -> int:
        """The exit status."""
        if not self.usable:
            return NOT_USABLE
        return SOMETHING_IS_WRONG if self.count(State.WRONG) else ALL_RIGHT

    def count(self, state: State) -> int:
        return sum(finding.state is state for finding in self.findings)

    def as_json(self) -> str:
        content: dict[str, Any] = asdict(self)
        for finding, shown in zip(self.findings, content["findings"], strict=True):
            shown["state"] = finding.state.value.lower()
            del shown["ends"]
        return json.dumps(content | {"usable": self.usable, "exit_status": self.status}, indent=2)

    def as_text(self) -> str:
        return "\n".join(_printable(line) for line in self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"fastmeta {self.version}, checked as {self.user}"
        if self.files:
            yield from ("", "Files, later ones win", *(f"  {path}" for path in self.files))
        if self.used:
            yield from ("", "Options that are set; all others have their defaults")
            width = min(60, max(len(option.name) + len(option.value) for option in self.used) + 5)
            for option in self.used:
                yield f"{f'  {option.name} = {option.value}':<{width}}  # {option.where}"
        if self.ignored:
            yield from ("", "Options that are set and have no effect")
            for ignored in self.ignored:
                names = ", ".join(ignored.names)
                if ignored.why:
                    yield f"  {names}  # {ignored.where}: {ignored.why}"
                else:
                    yield f"  {ignored.where}, of other services:"
                    yield from textwrap.wrap(
                        names,
                        WIDTH,
                        initial_indent="    ",
                        subsequent_indent="    ",
                        break_long_words=False,
                        break_on_hyphens=False,
                    )
        for part in dict.fromkeys(finding.part for finding in self.findings):
            yield from ("", part)
            for finding in self.findings:
                if finding.part == part:
                    yield f"  {finding.state.value:<5}  {finding.text}"
        yield ""
        if not self.usable:
            yield "The agent would not start."
            return
        wrong, doubts = self.count(State.WRONG), self.count(State.DOUBT)
        yield f"{wrong} wrong, {doubts} {'doubt' if doubts == 1 else 'doubts'}"


def _printable(line: str) -> str:
    """A line stays a line, and does nothing to a terminal, whatever a file or a server says."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)
