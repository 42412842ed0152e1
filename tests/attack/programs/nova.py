"""A server in Nova's place, in a process of its own, that tells what came to it. Needs only Python.

Its one argument is the shared secret. The first line on standard output is its TCP port; for each line on standard
input it answers with a line of JSON (see Nova.seen), and it ends with its standard input. Targets:

    /large/N…    N bytes of content, marks over and over
    /slow/N…     a mark, N seconds later
    /busy/N…     a mark, after N seconds in which it can do nothing else, as if it had one worker
    all others   one mark, which says for whom the answer is
"""

from __future__ import annotations

import asyncio
import collections
import hashlib
import hmac
import json
import socket
import sys
import time

PIECE = 65536
COMPLAINTS = 10


class Nova:
    def __init__(self, secret: bytes) -> None:
        self.secret = secret
        self.requests: collections.Counter[str] = collections.Counter()
        """By the first part of their target."""
        self.body_bytes = 0
        self.connections = 0
        self.most_connections = 0
        self.wrong: list[str] = []
        """Requests that no request of a correct agent can be."""
        self.signatures: dict[str, str] = {}

    def seen(self) -> str:
        names = ("requests", "body_bytes", "connections", "most_connections", "wrong")
        return json.dumps({name: getattr(self, name) for name in names})

    def signature(self, instance_id: str) -> str:
        if instance_id not in self.signatures:
            self.signatures[instance_id] = hmac.new(
                self.secret, instance_id.encode(), hashlib.sha256
            ).hexdigest()
        return self.signatures[instance_id]


class Connection(asyncio.Protocol):
    def __init__(self, nova: Nova) -> None:
        self.nova = nova
        self.received = b""
        self.body_left = 0
        self.target = ""
        self.headers: dict[str, str] = {}
        self.content = b""
        self.content_left = 0
        self.paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.nova.connections += 1
        self.nova.most_connections = max(self.nova.connections, self.nova.most_connections)

    def connection_lost(self, error: Exception | None) -> None:
        self.nova.connections -= 1
        self.content_left = 0

    def data_received(self, data: bytes) -> None:
        if self.body_left:
            self.body_left -= len(data)
            self.nova.body_bytes += len(data)
            if self.body_left == 0:
                self.answer()
            return
        self.received += data
        head, end, rest = self.received.partition(b"\r\n\r\n")
        if not end:
            return
        self.received = b""
        first, *lines = head.decode("latin-1").split("\r\n")
        self.target = first.split(" ")[1]
        self.headers = {}
        for line in lines:
            name, _, value = line.partition(": ")
            self.headers[name.lower()] = value
        self.nova.requests[self.target.split("/")[1]] += 1
        self.body_left = int(self.headers.get("content-length", "0")) - len(rest)
        self.nova.body_bytes += len(rest)
        if self.headers.get("x-instance-id-signature") != self.nova.signature(self.headers["x-instance-id"]):
            self.complain(f"the signature is wrong: {head!r}")
        if self.body_left < 0:
            self.complain(f"bytes behind a request: {head!r}")
        if self.body_left == 0:
            self.answer()

    def complain(self, text: str) -> None:
        if len(self.nova.wrong) < COMPLAINTS:
            self.nova.wrong.append(text)

    def answer(self) -> None:
        _, kind, *rest = self.target.split("/")
        mark = "<{}|{}|{}|{}>\n".format(
            self.headers["x-instance-id"],
            self.headers["x-tenant-id"],
            self.headers["x-forwarded-for"],
            self.target,
        ).encode()
        if kind == "busy":
            time.sleep(float(rest[0]))
            self.send(mark)
        elif kind == "slow":
            asyncio.get_running_loop().call_later(float(rest[0]), self.send, mark)
        elif kind == "large":
            self.content_left = int(rest[0])
            self.content = mark * (PIECE // len(mark))
            self.transport.write(f"HTTP/1.1 200 OK\r\nContent-Length: {self.content_left}\r\n\r\n".encode())
            self.send_more()
        else:
            self.send(mark)

    def send(self, mark: bytes) -> None:
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(mark), mark))

    def send_more(self) -> None:
        while self.content_left and not self.paused:
            piece = self.content[: self.content_left]
            self.content_left -= len(piece)
            self.transport.write(piece)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self.send_more()


async def main() -> None:
    nova = Nova(sys.argv[1].encode())
    loop = asyncio.get_running_loop()
    listener = socket.socket()
    # What the kernel keeps of answers is to be the agent's part, not ours.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIECE)
    listener.bind(("127.0.0.1", 0))
    await loop.create_server(lambda: Connection(nova), sock=listener, backlog=1024)
    print(listener.getsockname()[1], flush=True)
    ended = asyncio.Event()

    def control() -> None:
        if sys.stdin.readline():
            print(nova.seen(), flush=True)
        else:
            ended.set()

    loop.add_reader(sys.stdin, control)
    await ended.wait()


if __name__ == "__main__":
    asyncio.run(main())
