"""``fastmeta-haproxy``: where the compiled stand-in is, and a way to start it by that name."""

from __future__ import annotations

import os
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "bin"
"""Of its own: it holds the stand-in, which is called haproxy there, and the holder's program."""

WHERE = "--where"


def main() -> int:
    """Executes the stand-in; with --where prints the folder that is to be first on root's PATH."""
    if sys.argv[1:] == [WHERE]:
        print(FOLDER)
        return 0
    try:
        os.execv(FOLDER / "haproxy", ["haproxy", *sys.argv[1:]])  # noqa: S606
    except OSError as error:
        print(f"fastmeta-haproxy: {FOLDER / 'haproxy'}: {error.strerror}", file=sys.stderr)
    return 1
