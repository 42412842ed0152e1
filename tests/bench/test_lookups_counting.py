"""What bench.lookups counts with: the relay before an API, the queue on the bus, the processes' clocks."""

from __future__ import annotations

import http.client
import http.server
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from bench import processes
from bench.bus_calls import BusCalls, method
from bench.cpu_clock import family_seconds
from bench.relay import Relay

from ..bus.neutron import NeutronServer
from ..bus.rabbit import PASSWORD, USER, RabbitMQ


class Echo(http.server.BaseHTTPRequestHandler):
    """Answers with what it was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        asked = {"path": self.path, "host": self.headers["Host"], "token": self.headers["X-Auth-Token"]}
        content = json.dumps({**asked, "method": self.command, "body": body}).encode()
        self.send_response(404 if self.path == "/nowhere" else 200)
        self.send_header("X-Request-Id", "req-1")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def tcp_port() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def connected(relay: Relay) -> Iterator[http.client.HTTPConnection]:
    where = urlsplit(relay.url)
    assert where.hostname is not None
    with closing(http.client.HTTPConnection(where.hostname, where.port, timeout=10)) as connection:
        yield connection


def ask(connection: http.client.HTTPConnection, *request: Any) -> tuple[int, dict[str, Any]]:
    connection.request(*request)
    answer = connection.getresponse()
    assert answer.getheader("X-Request-Id") == "req-1"
    return answer.status, json.loads(answer.read())


def test_the_relay_counts_and_changes_nothing(tcp_port: int):
    with Relay(tcp_port) as relay:
        with connected(relay) as connection:  # kept: each request counts, not each connection
            for address in ("10.0.0.5", "10.0.0.6"):
                path = f"/v2.0/ports?fixed_ips=ip_address%3D{address}"
                status, asked = ask(connection, "GET", path, None, {"X-Auth-Token": "t"})
                assert (status, asked["path"], asked["token"]) == (200, path, "t")
                assert asked["host"] == urlsplit(relay.url).netloc
            status, asked = ask(connection, "POST", "/v3/auth/tokens", b"{}")
            assert (status, asked["method"], asked["body"]) == (200, "POST", "{}")
            assert ask(connection, "GET", "/nowhere")[0] == 404
        assert relay.counts() == {"GET /v2.0/ports": 2, "POST /v3/auth/tokens": 1, "GET /nowhere": 1}


def test_the_relay_counts_many_at_once(tcp_port: int):
    def one(_: int) -> int:
        with connected(relay) as connection:
            return ask(connection, "GET", "/v2.0/ports")[0]

    with Relay(tcp_port) as relay, ThreadPoolExecutor(16) as pool:
        assert set(pool.map(one, range(200))) == {200}
        assert relay.counts() == {"GET /v2.0/ports": 200}


def test_a_server_that_is_away_is_said(tcp_port: int):
    with Relay(processes.free_port()) as relay, connected(relay) as connection:
        connection.request("GET", "/v2.0/ports")
        assert connection.getresponse().status == 502
        assert relay.counts() == {"GET /v2.0/ports": 1}


def test_the_relay_ends_with_connections_open(tcp_port: int):
    with Relay(tcp_port) as relay:
        where = urlsplit(relay.url)
        idle = socket.create_connection((where.hostname, where.port), 10)
    idle.close()


@pytest.fixture(scope="module")
def rabbit() -> Iterator[RabbitMQ]:
    with RabbitMQ() as started:
        yield started


# As a client of Neutron's: a line is a topic and a method, which is cast; with "call" before them it is called.
CLIENT = """
import sys
import time
import oslo_messaging
from oslo_config import cfg

oslo_messaging.set_transport_defaults("neutron")
cfg.CONF([])
transport = oslo_messaging.get_rpc_transport(cfg.CONF, sys.argv[1])
for line in sys.stdin:
    *called, topic, method = line.split()
    client = oslo_messaging.get_rpc_client(transport, oslo_messaging.Target(topic=topic, version="1.0"))
    if called:
        assert client.call({}, method, filters={"network_id": ["n"]}) == []
    else:
        client.cast({}, method)
    print(flush=True)
"""


def test_the_queue_gets_a_copy_of_each_call(rabbit: RabbitMQ):
    command = [sys.executable, "-W", "ignore", "-c", CLIENT, rabbit.url]
    with (
        NeutronServer(rabbit.url) as neutron,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client,
        BusCalls(f"127.0.0.1:{rabbit.tcp_port}", USER, PASSWORD) as bus,
    ):

        def say(line: str) -> None:
            assert client.stdin is not None and client.stdout is not None
            client.stdin.write(f"{line}\n")
            client.stdin.flush()
            assert client.stdout.readline() == "\n"

        assert bus.counts() == {}
        for number in range(1, 4):
            say("call q-plugin get_ports")
            say("q-reports-plugin report_state")
            assert bus.counts() == {"get_ports": number}
        say("q-plugin anything")
        assert bus.counts() == {"get_ports": 3, "anything": 1}
        assert len(neutron.calls("get_ports")) == 3  # the copies take nothing away


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"oslo.message": 1}', '{"oslo.message": "{}"}'])
def test_a_message_that_is_not_oslo_messagings_has_no_method(body: str):
    assert method(body) == "?"


WORK = """
import sys, threading, time

def work():
    while time.thread_time() < 0.2:
        pass

thread = threading.Thread(target=work)
thread.start()
thread.join()
print(flush=True)
sys.stdin.read()
"""


def test_the_clock_counts_threads_that_have_ended():
    shell = ["sh", "-c", '"$0" -c "$1"; exit 0', sys.executable, WORK]  # it is a child of ours' child
    with subprocess.Popen(shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        family = processes.family(process.pid)
        # A thread that was joined is in /proc for a moment still.
        while len(processes.threads(family)) > len(family):
            time.sleep(0.001)
        counted = family_seconds([process.pid])
        of_threads = processes.cpu_ns(family) / 1e9
    assert counted - of_threads > 0.19
    assert family_seconds([process.pid]) == 0
