"""Rule 5, answers: byte for byte, whatever their framing; those that are cut off are so for the guest too."""

import socket
import threading
import time

import pytest

from fastmeta import _core

from .loop_kit import answer, chunked, mark, once, reset, until

CONTENT = bytes(number * 11 % 256 for number in range(20 << 20))


def framed(framing, body):
    if framing == "chunked":
        pieces = [body[at : at + 10_007] for at in range(0, len(body), 10_007)]
        return chunked(*pieces)
    if framing == "close":
        return b"HTTP/1.1 200 OK\r\n\r\n" + body
    return answer(body)


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("length", [0, 1, 16000, 16384, 65536, 65537, 1 << 20, 20 << 20])
def test_answers_of_any_size(make_rig, framing, length):
    """To a guest that reads at once, and to one that reads late; then the connection goes on."""
    body = CONTENT[:length]

    def script(wire):
        while wire.read() is not None:
            wire.send(framed(framing, body))
            if framing == "close":
                return

    rig = make_rig(script)
    guest = rig.guest()
    for late in (False, True) if length > 20_000 else (False,):
        guest.get("/a")
        if late:
            time.sleep(0.05)
        found = guest.answer()
        assert found.whole and found.body == body
        assert found.framing == ("length" if framing == "length" else "chunked")
    rig.wait_stat("bytes_down", length * (2 if length > 20_000 else 1))
    assert rig.upstream.connections == (1 if framing != "close" or length <= 20_000 else 2)


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_a_slow_reader(make_rig, framing):
    """A guest with a small buffer that reads bit by bit gets every byte."""
    body = CONTENT[: 3 << 20]

    def script(wire):
        wire.read()
        wire.send(framed(framing, body))
        if framing != "close":
            wire.read()

    rig = make_rig(script)
    guest = rig.guest(receive_buffer=8192)
    guest.get("/a")
    until(lambda: guest.more(1000) == "")
    for _ in range(20):
        time.sleep(0.005)
        guest.more(30_000)
    found = guest.answer()
    assert found.whole and found.body == body


ANSWERS = {
    "length": answer(b"hello world", headers=("X-Mark: yes",)),
    "chunked": chunked(b"hello", b" ", b"world", head=b"HTTP/1.1 200 OK\r\nX-Mark: yes\r\n"),
    "trailers": chunked(
        b"hello world", end=b"0\r\nTrailer: x\r\n\r\n", head=b"HTTP/1.1 200 OK\r\nX-Mark: yes\r\n"
    ),
    "interim": b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    + answer(b"hello world", headers=("X-Mark: yes",)),
}


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("piece", [1, 2, 17])
def test_answers_in_small_pieces(make_rig, kind, piece):
    """Cut anywhere, down to single bytes."""

    def script(wire):
        while wire.read() is not None:
            wire.send(ANSWERS[kind], piece, 0.0001)

    rig = make_rig(script)
    guest = rig.guest()
    for _ in range(2):
        guest.get("/a")
        found = guest.answer()
        assert (found.status, found.body, found.all("X-Mark")) == (200, b"hello world", ["yes"])
        assert found.whole
    assert rig.upstream.connections == 1


def test_hop_by_hop_headers_stay_on_their_hop(make_rig):
    """What concerns Nova's connection is not the guest's."""
    headers = (
        "Keep-Alive: timeout=5",
        "Connection: keep-alive, X-Hop",
        "X-Hop: 1",
        "Upgrade: h2",
        "Server: nova",
    )
    rig = make_rig(once(lambda request: answer(b"x", headers=headers)))
    assert rig.ask().headers == [("Server", "nova"), ("Content-Length", "1")]


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_answers_without_content(make_rig, status):
    """Nothing follows the head, and the connection is kept."""
    rig = make_rig(once(lambda request: f"HTTP/1.1 {status}\r\nETag: x\r\n\r\n".encode()))
    guest = rig.guest()
    for _ in range(3):
        guest.get("/a")
        found = guest.answer()
        assert (found.status, found.headers) == (int(status[:3]), [("ETag", "x")])
    assert rig.upstream.connections == 1


CUT = {
    "length, closed": (answer(CONTENT[:1000], length=2000), "close", "1.1"),
    "length, reset": (answer(CONTENT[:1000], length=2000), "reset", "1.1"),
    "chunked, closed": (chunked(CONTENT[:1000], end=b""), "close", "1.1"),
    "chunked, in a chunk": (chunked(CONTENT[:1000], end=b"ff\r\nabc"), "close", "1.1"),
    "chunked, before the last line": (chunked(CONTENT[:1000], end=b"0\r\n"), "close", "1.1"),
    "chunked, nonsense": (chunked(CONTENT[:1000], end=b""), "zz\r\n", "1.1"),
    "chunked, reset": (chunked(CONTENT[:1000], end=b""), "reset", "1.1"),
    "until close, reset": (b"HTTP/1.1 200 OK\r\n\r\n" + CONTENT[:1000], "reset", "1.1"),
    "length, closed, 1.0": (answer(CONTENT[:1000], length=2000), "close", "1.0"),
    "chunked, closed, 1.0": (chunked(CONTENT[:1000], end=b""), "close", "1.0"),
    "until close, reset, 1.0": (b"HTTP/1.1 200 OK\r\n\r\n" + CONTENT[:1000], "reset", "1.0"),
}


@pytest.mark.parametrize("kind", CUT)
def test_a_cut_off_answer_is_cut_off_for_the_guest_too(make_rig, kind):
    """No last chunk, a short content, or a reset: the guest must see that it is not whole."""
    data, end, version = CUT[kind]
    cut = []
    seen = threading.Event()

    def script(wire):
        while (request := wire.read()) is not None:
            if cut:
                wire.send(answer(mark(request)))
                continue
            cut.append(request)
            wire.send(data)
            seen.wait(5)
            if end == "reset":
                wire.reset()
            if end not in ("close", "reset"):
                wire.send(end.encode())
                wire.read_to_end()
            return

    rig = make_rig(script)
    guest = rig.guest()
    guest.get("/a", version=version)
    until(lambda: guest.more() == "")
    seen.set()
    found = guest.answer()
    assert not found.whole
    assert found.end == "reset" if found.framing == "close" else found.end in ("closed", "reset")
    assert CONTENT[:1000].startswith(found.body[:1000])
    assert rig.ask("/b", address="127.0.0.2").body.endswith(b"/b\n")
    assert (rig.stat("aborted"), rig.upstream.connections) == (1, 2)


NONSENSE = {
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "a lone LF": b"HTTP/1.1 200 OK\nContent-Length: 1\n\nx",
    "both length and coding": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
    "another coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx",
    "switching protocols": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    "interim answers without end": b"HTTP/1.1 100 Continue\r\n\r\n" * 30,
    "a huge head": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
    "too many headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 150 + b"\r\n",
    "status 99": b"HTTP/1.1 099 Low\r\n\r\n",
    "bytes of the content first": b"content HTTP/1.1 200 OK\r\n\r\n",
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_nonsense_is_502(make_rig, kind):
    """Nothing of it goes down, and its connection is closed; the guest's stays."""
    rig = make_rig(once(lambda request: NONSENSE[kind] if request.target == "/a" else answer(mark(request))))
    guest = rig.guest()
    guest.get("/a")
    assert guest.answer().status == 502
    guest.get("/b")
    assert guest.answer().body.endswith(b"/b\n")
    assert rig.upstream.connections == 2
    until(lambda: _core.PROBLEM_UPSTREAM_NONSENSE in rig.problems())


def test_the_largest_head(make_rig):
    """A head just below the bound passes, with content right behind it, also re-framed as chunks."""
    filler = b"".join(b"X-%d: %b\r\n" % (number, b"y" * 130) for number in range(90))
    head = b"HTTP/1.1 200\r\n" + filler
    rest = 13_990 - len(head)
    head += b"X: " + b"z" * (rest - 5) + b"\r\n\r\n"
    rig = make_rig(lambda wire: (wire.read(), wire.send(head + CONTENT[:100_000])))
    found = rig.ask()
    assert found.whole and found.body == CONTENT[:100_000]
    assert len(found.headers) == 92


def test_a_guest_that_resets_in_a_large_answer(make_rig):
    """Buffers, connection and gauges are given back."""
    rig = make_rig(once(lambda request: answer(CONTENT[: 8 << 20])))
    for _ in range(5):
        guest = rig.guest(receive_buffer=8192)
        guest.get("/a")
        until(lambda: guest.more(1000) == "")  # noqa: B023
        reset(guest.socket)
    rig.wait_stat("connections_open", 0)
    assert rig.stat("aborted") == 5
    rig.wait_stat("upstream_connections", 0)


def test_until_close_from_a_half_closed_upstream(make_rig):
    """A FIN ends it in order."""

    def script(wire):
        wire.read()
        wire.send(b"HTTP/1.0 200 OK\r\n\r\nall of it")
        wire.socket.shutdown(socket.SHUT_WR)
        wire.read_to_end()

    rig = make_rig(script)
    found = rig.ask()
    assert (found.body, found.whole, found.framing) == (b"all of it", True, "chunked")
