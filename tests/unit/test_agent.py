"""The whole agent as a process of its own: real core, real sockets on loopback, a real upstream."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import http.client
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fastmeta._core import Loop
from fastmeta.agent import Agent
from fastmeta.conf.running import RunningConfiguration
from fastmeta.conf.settings import load
from fastmeta.exceptions import CoreError

BLUE = "11111111-1111-4111-8111-111111111111"
SECRET = "Zx81-Spectrum"
STATUS = "STATUS=1 of 1 listeners are open; lookups: healthy"


def ports(instance: str | None) -> str:
    """A ports file in which the guest on loopback is this instance, or nobody."""
    port = {
        "id": "00000000-0000-4000-8000-000000000001",
        "network_id": BLUE,
        "device_id": instance,
        "device_owner": "compute:nova",
        "project_id": "a" * 32,
        "mac_address": "fa:16:3e:00:00:01",
        "fixed_ips": [{"ip_address": "127.0.0.1"}],
    }
    return json.dumps({"ports": [port] if instance else []})


class Upstream(http.server.ThreadingHTTPServer):
    """Answers with the instance id that it was asked for. gate: requests for /slow wait for it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), UpstreamHandler)
        self.gate = threading.Event()
        self.requests: list[tuple[str, str | None]] = []


class UpstreamHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Upstream

    def do_GET(self) -> None:
        instance = self.headers["X-Instance-ID"]
        self.server.requests.append((self.path, instance))
        if self.path == "/slow":
            self.server.gate.wait(30)
        body = str(instance).encode()
        with contextlib.suppress(OSError):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None: ...


def free_tcp_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        tcp_port: int = probe.getsockname()[1]
        return tcp_port


class Running:
    """An agent that is ready, and its upstream."""

    def __init__(self, folder: Path, upstream: Upstream, *, fastmeta: str = "", default: str = "") -> None:
        self.folder = folder
        self.upstream = upstream
        self.ports_file = folder / "ports.json"
        self.tcp_port = free_tcp_port()
        self.log = folder / "log"
        config = folder / "fastmeta.conf"
        config.write_text(
            f"[DEFAULT]\ndebug = true\nnova_metadata_port = {upstream.server_port}\n"
            f"metadata_proxy_shared_secret = {SECRET}\n{default}\n[fastmeta]\n"
            f"listen = network:{BLUE}@127.0.0.1:{self.tcp_port}\nports_file = {self.ports_file}\n"
            f"access_log = true\n{fastmeta}\n"
        )
        self.notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notifications.bind(str(folder / "notify"))
        self.notifications.settimeout(30)
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fastmeta", "agent", "--config-file", str(config)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"NOTIFY_SOCKET": str(folder / "notify")},
            )

    def notified(self) -> str:
        return self.notifications.recv(4096).decode()

    def get(self, path: str = "/") -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.tcp_port, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()

    def until_logged(self, text: str) -> str:
        end = time.monotonic() + 10
        while text not in self.log.read_text():
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.005)
        return self.log.read_text()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.gate.set()
        server.shutdown()
        thread.join()


class Start:
    """Starts agents in one test, and ends them after it."""

    def __init__(self, folder: Path, upstream: Upstream) -> None:
        self.folder = folder
        self.upstream = upstream
        self.started: list[Running] = []

    def __call__(self, instance: str | None = "one", *, wait: bool = True, **options: str) -> Running:
        if instance != "no file":
            (self.folder / "ports.json").write_text(ports(instance))
        running = Running(self.folder, self.upstream, **options)
        self.started.append(running)
        if wait:
            assert running.notified().startswith("READY=1\n")
        return running


@pytest.fixture
def start(tmp_path: Path, upstream: Upstream) -> Iterator[Start]:
    start = Start(tmp_path, upstream)
    yield start
    for running in start.started:
        if running.process.poll() is None:
            running.process.kill()
        running.process.wait(30)
        running.notifications.close()


def test_serves_and_logs(start: Start) -> None:
    agent = start()
    assert agent.get("/latest/meta-data/") == (200, "one")
    text = agent.until_logged(f'network {BLUE} 127.0.0.1 instance one "GET /latest/meta-data/" 200 3 bytes')
    assert "ready: 1 of 1 listeners are open" in text
    assert "connections of guests" in text
    assert SECRET not in text


def test_who_is_nobody_does_not_reach_nova(start: Start, upstream: Upstream) -> None:
    agent = start(None)
    assert agent.get()[0] == 404
    assert upstream.requests == []


def test_ports_file_that_changes_revokes(start: Start, upstream: Upstream) -> None:
    """Far within the identity's time to live."""
    agent = start(fastmeta="identity_ttl = 3600\nnegative_ttl = 60")
    read = "ports file"
    for instance in ("one", "two", None, "three"):
        count = agent.log.read_text().count(read)
        agent.ports_file.write_text(ports(instance))
        end = time.monotonic() + 10
        while instance != "one" and agent.log.read_text().count(read) == count:
            assert time.monotonic() < end
            time.sleep(0.005)
        expected = (200, instance) if instance else None
        status, body = agent.get()
        assert (status, body) == expected if expected else status == 404


def test_guests_wait_for_the_ports_file(start: Start) -> None:
    agent = start("no file")
    with ThreadPoolExecutor(5) as pool:
        waiting = [pool.submit(agent.get) for _ in range(5)]
        agent.until_logged("is not there yet")
        time.sleep(0.1)
        assert not any(future.done() for future in waiting)
        agent.ports_file.write_text(ports("one"))
        assert [future.result(30) for future in waiting] == [(200, "one")] * 5


def test_guests_do_not_wait_for_ever(start: Start) -> None:
    agent = start("no file", fastmeta="park_timeout = 0.3")
    assert agent.get()[0] == 503


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ends_after_requests_in_progress(start: Start, upstream: Upstream, number: signal.Signals) -> None:
    agent = start()
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(agent.get, "/slow")
        end = time.monotonic() + 10
        while not upstream.requests:
            assert time.monotonic() < end
            time.sleep(0.005)
        agent.process.send_signal(number)
        agent.until_logged("requests in progress have 10 seconds")
        time.sleep(0.1)
        assert agent.process.poll() is None
        upstream.gate.set()
        assert slow.result(30) == (200, "one")
    assert agent.process.wait(30) == 0
    assert agent.notified() == "STOPPING=1"
    assert "Traceback" not in agent.log.read_text()
    with pytest.raises(ConnectionRefusedError):
        agent.get()


def test_draining_is_bounded(start: Start, upstream: Upstream) -> None:
    agent = start(fastmeta="drain_timeout = 0.2")
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(agent.get, "/slow")
        end = time.monotonic() + 10
        while not upstream.requests:
            assert time.monotonic() < end
            time.sleep(0.005)
        assert agent.stop() == 0
        with contextlib.suppress(OSError, http.client.HTTPException):
            slow.result(30)


def test_a_second_signal_ends_at_once(start: Start, upstream: Upstream) -> None:
    agent = start(fastmeta="drain_timeout = 600")
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(agent.get, "/slow")
        end = time.monotonic() + 10
        while not upstream.requests:
            assert time.monotonic() < end
            time.sleep(0.005)
        agent.process.send_signal(signal.SIGTERM)
        agent.until_logged("requests in progress have 600 seconds")
        assert agent.stop(signal.SIGINT) == 130
        with contextlib.suppress(OSError, http.client.HTTPException):
            slow.result(30)


def test_hangup_is_told_to_systemd(start: Start) -> None:
    """As Type=notify-reload wants it (sd_notify(3)): when it began, by CLOCK_MONOTONIC, and when it is done; also
    when nothing could be taken up."""
    agent = start()
    config = agent.folder / "fastmeta.conf"
    for line, logged in (
        ("max_body = 7", "reload: taken up: [fastmeta] max_body = 7"),
        ("nonsense", "not a line"),
    ):
        config.write_text(f"{config.read_text()}{line}\n")
        before = time.monotonic_ns() // 1000
        agent.process.send_signal(signal.SIGHUP)
        reloading, monotonic = agent.notified().splitlines()
        assert reloading == "RELOADING=1"
        assert before <= int(monotonic.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
        assert agent.notified().splitlines() == ["READY=1", STATUS]
        assert logged in agent.log.read_text()
    assert agent.get() == (200, "one")
    assert agent.stop() == 0


def test_hangup_while_it_starts(start: Start) -> None:
    """The reload follows when it is ready, which is said once before."""
    agent = start(wait=False)
    agent.until_logged("fastmeta agent")
    _until_safe(agent.process, signal.SIGHUP, "SigCgt")
    agent.process.send_signal(signal.SIGHUP)
    told = [agent.notified().splitlines()[0] for _ in range(3)]
    assert told == ["READY=1", "RELOADING=1", "READY=1"]
    assert agent.stop() == 0


def test_hangup_early_in_the_start(start: Start) -> None:
    """Before there is a log: it waits, and no thread holds it back later."""
    agent = start(wait=False)
    _until_safe(agent.process, signal.SIGHUP, "SigBlk")
    assert agent.log.read_text() == ""
    agent.process.send_signal(signal.SIGHUP)
    told = [agent.notified().splitlines()[0] for _ in range(3)]
    assert told == ["READY=1", "RELOADING=1", "READY=1"]
    for thread in os.listdir(f"/proc/{agent.process.pid}/task"):
        assert not _has_signal(f"{agent.process.pid}/task/{thread}", signal.SIGHUP, "SigBlk")
    assert agent.stop() == 0


def test_nothing_slow_is_imported_before_hangup_is_held_back() -> None:
    script = "import sys, fastmeta.cmd.main; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60
    )
    imported = {name.partition(".")[0] for name in done.stdout.split()}
    assert imported.isdisjoint({"asyncio", "logging", "oslo_config", "oslo_log", "subprocess", "socket"})
    ours = {name for name in done.stdout.split() if name.partition(".")[0] == "fastmeta"}
    assert ours == {"fastmeta", "fastmeta.cmd", "fastmeta.cmd.main", "fastmeta.exceptions"}


def _until_safe(process: subprocess.Popen[bytes], number: signal.Signals, field: str) -> None:
    """Waits until the signal is caught (SigCgt), or blocked (SigBlk)."""
    end = time.monotonic() + 10
    while not _has_signal(str(process.pid), number, field):
        assert process.poll() is None
        assert time.monotonic() < end


def _has_signal(task: str, number: signal.Signals, field: str) -> bool:
    """Whether the signal is in this set of /proc/<task>/status (proc_pid_status(5))."""
    status = Path(f"/proc/{task}/status").read_text()
    (shown,) = (line.split()[1] for line in status.splitlines() if line.startswith(f"{field}:"))
    return bool(int(shown, 16) >> (number - 1) & 1)


def test_empty_secret_is_taken_with_a_warning(start: Start) -> None:
    agent = start(default="metadata_proxy_shared_secret =")
    agent.until_logged("metadata_proxy_shared_secret is empty")
    assert agent.get() == (200, "one")


@pytest.mark.parametrize(("limit", "warned"), [(28, True), (29, False)])
def test_rate_limits_that_do_not_pass_a_boot_are_warned_of(start: Start, limit: int, warned: bool) -> None:
    limits = (
        "[metadata_rate_limiting]\nrate_limit_enabled = true\nbase_query_rate_limit = 100\n"
        f"burst_query_rate_limit = {limit}\n"
    )
    running = start("blue-1", fastmeta=limits)
    assert [running.get()[0] for _ in range(limit + 1)] == [200] * limit + [429]
    running.until_logged("a guest asks faster than [metadata_rate_limiting] allows, it gets 429 [127.0.0.1, ")
    assert (f"allows {limit} requests in a window" in running.log.read_text()) is warned


def test_upstream_that_is_away_is_named(start: Start) -> None:
    tcp_port = free_tcp_port()
    agent = start(default=f"nova_metadata_port = {tcp_port}", fastmeta="park_timeout = 0.3")
    assert agent.get()[0] == 503
    assert "ECONNREFUSED" in agent.until_logged(f"Nova's metadata API http://127.0.0.1:{tcp_port} is away")


class DeadLoop:
    """A core that ends by itself, with or without an error."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.event = os.eventfd(0, os.EFD_NONBLOCK)

    def run(self) -> None:
        if self.error is not None:
            raise self.error

    def fileno(self) -> int:
        return self.event

    def events(self) -> list[tuple[Any, ...]]:
        return []

    def add_listener(self, listener: int, scope: int, fd: int) -> None:
        os.close(fd)

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **keywords: None


@pytest.mark.parametrize("loops", [1, 3])
@pytest.mark.parametrize(
    ("error", "text"),
    [(CoreError("epoll_wait: EBADF"), "cannot go on: epoll_wait: EBADF"), (None, "although nobody asked")],
)
def test_a_core_that_ends_by_itself_is_an_error(
    tmp_path: Path, error: Exception | None, text: str, loops: int
) -> None:
    """Also when it is one loop of several: the others end with it."""
    (tmp_path / "ports.json").write_text(ports("one"))
    config = tmp_path / "fastmeta.conf"
    config.write_text(
        f"[fastmeta]\nlisten = network:{BLUE}@127.0.0.1:{free_tcp_port()}\nports_file = "
        f"{tmp_path}/ports.json\nloops = {loops}\n"
    )
    read = functools.partial(load, ["--config-file", str(config)], prog="fastmeta agent", version="0")
    configuration = RunningConfiguration(read(), read)
    core = DeadLoop(error)
    made: list[Any] = []

    def make(*arguments: Any, **keywords: Any) -> Any:
        made.append(core if len(made) == loops // 2 else Loop(*arguments, **keywords))
        return made[-1]

    async def run() -> None:
        await Agent(configuration, make).run()

    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(CoreError, match=text):
        asyncio.run(run())
    os.close(core.event)
    assert len(made) == loops
    assert [loop.running for loop in made if loop is not core] == [False] * (loops - 1)
    made.clear()
    if error is not None:
        error.__traceback__ = None  # it knows the loops
    gc.collect()
    assert len(set(os.listdir("/proc/self/fd")) - before) == 0
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("core")]
