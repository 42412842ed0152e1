"""Rule 8: what one scope and one address may hold, so that no other guest goes short."""

import contextlib
import socket
import threading

import pytest

from fastmeta import _core

from .loop_kit import Guest, Rig, answer, once, packed, silence, until

BODY = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"


def served(rig: Rig, address: str, listener: int = 1) -> Guest:
    """A connection that has had a request, and is kept alive."""
    guest = rig.guest(address, listener)
    guest.get()
    assert guest.answer().status == 200
    return guest


def problem_of(rig: Rig, code: int, address: str = "") -> None:
    """Waits for the problem, which must name scope and address."""
    found = until(lambda: [event for event in rig.events if event[:2] == (_core.EVENT_PROBLEM, code)])
    assert found[0][3] == 1
    assert found[0][5] == (packed(address) if address else b"")


@pytest.mark.parametrize("bound", ["address", "scope"])
def test_idle_connections_make_room_for_their_own(make_rig, bound):
    """Of the address or the scope whose bound is reached the oldest idle connection goes; older ones of others stay."""
    rig = make_rig(settings={f"max_connections_per_{bound}": 3})
    rig.add_listener(2, 2)
    elsewhere = [served(rig, "127.0.0.1", 2)]
    if bound == "address":
        elsewhere.append(served(rig, "127.0.0.9"))
    guests = [served(rig, "127.0.0.1") for _ in range(3)]
    guests.append(served(rig, "127.0.0.1" if bound == "address" else "127.0.0.2"))
    assert guests[0].ended() == "closed"
    assert all(guest.is_open() for guest in (*guests[1:], *elsewhere))
    rig.wait_stat("ended_evicted", 1)
    assert rig.loop.stats(2)["ended_evicted"] == 0


@pytest.mark.parametrize(
    ("bound", "code"),
    [("address", _core.PROBLEM_ADDRESS_CONNECTIONS), ("scope", _core.PROBLEM_SCOPE_CONNECTIONS)],
)
def test_connections_with_requests_in_progress_stay(make_rig, bound, code):
    """When all have one, the further one gets 503 at once; other addresses, or scopes, do not."""
    rig = make_rig(on_miss=silence, settings={f"max_connections_per_{bound}": 3})
    rig.add_listener(2, 2)
    guests = [rig.guest("127.0.0.1") for _ in range(3)]
    for guest in guests:
        guest.get()
    rig.wait_stat("parked", 3)
    assert rig.ask(address="127.0.0.1").status == 503
    problem_of(rig, code, "127.0.0.1" if bound == "address" else "")
    assert rig.loop.stats(1)[f"refused_connections_{bound}"] == 1
    rig.wait_stat("ended_turned_away", 1)
    rig.put("127.0.0.1")
    rig.put("127.0.0.1", scope=2)
    assert [guest.answer().status for guest in guests] == [200] * 3
    served(rig, "127.0.0.1", 2)


def test_other_addresses_have_connections_of_their_own(make_rig):
    """What one address has is not counted for another, nor for the same one in another scope."""
    rig = make_rig(on_miss=silence, settings={"max_connections_per_address": 1})
    rig.add_listener(2, 2)
    guests = [rig.guest(f"127.0.0.{number}", listener) for number in (1, 2) for listener in (1, 2)]
    for guest in guests:
        guest.get()
    rig.wait_stat("parked", 4)
    assert rig.ask(address="127.0.0.1").status == 503


def test_who_sends_its_head_slowly_makes_room(make_rig):
    """Part of a head counts as idle: the oldest is closed for a new connection, whose request is served."""
    rig = make_rig(settings={"max_connections": 3})
    slow = []
    for number in (1, 2, 3):
        slow.append(rig.guest(f"127.0.1.{number}"))
        slow[-1].send(b"GET / HTTP/1.1\r\nHo")
        rig.wait_stat("connections_open", number)
    assert rig.ask(address="127.0.0.5").status == 200
    assert slow[0].ended() == "closed"
    slow[1].send(b"st: a\r\n\r\n")
    assert slow[1].answer().status == 200
    assert rig.stat("ended_evicted") == 1


@pytest.mark.parametrize(
    ("setting", "reason", "code"),
    [
        ("max_parked_per_address", "parked_address", _core.PROBLEM_ADDRESS_PARKED),
        ("max_parked_per_scope", "parked_scope", _core.PROBLEM_SCOPE_PARKED),
        ("max_parked", "parked", _core.PROBLEM_PARKED_FULL),
    ],
)
def test_parked_requests(make_rig, setting, reason, code):
    """The further one gets 503 at once, and those that wait are served later."""
    rig = make_rig(on_miss=silence, settings={setting: 3})
    rig.add_listener(2, 2)
    guests = [rig.guest("127.0.0.1") for _ in range(3)]
    for guest in guests:
        guest.get()
    rig.wait_stat("parked", 3)
    found = rig.ask(address="127.0.0.1")
    assert found.status == 503
    assert found.all("Retry-After")[0] in ("1", "2", "3")
    assert rig.loop.stats(1)[f"refused_{reason}"] == 1
    problem_of(rig, code, "127.0.0.1" if reason == "parked_address" else "")
    elsewhere = {
        "parked_address": rig.guest("127.0.0.2"),
        "parked_scope": rig.guest("127.0.0.1", listener=2),
    }.get(reason)
    if elsewhere is not None:
        elsewhere.get()
        rig.wait_stat("parked", 4)
    rig.put("127.0.0.1")
    assert [guest.answer().status for guest in guests] == [200] * 3


def test_gathered_bodies(make_rig):
    """Each has a buffer: one in 32 of them may be an address's, a quarter a scope's; the further one gets 503."""
    rig = make_rig(settings={"max_gathered": 64})
    rig.add_listener(2, 2)
    slow: list[Guest] = []

    def sends(address: str, listener: int = 1) -> Guest:
        guest = rig.guest(address, listener)
        guest.send(BODY)
        return guest

    for number in range(8):
        for _ in range(2):
            slow.append(sends(f"127.0.0.{number + 2}"))
            rig.wait_stat("gathered", len(slow))
        if number == 0:
            assert sends("127.0.0.2").answer().status == 503
            problem_of(rig, _core.PROBLEM_BODIES_FULL, "127.0.0.2")
    assert sends("127.0.0.99").answer().status == 503
    assert rig.loop.stats(1)["refused_bodies"] == 2
    # Bodies that are here with their heads need no buffer, and another scope has its own share.
    whole = rig.guest("127.0.0.2")
    whole.send(BODY + b"0123456789")
    assert whole.answer().status == 200
    slow.append(sends("127.0.0.2", 2))
    rig.wait_stat("gathered", 17)
    for guest in slow:
        guest.send(b"0123456789")
        assert guest.answer().status == 200
    rig.wait_stat("gathered", 0)


def test_an_answer_has_an_end(make_rig):
    """answer_timeout: a guest that goes on reading a little keeps its connection no longer, however steady."""
    rig = make_rig(once(lambda request: answer(bytes(8 << 20))), settings={"answer_timeout_ms": 300})
    guest = rig.guest(receive_buffer=4096)
    guest.get()
    read = 0
    with contextlib.suppress(ConnectionResetError):
        while piece := guest.socket.recv(512):
            read += len(piece)
            threading.Event().wait(0.002)
    assert read < 8 << 20
    rig.wait_stat("ended_slow_reader", 1)
    rig.wait_stat("upstream_connections", 0)


def test_many_requests_at_once(rig):
    """Pipelined requests that the core answers by itself: all are, in order, and others have their turns meanwhile."""
    rig.on_miss = lambda rig, scope, address: rig.absent(address)
    assert rig.ask(address="127.0.0.7").status == 404
    rig.put("127.0.0.8")
    flood = rig.guest("127.0.0.7")
    one = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    sender = threading.Thread(target=flood.send, args=(one * 2000,))
    sender.start()
    assert rig.ask(address="127.0.0.8").status == 200
    assert [flood.answer().status for _ in range(2000)] == [404] * 2000
    sender.join()
    assert flood.is_open()
    assert rig.loop.stats()["refused_absent"] == 2001


def test_addresses_of_a_scope(rig):
    """65,536 of them are known at once; a request of a further one gets 503, and other scopes are not touched."""
    rig.add_listener(2, 2)
    for number in range(65_536):
        rig.put(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", instance="one")
    rig.wait_stat("identities", 65_536)
    assert rig.ask(address="127.0.0.1").status == 503
    assert rig.loop.stats(1)["refused_misses"] == 1
    served(rig, "127.0.0.1", 2)


def test_a_scope_fills_a_part_of_the_ring_only(make_rig):
    """Misses that Python has not read: a quarter of the ring may be one scope's. Another one's still come through."""
    waits, goes_on = threading.Event(), threading.Event()

    def slow_source(rig: Rig, scope: int, address: str) -> None:
        waits.set()
        goes_on.wait(8)
        rig.put(address, scope=scope)

    most = 8192 // 4
    rig = make_rig(on_miss=slow_source, settings={"max_parked_per_scope": 4096})
    rig.add_listener(2, 2)
    first = rig.guest("127.0.0.2")
    first.get()
    assert waits.wait(8)
    for number in range(most):
        rig.guest(f"127.1.{number >> 8}.{number & 255}").get()
    rig.wait_stat("identity_misses", most + 1)
    assert rig.ask(address="127.0.0.3").status == 503
    assert rig.loop.stats(1)["refused_misses"] == 1
    other = rig.guest("127.0.0.3", 2)
    other.get()
    rig.wait_stat("parked", most + 2)
    goes_on.set()
    assert other.answer().status == 200
    assert first.answer().status == 200
    problem_of(rig, _core.PROBLEM_SCOPE_MISSES)
    rig.wait_stat("parked", 0)
    assert rig.ask(address="127.0.0.3").status == 200


def test_a_silent_connection_is_no_better_than_a_slow_head(make_rig):
    """Before its first byte a connection has head_timeout, when that is shorter than keepalive_timeout."""
    rig = make_rig(settings={"head_timeout_ms": 100, "keepalive_timeout_ms": 60_000})
    silent = rig.guest()
    kept = served(rig, "127.0.0.2")
    assert silent.ended() == "closed"
    assert kept.is_open()
    assert rig.stat("ended_idle") == 1


def test_heads(make_rig):
    """max_head, max_headers and max_target are settings: 431, 431, 414, each counted by its reason."""
    rig = make_rig(settings={"max_head": 400, "max_headers": 5, "max_target": 50})
    assert rig.ask("/" + "a" * 49, *["A: b"] * 4).status == 200
    assert rig.ask("/" + "a" * 50).status == 414
    assert rig.ask("/", *["A: b"] * 5).status == 431
    assert rig.ask("/", "A: " + "b" * 400).status == 431
    stats = rig.loop.stats()
    assert (stats["refused_target_long"], stats["refused_head_large"]) == (1, 2)
    assert len(rig.upstream.requests) == 1


def test_an_address_is_not_its_likeness_in_another_family(make_rig):
    """An IPv4 guest of a listener for both is the IPv4 address that it is."""
    rig = make_rig(settings={"max_connections_per_address": 1}, on_miss=silence)
    rig.add_listener(2, 1, "::")
    tcp_port = rig.listeners[2][1]
    first = rig.guest("127.0.0.1")
    first.get()
    rig.wait_stat("parked", 1)
    with socket.create_connection(("127.0.0.1", tcp_port)) as mapped:
        guest = Guest(mapped)
        guest.get()
        assert guest.answer().status == 503
    assert rig.stat("refused_connections_address") == 1
