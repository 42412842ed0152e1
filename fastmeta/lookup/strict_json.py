"""JSON of which nothing is left open: where identities are at stake, what could be read in two ways is refused."""

from __future__ import annotations

import json
from typing import Any, NoReturn


def parse(data: bytes) -> Any:
    """What data says, as Python's own types. Raises ValueError that says what is wrong."""
    try:
        return json.loads(data.decode(), object_pairs_hook=_without_repeats, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """RFC 8259 section 4 leaves open which of two equal names counts; here neither does."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return result


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
