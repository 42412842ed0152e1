"""The entry point ``fastmeta``: finds the command and calls it.

Imports nothing that takes time: until the agent holds SIGHUP back, one ends the process (signal(7)).
"""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType

from fastmeta import __version__
from fastmeta.exceptions import FastmetaError

COMMANDS: Mapping[str, str] = {
    "agent": "fastmeta.cmd.agent",
    "config": "fastmeta.cmd.config_check",
    "demo": "fastmeta.cmd.demo",
    "metadata-api": "fastmeta.cmd.metadata_api",
    "status": "fastmeta.cmd.status",
}
"""Command and its module; only the module of the chosen command is imported."""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 when all went well, 1 for an error that its text explains, 2 for wrong
    arguments."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments:
        print(usage(), file=sys.stderr)
        return 2
    name = arguments[0]
    if name in ("-h", "--help", "help"):
        print(usage())
        return 0
    if name in ("-V", "--version"):
        print(f"fastmeta {__version__}")
        return 0
    if name not in COMMANDS:
        print(f"fastmeta: {name!a} is not a command; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    if name == "agent":
        # One that comes now waits until there is a handler (Agent.run lets it through), and is carried out then.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        status: int = _module(name).main(arguments[1:])
    except FastmetaError as error:
        print(f"fastmeta {name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; nothing can be said to them.
        sys.stderr.close()
        return 1
    return status


def usage() -> str:
    """The help text, with a line for each command."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {_module(name).SUMMARY}" for name in COMMANDS]
    return "\n".join(
        [
            "usage: fastmeta COMMAND [ARGUMENT ...]",
            "",
            *lines,
            "",
            "fastmeta COMMAND --help explains a command.",
        ]
    )


def _module(name: str) -> ModuleType:
    return importlib.import_module(COMMANDS[name])
