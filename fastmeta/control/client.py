"""The other end of the control socket: for commands."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Mapping
from typing import Any

from fastmeta.control.server import SOCKET
from fastmeta.exceptions import ControlError
from fastmeta.unix_socket import peer_of

PATIENCE = 15.0
"""Seconds that the agent has for each step of an answer."""


def ask(folder: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of the agent whose control folder this is. Raises ControlError when none answers, when what answers
    belongs to somebody else than root, us or the folder's owner, or when the answer is an error."""
    path = os.path.join(folder, SOCKET)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(PATIENCE)
        try:
            connection.connect(path)
        except FileNotFoundError as error:
            raise ControlError(
                f"{path} is not there: is fastmeta agent running, and is this its control_dir?"
            ) from error
        except ConnectionRefusedError as error:
            raise ControlError(
                f"{path}: nobody listens there, the agent has ended without saying so"
            ) from error
        except OSError as error:
            raise ControlError(f"{path}: {error.strerror}") from error
        user = peer_of(connection)[1]
        if user not in (0, os.geteuid(), _owner(folder)):
            raise ControlError(
                f"{path}: user {user} listens there, who is neither root nor the folder's owner"
            )
        try:
            connection.sendall(json.dumps(request).encode() + b"\n")
            received = bytearray()
            while data := connection.recv(1 << 18):
                received += data
        except OSError as error:
            raise ControlError(f"{path}: no answer: {error.strerror or error}") from error
    try:
        answer = json.loads(received)
    except ValueError as error:
        raise ControlError(f"{path}: the answer is not whole; is the agent ending?") from error
    if not isinstance(answer, dict) or "error" in answer:
        raise ControlError(f"{path}: {answer['error'] if isinstance(answer, dict) else 'that is no answer'}")
    return answer


def _owner(folder: str) -> int | None:
    with contextlib.suppress(OSError):
        return os.stat(folder).st_uid
    return None
