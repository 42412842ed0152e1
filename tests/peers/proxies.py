"""haproxy and nginx as installed, between clients that send a case each and an upstream that records: what reaches it,
and what the clients get. Everything is on 127.0.0.1, and all cases are under way at the same time.

A case is known to the upstream by the client's TCP port, which both proxies put into a header. Both end an idle
connection soon, so that every client reads to the end; who waits for more is told so (408) or is closed late.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import processes

from .outcomes import CLOSES, OPEN, PASSES, REFUSES, WAITS, AnswerReading, Reading

IDLE_S = 0.4  # after which a proxy ends an idle connection
PATIENCE_S = 1.5  # for which a proxy waits for a request to become whole
UPSTREAM_PATIENCE_S = 0.6  # for which the upstream leaves a connection open when it has answered
LATER_S = 0.2  # until the upstream sends the rest, when it does not send all at once
AT_ONCE = 300
LONGEST_S = 20.0

# Names of what the proxies add.
CASE = b"x-case"


def find(program: str) -> str:
    path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    assert path is not None, f"{program} is not installed: tools/setup.sh .venv bench does that, as root"
    return path


def version(program: str) -> str:
    """Upstream's number, without what a distribution adds to it."""
    done = subprocess.run([find(program), "-v"], capture_output=True, text=True, check=True, timeout=10)
    match = re.search(r"(?:version |nginx/)(\d+(?:\.\d+)+)", done.stdout + done.stderr)
    assert match is not None, done
    return match[1]


def haproxy_configuration(tcp_port: int, upstream: int) -> str:
    """What Neutron writes for its haproxy (http-server-close, forwardfor), with timeouts for tests."""
    return f"""\
global
    nbthread 1
    maxconn 4096

defaults
    mode http
    option http-server-close
    option forwardfor
    retries 0
    timeout connect 5s
    timeout client {PATIENCE_S:g}s
    timeout server 5s
    timeout http-request {int(PATIENCE_S * 1000)}ms
    timeout http-keep-alive {int(IDLE_S * 1000)}ms

listen corpus
    bind 127.0.0.1:{tcp_port}
    http-request set-header X-Case %[src_port]
    server nova 127.0.0.1:{upstream}
""".replace(f"{PATIENCE_S:g}s", f"{int(PATIENCE_S * 1000)}ms")


def nginx_configuration(tcp_port: int, upstream: int, folder: Path) -> str:
    # As root the worker would change to a user who may not enter the temporary folder.
    user = f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else ""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "\n".join(f"    {kind}_temp_path {folder}/{kind};" for kind in kinds)
    return f"""\
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log crit;
events {{ worker_connections 4096; }}
http {{
    access_log off;
{temporary}
    keepalive_timeout {int(IDLE_S * 1000)}ms;
    client_header_timeout {int(PATIENCE_S * 1000)}ms;
    client_body_timeout {int(PATIENCE_S * 1000)}ms;
    proxy_read_timeout 5s;
    server {{
        listen 127.0.0.1:{tcp_port};
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_http_version 1.1;
            proxy_set_header X-Case $remote_port;
        }}
    }}
}}
"""


@contextmanager
def running(program: str, upstream: int) -> Iterator[int]:
    """The proxy before this TCP port of 127.0.0.1; gives its own."""
    tcp_port = processes.free_port()
    with tempfile.TemporaryDirectory(prefix="fastmeta-peer-") as name, tempfile.TemporaryFile() as log:
        folder = Path(name)
        file = folder / "conf"
        if program == "haproxy":
            file.write_text(haproxy_configuration(tcp_port, upstream))
            command = [find("haproxy"), "-db", "-q", "-f", str(file)]
        else:
            file.write_text(nginx_configuration(tcp_port, upstream, folder))
            command = [find("nginx"), "-e", "stderr", "-p", name, "-c", str(file)]
        process = processes.start(["setpriv", "--pdeathsig", "TERM", *command], log, {})
        try:
            assert processes.wait_until_listening(tcp_port, process, 10), f"{program} did not start"
            yield tcp_port
        finally:
            processes.end(process)


@dataclass
class Recorder:
    """The upstream. requests: client's TCP port -> (method, content) of the requests that are whole. answers: target ->
    (bytes, more of them after a while, whether the connection ends then) for who does not get a plain answer."""

    requests: dict[int, list[tuple[str, bytes]]] = field(default_factory=dict)
    answers: dict[bytes, tuple[bytes, bytes, bool]] = field(default_factory=dict)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            case = 0
            while case := await self.serve_one(reader, writer, case):
                pass
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, case: int) -> int:
        """case: of the request before on this connection. Returns that of this one, 0 for the end of the connection."""
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head[:-4].split(b"\r\n")
        method, target, _ = first.split(b" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        content = b""
        if b"transfer-encoding" in headers:
            while length := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
                content += await reader.readexactly(length)
                assert await reader.readexactly(2) == b"\r\n"
            while await reader.readuntil(b"\r\n") != b"\r\n":
                pass
        else:
            content = await reader.readexactly(int(headers.get(b"content-length", b"0")))
        # Bytes that go through a tunnel come without the header: they belong to who opened it.
        case = int(headers.get(CASE, b"%d" % case))
        self.requests.setdefault(case, []).append((method.decode("latin-1"), content))
        plain = (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", False)
        data, later, ends = self.answers.get(target, plain)
        writer.write(data)
        await writer.drain()
        if later:
            await asyncio.sleep(LATER_S)
            writer.write(later)
            await writer.drain()
        if target not in self.answers:
            return case
        if not ends:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(reader.read(1), UPSTREAM_PATIENCE_S)
        return 0


@dataclass(frozen=True)
class Heard:
    """What a client got until the end of its connection, after how long that was, and what reached the upstream."""

    requests: list[tuple[str, bytes]]
    data: bytes
    seconds: float
    reset: bool


async def say(tcp_port: int, data: bytes, recorder: Recorder) -> Heard:
    """Sends data on a connection of its own and reads to its end."""
    start = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", tcp_port)
    requests = recorder.requests[writer.get_extra_info("sockname")[1]] = []
    heard = b""
    reset = False
    writer.write(data)
    try:
        while piece := await asyncio.wait_for(reader.read(65536), LONGEST_S):
            heard += piece
    except OSError:
        reset = True
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return Heard(requests, heard, time.monotonic() - start, reset)


STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")


def statuses(data: bytes) -> list[int]:
    """Of the answers that a client got. Their contents are short pages of the proxies, which hold no status line."""
    return [int(status) for status in STATUS.findall(data) if int(status) >= 200]


async def gathered(tcp_port: int, messages: Sequence[bytes], recorder: Recorder, at_once: int) -> list[Heard]:
    limit = asyncio.Semaphore(at_once)

    async def one(data: bytes) -> Heard:
        async with limit:
            return await say(tcp_port, data, recorder)

    return await asyncio.gather(*(one(data) for data in messages))


def reading(heard: Heard) -> Reading:
    requests = tuple(heard.requests)
    found = statuses(heard.data)
    if found and found[-1] >= 300 and len(found) > len(requests):
        end = WAITS if found[-1] in (408, 504) else str(found[-1])
    elif heard.seconds > PATIENCE_S * 0.9 and len(found) == len(requests):
        end = WAITS
    elif found:
        end = OPEN
    else:
        end = CLOSES
    return Reading(requests, end)


async def _requests(program: str, messages: Sequence[bytes]) -> list[Reading]:
    recorder = Recorder()
    server = await asyncio.start_server(recorder.serve, "127.0.0.1", 0, limit=1 << 20, backlog=1024)
    async with server:
        with running(program, server.sockets[0].getsockname()[1]) as tcp_port:
            found: list[Reading] = []
            found += [reading(one) for one in await gathered(tcp_port, messages, recorder, AT_ONCE)]
            # Who seemed to wait may have had no turn on a busy machine: once more, a few at a time.
            late = [at for at, one in enumerate(found) if one.end == WAITS]
            again = await gathered(tcp_port, [messages[at] for at in late], recorder, AT_ONCE // 4)
            for at, heard in zip(late, again, strict=True):
                found[at] = reading(heard)
    return found


def requests(program: str, messages: Sequence[bytes]) -> list[Reading]:
    """What this proxy makes of each of these, sent on a connection of its own."""
    return asyncio.run(_requests(program, messages))


def answer_reading(heard: Heard, method: str, sent: bytes) -> AnswerReading:
    """The proxy's own 502 and 504 are refusals, unless it is the upstream that sent that status."""
    head, end, rest = heard.data.partition(b"\r\n\r\n")
    while head.startswith(b"HTTP/1.1 1") and end:
        head, end, rest = rest.partition(b"\r\n\r\n")
    match = STATUS.match(head)
    if match is None or not end:
        # nginx takes what is no answer for one of HTTP/0.9, which is all content and no head.
        return AnswerReading(0, b"", False, PASSES if heard.data else REFUSES)
    status = int(match[1])
    if status in (502, 504) and b" %d" % status not in sent:
        return AnswerReading(0, b"", False, REFUSES if status == 502 else WAITS)
    lines = head.split(b"\r\n")[1:]
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    if method == "HEAD" or status in (204, 304):
        return AnswerReading(status, rest, not rest)
    if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
        content = b""
        while b"\r\n" in rest:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size, 16)
            if length == 0:
                return AnswerReading(status, content, rest == b"\r\n")
            content, rest = content + rest[:length], rest[length + 2 :]
        return AnswerReading(status, content, False)
    if b"content-length" in headers:
        whole = headers[b"content-length"].isdigit() and len(rest) == int(headers[b"content-length"])
        return AnswerReading(status, rest, whole)
    return AnswerReading(status, rest, not heard.reset)


async def _answers(
    program: str, messages: Sequence[tuple[bytes, bytes, str, str, bool]]
) -> list[AnswerReading]:
    recorder = Recorder()
    asked: list[bytes] = []
    for number, (data, later, method, http_version, ends) in enumerate(messages):
        target = b"/%d" % number
        recorder.answers[target] = (data, later, ends)
        asked.append(
            b"%b %b HTTP/%b\r\nHost: h\r\nConnection: close\r\n\r\n"
            % (method.encode(), target, http_version.encode())
        )
    server = await asyncio.start_server(recorder.serve, "127.0.0.1", 0, limit=1 << 20, backlog=1024)
    async with server:
        with running(program, server.sockets[0].getsockname()[1]) as tcp_port:
            heard = await gathered(tcp_port, asked, recorder, AT_ONCE)
    return [
        answer_reading(one, method, data)
        for one, (data, _, method, _, _) in zip(heard, messages, strict=True)
    ]


def answers(program: str, messages: Sequence[tuple[bytes, bytes, str, str, bool]]) -> list[AnswerReading]:
    """What a client of this proxy gets when the upstream answers so: (bytes, more of them after a while, method, the
    client's version of HTTP, whether the connection ends then)."""
    return asyncio.run(_answers(program, messages))
