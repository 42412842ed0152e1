"""Users of this machine who run the agent, or connect to its socket; and the network for whose guest they ask."""

from __future__ import annotations

import os
import pwd
import subprocess
import uuid
from typing import Any

from tests.service.agents import Agent
from tests.service.upstream import WAIT

from .places import NETWORK, Scene, ask

BLUE = str(uuid.uuid4())
NOBODY = pwd.getpwnam("nobody")
SOMEBODY = 64_321
"""A number that no user of this machine has: an ordinary user all the same."""
STRANGER = 64_322

NO_RIGHTS = ["--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]


class OrdinaryAgent(Agent):
    """Runs as an ordinary user, without any capability."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        as_user = ["setpriv", f"--reuid={SOMEBODY}", f"--regid={SOMEBODY}", *NO_RIGHTS, "--pdeathsig", "KILL"]
        super().__init__(*arguments, prefix=as_user, **options)
        for path in (self.folder, *self.folder.iterdir()):
            os.chown(path, SOMEBODY, SOMEBODY)

    def __enter__(self) -> OrdinaryAgent:
        # It must be able to write to the socket of sd_notify.
        before = os.umask(0)
        try:
            super().__enter__()
        finally:
            os.umask(before)
        return self


def connect_as(user: int, path: str, *, group: int | None = None) -> str:
    """What somebody gets who connects as this user and group, and asks: the first line, or why there is none."""
    lines = f"GET /as HTTP/1.1\\r\\nHost: x\\r\\n{NETWORK}: {BLUE}\\r\\nX-Forwarded-For: 10.0.0.5\\r\\n\\r\\n"
    script = f"""
import socket
connection = socket.socket(socket.AF_UNIX)
connection.settimeout({WAIT})
try:
    connection.connect({path!r})
    connection.sendall(b"{lines}")
    print(connection.recv(9000).partition(b"\\r\\n")[0].decode())
except OSError as error:
    print(type(error).__name__)
"""
    command = ["setpriv", f"--reuid={user}", f"--regid={user if group is None else group}", *NO_RIGHTS]
    return subprocess.run(
        [*command, "/usr/bin/python3", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=WAIT * 2,
    ).stdout.strip()


def is_served(scene: Scene) -> bool:
    return ask(scene, NETWORK, BLUE, "10.0.0.5", "/served")[0] == 200
