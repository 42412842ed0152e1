"""Listening sockets in real namespaces. Needs root (or a user namespace of one's own)."""

from __future__ import annotations

import ipaddress
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastmeta.exceptions import ListenError, NamespaceError, NamespaceNotFoundError
from fastmeta.netns import namespaces
from fastmeta.netns.namespaces import in_namespace, namespace_inode
from fastmeta.netns.sockets import (
    BACKLOG,
    IP_FREEBIND,
    Place,
    open_listening_socket,
    open_listening_sockets,
)

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 and "FASTMETA_CI" not in os.environ, reason="namespaces need root"
)

METADATA = ipaddress.ip_address("169.254.169.254")


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=30).stdout


@pytest.fixture
def namespace() -> Iterator[str]:
    """The path of a new namespace."""
    name = f"fmt-sockets-{os.getpid()}"
    ip("netns", "add", name)
    try:
        yield f"/run/netns/{name}"
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True, timeout=30)


def opened(*arguments: object, **keywords: object) -> socket.socket:
    return socket.socket(fileno=open_listening_socket(*arguments, **keywords))  # type: ignore[arg-type]


def listening(namespace: str) -> str:
    """What listens in the namespace, seen by another tool."""
    return ip("netns", "exec", os.path.basename(namespace), "ss", "-Hltn")


def own_inode() -> int:
    return os.stat("/proc/thread-self/ns/net").st_ino


def test_is_in_the_namespace_and_we_are_not(namespace: str) -> None:
    before, threads = own_inode(), threading.active_count()
    with opened(METADATA, 80, namespace_path=namespace) as listener:
        assert listener.getsockname() == ("169.254.169.254", 80)
        assert "169.254.169.254:80" in listening(namespace)
    assert own_inode() == before
    assert threading.active_count() == threads


def test_many_are_opened_each_where_it_belongs(namespace: str) -> None:
    """Ours before and after, one that is not there in between: each gets its own, and who fails hides no other."""
    other = f"{namespace}-other"
    ip("netns", "add", os.path.basename(other))
    loopback = ipaddress.ip_address("127.0.0.1")
    try:
        before, threads = own_inode(), threading.active_count()
        found = open_listening_sockets(
            [
                Place(loopback, 0),
                Place(METADATA, 80, namespace),
                Place(METADATA, 81, "/run/netns/fmt-sockets-nowhere"),
                Place(METADATA, 82, other),
                Place(METADATA, 80, namespace),
                Place(METADATA, 83, namespace),
                Place(loopback, 0),
            ]
        )
        sockets = [socket.socket(fileno=one) for one in found if isinstance(one, int)]
        assert [type(one) for one in found] == [
            *(int, int, NamespaceNotFoundError, int, ListenError, int, int),
        ]
        assert listening(namespace).count("169.254.169.254:") == 2
        assert "169.254.169.254:83" in listening(namespace)
        assert "169.254.169.254:82" in listening(other)
        # The last one is ours again: reachable from here.
        socket.create_connection(sockets[-1].getsockname(), 5).close()
        for one in sockets:
            one.close()
        assert own_inode() == before
        assert threading.active_count() == threads
    finally:
        ip("netns", "del", os.path.basename(other))


def test_options(namespace: str) -> None:
    with opened(METADATA, 80, namespace_path=namespace) as listener:
        for level, option, least in [
            (socket.SOL_SOCKET, socket.SO_ACCEPTCONN, 1),
            (socket.SOL_SOCKET, socket.SO_REUSEADDR, 1),
            (socket.IPPROTO_IP, IP_FREEBIND, 1),
            (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
            (socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1),
        ]:
            assert listener.getsockopt(level, option) >= least, (level, option)
        assert not os.get_blocking(listener.fileno())
        assert not os.get_inheritable(listener.fileno())
        with pytest.raises(BlockingIOError):
            listener.accept()
        somaxconn = int(Path("/proc/sys/net/core/somaxconn").read_text())
        assert int(listening(namespace).split()[2]) == min(BACKLOG, somaxconn)


def test_nobody_shares_a_tcp_port(namespace: str) -> None:
    """A second service of the same user is refused, also one that would share (SO_REUSEPORT, as haproxy)."""
    with (
        opened(METADATA, 80, namespace_path=namespace),
        pytest.raises(ListenError, match="somebody else listens there"),
    ):
        open_listening_socket(METADATA, 80, namespace_path=namespace)
    # In a namespace of nobody else, but in our own: what another one opens first.
    with socket.socket() as first:
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        first.bind(("127.0.0.1", 0))
        first.listen()
        with pytest.raises(ListenError, match="somebody else listens there"):
            open_listening_socket(ipaddress.ip_address("127.0.0.1"), first.getsockname()[1])


def test_address_that_comes_later(namespace: str) -> None:
    name = os.path.basename(namespace)
    with opened(METADATA, 80, namespace_path=namespace) as listener:
        ip("-n", name, "link", "set", "lo", "up")
        ip("-n", name, "addr", "add", "169.254.169.254/32", "dev", "lo")
        listener.settimeout(5)

        def connect() -> socket.socket:
            return socket.create_connection(("169.254.169.254", 80), timeout=5)

        with in_namespace(namespace, connect) as guest:
            guest.sendall(b"x")
            connection, _ = listener.accept()
            with connection:
                assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
                connection.setblocking(True)
                assert connection.recv(1) == b"x"


def test_any_ipv6_address_takes_ipv4_too(namespace: str) -> None:
    name = os.path.basename(namespace)
    ip("-n", name, "link", "set", "lo", "up")
    with opened(ipaddress.ip_address("::"), 9697, namespace_path=namespace) as listener:
        listener.settimeout(5)
        for address, seen in (("127.0.0.1", "::ffff:127.0.0.1"), ("::1", "::1")):

            def connect(address: str = address) -> socket.socket:
                return socket.create_connection((address, 9697), timeout=5)

            with in_namespace(namespace, connect) as guest:
                guest.sendall(b"x")
                connection, peer = listener.accept()
                connection.close()
                assert peer[0] == seen


def test_one_ipv6_address_may_come_later_too(namespace: str) -> None:
    with opened(ipaddress.ip_address("2001:db8::1"), 80, namespace_path=namespace) as listener:
        assert listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1


def test_link_local_with_its_interface(namespace: str) -> None:
    name = os.path.basename(namespace)
    address = ipaddress.ip_address("fe80::a9fe:a9fe")
    with pytest.raises(ListenError, match=r"there is no interface tap0"):
        open_listening_socket(address, 80, namespace_path=namespace, interface="tap0")
    ip("-n", name, "link", "add", "tap0", "type", "bridge")
    with opened(address, 80, namespace_path=namespace, interface="tap0") as listener:
        index = in_namespace(namespace, lambda: socket.if_nametoindex("tap0"))
        assert listener.getsockname()[3] == index


def test_does_not_keep_the_namespace_alive_by_itself(namespace: str) -> None:
    """Neither a descriptor of the namespace nor a thread in it is left: closing the socket ends it."""
    before = set(os.listdir("/proc/self/fd"))
    opened(METADATA, 80, namespace_path=namespace).close()
    with pytest.raises(ListenError):
        open_listening_socket(ipaddress.ip_address("fe80::1"), 80, namespace_path=namespace, interface="none")
    assert set(os.listdir("/proc/self/fd")) <= before


def test_in_our_own_namespace() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        tcp_port = probe.getsockname()[1]
    with opened(ipaddress.ip_address("127.0.0.1"), tcp_port) as listener:
        assert listener.getsockname() == ("127.0.0.1", tcp_port)


def test_somebody_else_listens() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        tcp_port = other.getsockname()[1]
        with pytest.raises(
            ListenError, match=rf"127\.0\.0\.1:{tcp_port}: somebody else listens there.*ss -ltnp"
        ):
            open_listening_socket(ipaddress.ip_address("127.0.0.1"), tcp_port)


def test_no_such_namespace() -> None:
    with pytest.raises(NamespaceNotFoundError, match="fmt-absent: does not exist"):
        open_listening_socket(METADATA, 80, namespace_path="/run/netns/fmt-absent")


def test_name_that_nothing_is_mounted_on(tmp_path: Path) -> None:
    path = tmp_path / "fmt-name"
    path.touch()
    assert namespace_inode(str(path)) is None
    with pytest.raises(NamespaceNotFoundError, match="no namespace is mounted"):
        open_listening_socket(METADATA, 80, namespace_path=str(path))


def test_namespace_of_another_kind() -> None:
    with pytest.raises(NamespaceError, match="is not a network namespace"):
        open_listening_socket(METADATA, 80, namespace_path="/proc/self/ns/uts")


def test_inode_tells_namespaces_apart(namespace: str) -> None:
    assert namespace_inode(namespace) not in (None, own_inode())
    assert namespace_inode("/proc/self/ns/net") == own_inode()
    assert namespace_inode("/run/netns/fmt-absent") is None


# What an ordinary user may not do, tried in a process that has given up its rights.
_WITHOUT_RIGHTS = """
import ipaddress, os, sys
from fastmeta.exceptions import FastmetaError
from fastmeta.netns.sockets import open_listening_socket
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
try:
    open_listening_socket(ipaddress.ip_address("127.0.0.1"), 80, namespace_path=sys.argv[1] or None)
except FastmetaError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("own", "kind", "capability"),
    [(False, "NamespaceError", "CAP_SYS_ADMIN"), (True, "ListenError", "CAP_NET_BIND_SERVICE")],
)
def test_missing_capability_is_named(namespace: str, own: bool, kind: str, capability: str) -> None:
    # In the namespace, so that nothing that the machine itself listens on or allows is met.
    inside = ["nsenter", f"--net={namespace}", "--"]
    result = subprocess.run(
        [*inside, sys.executable, "-c", _WITHOUT_RIGHTS, "" if own else namespace],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
    )
    assert result.stdout.startswith(kind), (result.stdout, result.stderr)
    assert capability in result.stdout


def test_no_thread_can_be_started(namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoThread(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(namespaces.threading, "Thread", NoThread)
    with pytest.raises(NamespaceError, match="no thread"):
        open_listening_socket(METADATA, 80, namespace_path=namespace)
