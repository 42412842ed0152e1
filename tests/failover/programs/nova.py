"""A server in Nova's place, in a process of its own, that may be killed or frozen at any time. Needs only Python.

Its one argument is JSON (see novas.Nova): secret; address and tcp_port; journal, a file; delay, the seconds from a
request to its answer; closes, which is empty, or "connections": each connection is closed at once, or "requests": it is
closed when a request has come. The first line on standard output says that it listens.

The journal has a line for each thing that happens, in the moment in which it does, so it is right whatever happens to
us then. Its fields, parted by tabs, are the time (CLOCK_MONOTONIC), what it is, the number of the connection, and:

    open                         a connection
    request  method, target      a request that has come whole: from here on it counts as done
    wrong    text                one that no correct agent sends
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import socket
import sys
import time
from typing import Any


class Nova:
    def __init__(self, plan: dict[str, Any]) -> None:
        self.secret = plan["secret"].encode()
        self.host = f"{plan['address']}:{plan['tcp_port']}"
        self.delay = plan["delay"]
        self.closes = plan["closes"]
        self.journal = os.open(plan["journal"], os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self.connections = 0
        self.signatures: dict[str, str] = {}

    def note(self, what: str, connection: int, *fields: str) -> None:
        line = "\t".join((f"{time.monotonic():.6f}", what, str(connection), *fields))
        os.write(self.journal, f"{line}\n".encode())

    def signature(self, instance_id: str) -> str:
        if instance_id not in self.signatures:
            self.signatures[instance_id] = hmac.new(
                self.secret, instance_id.encode(), hashlib.sha256
            ).hexdigest()
        return self.signatures[instance_id]


class Connection(asyncio.Protocol):
    def __init__(self, nova: Nova) -> None:
        self.nova = nova
        nova.connections += 1
        self.number = nova.connections
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.nova.note("open", self.number)
        if self.nova.closes == "connections":
            transport.close()

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, end, rest = self.received.partition(b"\r\n\r\n")
        if not end:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {}
        for line in lines:
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        length = int(headers.get("content-length", "0"))
        if len(rest) < length:
            return
        self.received = b""
        self.judge(headers, head, rest[length:])
        self.nova.note("request", self.number, method, target)
        if self.nova.closes == "requests":
            self.transport.close()
        elif self.nova.delay:
            asyncio.get_running_loop().call_later(self.nova.delay, self.answer, method, target, headers)
        else:
            self.answer(method, target, headers)

    def judge(self, headers: dict[str, str], head: bytes, rest: bytes) -> None:
        wrong = []
        if headers["x-instance-id-signature"] != self.nova.signature(headers["x-instance-id"]):
            wrong.append("signature")
        if headers["host"] != self.nova.host:
            wrong.append("Host")
        if rest:
            wrong.append("bytes behind it")
        if wrong:
            self.nova.note("wrong", self.number, f"{', '.join(wrong)}: {head!r} {rest!r}")

    def answer(self, method: str, target: str, headers: dict[str, str]) -> None:
        names = ("x-instance-id", "x-tenant-id", "x-forwarded-for")
        mark = "<{}|{}|{}|{}>".format(*(headers[name] for name in names), target)
        content = f"{mark}\n".encode()
        answer = f'HTTP/1.1 200 OK\r\nETag: "{mark}"\r\nContent-Length: {len(content)}\r\n\r\n'.encode()
        self.transport.write(answer if method == "HEAD" else answer + content)


async def main() -> None:
    plan = json.loads(sys.argv[1])
    nova = Nova(plan)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((plan["address"], plan["tcp_port"]))
    await asyncio.get_running_loop().create_server(lambda: Connection(nova), sock=listener, backlog=1024)
    print("listening", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
