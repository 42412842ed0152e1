"""Rule 8, everything is bounded: heads, connections, and the time in each state."""

import select
import time

from fastmeta import _core

from .loop_kit import answer, once, silence, until


def test_the_largest_head(make_rig):
    """max_head bytes are taken, one more is 431 (414 in the request line), also byte by byte and in time."""
    rig = make_rig(settings={"max_head": 1000})
    start = b"GET / HTTP/1.1\r\nHost: a\r\nX: "
    for length, status in ((1000, 200), (1001, 431), (5000, 431)):
        guest = rig.guest()
        guest.send(start + b"x" * (length - len(start) - 4) + b"\r\n\r\n")
        assert guest.answer().status == status
    guest = rig.guest()
    guest.send(b"GET /" + b"x" * 2000)
    assert guest.answer().status == 414
    assert guest.ended() == "closed"
    assert len(rig.upstream.requests) == 1


def test_the_number_of_headers(rig):
    """100 lines are taken, one more is 431."""
    for number, status in ((100, 200), (101, 431)):
        assert rig.ask("/", *(["X: y"] * (number - 1))).status == status
    assert len(rig.upstream.requests) == 1


def test_idle_connections_make_room(make_rig):
    """max_connections: the oldest idle one is closed for a new one."""
    rig = make_rig(settings={"max_connections": 3})
    guests = []
    for _ in range(3):
        guests.append(rig.guest())
        guests[-1].get("/a")
        assert guests[-1].answer().status == 200
    guests[0].get("/again")
    assert guests[0].answer().status == 200
    newcomer = rig.guest()
    newcomer.get("/b")
    assert newcomer.answer().status == 200
    assert guests[1].ended() == "closed"
    assert guests[0].is_open() and guests[2].is_open()
    assert rig.stat("connections_open") == 3


def test_no_connection_is_idle(make_rig):
    """max_connections of requests in progress: 503 at once, and none of them suffers."""
    rig = make_rig(on_miss=silence, settings={"max_connections": 3})
    guests = [rig.guest() for _ in range(3)]
    for guest in guests:
        guest.get("/a")
    rig.wait_stat("parked", 3)
    found = rig.ask("/b")
    assert found.status == 503 and found.all("Retry-After")[0] in ("1", "2", "3")
    until(lambda: _core.PROBLEM_CONNECTIONS_FULL in rig.problems())
    rig.put("127.0.0.1")
    assert [guest.answer().status for guest in guests] == [200] * 3


def test_a_slow_head(make_rig):
    """head_timeout counts from the first byte, whatever trickles in: 408."""
    rig = make_rig(settings={"head_timeout_ms": 150, "linger_timeout_ms": 100})
    guest = rig.guest()
    guest.send(b"GET / HT")
    for _ in range(3):
        time.sleep(0.03)
        guest.send(b"T")
    assert guest.answer().status == 408
    assert guest.ended() == "closed"
    rig.wait_stat("connections_open", 0)


def test_a_slow_second_head(make_rig):
    """The same for the second request of a connection, of which a part came with the first."""
    rig = make_rig(settings={"head_timeout_ms": 150})
    guest = rig.guest()
    guest.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /")
    assert guest.answer().status == 200
    assert guest.answer().status == 408


def test_a_slow_body(make_rig):
    """body_timeout, for a gathered and for a streamed body: 408; what was streamed is not used again."""
    rig = make_rig(settings={"body_timeout_ms": 150})
    for length in (10, 100_000):
        guest = rig.guest()
        guest.get("/p", f"Content-Length: {length}", method="POST")
        guest.send(b"abc")
        found = guest.answer()
        assert (found.status, found.all("Connection")) == (408, ["close"])
    assert [request.body for request in rig.upstream.requests] in ([], [b""], [b"abc"])
    rig.wait_stat("upstream_connections", 0)


def test_a_silent_connection(make_rig):
    """keepalive_timeout, before the first request and between two."""
    rig = make_rig(settings={"keepalive_timeout_ms": 100})
    silent, kept = rig.guest(), rig.guest()
    kept.get("/a")
    assert kept.answer().status == 200
    assert silent.ended() == "closed"
    assert kept.ended() == "closed"
    rig.wait_stat("connections_open", 0)


def test_a_guest_that_does_not_read(make_rig):
    """write_timeout: it is dropped, and its connection to the upstream is not used again."""
    rig = make_rig(once(lambda request: answer(bytes(20 << 20))), settings={"write_timeout_ms": 150})
    guest = rig.guest(receive_buffer=4096)
    guest.get("/a")
    rig.wait_stat("connections_open", 1)
    rig.wait_stat("connections_open", 0)
    rig.wait_stat("upstream_connections", 0)
    assert rig.stat("aborted") == 1


def test_a_guest_that_pipelines_and_does_not_read(make_rig):
    """Answers wait for the guest, requests wait in the kernel; it is dropped in time."""
    rig = make_rig(once(lambda request: answer(bytes(500_000))), settings={"write_timeout_ms": 150})
    guest = rig.guest(receive_buffer=4096)
    guest.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 200)
    until(lambda: rig.stat("connections") == 1 and rig.stat("connections_open") == 0)
    assert rig.stat("requests") < 100


def test_a_refused_guest_that_goes_on_sending(make_rig):
    """It is read for linger_timeout, so that the answer arrives; no longer."""
    rig = make_rig(settings={"linger_timeout_ms": 150})
    guest = rig.guest()
    guest.get("/p", "Content-Length: 90000000", method="POST")
    assert guest.answer().status == 413
    start = time.monotonic()
    try:
        while time.monotonic() - start < 12:
            guest.send(bytes(1000))
            time.sleep(0.005)
    except OSError:
        pass
    assert time.monotonic() - start < 10
    rig.wait_stat("connections_open", 0)


def test_gauges_go_back(make_rig):
    """After traffic of all kinds nothing is held."""
    rig = make_rig(settings={"keepalive_timeout_ms": 100, "upstream_idle_timeout_ms": 100}, ttl_ms=200)
    for number in range(2, 30):
        guest = rig.guest(f"127.0.0.{number}")
        guest.get("/a")
        if number % 3 == 0:
            guest.post(b"body")
        elif number % 3 == 1:
            guest.reset()
    for name in ("parked", "connections_open", "upstream_connections", "upstream_idle", "identities"):
        rig.wait_stat(name, 0)


def test_slow_senders_of_large_bodies_leave_places_for_others(make_rig):
    """A body too large to be gathered holds a connection to Nova: one in eight may be held so, then 503 at once."""
    rig = make_rig(settings={"max_upstream_connections": 16})
    large = b"POST /large HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc"
    senders = [rig.guest(f"127.0.0.{number}") for number in range(2, 22)]
    for sender in senders:
        sender.send(large)
    until(lambda: rig.stat("refused") == len(senders) - 2)
    refused = [sender for sender in senders if select.select([sender.socket], [], [], 0.5)[0]]
    assert [sender.answer().status for sender in refused] == [503] * (len(senders) - 2)
    until(lambda: _core.PROBLEM_BODIES_FULL in rig.problems())
    assert rig.ask().status == 200
    assert rig.ask(method="POST").status == 200
    # The two that hold one are served when their bodies come, and then others may.
    for sender in set(senders) - set(refused):
        sender.send(bytes(100000 - 3))
        assert sender.answer().status == 200
    again = rig.guest()
    again.send(large + bytes(100000 - 3))
    assert again.answer().status == 200


def test_one_slow_sender_leaves_places_for_its_neighbours(make_rig):
    """Of the places for large bodies an address gets one in eight, at least one."""
    rig = make_rig(settings={"max_upstream_connections": 128})
    large = b"POST /large HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc"
    senders = [rig.guest("127.0.0.2") for _ in range(6)]
    for number, sender in enumerate(senders, 1):
        sender.send(large)
        rig.wait_stat("requests", number)
    assert [sender.answer().status for sender in senders[2:]] == [503] * 4
    neighbour = rig.guest("127.0.0.3")
    neighbour.send(large + bytes(100000 - 3))
    assert neighbour.answer().status == 200
