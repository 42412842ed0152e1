"""HTTP on real sockets: framing, order, bounds and time limits of the metadata API's server."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from fastmeta.exceptions import MetadataApiError
from fastmeta.metadata_api.application import Application, Request, Response
from fastmeta.metadata_api.server import Limits, MetadataServer

Address = tuple[str, int]


class Echo(Application):
    """Says what reached it; /big/<n> gives n bytes."""

    def __init__(self) -> None:
        super().__init__({}, b"")

    def handle(self, request: Request) -> Response:
        if request.target.startswith("/big/"):
            return Response(200, "text/plain", b"x" * int(request.target[5:]))
        lines = [f"{request.method} {request.target} {request.content_length} {len(request.body)}"]
        lines += [f"{name}={value}" for name, value in sorted(request.headers.items())]
        return Response(200, "text/plain", "\n".join(lines).encode())


@contextmanager
def running(
    limits: Limits | None = None, host: str = "127.0.0.1"
) -> Iterator[tuple[MetadataServer, Address]]:
    """A server in a thread of its own."""
    loop = asyncio.new_event_loop()
    server = MetadataServer(Echo(), limits)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        [address] = asyncio.run_coroutine_threadsafe(server.listen([(host, 0)]), loop).result(10)
        yield server, address
    finally:
        asyncio.run_coroutine_threadsafe(server.close(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
def address() -> Iterator[Address]:
    with running() as (_, bound):
        yield bound


def connect(address: Address) -> socket.socket:
    return socket.create_connection(address, 10)


def all_of(connection: socket.socket) -> bytes:
    """Everything until the server closes."""
    data = b""
    while piece := connection.recv(65536):
        data += piece
    return data


def exchange(address: Address, data: bytes) -> bytes:
    with connect(address) as connection:
        connection.sendall(data)
        return all_of(connection)


def one_answer(connection: socket.socket, *, head: bool = False) -> tuple[bytes, bytes]:
    """Head and body of exactly one response with Content-Length."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(1)
        assert piece, data
        data += piece
    length = int(next(line for line in data.split(b"\r\n") if line.startswith(b"Content-Length: "))[16:])
    body = b""
    while not head and len(body) < length:
        piece = connection.recv(length - len(body))
        assert piece
        body += piece
    return data, body


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_keep_alive(address: Address) -> None:
    with connect(address) as connection:
        for number in range(3):
            connection.sendall(f"GET /{number} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            head, body = one_answer(connection)
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"Connection:" not in head
            assert b"\r\nDate: " in head
            assert body.startswith(f"GET /{number} None 0".encode())


def test_http_1_0(address: Address) -> None:
    assert b"\r\nConnection: close\r\n" in exchange(address, b"GET / HTTP/1.0\r\n\r\n")
    with connect(address) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        head, _ = one_answer(connection)
        assert b"\r\nConnection: keep-alive\r\n" in head
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert all_of(connection).endswith(b"GET / None 0")


def test_connection_close(address: Address) -> None:
    answer = exchange(address, b"GET /a HTTP/1.1\r\nConnection: close\r\n\r\nGET /b HTTP/1.1\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200") == 1
    assert b"\r\nConnection: close\r\n" in answer


def test_head(address: Address) -> None:
    with connect(address) as connection:
        connection.sendall(b"HEAD /big/1000 HTTP/1.1\r\n\r\n")
        head, _ = one_answer(connection, head=True)
        assert b"\r\nContent-Length: 1000\r\n" in head
        connection.sendall(b"GET /next HTTP/1.1\r\n\r\n")
        assert one_answer(connection)[1].startswith(b"GET /next")


def test_names_are_folded_as_wsgi_does_and_repeats_joined(address: Address) -> None:
    answer = exchange(
        address,
        b"GET / HTTP/1.1\r\nX-Instance-ID: a\r\nx_instance_id: b\r\nX-INSTANCE_ID:c\r\n"
        b"Connection: close\r\n\r\n",
    )
    assert b"\nx-instance-id=a,b,c" in answer


def test_pipelining_keeps_the_order(address: Address) -> None:
    requests = b"".join(f"GET /{number} HTTP/1.1\r\n\r\n".encode() for number in range(2000))
    with connect(address) as connection:
        thread = threading.Thread(target=connection.sendall, args=(requests,))
        thread.start()
        for number in range(2000):
            assert one_answer(connection)[1] == f"GET /{number} None 0".encode()
        thread.join()


def test_every_split_gives_the_same(address: Address) -> None:
    data = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
    with connect(address) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for cut in range(1, len(data)):
            connection.sendall(data[:cut])
            time.sleep(0.001)
            connection.sendall(data[cut:])
            assert one_answer(connection)[1].startswith(b"POST /a 3 3\n")


def test_a_client_that_takes_nothing_is_not_answered_without_bound() -> None:
    limits = Limits(write_timeout=60)
    with running(limits) as (server, address), connect(address) as connection:
        connection.sendall(b"GET /big/1000000 HTTP/1.1\r\n\r\n" * 100)
        time.sleep(0.3)
        [held] = server._connections
        assert held._transport is not None
        assert held._transport.get_write_buffer_size() < 3_000_000
        for _ in range(100):
            assert len(one_answer(connection)[1]) == 1_000_000


def test_a_client_that_takes_nothing_is_closed() -> None:
    with running(Limits(write_timeout=0.2)) as (server, address), connect(address) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(b"GET /big/16000000 HTTP/1.1\r\n\r\n")
        wait_for(lambda: server.connections == 1)
        wait_for(lambda: server.connections == 0)


def test_chunked_bodies_are_gathered_and_have_no_length(address: Address) -> None:
    with connect(address) as connection:
        connection.sendall(
            b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: u\r\n\r\n"
        )
        assert one_answer(connection)[1].startswith(b"POST /a None 5\n")
        connection.sendall(b"GET /next HTTP/1.1\r\n\r\n")
        assert one_answer(connection)[1].startswith(b"GET /next")


def test_expect_100_continue(address: Address) -> None:
    with connect(address) as connection:
        connection.sendall(b"POST /a HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        expected = b"HTTP/1.1 100 Continue\r\n\r\n"
        assert connection.recv(len(expected)) == expected
        connection.sendall(b"ab")
        assert one_answer(connection)[1].startswith(b"POST /a 2 2\n")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 80_000, 431),
        (b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 10_000 + b"\r\n", 431),
        (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"POST / HTTP/1.1\r\nContent-Length: 65537\r\n\r\n" + b"a" * 65537, 413),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"4000\r\n" + b"a" * 0x4000 + b"\r\n",
            None,
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
            + (b"4000\r\n" + b"a" * 0x4000 + b"\r\n") * 5
            + b"0\r\n\r\n",
            413,
        ),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 300_000, 413),
    ],
)
def test_refusals(address: Address, data: bytes, status: int | None) -> None:
    with connect(address) as connection:
        connection.sendall(data)
        if status is None:
            connection.shutdown(socket.SHUT_WR)
            assert all_of(connection) == b"", "half a request is not answered"
            return
        answer = all_of(connection)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"\r\nConnection: close\r\n" in answer


def test_what_came_before_a_bad_request_is_answered(address: Address) -> None:
    answer = exchange(address, b"GET /good HTTP/1.1\r\n\r\n\x00\x01\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"HTTP/1.1 400 Bad Request" in answer


def test_half_close_still_gets_the_answer(address: Address) -> None:
    with connect(address) as connection:
        connection.sendall(b"GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        answer = all_of(connection)
    assert b"GET /a" in answer
    assert b"GET /b" in answer


def test_upgrade_is_answered_in_http_and_closed(address: Address) -> None:
    answer = exchange(address, b"GET /a HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
    assert b"GET /a" in answer


def test_slow_heads_and_bodies_are_408() -> None:
    with running(Limits(head_timeout=0.2, body_timeout=0.3)) as (_, address):
        assert exchange(address, b"GET / HTT").startswith(b"HTTP/1.1 408 ")
        assert exchange(address, b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\na").startswith(
            b"HTTP/1.1 408 "
        )
        assert exchange(address, b"") == b"", "who says nothing is closed without a word"


def test_idle_connections_close() -> None:
    with running(Limits(keep_alive_timeout=0.2)) as (_, address), connect(address) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        one_answer(connection)
        begin = time.monotonic()
        assert all_of(connection) == b""
        assert time.monotonic() - begin < 5


def test_connections_are_bounded() -> None:
    with running(Limits(connections=2)) as (server, address), ExitStack() as stack:
        kept = [stack.enter_context(connect(address)) for _ in range(2)]
        wait_for(lambda: server.connections == 2)
        with connect(address) as third, suppress(ConnectionResetError):
            assert third.recv(1) == b""
        for connection in kept:
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            one_answer(connection)


def test_close_ends_idle_connections_and_finishes_answers() -> None:
    with running() as (_, address):
        idle = connect(address)
        idle.sendall(b"GET / HTTP/1.1\r\n\r\n")
        one_answer(idle)
        busy = connect(address)
        busy.sendall(b"GET /big/4000000 HTTP/1.1\r\n\r\n")
        received: list[bytes] = []
        reader = threading.Thread(target=lambda: received.append(all_of(busy)))
        time.sleep(0.1)
        reader.start()
    with idle, busy:
        assert all_of(idle) == b""
        reader.join()
        assert received[0].endswith(b"x" * 1000)
        assert len(received[0]) > 4_000_000


def test_ipv6() -> None:
    with running(host="::1") as (_, address), connect(address) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        one_answer(connection)


def test_an_address_in_use_is_named() -> None:
    async def second(address: Address) -> None:
        await MetadataServer(Echo()).listen([address])

    with running() as (_, address), pytest.raises(MetadataApiError, match=rf"127\.0\.0\.1:{address[1]}"):
        asyncio.run(second(address))
