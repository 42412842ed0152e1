"""Rule 6, guests wait rather than fail: misses, an upstream that is away, busy or silent; the bounds."""

import threading
import time

import pytest

from fastmeta import _core

from .loop_kit import answer, echo, mark, silence, until


def refused(found, status=503):
    """An answer of ours that a guest may act on."""
    assert found.status == status and found.whole
    assert len(found.all("Date")) == 1
    if status == 503:
        assert found.all("Retry-After")[0] in ("1", "2", "3")
    else:
        assert found.all("Retry-After") == []


def test_a_miss_waits_and_then_is_refused(make_rig):
    """park_timeout, then 503 with Retry-After; the connection stays."""
    rig = make_rig(on_miss=silence, settings={"park_timeout_ms": 200})
    guest = rig.guest()
    start = time.monotonic()
    guest.get("/a")
    refused(guest.answer())
    assert 0.2 <= time.monotonic() - start < 7
    rig.put("127.0.0.1")
    guest.get("/b")
    assert guest.answer().status == 200
    assert rig.stat("parked") == 0


def test_retry_after_is_jittered(make_rig):
    """Guests that were refused together do not come back together."""
    rig = make_rig(on_miss=silence, settings={"park_timeout_ms": 20})
    guests = [rig.guest(f"127.0.0.{number}") for number in range(2, 42)]
    for guest in guests:
        guest.get("/")
    assert {guest.answer().all("Retry-After")[0] for guest in guests} == {"1", "2", "3"}


def test_a_late_answer_of_the_source(make_rig):
    """All who wait for one address go on together; Python was asked once."""
    rig = make_rig(on_miss=silence)
    guests = [rig.guest() for _ in range(20)]
    for guest in guests:
        guest.get("/a")
    rig.wait_stat("parked", 20)
    rig.put("127.0.0.1")
    assert [guest.answer().status for guest in guests] == [200] * 20
    assert rig.misses == [(1, "127.0.0.1")]
    assert rig.stat("parked") == 0


def test_nobody_has_the_address(make_rig):
    """404, kept for its time: no further question; then asked again."""
    rig = make_rig(on_miss=lambda rig, scope, address: rig.absent(address, ttl_ms=300))
    guest = rig.guest()
    for _ in range(3):
        guest.get("/a")
        refused(guest.answer(), 404)
    assert len(rig.misses) == 1
    time.sleep(0.35)
    guest.get("/a")
    refused(guest.answer(), 404)
    assert len(rig.misses) == 2
    assert rig.upstream.requests == []


def test_negative_answers_kept_are_bounded(make_rig):
    """max_absent: the one above it is answered, and not kept."""
    rig = make_rig(on_miss=lambda rig, scope, address: rig.absent(address), settings={"max_absent": 3})
    for _ in range(2):
        for number in range(2, 8):
            assert rig.ask(address=f"127.0.0.{number}").status == 404
    rig.wait_stat("identities", 3)
    assert len(rig.misses) == 6 + 3


def test_an_answer_that_cannot_be_trusted(make_rig):
    """503, and nothing is kept."""
    rig = make_rig(on_miss=lambda rig, scope, address: rig.refused(address))
    guest = rig.guest()
    for _ in range(2):
        guest.get("/a")
        refused(guest.answer())
    assert len(rig.misses) == 2


def test_an_upstream_that_is_away_and_comes_back(make_rig):
    """Who waits is served when it is back, also a POST: nothing of it had been sent."""
    rig = make_rig()
    rig.put("127.0.0.1")
    rig.upstream.close()
    guests = [rig.guest() for _ in range(10)]
    for number, guest in enumerate(guests):
        if number % 2:
            guest.get("/get")
        else:
            guest.post(b"abc", "/post")
    rig.wait_stat("parked", 10)
    until(lambda: _core.PROBLEM_UPSTREAM_AWAY in rig.problems())
    rig.upstream.open()
    assert [guest.answer().status for guest in guests] == [200] * 10
    until(lambda: _core.PROBLEM_UPSTREAM_BACK in rig.problems())
    assert rig.upstream.targets().count("/post") == 5


def test_a_large_body_waits_for_an_upstream_that_is_away(make_rig):
    """Of places for bodies on their way there is one, too, while none of Nova's servers is there."""
    rig = make_rig()
    rig.put("127.0.0.1")
    rig.upstream.close()
    # Somebody finds out that it is away.
    first = rig.guest()
    first.get("/first")
    until(lambda: _core.PROBLEM_UPSTREAM_AWAY in rig.problems())
    guest = rig.guest()
    guest.get("/large", "Content-Length: 200000", method="POST")
    guest.send(b"x" * 100_000)
    rig.wait_stat("parked", 2)
    time.sleep(0.3)  # several tries, of both
    rig.upstream.open()
    guest.send(b"x" * 100_000)
    assert (first.answer().status, guest.answer().status) == (200, 200)


def test_an_upstream_that_stays_away(make_rig):
    """park_timeout, then 503."""
    rig = make_rig(settings={"park_timeout_ms": 250})
    rig.upstream.close()
    start = time.monotonic()
    guest = rig.guest()
    guest.get("/a")
    refused(guest.answer())
    assert 0.25 <= time.monotonic() - start < 7
    guest.post(b"abc")
    refused(guest.answer())


def test_one_of_two_upstreams_is_away(make_rig):
    """The addresses are tried in turn."""
    rig = make_rig()
    away = make_rig()
    away.upstream.close()
    rig.loop.set_upstream(
        [("127.0.0.1", away.upstream.tcp_port), ("127.0.0.1", rig.upstream.tcp_port)], "nova"
    )
    assert rig.ask("/a").status == 200


def test_an_upstream_that_closes_without_an_answer(make_rig):
    """A GET waits and is sent again, until it is answered."""
    seen = []

    def script(wire):
        while (request := wire.read()) is not None:
            seen.append(request)
            if len(seen) < 3:
                return
            wire.send(answer(mark(request)))

    rig = make_rig(script)
    assert rig.ask("/a").status == 200
    assert len(seen) == 3


def test_an_upstream_that_never_answers_before_it_closes(make_rig):
    """Only until park_timeout."""
    rig = make_rig(lambda wire: wire.read(), settings={"park_timeout_ms": 400})
    refused(rig.ask("/a"))
    assert 2 <= len(rig.upstream.requests) <= 6


def test_a_busy_upstream_is_waited_for_longer(make_rig):
    """All places taken by slow answers: longer than park_timeout, up to upstream_timeout; then 504."""
    go_on = threading.Event()

    def script(wire):
        while (request := wire.read()) is not None:
            content = mark(request)
            if request.target == "/slow":
                # Its content trickles, so that it outlives the deadline of those who wait.
                wire.send(answer(length=len(content) + 100))
                for _ in range(100):
                    wire.send(b"x")
                    go_on.wait(0.1)
            wire.send(content if request.target == "/slow" else answer(content))

    settings = {"max_upstream_connections": 1, "park_timeout_ms": 100, "upstream_timeout_ms": 1000}
    rig = make_rig(script, settings=settings)
    for address in ("127.0.0.1", "127.0.0.2"):
        rig.put(address)
    first, second, third = rig.guest(), rig.guest("127.0.0.2"), rig.guest("127.0.0.2")
    first.get("/slow")
    until(rig.upstream.targets)
    second.get("/second")
    time.sleep(0.4)
    assert second.is_open()
    go_on.set()
    assert first.answer().whole
    assert second.answer().status == 200
    go_on.clear()
    first.get("/slow")
    until(lambda: rig.upstream.targets().count("/slow") == 2)
    start = time.monotonic()
    third.get("/third")
    refused(third.answer(), 504)
    assert 0.9 <= time.monotonic() - start < 7
    go_on.set()
    assert first.answer().whole
    assert "/third" not in rig.upstream.targets()


def test_max_parked(make_rig):
    """The bound is reached: 503 at once; those who wait go on waiting."""
    rig = make_rig(on_miss=silence, settings={"max_parked": 3})
    waiting = [rig.guest(f"127.0.0.{number}") for number in range(2, 5)]
    for guest in waiting:
        guest.get("/a")
    rig.wait_stat("parked", 3)
    start = time.monotonic()
    refused(rig.ask(address="127.0.0.9"))
    assert time.monotonic() - start < 5
    until(lambda: _core.PROBLEM_PARKED_FULL in rig.problems())
    for number in range(2, 5):
        rig.put(f"127.0.0.{number}")
    assert [guest.answer().status for guest in waiting] == [200] * 3


def test_those_who_wait_for_an_identity_do_not_keep_others_from_nova(make_rig):
    """All places for parked requests are taken: a request that needs a new connection to Nova still gets one."""
    rig = make_rig(on_miss=silence, settings={"max_parked": 1})
    rig.put("127.0.0.2")
    waiting = rig.guest("127.0.0.3")
    waiting.get("/a")
    rig.wait_stat("parked", 1)
    assert rig.ask(address="127.0.0.2").status == 200
    assert rig.ask(method="POST", address="127.0.0.2").status == 200
    rig.put("127.0.0.3")
    assert waiting.answer().status == 200


@pytest.mark.parametrize("part", [b"", b"HTTP/1.1 20", b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_an_answer_that_does_not_come(make_rig, part):
    """upstream_timeout, then 504; its connection is not used again."""

    def script(wire):
        request = wire.read()
        wire.send(part)
        if request.target == "/a":
            assert wire.is_closed()
        else:
            wire.send(answer(mark(request)))
            wire.read_to_end()

    rig = make_rig(script, settings={"upstream_timeout_ms": 200})
    guest = rig.guest()
    guest.get("/a")
    refused(guest.answer(), 504)
    until(lambda: _core.PROBLEM_UPSTREAM_TIMEOUT in rig.problems())
    if part in (b"", b"HTTP/1.1 100 Continue\r\n\r\n"):
        guest.get("/b")
        assert guest.answer().status == 200
        assert rig.upstream.connections == 2


def test_an_answer_that_stalls(make_rig):
    """Its head has gone down: it is cut off."""

    def script(wire):
        wire.read()
        wire.send(answer(b"part", length=100))
        wire.is_closed()

    rig = make_rig(script, settings={"upstream_timeout_ms": 200})
    found = rig.ask()
    assert not found.whole and found.body == b"part"


def test_guests_that_go_while_they_wait(make_rig):
    """A reset ends the wait; every gauge goes back."""
    rig = make_rig(on_miss=silence)
    guests = [rig.guest(f"127.0.0.{number}") for number in range(2, 12)]
    for guest in guests:
        guest.get("/a")
    rig.wait_stat("parked", 10)
    for guest in guests:
        guest.reset()
    rig.wait_stat("parked", 0)
    rig.wait_stat("connections_open", 0)
    rig.put("127.0.0.2")
    assert rig.ask(address="127.0.0.2").status == 200
    assert rig.stat("aborted") == 10


def test_python_is_reminded(make_rig):
    """While new requests for an address come, its miss is told again about every second."""
    rig = make_rig(on_miss=silence)
    rig.guest().get("/a")
    until(lambda: len(rig.misses) == 1)
    rig.guest().get("/a")
    time.sleep(1.05)
    assert len(rig.misses) == 1
    rig.guest().get("/a")
    until(lambda: len(rig.misses) == 2)


def test_no_upstream_yet(make_rig):
    """Requests that come before set_upstream wait for it."""
    rig = make_rig(echo)
    rig.upstream.close()
    guest = rig.guest()
    guest.get("/a")
    rig.wait_stat("parked", 1)
    other = make_rig(echo)
    rig.loop.set_upstream([("127.0.0.1", other.upstream.tcp_port)], "nova")
    assert guest.answer().status == 200
