"""``fastmeta status``: what a running agent serves, and how it fares."""

from __future__ import annotations

import argparse
import json

from fastmeta.control.client import ask
from fastmeta.status.table import as_text

SUMMARY = "show what a running agent serves: networks and routers, lookups, Nova"

DEFAULT_FOLDER = "/run/fastmeta"

_DESCRIPTION = """\
Asks the agent that runs on this node, and shows every network and router that it serves: by which way its guests come
in, in which namespace, how many listeners are open, connections now, requests so far, addresses of which it is known
whose they are (or that they are nobody's), answers with a status of 500 and above, and what was wrong last. Run it as
root, or as the user that the agent runs as.

Exit status: 0, or 1 when no agent answers.
"""


def main(argv: list[str]) -> int:
    """Raises ControlError when no agent answers."""
    parser = argparse.ArgumentParser(
        prog="fastmeta status", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="for programs: all of it as JSON")
    parser.add_argument(
        "--control-dir",
        metavar="DIR",
        default=DEFAULT_FOLDER,
        help="the agent's [fastmeta] control_dir (default: %(default)s)",
    )
    options = parser.parse_args(argv)
    answer = ask(options.control_dir, {"command": "status"})
    print(json.dumps(answer, indent=1) if options.json else as_text(answer))
    return 0
