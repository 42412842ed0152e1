"""Rules 2, 4 and 5 on the guest's side: what goes up, pipelining, versions, bodies, what is refused."""

import threading

import pytest

from .loop_kit import answer, chunked, echo, instance_of, mark, once, until

LINE = b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n"

SPOOFED = (
    "X-Instance-ID: evil",
    "X_Instance_ID: evil",
    "x-instance-id: evil",
    "X-Tenant-ID: evil",
    "X_TENANT_ID: evil",
    "X-Forwarded-For: 6.6.6.6",
    "X_Forwarded_For: 6.6.6.6",
    "Forwarded: for=6.6.6.6",
    "X-Instance-ID-Signature: evil",
    "X_Instance-ID_Signature: evil",
    "X-Neutron-Network-ID: evil",
    "X-Neutron-Router-ID: evil",
    "X-Metadata-Provider: evil",
    "X-Metadata-Provider-Signature: evil",
    "X-Real-IP: 6.6.6.6",
    "Connection: X-Instance-ID, X-Tenant-ID, X-Forwarded-For",
    "Proxy-Connection: evil",
    "Upgrade: evil",
    "Cookie: evil",
    "Authorization: evil",
)


def test_nothing_that_a_guest_sends_becomes_identity(rig):
    """Rule 2: exactly one of each trusted header, ours; what is not on the allow-list is dropped."""
    allowed = (
        "User-Agent: curl/8",
        "Accept: */*",
        "Accept-Encoding: gzip",
        "Accept-Language: en",
        "If-None-Match: x",
        "Range: bytes=0-",
    )
    for headers in (SPOOFED, SPOOFED + allowed, tuple(reversed(SPOOFED))):
        assert rig.ask("/a?b=c", *headers).body.split()[0].decode() == instance_of(1, "127.0.0.1")
        request = rig.upstream.requests[-1]
        assert "evil" not in request.head.decode() and "6.6.6.6" not in request.head.decode()
        assert request.one("X-Instance-ID") == instance_of(1, "127.0.0.1")
        assert request.one("X-Tenant-ID") == "project-1"
        assert request.one("X-Forwarded-For") == "127.0.0.1"
        assert request.one("Host") == "nova:8775"
        assert len(request.one("X-Instance-ID-Signature")) == 64
        expected = {"Host", "X-Forwarded-For", "X-Instance-ID", "X-Tenant-ID", "X-Instance-ID-Signature"}
        if allowed[0] in headers:
            expected |= {line.split(":")[0] for line in allowed}
        assert sorted(name for name, _ in request.headers) == sorted(expected)


@pytest.mark.parametrize("piece", [0, 1, 7, 1000])
def test_pipelining(rig, piece):
    """Many requests in one segment, or cut anywhere: each is answered, in order, once."""
    guest = rig.guest()
    names = [b"/%d" % number for number in range(50)]
    data = b"".join(LINE % name for name in names)
    sender = threading.Thread(
        target=lambda: [
            guest.send(data[at : at + (piece or len(data))]) for at in range(0, len(data), piece or len(data))
        ]
    )
    sender.start()
    for name in names:
        assert guest.answer().body.endswith(b"GET %b\n" % name)
    sender.join()
    assert guest.is_open()
    assert rig.upstream.targets() == [name.decode() for name in names]


def test_pipelining_of_all_kinds(rig):
    """GET, HEAD, bodies of both framings, and answers of our own, in one segment."""
    guest = rig.guest()
    guest.send(
        LINE % b"/1"
        + b"HEAD /2 HTTP/1.1\r\nHost: a\r\n\r\n"
        + b"POST /3 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET /"
        + b"POST /4 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nGET \r\n1\r\n/\r\n0\r\n\r\n"
        + b"\r\n"
        + LINE % b"/5"
        + b"GET /6 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        + LINE % b"/7"
    )
    found = [guest.answer("HEAD" if number == 2 else "GET") for number in range(1, 7)]
    assert [one.status for one in found] == [200] * 6
    assert found[-1].all("Connection") == ["close"]
    assert guest.ended() == "closed"
    bodies = [(request.target, request.body) for request in rig.upstream.requests]
    assert bodies == [("/1", b""), ("/2", b""), ("/3", b"GET /"), ("/4", b"GET /"), ("/5", b""), ("/6", b"")]


def test_a_chunked_body_whose_head_ends_where_the_buffer_ends(rig):
    """The requests before it filled the buffer to its last byte: there must be room for the body."""
    head = b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    first = b"GET /1 HTTP/1.1\r\nHost: a\r\nX-Fill: %b\r\n\r\n"
    spare = 16384 - len(head) - 3 * (len(first) - 2)
    fill = [5000, 5000, spare - 10000]
    guest = rig.guest()
    guest.send(b"".join(first % (b"x" * length) for length in fill) + head)
    assert [guest.answer().status for _ in fill] == [200] * 3
    guest.send(b"3\r\nabc\r\n0\r\n\r\n")
    assert guest.answer().status == 200
    assert rig.upstream.requests[-1].body == b"abc"


def test_head(make_rig):
    """The length that the content would have, without content; then the connection goes on."""
    rig = make_rig(once(lambda request: answer(b"" if request.method == "HEAD" else b"12345", length=5)))
    guest = rig.guest()
    for method in ("HEAD", "GET", "HEAD", "HEAD", "GET"):
        guest.get("/a", method=method)
        found = guest.answer(method)
        assert (found.status, found.all("Content-Length")) == (200, ["5"])
    assert rig.upstream.connections == 1


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("keep_alive", [False, True])
def test_version_1_0(make_rig, framing, keep_alive):
    """HTTP/1.0 guests: no chunks; the connection stays only if asked for and if the length is known."""

    def script(wire):
        while (request := wire.read()) is not None:
            if framing == "chunked":
                wire.send(chunked(b"content", b" of /"))
            elif framing == "length":
                wire.send(answer(b"content of /"))
            else:
                wire.send(b"HTTP/1.1 200 OK\r\n\r\ncontent of /")
                return
            assert request.head.split(b"\r\n")[0].endswith(b"HTTP/1.1")

    rig = make_rig(script)
    guest = rig.guest()
    guest.get("/a", *(("Connection: keep-alive",) if keep_alive else ()), version="1.0")
    found = guest.answer()
    assert (found.body, found.whole) == (b"content of /", True)
    assert found.framing == ("length" if framing == "length" else "close")
    if keep_alive and framing == "length":
        assert found.all("Connection") == ["keep-alive"]
        guest.get("/b", version="1.0")
        assert guest.answer().body == b"content of /"
    if not found.end:
        assert guest.ended() == "closed"


@pytest.mark.parametrize("length", [3, 70_000])
def test_expect_continue(rig, length):
    """100 Continue when the body is still to come, and only then."""
    guest = rig.guest()
    guest.get("/p", f"Content-Length: {length}", "Expect: 100-continue", method="POST")
    assert guest.answer().status == 100
    guest.send(bytes(length))
    assert guest.answer().status == 200
    assert rig.upstream.requests[-1].body == bytes(length)
    guest.send(b"POST /q HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc")
    assert guest.answer().status == 200
    guest.get("/r", "Expect: 100-continue")
    assert guest.answer().status == 200
    guest.get("/s", "Transfer-Encoding: chunked", "Expect: 100-continue", method="POST")
    assert guest.answer().status == 100
    guest.send(b"0\r\n\r\n")
    assert guest.answer().status == 200
    guest.get("/big", "Content-Length: 99999999", "Expect: 100-continue", method="POST")
    assert guest.answer().status == 413
    assert all(request.all("Expect") == [] for request in rig.upstream.requests)


SIZES = [0, 1, 16384, 65536, 65537, 1 << 20]


@pytest.mark.parametrize("length", SIZES)
@pytest.mark.parametrize("pieces", ["whole", "cut"])
def test_bodies_with_a_length(rig, length, pieces):
    """Byte for byte, gathered or streamed, however they are cut."""
    body = bytes(number * 7 % 251 for number in range(length))
    guest = rig.guest()
    if pieces == "whole":
        guest.post(body, "/p")
    else:
        guest.get("/p", f"Content-Length: {length}", method="POST")
        until(lambda: rig.stat("requests") == 1)
        for at in range(0, length, 9_999):
            guest.send(body[at : at + 9_999])
    assert guest.answer().status == 200
    (request,) = rig.upstream.requests
    assert request.body == body
    assert request.one("Content-Length") == str(length)
    guest.get("/next")
    assert guest.answer().body.endswith(b"/next\n")


@pytest.mark.parametrize("slow", ["guest", "upstream"])
def test_a_large_body_and_a_slow_side(make_rig, slow):
    """Streaming waits for the slower side, in bounded memory, and loses nothing."""
    body = bytes(number % 253 for number in range(1 << 20))
    received = bytearray()

    def script(wire):
        request = wire.read_head()
        received.extend(wire.pending)
        while len(received) < len(body):
            received.extend(wire.socket.recv(50_000))
            if slow == "upstream":
                threading.Event().wait(0.01)
        wire.send(answer(mark(request)))

    rig = make_rig(script)
    guest = rig.guest()
    guest.get("/p", f"Content-Length: {len(body)}", method="POST")
    if slow == "guest":
        for at in range(0, len(body), 100_000):
            guest.send(body[at : at + 100_000])
            threading.Event().wait(0.02)
    else:
        guest.send(body)
    assert guest.answer().status == 200
    assert received == body


@pytest.mark.parametrize("length", [0, 1, 16384, 65535, 65536])
def test_chunked_bodies_are_gathered(rig, length):
    """They go up with Content-Length, in one piece."""
    body = bytes(number * 5 % 255 for number in range(length))
    guest = rig.guest()
    guest.get("/p", "Transfer-Encoding: chunked", method="POST")
    for at in range(0, length, 3_000):
        piece = body[at : at + 3_000]
        guest.send(b"%x;extension=1\r\n%b\r\n" % (len(piece), piece))
    guest.send(b"0\r\nTrailer: dropped\r\n\r\n")
    assert guest.answer().status == 200
    (request,) = rig.upstream.requests
    assert (request.body, request.one("Content-Length")) == (body, str(length))
    assert request.all("Transfer-Encoding") == [] and request.all("Trailer") == []
    guest.get("/next")
    assert guest.answer().status == 200


def test_a_chunked_body_that_is_too_large(rig):
    """64 KiB and a byte: 413, nothing goes up."""
    guest = rig.guest()
    guest.get("/p", "Transfer-Encoding: chunked", method="POST")
    guest.send(b"10001\r\n" + bytes(65537) + b"\r\n0\r\n\r\n")
    assert guest.answer().status == 413
    assert guest.ended() == "closed"
    assert rig.upstream.requests == []


@pytest.mark.parametrize("kind", ["length", "chunked"])
def test_max_body(make_rig, kind):
    """max_body bounds both kinds, before a byte goes up; the bound itself is allowed."""
    rig = make_rig(settings={"max_body": 1000})
    for length, status in ((1000, 200), (1001, 413)):
        guest = rig.guest()
        if kind == "length":
            guest.post(bytes(length), "/p")
        else:
            guest.get("/p", "Transfer-Encoding: chunked", method="POST")
            guest.send(b"%x\r\n%b\r\n0\r\n\r\n" % (length, bytes(length)))
        assert guest.answer().status == status
    assert [len(request.body) for request in rig.upstream.requests] == [1000]


def test_a_broken_chunked_body(rig):
    """400 and close; nothing goes up."""
    bad = [b"x\r\n", b"3\nab", b"3\r\nabcd\r\n", b"3 \r\nabc\r\n", b"-1\r\n"]
    bad.append(b"0\r\nbad trailer\r\n")
    for broken in bad:
        guest = rig.guest()
        guest.get("/p", "Transfer-Encoding: chunked", method="POST")
        guest.send(broken)
        assert guest.answer().status == 400
        assert guest.ended() == "closed"
    assert rig.upstream.requests == []


AMBIGUOUS = {
    "length and coding": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "underscore": b"POST / HTTP/1.1\r\nHost: a\r\nContent_Length: 3\r\n\r\nabc",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "bare LF": b"GET / HTTP/1.1\nHost: a\n\n",
    "folded": b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n",
    "space before colon": b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    "NUL": b"GET / HTTP/1.1\r\nHost: a\0\r\n\r\n",
    "version": b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
}


@pytest.mark.parametrize("kind", AMBIGUOUS)
def test_what_is_ambiguous_is_refused(rig, kind):
    """Rule 4: 400 and close; what was whole before it is answered, and nothing behind it is looked at."""
    guest = rig.guest()
    guest.send(LINE % b"/before" + AMBIGUOUS[kind] + LINE % b"/behind")
    assert guest.answer().status == 200
    found = guest.answer()
    assert (found.status, found.all("Connection")) == (400, ["close"])
    assert guest.ended() == "closed"
    assert rig.upstream.targets() == ["/before"]


def test_methods_that_are_refused(rig):
    """TRACE would show our headers; CONNECT is for proxies."""
    for method, status in (("TRACE", 501), ("CONNECT", 400)):
        assert rig.ask("/", method=method).status in (status, 501)
    assert rig.upstream.requests == []


def test_a_guest_that_half_closes(make_rig):
    """It said all that it had to say, and still wants its answer."""
    rig = make_rig(echo)
    guest = rig.guest()
    guest.get("/a")
    guest.socket.shutdown(1)
    assert guest.answer().body.endswith(b"/a\n")
    assert guest.ended() == "closed"
