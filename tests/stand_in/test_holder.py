"""The stand-in's program and its holder, before an agent of the test's own."""

from __future__ import annotations

import os
import signal
import socket
import stat
import statistics
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fastmeta.lab.namespaces import inside
from fastmeta.stand_in.sockets import check

from . import kit
from .configurations import EVERY, UUID, Configuration
from .kit import WAIT, Ground, Handed, connect, is_alive, listening, receive, until

LOOPBACK = Configuration(binds=["127.0.0.5:80"])


def start(
    ground: Ground, namespace: str, configuration: Configuration = LOOPBACK, answer: bytes = b"taken"
) -> tuple[subprocess.CompletedProcess[str], Handed]:
    """A stand-in, and an agent that answers this."""
    with listening(ground) as server, ThreadPoolExecutor(1) as pool:
        starting = pool.submit(ground.start, namespace, configuration)
        connection, _ = server.accept()
        handed = receive(connection)
        connection.send(answer)
        return starting.result(WAIT), handed


def test_hands_over_and_leaves_a_holder(ground: Ground, namespace: str) -> None:
    """All that Neutron's process manager looks at, and all that the agent is told."""
    configuration = Configuration(
        binds=["169.254.169.254:80", "fe80::a9fe:a9fe:80 interface lo"], limits=(10, 6, 5, 2), version="ipv6"
    )
    done, handed = start(ground, namespace, configuration)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    pid = ground.holder()
    mode = ground.pid_file(UUID).stat().st_mode
    assert stat.S_IMODE(mode) == 0o644
    claim = handed.claim
    check(claim, handed.descriptors)
    assert claim.scope.uuid == UUID
    assert claim.scope.kind.value == "network"
    assert [str(place) for place in claim.sockets] == ["169.254.169.254:80", "[fe80::a9fe:a9fe%1]:80"]
    assert claim.rate is not None
    assert (claim.rate.version, claim.rate.base_limit, claim.rate.burst_window) == (6, 6, 5)
    assert claim.timeouts == (30, 30, 32, 32, 30)
    assert ground.sockets() == [claim.holder]
    assert os.getsid(pid) == pid
    assert {os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)} == {"/dev/null"}
    # Three, two sockets, its own one, and the connection: nothing of ours.
    assert len(os.listdir(f"/proc/{pid}/fd")) == 7
    # ip netns exec has made a mount namespace, in which nobody is any more.
    assert os.readlink(f"/proc/{pid}/ns/mnt") == os.readlink("/proc/self/ns/mnt")
    handed.close()


@pytest.mark.parametrize("name", EVERY)
def test_every_generation(ground: Ground, namespace: str, name: str) -> None:
    interface_there = EVERY[name]
    binds = [bind.replace("tap3bcd2a1f-77", "lo") for bind in interface_there.binds]
    done, handed = start(ground, namespace, Configuration(interface_there.headers, binds))
    assert done.returncode == 0, done.stderr
    check(handed.claim, handed.descriptors)
    assert len(handed.descriptors) == len(binds)
    handed.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_signals_that_end_it(ground: Ground, namespace: str, number: int) -> None:
    """The agent sees it at once, whatever the signal, and nothing is left of it but the name of its socket."""
    _, handed = start(ground, namespace)
    pid = ground.holder()
    os.kill(pid, number)
    assert handed.has_ended()
    until(lambda: not is_alive(pid), "its end")
    with pytest.raises(ConnectionRefusedError):
        connect(ground, handed.claim.holder)
    handed.close()


def test_signals_that_do_not(ground: Ground, namespace: str) -> None:
    _, handed = start(ground, namespace)
    pid = ground.holder()
    os.kill(pid, signal.SIGHUP)
    handed.connection.settimeout(0.2)
    with pytest.raises(socket.timeout):
        handed.connection.recv(1)
    assert is_alive(pid)
    handed.close()


def test_gives_the_sockets_to_every_agent(ground: Ground, namespace: str) -> None:
    """Those who connected meanwhile wait in the socket's queue, which is the same one."""
    _, first = start(ground, namespace)
    first.close()  # the agent has ended
    guest = inside(namespace, lambda: socket.create_connection(("127.0.0.5", 80), WAIT))
    guest.send(b"I was here first")
    for _ in range(3):
        again = receive(connect(ground, first.claim.holder))
        assert again.claim == first.claim
        check(again.claim, again.descriptors)
        again.close()
    last = receive(connect(ground, first.claim.holder))
    with socket.socket(fileno=last.descriptors[0]) as listener:
        listener.settimeout(WAIT)
        accepted, _ = listener.accept()
        assert accepted.recv(100) == b"I was here first"
        accepted.close()
        listener.detach()
    guest.close()
    os.kill(ground.holder(), signal.SIGKILL)
    assert last.has_ended()
    last.close()


def test_the_last_agent_is_the_one_that_is_told(ground: Ground, namespace: str) -> None:
    _, first = start(ground, namespace)
    second = receive(connect(ground, first.claim.holder))
    assert first.has_ended()
    assert is_alive(ground.holder())
    second.close()
    first.close()


def test_the_agent_can_end_it(ground: Ground, namespace: str) -> None:
    _, handed = start(ground, namespace)
    pid = ground.holder()
    handed.connection.send(b"anything else is no order")
    handed.connection.send(b"end")
    assert handed.has_ended()
    until(lambda: not is_alive(pid), "its end")
    handed.close()


def test_silent_connections_keep_nobody(ground: Ground, namespace: str) -> None:
    _, handed = start(ground, namespace)
    crowd = [connect(ground, handed.claim.holder) for _ in range(5)]
    last = receive(connect(ground, handed.claim.holder))
    os.kill(ground.holder(), signal.SIGKILL)
    assert last.has_ended()
    for connection in crowd:
        connection.close()
    last.close()
    handed.close()


def test_refused(ground: Ground, namespace: str) -> None:
    """It ends as haproxy does when it cannot start: nothing is left, and the port is free."""
    done, handed = start(ground, namespace, answer=b"refused that is another's place")
    assert done.returncode == 1
    assert "that is another's place" in done.stderr
    assert not ground.pid_file(UUID).exists()
    assert ground.sockets() == []
    handed.close()
    inside(namespace, lambda: socket.create_server(("127.0.0.5", 80)).close())


def test_an_agent_that_ends_before_it_answers(ground: Ground, namespace: str) -> None:
    with listening(ground) as server, ThreadPoolExecutor(1) as pool:
        starting = pool.submit(ground.start, namespace, LOOPBACK)
        connection, _ = server.accept()
        receive(connection).close()
        done = starting.result(WAIT)
    assert done.returncode == 1
    assert "fastmeta is not running" in done.stderr
    assert ground.sockets() == []


def test_a_successor_can_listen_beside_it(ground: Ground, namespace: str) -> None:
    """As haproxy, which Neutron's agents may start before its predecessor has ended."""
    _, first = start(ground, namespace)
    done, second = start(ground, namespace)
    assert done.returncode == 0, done.stderr
    assert second.claim.holder != first.claim.holder
    first.close()
    second.close()


def test_many_at_once(ground: Ground, namespace: str) -> None:
    """Each has a holder of its own; none has what another has opened."""
    count = 20
    handed: list[Handed] = []
    with listening(ground) as server:
        server.listen(count)

        def serve() -> None:
            for _ in range(count):
                connection, _ = server.accept()
                handed.append(receive(connection))
                connection.send(b"taken")

        serving = threading.Thread(target=serve)
        serving.start()
        uuids = [ground.new_uuid() for _ in range(count)]
        binds = [Configuration(binds=[f"127.0.1.{number}:80"]) for number in range(1, count + 1)]
        with ThreadPoolExecutor(count) as pool:
            done = list(pool.map(ground.start, [namespace] * count, binds, uuids))
        serving.join(WAIT)
    assert [one.returncode for one in done] == [0] * count
    assert {one.claim.scope.uuid for one in handed} == set(uuids)
    assert len(ground.sockets()) == count
    for identifier in uuids:
        assert len(os.listdir(f"/proc/{ground.holder(identifier)}/fd")) == 6
    for one in handed:
        one.close()


def test_memory_and_time(lab: object, namespace: str, record_property: object) -> None:
    """At most 64 KiB each, and 25 ms from exec to exit 0 (five times that is where this fails)."""
    with Ground() as ground:
        took = []
        with listening(ground) as server:
            for number in range(1, 21):
                identifier = ground.new_uuid()
                path = ground.write(Configuration(binds=[f"127.0.2.{number}:80"]), identifier)
                command = ["nsenter", f"--net=/run/netns/{namespace}", str(kit.PROGRAM), "-f", str(path)]
                began = time.monotonic()
                process = subprocess.Popen(command, env=ground.environment)
                connection, _ = server.accept()
                handed = receive(connection)
                connection.send(b"taken")
                assert process.wait(WAIT) == 0
                took.append(time.monotonic() - began)
                ground.holders.append(ground.holder(identifier))
                handed.close()
        pss = [
            int(line.split()[1])
            for pid in ground.holders
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            if line.startswith("Pss:")
        ]
        print(f"holder: {max(pss)} kB PSS; start: {statistics.median(took) * 1000:.1f} ms")
        assert len(pss) == 20
        assert max(pss) <= 64
        assert statistics.median(took) <= 5 * 0.025
