"""Usage: python -m tests.openstack [--port N] [--folder F] [--environment E] COMMAND

set-up                  installs and prepares what is missing
start, stop, status     the whole stack
start NAME, …           one service of it; also kill, restart, freeze, thaw. NAME: database, bus, keystone, neutron_api,
                        neutron_rpc, nova
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from .stack.packages import SetUpError
from .stack.processes import ProcessError
from .stack.services import Service
from .stack.stack import Stack

NAMES = ("database", "bus", "keystone", "neutron_api", "neutron_rpc", "nova")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.openstack",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, help="the first of seven TCP ports")
    parser.add_argument("--folder", type=Path, help="the stack's own")
    parser.add_argument("--environment", type=Path, help="the virtual environment")
    commands = ("set-up", "start", "stop", "status", "kill", "restart", "freeze", "thaw")
    parser.add_argument("command", choices=commands)
    parser.add_argument("name", nargs="?", choices=NAMES)
    options = parser.parse_args()
    begun = time.monotonic()

    def tell(message: str) -> None:
        print(f"stack: {time.monotonic() - begun:5.1f} s: {message}", file=sys.stderr, flush=True)

    stack = Stack(
        base_port=options.port,
        folder=options.folder and options.folder.resolve(),
        environment=options.environment and options.environment.resolve(),
        tell=tell,
    )
    try:
        return _run(stack, options.command, options.name)
    except (SetUpError, ProcessError) as error:
        print(f"stack: {error}", file=sys.stderr)
        return 1
    finally:
        tell("done")


def _run(stack: Stack, command: str, name: str | None) -> int:
    if command == "status":
        for service in stack.services.all:
            pids = " ".join(str(process.pid) for process in service.processes if process.running)
            print(f"{service.name:22} {pids or 'does not run'}")
        return 0 if stack.running else 1
    if name is not None:
        service: Service = getattr(stack.services, name)
        getattr(service, command)()
    elif command in ("set-up", "start", "stop"):
        getattr(stack, command.replace("-", "_"))()
    else:
        raise SetUpError(f"{command} needs the name of a service")
    return 0


if __name__ == "__main__":
    sys.exit(main())
