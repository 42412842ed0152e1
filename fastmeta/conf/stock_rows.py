"""What a row of the table in ``fastmeta.conf.stock`` is."""

from __future__ import annotations

import enum
from dataclasses import dataclass

ANY = "*"
"""In place of an option's name: all of a section."""


class Effect(enum.Enum):
    """What becomes of an option."""

    SAME = "means the same"
    NONE = "no effect"


@dataclass(frozen=True, slots=True)
class StockOption:
    """One row. section: in lower case, but DEFAULT. example: a value that is not the default; with ANY an option with
    its value.

    why: of one without effect the reason, of others what may differ in detail. shown_by: the test, or the folder of
    tests, that shows the effect.
    """

    section: str
    name: str
    example: str
    effect: Effect
    why: str = ""
    shown_by: str = ""

    @property
    def is_section(self) -> bool:
        """Whether it stands for all options of a section."""
        return self.name == ANY

    @property
    def shown(self) -> str:
        """As texts name it."""
        if self.is_section:
            return f"[{self.section}] (all of it)"
        return self.name if self.section == "DEFAULT" else f"[{self.section}] {self.name}"

    def is_about(self, section: str, name: str) -> bool:
        """Whether an option of a file is of this row. section, name: as of a row."""
        return section == self.section and self.name in (ANY, name)


def same(section: str, name: str, example: str, shown_by: str, why: str = "") -> StockOption:
    """It means what it means to neutron-metadata-agent."""
    return StockOption(section, name, example, Effect.SAME, why, shown_by)


def no_effect(section: str, name: str, example: str, why: str) -> StockOption:
    """It is taken, and nothing comes of it."""
    return StockOption(section, name, example, Effect.NONE, why)
