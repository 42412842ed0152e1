"""floor, stub and load against each other: what they count and refuse, never how fast they are."""

import contextlib
import socket
import subprocess
from pathlib import Path

import pytest

from bench import job, peers, processes

HEAD = job.ANSWER_HEAD_BYTES
BODY = job.ANSWER_BODY_BYTES
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
WAYS = [("keep", 1), ("keep", 16), ("close", 1), ("close", 16), ("fresh", 1), ("fresh", 16)]


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 5)


def receive(connection: socket.socket, size: int) -> bytes:
    """size bytes, or fewer when the connection ends."""
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            break
        data += piece
    return data


@pytest.mark.parametrize(("mode", "connections"), WAYS)
def test_every_request_is_answered(start, run_load, mode, connections):
    result = run_load(start("stub", HEAD, BODY), mode, connections, 300)
    assert (result["requests"], result["errors"], result["reconnects"]) == (300, 0, 0)
    assert 0 < result["latency_us"]["p50"] <= result["latency_us"]["p99"] <= result["latency_us"]["max"]


@pytest.mark.parametrize(("mode", "connections"), WAYS)
def test_every_request_is_answered_through_the_floor(start, start_floor, run_load, mode, connections):
    floor = start_floor(start("stub", HEAD, BODY, *job.EXPECTED_VALUES))
    result = run_load(floor, mode, connections, 300, "--warmup=50")
    assert (result["requests"], result["errors"], result["reconnects"]) == (300, 0, 0)


@pytest.mark.parametrize(("mode", "connections"), WAYS)
def test_every_request_is_answered_over_a_unix_socket(programs, start_floor, run_load, mode, connections):
    with peers.local_stub(programs, 0) as path:
        result = run_load(start_floor(str(path)), mode, connections, 300, "--warmup=50")
    assert (result["requests"], result["errors"], result["reconnects"]) == (300, 0, 0)


@pytest.mark.skipif(
    not Path("/proc/sys/kernel/io_uring_disabled").exists()
    or Path("/proc/sys/kernel/io_uring_disabled").read_text() != "0\n",
    reason="io_uring is switched off here, or the kernel is older than 6.6",
)
@pytest.mark.parametrize(("mode", "connections"), WAYS)
def test_every_request_is_answered_on_io_uring(start, start_floor, run_load, mode, connections):
    relay = start_floor(start("stub", HEAD, BODY, *job.EXPECTED_VALUES), program="uring")
    result = run_load(relay, mode, connections, 300, "--warmup=50")
    assert (result["requests"], result["errors"], result["reconnects"]) == (300, 0, 0)


def test_the_floors_head_has_its_length_and_all_values():
    head = job.floor_head(8775)
    assert len(head) == job.FLOOR_HEAD_BYTES
    assert all(value.encode() in head for value in job.EXPECTED_VALUES)


def test_steps_are_told_apart(programs, start):
    port = start("stub", HEAD, BODY)
    command = [str(programs["load"]), f"--port={port}", "--mode=keep", "--count=10", "--paused"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"warm\n"
        for _ in range(2):
            process.stdin.write(b"\n")
            process.stdin.flush()
            assert b'"requests": 10, "errors": 0' in process.stdout.readline()
        process.stdin.close()
        assert process.wait(10) == 0


@pytest.mark.parametrize("mode", ["keep", "close", "fresh"])
def test_a_missing_header_is_an_error(start, run_load, mode):
    result = run_load(start("stub", HEAD, BODY, "a value that nobody sends"), mode, 2, 20)
    assert (result["requests"], result["error_kinds"]["status"]) == (0, 20)


@pytest.mark.parametrize("size", [BODY - 1, BODY + 1, 0])
def test_an_answer_of_the_wrong_length_is_an_error(start, run_load, size):
    result = run_load(start("stub", HEAD, size), "keep", 1, 5)
    assert (result["requests"], result["error_kinds"]["content"]) == (0, 5)


@pytest.mark.parametrize("size", [0, 1, 1 << 20])
def test_other_sizes(start, start_floor, run_load, size):
    floor = start_floor(start("stub", HEAD, size), HEAD + size)
    # A short send is an error to the floor, so a large answer may be one: never a wrong one.
    result = run_load(start("stub", HEAD, size), "close", 4, 20, f"--body={size}")
    assert (result["requests"], result["errors"]) == (20, 0)
    through = run_load(floor, "close", 1, 5, f"--body={size}")
    assert through["requests"] + through["error_kinds"]["closed"] == 5
    assert through["requests"] == 5 or size > 65536


def test_nobody_there_ends_soon(run_load):
    result = run_load(processes.free_port(), "keep", 4, 40)
    assert (result["requests"], result["error_kinds"]["connect"]) == (0, 40)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", "closed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd", "content"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n!(/6!", "content"),
        (b"HTTP/1.1 404 No\r\nContent-Length: 4\r\n\r\n!(/6", "status"),
        (b"nonsense\r\n\r\n", "status"),
        (b"", "closed"),
    ],
)
def test_wrong_answers_are_seen(programs, answer, kind):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        command = [str(programs["load"]), f"--port={port}", "--mode=close", "--count=1", "--body=4"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            guest, _ = server.accept()
            with guest:
                guest.recv(4096)
                guest.sendall(answer)
            output, _ = process.communicate(timeout=30)
    assert '"requests": 0, "errors": 1, "error_kinds": {"connect": 0' in output
    assert f'"{kind}": 1' in output


def test_the_stub_answers_pipelined_requests_and_skips_bodies(start):
    port = start("stub", HEAD, 10)
    with connect(port) as guest:
        guest.sendall(REQUEST + b"POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nab")
        guest.sendall(b"cde" + REQUEST)
        assert receive(guest, 3 * (HEAD + 10)).count(b"HTTP/1.1 200 OK\r\n") == 3
        guest.sendall(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert len(receive(guest, 1 << 16)) == HEAD + 10


def test_the_stub_waits_for_a_slow_reader(start):
    size = 8 << 20
    port = start("stub", HEAD, size)
    with connect(port) as guest:
        guest.sendall(REQUEST * 2)
        assert len(receive(guest, 2 * (HEAD + size))) == 2 * (HEAD + size)


class Upstream:
    """An upstream whose every word the test chooses."""

    def __init__(self) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.settimeout(5)
        self.port: int = self.server.getsockname()[1]

    def accept(self) -> socket.socket:
        connection, _ = self.server.accept()
        connection.settimeout(5)
        return connection


@pytest.fixture
def upstream():
    one = Upstream()
    with contextlib.closing(one.server):
        yield one


def test_the_floor_takes_a_head_in_pieces(start_floor, upstream):
    floor = start_floor(upstream.port, 4)
    with connect(floor) as guest:
        guest.sendall(REQUEST[:10])
        guest.sendall(REQUEST[10:20])
        guest.sendall(REQUEST[20:])
        with upstream.accept() as nova:
            assert nova.recv(4096) == job.floor_head(upstream.port)
            nova.sendall(b"ab")
            nova.sendall(b"cd")
            assert receive(guest, 4) == b"abcd"


def test_the_floor_uses_a_connection_again_only_after_a_whole_answer(start_floor, upstream):
    floor = start_floor(upstream.port, 4)
    with connect(floor) as guest:
        guest.sendall(REQUEST)
        with upstream.accept() as nova:
            nova.recv(4096)
            nova.sendall(b"good")
            assert receive(guest, 4) == b"good"
            guest.sendall(REQUEST)  # on the same connection to the upstream
            assert nova.recv(4096) == job.floor_head(upstream.port)
            nova.sendall(b"too long")
            assert receive(guest, 4) == b""
            assert nova.recv(1) == b""
    with connect(floor) as guest:
        guest.sendall(REQUEST)
        with upstream.accept() as nova:  # a new one
            nova.recv(4096)
            nova.sendall(b"next")
            assert receive(guest, 4) == b"next"


def test_the_floor_gives_nobody_the_answer_of_a_guest_who_left(start_floor, upstream):
    floor = start_floor(upstream.port, 4)
    guest = connect(floor)
    guest.sendall(REQUEST)
    nova = upstream.accept()
    nova.recv(4096)
    nova.sendall(b"frst")
    assert receive(guest, 4) == b"frst"
    guest.sendall(REQUEST)
    nova.recv(4096)
    guest.close()
    assert nova.recv(1) == b""  # closed: its late answer can reach nobody
    with connect(floor) as other:
        other.sendall(REQUEST)
        with upstream.accept() as second:
            second.recv(4096)
            second.sendall(b"mine")
            assert receive(other, 4) == b"mine"
    nova.close()


def test_the_floor_forgets_an_idle_connection_that_the_upstream_closes(start_floor, upstream):
    floor = start_floor(upstream.port, 4)
    for answer in (b"one.", b"two."):
        with connect(floor) as guest:
            guest.sendall(REQUEST)
            with upstream.accept() as nova:
                nova.recv(4096)
                nova.sendall(answer)
                assert receive(guest, 4) == answer
                nova.shutdown(socket.SHUT_WR)
                assert nova.recv(1) == b""


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("floor", ["1"]),
        ("floor", ["0", "1", "1", "/"]),
        ("stub", ["x", "190", "1"]),
        ("stub", ["1", "64", "1"]),
    ],
)
def test_wrong_arguments_are_refused(programs: dict[str, Path], program, arguments):
    done = subprocess.run([programs[program], *arguments], capture_output=True, timeout=10, check=False)
    assert done.returncode == 2
    assert done.stderr
