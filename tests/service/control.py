"""Asking an agent as operators do, and its control socket as others might."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from typing import Any

from .agents import Agent

FASTMETA = [sys.executable, "-m", "fastmeta"]


def status(agent: Agent, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*FASTMETA, "status", "--control-dir", str(agent.options["control_dir"]), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def snapshot(agent: Agent) -> dict[str, Any]:
    done = status(agent, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def scope_of(found: dict[str, Any], identifier: str) -> dict[str, Any]:
    [scope] = [scope for scope in found["scopes"] if scope["id"] == identifier]
    return dict(scope)


def connected(agent: Agent) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(f"{agent.options['control_dir']}/control")
    return connection


def raw(agent: Agent, request: bytes) -> bytes:
    """What the control socket answers to these bytes."""
    with connected(agent) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))
