"""Rule 3, one answer for one request: when a connection to the upstream is used again, and when never."""

import threading

import pytest

from .loop_kit import Gone, answer, chunked, echo, instance_of, mark, until


def ask(guest, target="/x"):
    guest.get(target)
    return guest.answer()


def test_connections_are_kept(rig):
    """Many guests' requests, one after the other, go over one connection."""
    for number in range(1, 20):
        assert rig.ask(f"/{number}", address=f"127.0.0.{number}").status == 200
    assert rig.upstream.connections == 1
    assert rig.stat("upstream_connects") == 1


def test_an_unused_connection_is_closed_in_time(make_rig):
    """upstream_idle_timeout: the gauges go back to 0."""
    rig = make_rig(settings={"upstream_idle_timeout_ms": 100})
    rig.ask("/a")
    rig.wait_stat("upstream_connections", 0)
    assert rig.stat("upstream_idle") == 0
    assert rig.ask("/b").status == 200


def test_a_stale_connection_costs_a_get_nothing(make_rig):
    """Nova closed it while idle: the request goes out again on a fresh one."""
    rig = make_rig()
    for number in range(5):
        assert rig.ask(f"/{number}").status == 200
        rig.upstream.hang_up()
    rig.wait_stat("answers_2xx", 5)
    assert list(dict.fromkeys(rig.upstream.targets())) == [f"/{number}" for number in range(5)]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_connection_that_closes_on_the_next_request(make_rig, method):
    """The harder race: Nova takes the next request's bytes and closes without an answer."""

    def script(wire):
        wire.send(answer(mark(wire.read())))
        wire.read()
        wire.reset()

    rig = make_rig(script)
    assert rig.ask("/a").status == 200
    assert rig.ask("/b", method=method).status == 200
    assert rig.stat("stale_retries") == 1
    assert [(r.target, r.connection) for r in rig.upstream.requests] == [("/a", 1), ("/b", 1), ("/b", 2)]


def test_a_post_goes_out_on_a_fresh_connection(rig):
    """Only what may be repeated uses kept connections; a body-less POST is no exception."""
    guest = rig.guest()
    assert ask(guest).status == 200
    guest.post(b"abc", "/p")
    assert guest.answer().status == 200
    guest.post(b"", "/q")
    assert guest.answer().status == 200
    guest.get("/d", method="DELETE")
    assert guest.answer().status == 200
    guest.get("/with-body", "Content-Length: 3")
    guest.send(b"abc")
    assert guest.answer().status == 200
    assert [r.number for r in rig.upstream.requests] == [1] * 5
    assert ask(guest).status == 200
    assert rig.upstream.connections == 5


def test_a_post_is_never_sent_twice(make_rig):
    """A connection that ends without an answer to a POST is a failure, not a reason to repeat it."""

    def script(wire):
        request = wire.read()
        if request is not None and request.method == "POST":
            wire.reset()
        elif request is not None:
            wire.send(answer(mark(request)))
            wire.read()

    rig = make_rig(script)
    for body in (b"", b"abc", bytes(20_000), bytes(200_000)):
        guest = rig.guest()
        assert ask(guest).status == 200
        guest.post(body, "/p")
        assert guest.answer().status == 502
    assert rig.upstream.targets().count("/p") == 4


EXTRA = {
    "whole answer": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray",
    "one byte": b"\n",
}


@pytest.mark.parametrize("extra", EXTRA)
@pytest.mark.parametrize("framing", ["length", "chunked", "none", "head"])
def test_bytes_after_the_end(make_rig, framing, extra):
    """Whatever follows an answer ends its connection and reaches nobody."""

    def make(request):
        if framing == "chunked":
            return chunked(mark(request)) + EXTRA[extra]
        if framing == "none":
            return b"HTTP/1.1 204 No Content\r\n\r\n" + EXTRA[extra]
        return answer(b"" if framing == "head" else mark(request)) + EXTRA[extra]

    def script(wire):
        while (request := wire.read()) is not None:
            wire.send(make(request))

    rig = make_rig(script)
    method = "HEAD" if framing == "head" else "GET"
    for number in range(2, 7):
        address = f"127.0.0.{number}"
        guest = rig.guest(address)
        guest.get("/a", method=method)
        found = guest.answer(method)
        if framing in ("length", "chunked"):
            assert found.body.decode() == f"{instance_of(1, address)} GET /a\n"
        assert guest.is_open()
    assert rig.upstream.connections == 5


def test_bytes_on_an_idle_connection_close_it(make_rig):
    """Nobody asked for them."""

    def script(wire):
        wire.send(answer(mark(wire.read())))
        wire.upstream.idle.wait(5)
        wire.send(answer(b"stray"))
        assert wire.is_closed()

    rig = make_rig(script)
    rig.upstream.idle = threading.Event()
    rig.ask("/a")
    rig.wait_stat("upstream_idle", 1)
    rig.upstream.idle.set()
    rig.wait_stat("upstream_connections", 0)
    assert rig.ask("/b", address="127.0.0.2").body.endswith(b"/b\n")


@pytest.mark.parametrize("when", ["before the answer", "in the answer"])
def test_a_guest_that_aborts(make_rig, when):
    """Its connection to the upstream is not used again."""
    go_on = threading.Event()

    def script(wire):
        while (request := wire.read()) is not None:
            body = mark(request)
            if request.target == "/aborted":
                if when == "in the answer":
                    wire.send(answer(body)[: -len(body)] + body[:3])
                go_on.wait(5)
                wire.send(body[3:] if when == "in the answer" else answer(body))
            else:
                wire.send(answer(body))

    rig = make_rig(script)
    guest = rig.guest()
    assert ask(guest, "/first").status == 200
    guest.get("/aborted")
    until(lambda: "/aborted" in rig.upstream.targets())
    if when == "in the answer":
        until(lambda: guest.more() == "")
    guest.reset()
    rig.wait_stat("connections_open", 0)
    assert rig.ask("/next", address="127.0.0.2").body.decode() == f"{instance_of(1, '127.0.0.2')} GET /next\n"
    assert rig.upstream.connections == 2
    go_on.set()
    assert rig.stat("aborted") == 1


CLOSING = {
    "says close": lambda request: answer(mark(request), headers=("Connection: close",)),
    "until close": lambda request: b"HTTP/1.1 200 OK\r\n\r\n" + mark(request),
    "version 1.0": lambda request: answer(mark(request)).replace(b"HTTP/1.1", b"HTTP/1.0"),
}


@pytest.mark.parametrize("kind", CLOSING)
def test_an_answer_that_ends_its_connection(make_rig, kind):
    """The guest's own connection lives on."""

    def script(wire):
        wire.send(CLOSING[kind](wire.read()))
        if kind != "until close":
            assert wire.is_closed()

    rig = make_rig(script)
    guest = rig.guest()
    for number in range(4):
        found = ask(guest, f"/{number}")
        assert (found.whole, found.body.split()[-1].decode()) == (True, f"/{number}")
    assert rig.upstream.connections == 4


def test_version_1_0_with_keep_alive(make_rig):
    """An HTTP/1.0 upstream that keeps its connection is used again."""

    def script(wire):
        while (request := wire.read()) is not None:
            wire.send(
                answer(mark(request), headers=("Connection: keep-alive",)).replace(b"HTTP/1.1", b"HTTP/1.0")
            )

    rig = make_rig(script)
    guest = rig.guest()
    assert [ask(guest, f"/{n}").status for n in range(3)] == [200] * 3
    assert rig.upstream.connections == 1


def test_an_answer_before_the_request_is_whole(make_rig):
    """Neither connection is used again: the rest of the body would be taken for a request."""

    def script(wire):
        request = wire.read_head()
        wire.send(answer(b"too much", "413 Content Too Large"))
        if request.method == "POST":
            wire.read_to_end()
        else:
            wire.read()

    rig = make_rig(script)
    guest = rig.guest()
    guest.get("/big", "Content-Length: 500000", method="POST")
    guest.send(bytes(100_000))
    found = guest.answer()
    assert (found.status, found.body, found.all("Connection")) == (413, b"too much", ["close"])
    with pytest.raises((Gone, OSError)):
        guest.send(bytes(100_000))
        guest.get("/next")
        guest.head()
    assert rig.ask("/next").status == 413
    assert rig.upstream.connections == 2


def test_a_lower_bound_of_one_connection(make_rig):
    """With one place, all take turns; none waits longer than for those before it."""
    seen = []

    def script(wire):
        while (request := wire.read()) is not None:
            seen.append(wire.number)
            wire.send(answer(mark(request)))

    rig = make_rig(script, settings={"max_upstream_connections": 1})
    guests = [rig.guest(f"127.0.0.{number}") for number in range(2, 42)]
    for guest in guests:
        guest.get("/x")
    for number, guest in enumerate(guests, 2):
        assert guest.answer().body.decode() == f"{instance_of(1, f'127.0.0.{number}')} GET /x\n"
    assert rig.stat("upstream_connections") <= 1


def test_new_upstream_addresses(make_rig):
    """Connections to the old addresses end after their present request."""
    go_on = threading.Event()

    def script(wire):
        while (request := wire.read()) is not None:
            if request.target == "/slow":
                go_on.wait(5)
            wire.send(answer(b"old"))

    rig = make_rig(script)
    slow = rig.guest()
    slow.get("/slow")
    until(rig.upstream.targets)
    idle = rig.ask("/idle", address="127.0.0.2")
    assert idle.body == b"old"
    other = make_rig(echo)
    rig.loop.set_upstream([("127.0.0.1", other.upstream.tcp_port)], "new:1")
    rig.wait_stat("upstream_connections", 1)
    assert rig.ask("/new", address="127.0.0.2").body.endswith(b"/new\n")
    assert other.upstream.requests[-1].one("Host") == "new:1"
    go_on.set()
    assert slow.answer().body == b"old"
    rig.wait_stat("upstream_connections", 1)
