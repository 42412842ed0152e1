"""The agent's end of the control socket.

One request for each connection: a line of JSON, an object with a `command`, with which descriptors may come (SCM_RIGHTS
of unix(7)). One answer: a line of JSON, an object, with `error` when it could not be done. Then it is closed.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import json
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from oslo_log import log as logging

from fastmeta.exceptions import FastmetaError, ListenError
from fastmeta.unix_socket import UnixSocket, open_unix_socket, peer_of

LOG = logging.getLogger(__name__)

SOCKET = "control"
"""Its name in the folder."""

MAX_REQUEST = 64 * 1024
"""Bytes of a request."""
MAX_DESCRIPTORS = 16
"""That may come with one."""
MAX_CONNECTIONS = 64
"""At once; further ones wait."""
PATIENCE = 10.0
"""Seconds that the other side has for its request, and for taking the answer."""

Command: TypeAlias = Callable[[Mapping[str, Any], list[int]], Awaitable[Mapping[str, Any]]]
"""Carries out a request: takes over the descriptors that came with it, and gives the answer. Raises FastmetaError when
it cannot."""


class ControlServer:
    """Lives in the event loop's thread. commands: what there is, by name."""

    def __init__(self, folder: str, commands: Mapping[str, Command]) -> None:
        self._folder = folder
        self._commands = dict(commands)
        self._socket: UnixSocket | None = None
        self._server: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Makes the folder if it is missing, and listens. Raises ListenError, which says what to do."""
        make_folder(self._folder)
        self._socket = open_unix_socket(
            os.path.join(self._folder, SOCKET),
            0o600,
            name="the control socket",
            rival="give each agent a [fastmeta] control_dir of its own",
        )
        self._server = socket.socket(fileno=self._socket.fd)
        self._accept_from(self._server)

    async def stop(self) -> None:
        """Nobody finds the socket any more; who is being answered loses the connection."""
        if self._server is None or self._socket is None:
            return
        asyncio.get_running_loop().remove_reader(self._server)
        self._socket.unlink()
        self._server.close()
        self._server = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept_from(self, server: socket.socket) -> None:
        asyncio.get_running_loop().add_reader(server, self._accept, server)

    def _accept(self, server: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(BlockingIOError, InterruptedError):
            connection, _ = server.accept()
            connection.setblocking(False)
            task = loop.create_task(self._serve(connection))
            self._tasks.add(task)
            task.add_done_callback(self._done)
            if len(self._tasks) >= MAX_CONNECTIONS:
                loop.remove_reader(server)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._server is not None:
            self._accept_from(self._server)

    async def _serve(self, connection: socket.socket) -> None:
        with connection:
            process, user = peer_of(connection)
            if user not in (0, os.geteuid()):
                LOG.warning(
                    "process %d of user %d asked on the control socket, and was turned away", process, user
                )
                return
            try:
                request, descriptors = await asyncio.wait_for(_receive(connection), PATIENCE)
                answer = json.dumps(await self._answer(request, descriptors)).encode() + b"\n"
                sent = asyncio.get_running_loop().sock_sendall(connection, answer)
                await asyncio.wait_for(sent, PATIENCE)
            except (OSError, asyncio.TimeoutError) as error:
                LOG.debug("process %d on the control socket: %s", process, error)

    async def _answer(self, request: bytes, descriptors: list[int]) -> Mapping[str, Any]:
        try:
            asked = json.loads(request)
            name = asked["command"]
            command = self._commands[name]
        except (ValueError, KeyError, TypeError, RecursionError):
            _close(descriptors)
            return {"error": "that is no request, or one for another version of fastmeta"}
        try:
            return await command(asked, descriptors)
        except FastmetaError as error:
            return {"error": str(error)}


async def _receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    """A line, and what came with it. Raises OSError when there is none."""
    received = bytearray()
    descriptors: list[int] = []
    try:
        while not received.endswith(b"\n"):
            await _readable(connection)
            data, ancillary, flags, _ = connection.recvmsg(
                MAX_REQUEST,
                socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize),
                socket.MSG_CMSG_CLOEXEC,
            )
            for level, kind, content in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    found = array.array("i")
                    found.frombytes(content[: len(content) - len(content) % found.itemsize])
                    descriptors += found
            if flags & socket.MSG_CTRUNC or len(descriptors) > MAX_DESCRIPTORS:
                raise OSError("too many descriptors came with it")
            received += data
            if not data or len(received) > MAX_REQUEST:
                raise OSError("no line came")
    except BaseException:
        _close(descriptors)
        raise
    return bytes(received), descriptors


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()
    loop.add_reader(connection, _set, readable)
    try:
        await readable
    finally:
        loop.remove_reader(connection)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def make_folder(folder: str) -> None:
    """The control folder, or one in it. Raises ListenError when it is not there and cannot be made, or others could put
    something into it."""
    with contextlib.suppress(FileExistsError):
        try:
            os.mkdir(folder, 0o700)
        except FileNotFoundError as error:
            raise ListenError(
                f"[fastmeta] control_dir = {folder}: there is no folder {os.path.dirname(folder)}; make it, or give "
                "another path"
            ) from error
        except FileExistsError:
            raise
        except OSError as error:
            raise ListenError(
                f"[fastmeta] control_dir = {folder}: it cannot be made: {error.strerror}; make it, mode 0700 and "
                "belonging to the user that fastmeta runs as (systemd: RuntimeDirectory), or give another path"
            ) from error
    status = os.lstat(folder)
    if not stat.S_ISDIR(status.st_mode):
        raise ListenError(
            f"[fastmeta] control_dir = {folder}: that is there, and no folder; give another path"
        )
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise ListenError(
            f"[fastmeta] control_dir = {folder}: it must belong to user {os.geteuid()}, as whom fastmeta runs, and "
            f"have mode 0700; it belongs to user {status.st_uid} and has mode {stat.S_IMODE(status.st_mode):04o}"
        )
