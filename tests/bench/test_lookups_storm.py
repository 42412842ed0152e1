"""The guests of bench.lookups, in namespaces as it makes them, against a server whose every word the test chooses."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import uuid
from collections.abc import Iterator

import pytest

from bench.crowd import GUESTS_PREFIX, Guests, Place, play_guests
from bench.lookups import SERVER
from bench.storm import judge
from fastmeta.lab.namespaces import inside
from fastmeta.lab.topology import METADATA_ADDRESS, Lab

FIRST = GUESTS_PREFIX.rpartition(".")[0]
MANY = 300


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    if os.geteuid() != 0:
        pytest.skip("only root may make namespaces")
    with Lab() as lab:
        yield Place(lab, str(uuid.uuid4()))


@pytest.fixture
def guests(place: Place) -> Iterator[Guests]:
    with play_guests(place.lab, place.guests, contextlib.nullcontext) as playing:
        yield playing


@contextlib.contextmanager
def server(place: Place) -> Iterator[socket.socket]:
    def listen() -> socket.socket:
        return socket.create_server((METADATA_ADDRESS, 80), backlog=1024)

    with inside(place.proxy, listen) as listener:
        listener.settimeout(20)
        yield listener


def answer(status: str, body: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def crowd(number: int) -> dict[str, str]:
    """Addresses, and what each must get."""
    return {f"10.96.{16 + at // 250}.{1 + at % 250}": f"instance {at}" for at in range(number)}


def test_all_ask_at_once_each_from_its_address(place: Place, guests: Guests):
    asked: dict[str, bytes] = {}
    wanted = crowd(MANY)

    def serve(listener: socket.socket) -> None:
        # Nobody is answered before everybody has asked.
        connections = [listener.accept() for _ in range(MANY)]
        for connection, (address, _) in connections:
            with connection:
                asked[address] = connection.recv(4096)
                connection.sendall(answer("200 OK", wanted[address]))

    with server(place) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        ended = guests.storm(SERVER, wanted, 30)
        thread.join()
    assert [kind for kind, _ in ended] == ["200"] * MANY
    assert all(0 < seconds < 30 for _, seconds in ended)
    assert asked.keys() == wanted.keys()
    assert all(request.startswith(b"GET /") and request.endswith(b"\r\n\r\n") for request in asked.values())


def test_how_each_ended_is_told(place: Place, guests: Guests):
    wanted = crowd(7)
    addresses = list(wanted)
    says = {
        addresses[0]: answer("200 OK", wanted[addresses[0]]),
        addresses[1]: answer("200 OK", wanted[addresses[0]]),
        addresses[2]: answer("503 No", wanted[addresses[2]]),
        addresses[3]: b"HTTP/1.1 404 Not Found\nConnection: close\n\nnobody",
        addresses[4]: b"HTTP/1.1 200 O",
        addresses[5]: b"reset",
    }

    def serve(listener: socket.socket) -> None:
        silent = []
        for _ in wanted:
            connection, (address, _) = listener.accept()
            connection.recv(4096)
            if address not in says:
                silent.append(connection)
                continue
            if says[address] == b"reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                connection.sendall(says[address])
            connection.close()
        with silent[0] as one:
            assert one.recv(1) == b""  # until it has given up

    with server(place) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        ended = guests.storm(SERVER, wanted, 1)
        thread.join()
    kinds = ["200", "wrong answer", "503", "404", "cut short", "ECONNRESET", "no answer"]
    assert [kind for kind, _ in ended] == kinds
    assert ended[-1][1] >= 1


def test_nobody_listens(guests: Guests):
    assert [kind for kind, _ in guests.storm(SERVER, crowd(2), 10)] == ["ECONNREFUSED"] * 2


def test_one_program_plays_many_storms(place: Place, guests: Guests):
    for _ in range(3):
        with server(place) as listener:
            thread = threading.Thread(target=_one, args=(listener,))
            thread.start()
            assert guests.storm(SERVER, {f"{FIRST}.1": "me"}, 10)[0][0] == "200"
            thread.join()


def _one(listener: socket.socket) -> None:
    with listener.accept()[0] as connection:
        connection.recv(4096)
        connection.sendall(answer("200 OK", "me"))


def test_a_program_that_has_ended_is_said(place: Place):
    with play_guests(place.lab, place.guests, contextlib.nullcontext) as guests:
        guests._process.kill()
        guests._process.wait()
        with pytest.raises((RuntimeError, BrokenPipeError)):
            guests.storm(SERVER, crowd(1), 1)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "cut short"),
        (b"HTTP/1.1 200 OK\r\n", "cut short"),
        (b"\r\n\r\n", "cut short"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "wrong answer"),
        (b"HTTP/1.1 200 OK\r\n\r\nme", "200"),
        (b"HTTP/1.1 200 OK\r\n\r\nme and more", "wrong answer"),
        (b"HTTP/1.1 429 Too Many\r\n\r\nme", "429"),
    ],
)
def test_answers(data: bytes, kind: str):
    assert judge(data, "me") == kind
