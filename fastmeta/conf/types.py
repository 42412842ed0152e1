"""Types of option values whose errors say what was given and what is right."""

from __future__ import annotations

import math
from typing import Any

from oslo_config import types


class Seconds(types.Float):
    """A time in seconds, fractions allowed, between two bounds (both included)."""

    def __init__(self, smallest: float, largest: float) -> None:
        super().__init__(min=smallest, max=largest, type_name="seconds")
        self._bounds = (smallest, largest)

    def __call__(self, value: Any) -> float:
        try:
            seconds = float(value)
        except (TypeError, ValueError):
            seconds = math.nan
        smallest, largest = self._bounds
        if not smallest <= seconds <= largest:  # nan fails this comparison too
            raise ValueError(f"{value!r} is not a number of seconds from {smallest:g} to {largest:g}")
        return seconds


class Whole(types.Integer):
    """A whole number between two bounds (both included)."""

    def __init__(self, smallest: int, largest: int, what: str) -> None:
        super().__init__(min=smallest, max=largest, type_name=what)
        self._bounds = (smallest, largest)
        self._what = what

    def __call__(self, value: Any) -> int:
        text = str(value)
        smallest, largest = self._bounds
        # int() would take "1_000" and other digits than ASCII's.
        digits = text.isascii() and text.isdigit() and len(text) <= 12
        if not digits or not smallest <= int(text) <= largest:
            raise ValueError(f"{value!r} is not a {self._what} from {smallest} to {largest}")
        return int(text)
