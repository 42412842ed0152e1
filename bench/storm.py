"""The guests of a storm: each has an address and a connection of its own, and all ask at once.

Run inside the guests' namespace, with nothing but Python's library. Each line on standard input is one storm, as JSON:

    {"server": ["169.254.169.254", 80], "guests": {"10.0.0.5": "<what it must get>", …}, "limit": 60}

and each line on standard output what came of it: for each guest, in that order, how it ended and after how many seconds
since the storm began. Before the first line "ready" is printed. How it may end: OK; the status of an answer that is not
200; wrong answer (a 200 that is not this guest's); cut short; no answer (none after the limit); reset, refused,
unreachable and the like: the errno's name.
"""

from __future__ import annotations

import asyncio
import errno
import json
import resource
import socket
import sys
from collections.abc import Mapping

OK = "200"
REQUEST = b"GET /latest/meta-data/instance-id HTTP/1.1\r\nHost: 169.254.169.254\r\nConnection: close\r\n\r\n"
MOST = 65536
"""Bytes of an answer."""


async def storm(server: tuple[str, int], guests: Mapping[str, str], limit: float) -> list[tuple[str, float]]:
    loop = asyncio.get_running_loop()
    sockets = [_bound(address) for address in guests]
    began = loop.time()

    async def one(connection: socket.socket, expected: str) -> tuple[str, float]:
        try:
            kind = await asyncio.wait_for(_ask(loop, connection, server, expected), limit)
        except (TimeoutError, asyncio.TimeoutError):
            kind = "no answer"
        except OSError as error:
            kind = errno.errorcode.get(error.errno or 0, type(error).__name__)
        return kind, loop.time() - began

    try:
        return await asyncio.gather(*map(one, sockets, guests.values()))
    finally:
        for connection in sockets:
            connection.close()


def _bound(address: str) -> socket.socket:
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    connection.bind((address, 0))
    return connection


async def _ask(
    loop: asyncio.AbstractEventLoop, connection: socket.socket, server: tuple[str, int], expected: str
) -> str:
    await loop.sock_connect(connection, server)
    await loop.sock_sendall(connection, REQUEST)
    data = b""
    while len(data) < MOST:
        piece = await loop.sock_recv(connection, MOST)
        if not piece:
            break
        data += piece
    return judge(data, expected)


def judge(data: bytes, expected: str) -> str:
    """What an answer is, of which all has come that will."""
    head, separator, body = data.partition(b"\r\n\r\n")
    if not separator:  # the stock agent's own errors have lines that end with LF alone
        head, separator, body = data.partition(b"\n\n")
    words = head.split(None, 2)
    if not separator or len(words) < 2:
        return "cut short"
    status = words[1].decode(errors="replace")
    if status != OK:
        return status
    return OK if body.decode(errors="replace").strip() == expected else "wrong answer"


def main() -> None:
    # A guest is a descriptor.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print("ready", flush=True)
    for line in sys.stdin:
        plan = json.loads(line)
        host, tcp_port = plan["server"]
        found = asyncio.run(storm((host, tcp_port), plan["guests"], plan["limit"]))
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
