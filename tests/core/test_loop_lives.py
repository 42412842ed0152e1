"""Rule 9, the core's half: how listeners, scopes and the loop end."""

import select
import socket
import threading
import time

import pytest

from fastmeta import _core

from .loop_kit import Gone, answer, mark, nothing_left_behind, silence, until


def slow_script(go_on):
    def script(wire):
        while (request := wire.read()) is not None:
            if request.target == "/slow":
                go_on.wait(5)
            wire.send(answer(mark(request)))

    return script


def closed(rig, listener=1):
    return until(lambda: (_core.EVENT_LISTENER_CLOSED, listener) in rig.events)


def test_a_listener_whose_namespace_is_gone(make_rig):
    """drain=False: idle, waiting and served connections are reset at once, and nobody can connect."""
    go_on = threading.Event()
    rig = make_rig(slow_script(go_on), on_miss=silence)
    rig.put("127.0.0.1")
    idle, served, parked, half = rig.guest(), rig.guest(), rig.guest("127.0.0.2"), rig.guest()
    idle.get("/a")
    assert idle.answer().status == 200
    served.get("/slow")
    parked.get("/b")
    half.send(b"GET / HT")
    until(lambda: "/slow" in rig.upstream.targets() and rig.stat("parked") == 1)
    rig.loop.remove_listener(1, drain=False)
    assert [guest.ended() for guest in (idle, served, parked, half)] == ["reset"] * 4
    closed(rig)
    with pytest.raises(OSError, match="refused"):
        rig.guest()
    assert rig.stat("connections_open") == rig.stat("parked") == 0
    go_on.set()


def test_a_listener_that_is_drained(make_rig):
    """drain=True: what is queued and in flight is answered, idle connections close, then the listener."""
    go_on = threading.Event()
    rig = make_rig(slow_script(go_on))
    idle, served = rig.guest(), rig.guest()
    idle.get("/a")
    assert idle.answer().status == 200
    served.get("/slow")
    until(lambda: "/slow" in rig.upstream.targets())
    queued = [rig.guest() for _ in range(5)]
    for guest in queued:
        guest.get("/queued")
    rig.loop.remove_listener(1, drain=True)
    for guest in queued:
        assert guest.answer().status == 200
        assert guest.ended() == "closed"
    assert idle.ended() == "closed"
    assert not rig.events
    go_on.set()
    found = served.answer()
    assert (found.status, found.all("Connection")) == (200, ["close"])
    assert served.ended() == "closed"
    closed(rig)
    with pytest.raises(OSError, match="refused"):
        rig.guest()


def test_a_request_that_a_drained_listener_still_takes(make_rig):
    """It is answered, and its connection closes."""
    go_on = threading.Event()
    rig = make_rig(slow_script(go_on))
    hold = rig.guest()
    hold.get("/slow")
    until(rig.upstream.targets)
    for _ in range(30):
        guest = rig.guest("127.0.0.2")
        guest.get("/a")
    rig.loop.remove_listener(1, drain=True)
    for guest in rig.guests[1:]:
        found = guest.answer()
        # One that was read before the listener was told to end has had its answer already.
        assert found.status == 200
        assert found.all("Connection") in ([], ["close"])
        assert guest.ended() == "closed"
    go_on.set()
    assert hold.answer().all("Connection") == ["close"]
    closed(rig)


def test_a_request_on_an_idle_connection_that_is_drained(make_rig):
    """What came in before the listener was drained is answered, and told that the connection closes."""
    rig = make_rig()
    guests = [rig.guest() for _ in range(20)]
    for guest in guests:
        guest.get("/a")
        assert guest.answer().all("Connection") == []
    for guest in guests:
        guest.get("/b")
    rig.loop.remove_listener(1, drain=True)
    for guest in guests:
        found = guest.answer()
        # A request that was read before the listener was told to end may have had its answer already.
        assert found.status == 200
        assert found.all("Connection") in ([], ["close"])
        assert guest.ended() == "closed"
    closed(rig)


def test_a_listener_of_an_unknown_scope(make_rig):
    """It is said to be closed, and it is."""
    rig = make_rig()
    sock = socket.create_server(("127.0.0.1", 0))
    address = sock.getsockname()
    rig.loop.add_listener(77, 4711, sock.detach())
    closed(rig, 77)
    with pytest.raises(OSError, match="refused"), socket.create_connection(address):
        pass


def test_draining_ends(make_rig):
    """After 2 s what is still in flight is reset."""
    rig = make_rig(on_miss=silence)
    guest = rig.guest()
    guest.get("/a")
    rig.wait_stat("parked", 1)
    start = time.monotonic()
    rig.loop.remove_listener(1, drain=True)
    assert guest.ended() == "reset"
    assert 1.9 < time.monotonic() - start < 10
    closed(rig)


def test_draining_and_then_gone(make_rig):
    """A namespace may go while its listener is drained."""
    rig = make_rig(on_miss=silence)
    guest = rig.guest()
    guest.get("/a")
    rig.wait_stat("parked", 1)
    start = time.monotonic()
    rig.loop.remove_listener(1, drain=True)
    rig.loop.remove_listener(1, drain=False)
    assert guest.ended() == "reset"
    closed(rig)
    assert time.monotonic() - start < 5


def test_other_listeners_stay(rig):
    """Removing one, also one that is not there, does not touch another."""
    rig.add_listener(2, 2)
    guest = rig.guest(listener=2)
    guest.get("/a")
    assert guest.answer().status == 200
    rig.loop.remove_listener(1, drain=False)
    rig.loop.remove_listener(77, drain=False)
    closed(rig)
    guest.get("/b")
    assert guest.answer().status == 200


def test_remove_scope(make_rig):
    """All of its listeners and connections go at once."""
    rig = make_rig(on_miss=silence)
    rig.add_listener(2, 1)
    guests = [rig.guest(listener=listener) for listener in (1, 2)]
    for guest in guests:
        guest.get("/a")
    rig.wait_stat("parked", 2)
    with pytest.raises(ValueError, match="not in use"):
        rig.loop.add_scope(1)
    rig.remove_scope(1)
    assert [guest.ended() for guest in guests] == ["reset"] * 2
    closed(rig, 1)
    closed(rig, 2)
    until(lambda: (_core.EVENT_SCOPE_REMOVED, 1) in rig.events)
    assert rig.stat("identities") == 0
    assert rig.stat("ended_listener") == 2
    for ask in (rig.loop.stats, rig.loop.histograms):
        with pytest.raises(ValueError, match="no scope 1"):
            ask(1)


def test_stop_at_once(make_rig):
    """Whatever there is."""
    rig = make_rig(on_miss=silence)
    waiting, half = rig.guest(), rig.guest()
    waiting.get("/a")
    half.send(b"GET")
    rig.wait_stat("parked", 1)
    start = time.monotonic()
    rig.stop()
    assert time.monotonic() - start < 5
    for guest in (waiting, half):
        with pytest.raises(Gone):
            guest.head()


def test_stop_with_time(make_rig):
    """Requests in flight end, and so does run() as soon as they have."""
    go_on = threading.Event()
    rig = make_rig(slow_script(go_on))
    guest = rig.guest()
    guest.get("/slow")
    until(rig.upstream.targets)
    threading.Timer(0.1, go_on.set).start()
    start = time.monotonic()
    rig.stop(drain_ms=5000)
    assert time.monotonic() - start < 10
    assert guest.answer().status == 200
    assert guest.ended() == "closed"


def test_events_of_the_end_can_be_waited_for():
    """A listener that the end itself closed is reported, and the descriptor says so."""
    with nothing_left_behind():
        loop = _core.Loop({})
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        guest = socket.create_connection(listener.getsockname())
        loop.add_scope(1)
        loop.add_listener(1, 1, listener.detach())
        thread = threading.Thread(target=loop.run)
        thread.start()
        guest.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        until(lambda loop=loop: loop.stats()["parked"] == 1)
        assert [event[0] for event in loop.events()] == [_core.EVENT_MISS]
        loop.stop(60_000)
        loop.stop(0)
        thread.join(5)
        assert not thread.is_alive()
        assert select.select([loop.fileno()], [], [], 0)[0]
        assert loop.events() == [(_core.EVENT_LISTENER_CLOSED, 1), (_core.EVENT_SCOPE_REMOVED, 1)]
        assert loop.stats(1)["refused_parked_long"] == 0  # what it counted stays readable
        guest.close()
        del loop, thread


def test_listeners_come_and_go_under_load(make_rig):
    """Nothing of it disturbs a scope that stays."""
    rig = make_rig()
    guest = rig.guest()
    for number in range(10, 40):
        rig.add_listener(number, number)
        others = [rig.guest(listener=number) for _ in range(3)]
        for other in others[:2]:
            other.get("/x")
        if number % 3 == 0:
            rig.remove_scope(number)
        else:
            rig.loop.remove_listener(number, drain=number % 3 == 1)
        guest.get(f"/{number}")
        assert guest.answer().status == 200
        closed(rig, number)
    rig.wait_stat("connections_open", 1)
