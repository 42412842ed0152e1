"""What all parts of the bench do with what they have to say."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def progress(text: str) -> None:
    """One line that is written over; nothing where there is no terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def write(path: Path, document: Mapping[str, Any]) -> None:
    """As JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps(document, indent=1) + "\n")
    new.replace(path)
