"""Settings that are replaced while the loop runs: they hold for what comes next, and nobody is thrown out."""

import contextlib
import socket
import threading

import pytest

from fastmeta import _core

from .loop_kit import answer, mark, silence, until


def replace(rig, **settings: int) -> None:
    """Returns when they are in force: messages are carried out in order, and this one's end can be seen."""
    rig.loop.set_settings(rig.settings | settings)
    rig.loop.add_scope(999)
    rig.loop.remove_scope(999)
    count = rig.events.count((_core.EVENT_SCOPE_REMOVED, 999))
    until(lambda: rig.events.count((_core.EVENT_SCOPE_REMOVED, 999)) > count)
    rig.events.remove((_core.EVENT_SCOPE_REMOVED, 999))


def test_connections(make_rig):
    """Fewer than there are: they stay, a newcomer makes the oldest idle one go; with more, all have room."""
    rig = make_rig(settings={"max_connections": 4})
    guests = []
    for _ in range(4):
        guests.append(rig.guest())
        guests[-1].get("/a")
        assert guests[-1].answer().status == 200
    replace(rig, max_connections=2)
    assert all(guest.is_open() for guest in guests)
    newcomer = rig.guest()
    newcomer.get("/b")
    assert newcomer.answer().status == 200
    assert guests[0].ended() == "closed"
    assert all(guest.is_open() for guest in guests[1:])
    replace(rig, max_connections=8)
    more = [rig.guest() for _ in range(4)]
    for guest in more:
        guest.get("/c")
        assert guest.answer().status == 200
    assert all(guest.is_open() for guest in guests[1:])


def test_waiting(make_rig):
    """max_parked, for those that come next; who waits goes on waiting, for as long as was said when it came."""
    rig = make_rig(on_miss=silence, settings={"max_parked": 2})
    waiting = [rig.guest() for _ in range(2)]
    for guest in waiting:
        guest.get("/a")
    rig.wait_stat("parked", 2)
    assert rig.ask("/b").status == 503
    replace(rig, max_parked=3, park_timeout_ms=50)
    assert rig.ask("/c").status == 503
    assert rig.stat("refused_parked_long") == 1
    replace(rig, max_parked=0)
    assert rig.ask("/d").status == 503
    assert rig.stat("parked") == 2
    rig.put("127.0.0.1")
    assert [guest.answer().status for guest in waiting] == [200, 200]


def test_places(make_rig):
    """More places at Nova are taken at once by who waits for one; fewer let those that are there end."""
    gate = threading.Event()

    def held(wire):
        while request := wire.read():
            gate.wait(8)
            wire.send(answer(mark(request)))

    rig = make_rig(held, settings={"max_upstream_connections": 1})
    guests = [rig.guest(f"127.0.0.{n}") for n in range(1, 5)]
    for guest in guests:
        guest.get("/a")
    rig.wait_stat("parked", 3)
    until(lambda: len(rig.upstream.requests) == 1)
    replace(rig, max_upstream_connections=16)
    until(lambda: len(rig.upstream.requests) == 4)
    replace(rig, max_upstream_connections=1)
    gate.set()
    assert [guest.answer().status for guest in guests] == [200] * 4
    for guest in guests:
        guest.get("/b")
        assert guest.answer().status == 200


def test_heads(make_rig):
    """A head that has begun is judged by what holds when it ends."""
    rig = make_rig()
    begun = rig.guest()
    begun.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 500)
    rig.wait_stat("connections_open", 1)
    replace(rig, max_head=400, max_target=16, max_headers=3)
    begun.send(b"x\r\n\r\n")
    assert begun.answer().status == 431
    assert rig.ask("/" + "x" * 16).status == 414
    assert rig.ask("/", "A: 1", "B: 2", "C: 3").status == 431
    replace(rig)
    assert rig.ask("/" + "x" * 16, "A: 1", "B: 2", "C: 3", "X: " + "x" * 500).status == 200


def test_bodies(make_rig):
    rig = make_rig(settings={"max_body": 10})
    guest = rig.guest()
    guest.post(b"x" * 11)
    assert guest.answer().status == 413
    replace(rig, max_body=11)
    guest = rig.guest()
    guest.post(b"x" * 11)
    assert guest.answer().status == 200


def test_times(make_rig):
    """keepalive_timeout: of a connection that becomes idle from now on."""
    rig = make_rig()
    early, late = rig.guest(), rig.guest()
    early.get("/a")
    assert early.answer().status == 200
    replace(rig, keepalive_timeout_ms=50)
    late.get("/b")
    assert late.answer().status == 200
    assert late.ended() == "closed"
    assert early.is_open()


def test_rates(make_rig):
    """Limits come and go; a shorter window counts from the requests that came before it on."""
    rig = make_rig()
    assert [rig.ask().status for _ in range(5)] == [200] * 5
    limits = {"base_window_ms": 600_000, "base_limit": 2, "burst_window_ms": 600_000, "burst_limit": 100}
    replace(rig, rate_versions=1, **limits)
    assert [rig.ask().status for _ in range(4)] == [200, 200, 429, 429]
    replace(rig, rate_versions=1, **(limits | {"base_limit": 6}))
    assert [rig.ask().status for _ in range(3)] == [200, 200, 429]
    replace(rig, rate_versions=2, **limits)
    assert [rig.ask().status for _ in range(3)] == [200] * 3
    replace(rig, rate_versions=1, **(limits | {"base_window_ms": 1, "burst_window_ms": 1}))
    threading.Event().wait(0.005)
    assert rig.ask().status == 200


def test_the_access_log(make_rig):
    """It begins and ends with the setting, also when the loop was made without it; a request is told as it ends."""
    gate = threading.Event()

    def held(wire):
        while request := wire.read():
            if request.target == "/held":
                gate.wait(8)
            wire.send(answer(mark(request)))

    rig = make_rig(held)
    assert rig.ask("/before").status == 200
    guest = rig.guest()
    guest.get("/held")
    rig.wait_stat("requests", 2)
    replace(rig, access_log=1)
    gate.set()
    assert guest.answer().status == 200
    assert rig.ask("/logged").status == 200
    until(lambda: len(rig.records()) == 2)
    replace(rig, access_log=0)
    assert rig.ask("/after").status == 200
    replace(rig, access_log=1)
    assert rig.ask("/again").status == 200
    until(lambda: len(rig.records()) == 3)
    assert [record["target"] for record in rig.records()] == ["/held", "/logged", "/again"]


def test_an_upstream_while_connections_are_made(make_rig):
    """What was not sent yet, whatever its method, goes to the new one; the old one gets nothing, above all no request
    with the new one's name."""
    rig = make_rig()
    with socket.socket() as old, contextlib.ExitStack() as full:
        old.bind(("127.0.0.1", 0))
        old.listen(0)
        for _ in range(3):  # its queue is full then: the kernel lets no further connection be made
            client = full.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(old.getsockname())
        rig.loop.set_upstream([old.getsockname()], "old:1")
        got, posted = rig.guest("127.0.0.2"), rig.guest("127.0.0.3")
        got.get("/got")
        posted.post(b"body", "/posted")
        rig.wait_stat("upstream_connections", 2)
        assert rig.stat("requests") == 2 and rig.upstream.requests == []
        rig.loop.set_upstream([(rig.upstream.host, rig.upstream.tcp_port)], "new:1")
        for guest in (got, posted):
            assert guest.answer().status == 200
        assert sorted(rig.upstream.targets()) == ["/got", "/posted"]
        assert {request.one("Host") for request in rig.upstream.requests} == {"new:1"}
        assert rig.stat("upstream_connects") == 4
        assert _core.PROBLEM_UPSTREAM_AWAY not in rig.problems()


@pytest.mark.parametrize("settings", [{"no_such": 1}, {"max_connections": 0}, {"max_head": 1 << 20}])
def test_what_cannot_be(rig, settings):
    """Nothing changes."""
    with pytest.raises(ValueError, match=next(iter(settings))):
        rig.loop.set_settings({"park_timeout_ms": 1} | settings)
    assert rig.ask().status == 200


def test_a_loop_that_does_not_run():
    """What was not taken is freed with the loop (a leak shows under the sanitizer)."""
    loop = _core.Loop()
    for _ in range(100):
        loop.set_settings({"access_log": 1})
    del loop


def test_no_request_fails_while_settings_change(make_rig):
    """Back and forth, a thousand times, under load."""
    rig = make_rig()
    stop = threading.Event()
    failures: list[object] = []
    counts = [0, 0]

    def traffic(number: int) -> None:
        try:
            guest = rig.guest(f"127.0.0.{number + 1}")
            while not stop.is_set():
                guest.get(f"/{number}")
                found = guest.answer()
                assert found.status == 200
                assert found.body.endswith(f"GET /{number}\n".encode())
                counts[number] += 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=traffic, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for turn in range(1000):
        rig.loop.set_settings({"max_connections": 100 + turn % 2, "max_upstream_connections": 2 + turn % 3})
    before = list(counts)
    until(lambda: failures or all(now > then for now, then in zip(counts, before, strict=True)))
    stop.set()
    for thread in threads:
        thread.join(8)
    assert failures == []
