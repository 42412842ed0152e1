"""What needs a process of its own: a stopped one, one without descriptors, one that forks."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from fastmeta import _core
from fastmeta.exceptions import CoreError

from .loop_kit import (
    Guest,
    Upstream,
    answer,
    cpu_seconds,
    echo,
    instance_of,
    mark,
    nothing_left_behind,
    until,
)


def state_of(thread: pathlib.Path) -> str:
    """Of a folder of /proc/<pid>/task: proc_pid_stat(5)."""
    return (thread / "stat").read_text().rpartition(")")[2].split()[0]


class Process:
    """A loop in another process, with an upstream in this one."""

    def __init__(self, upstream: Upstream, descriptors: int, settings: dict[str, int]) -> None:
        self.upstream = upstream
        program = pathlib.Path(__file__).with_name("loop_process.py")
        arguments = [str(upstream.tcp_port), str(descriptors), json.dumps(settings)]
        self.process = subprocess.Popen(
            [sys.executable, str(program), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(program.parents[2])},
        )
        self.tcp_port = int(self.process.stdout.readline())
        self.problems: list[int] = []
        self.reader = threading.Thread(target=self.read)
        self.reader.start()
        self.guests: list[Guest] = []

    def read(self) -> None:
        for line in self.process.stdout:
            self.problems.append(int(line.split()[1]))

    def guest(self, address: str = "127.0.0.1") -> Guest:
        sock = socket.create_connection(("127.0.0.1", self.tcp_port), 8, (address, 0))
        self.guests.append(Guest(sock))
        return self.guests[-1]

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)
        # All of its threads: one may go on for a moment when the others stand still.
        threads = list(pathlib.Path(f"/proc/{self.process.pid}/task").iterdir())
        until(lambda: all(state_of(thread) == "T" for thread in threads), "stopped")

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        for guest in self.guests:
            guest.close()
        self.go_on()
        self.process.stdin.close()
        try:
            assert self.process.wait(8) == 0
        finally:
            self.process.kill()
            self.process.wait()
            self.reader.join(8)
            self.process.stdout.close()
            self.upstream.stop()


@contextlib.contextmanager
def process(script=echo, descriptors: int = 0, **settings: int) -> Iterator[Process]:
    with nothing_left_behind():
        made = Process(Upstream(script), descriptors, settings)
        try:
            yield made
        finally:
            made.end()


def test_stray_bytes_are_seen_before_their_connection_is_used():
    """Stray bytes on an idle connection come together with an answer whose guest has its next request ready:
    that request must not go out on this connection."""
    answers = {name: threading.Event() for name in ("/first", "/second", "stray")}

    def script(wire):
        while (request := wire.read()) is not None:
            if request.target in answers:
                answers[request.target].wait(8)
            wire.send(answer(mark(request)))
            if request.target == "/second":
                answers["stray"].wait(8)
                wire.send(answer(b"stray"))

    with process(script) as loop:
        one, two = loop.guest("127.0.0.2"), loop.guest("127.0.0.3")
        one.send(b"".join(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % name for name in (b"/first", b"/third")))
        until(lambda: loop.upstream.targets() == ["/first"])
        two.get("/second")
        until(lambda: loop.upstream.targets() == ["/first", "/second"])
        answers["/second"].set()
        assert two.answer().status == 200
        time.sleep(0.1)  # its connection is in the pool
        loop.stop()
        answers["/first"].set()
        time.sleep(0.1)
        answers["stray"].set()
        time.sleep(0.1)
        loop.go_on()
        for target in ("/first", "/third"):
            assert one.answer().body.decode() == f"{instance_of(1, '127.0.0.2')} GET {target}\n"


def test_stray_bytes_behind_a_full_batch():
    """The same when epoll has more to report than fits in one batch, and the stray bytes come last."""
    stray = threading.Event()

    def script(wire):
        while (request := wire.read()) is not None:
            wire.send(answer(mark(request)))
            if request.target == "/last":
                stray.wait(8)
                wire.send(answer(b"stray"))

    with process(script) as loop:
        addresses = [f"127.0.1.{number % 200 + 1}" for number in range(280)]
        guests = [loop.guest(address) for address in addresses]
        for guest in guests:
            guest.get("/last" if guest is guests[-1] else "/a")
            assert guest.answer().status == 200
        loop.stop()
        for guest in guests:
            guest.get("/b")
        time.sleep(0.1)
        stray.set()
        time.sleep(0.1)
        loop.go_on()
        for address, guest in zip(addresses, guests, strict=True):
            assert guest.answer().body.decode() == f"{instance_of(1, address)} GET /b\n"


def test_without_descriptors():
    """Accepting pauses, nothing spins, and it goes on when there are descriptors again."""
    with process(descriptors=40) as loop:
        first = loop.guest("127.0.0.2")
        first.get("/a")
        assert first.answer().status == 200
        half = b"GET /x HTTP/1.1\r\nHost: a\r\n"
        crowd = []
        for _ in range(60):
            crowd.append(loop.guest("127.0.0.3"))
            crowd[-1].send(half)
        until(lambda: _core.PROBLEM_DESCRIPTORS in loop.problems)
        before = cpu_seconds(loop.process.pid)
        time.sleep(0.6)
        assert cpu_seconds(loop.process.pid) - before < 0.2
        for guest in crowd[:50]:
            guest.close()
        for guest in crowd[50:]:
            guest.send(b"\r\n")
            assert guest.answer().status == 200
        newcomer = loop.guest("127.0.0.2")
        newcomer.get("/b")
        assert newcomer.answer().status == 200


def test_a_process_that_forked():
    """A child keeps connections alive that its parent closed, and epoll must not report them any more."""
    with process(keepalive_timeout_ms=50, upstream_idle_timeout_ms=50) as loop:
        guests = [loop.guest(f"127.0.0.{number}") for number in range(2, 12)]
        for guest in guests:
            guest.get("/a")
        for guest in guests:
            assert guest.answer().status == 200
        loop.process.stdin.write("fork\n")
        loop.process.stdin.flush()
        time.sleep(0.2)
        for guest in guests:
            guest.send(b"GET /b HTTP/1.1\r\nHost: a\r\n\r\n")
        loop.upstream.hang_up()
        before = cpu_seconds(loop.process.pid)
        time.sleep(0.4)
        assert cpu_seconds(loop.process.pid) - before < 0.15
        newcomer = loop.guest("127.0.0.2")
        newcomer.get("/c")
        assert newcomer.answer().status == 200


def test_a_listener_that_somebody_shut_down(make_rig):
    """Its description may be shared. Epoll goes on reporting it: the loop must not spin."""
    rig = make_rig()
    assert rig.ask("/a").status == 200
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    rig.loop.add_listener(2, 1, os.dup(sock.fileno()))
    sock.shutdown(socket.SHUT_RDWR)
    until(lambda: _core.PROBLEM_ACCEPT in rig.problems())
    before = cpu_seconds()
    time.sleep(0.4)
    assert cpu_seconds() - before < 0.15
    rig.loop.remove_listener(2, drain=False)
    until(lambda: (_core.EVENT_LISTENER_CLOSED, 2) in rig.events)
    sock.close()
    assert rig.ask("/b").status == 200


def test_a_loop_runs_once(make_rig):
    """run() a second time is refused."""
    rig = make_rig()
    assert rig.ask("/a").status == 200
    with pytest.raises(CoreError, match="once"):
        rig.loop.run()


def test_a_loop_runs_in_its_own_process():
    """epoll is shared with a forked child: it may not run there."""
    with nothing_left_behind():
        loop = _core.Loop()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                loop.run()
            except CoreError:
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        del loop


def test_the_mailbox_is_bounded():
    """Before run() nobody takes messages: when it is full, that is an error and not a wait."""
    with nothing_left_behind():
        loop = _core.Loop()
        taken = 0
        with pytest.raises(CoreError, match="messages"):
            for number in range(1, 1_000_000):
                loop.add_scope(number)
                taken = number
        assert taken >= 1000
        listener = socket.socket()
        with pytest.raises(CoreError):
            loop.add_listener(1, 1, os.dup(listener.fileno()))
        listener.close()
        del loop


def test_messages_before_run_are_carried_out():
    """Also stop()."""
    with nothing_left_behind():
        loop = _core.Loop()
        loop.add_scope(1)
        loop.stop()
        thread = threading.Thread(target=loop.run)
        thread.start()
        thread.join(5)
        assert not thread.is_alive()
        del loop, thread
