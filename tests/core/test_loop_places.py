"""Places at Nova: scopes and addresses take turns, and none of them can take all."""

import threading

import pytest

from fastmeta import _core

from .loop_kit import Guest, Rig, Wire, answer, mark, until


class Gate:
    """An upstream that answers /held only when it is told to, one by one or all."""

    def __init__(self) -> None:
        self.permits = threading.Semaphore(0)
        self.is_open = False

    def __call__(self, wire: Wire) -> None:
        while (request := wire.read()) is not None:
            if request.target.startswith("/held") and not self.is_open:
                assert self.permits.acquire(timeout=8)
            wire.send(answer(mark(request)))

    def let(self, number: int = 1) -> None:
        self.permits.release(number)

    def open(self) -> None:
        self.is_open = True
        self.permits.release(1000)


@pytest.fixture
def gate() -> Gate:
    return Gate()


def hold(rig: Rig, address: str, target: str = "/held", listener: int = 1) -> Guest:
    guest = rig.guest(address, listener)
    guest.get(target)
    return guest


def test_one_address_leaves_places_for_others(make_rig, gate):
    """Of 8 places an address alone gets 2; another one's request is answered at once, and in the end all are."""
    rig = make_rig(gate, settings={"max_upstream_connections": 8})
    flood = [hold(rig, "127.0.0.2") for _ in range(20)]
    rig.wait_stat("parked", 18)
    until(lambda: len(rig.upstream.requests) == 2)
    assert rig.ask("/free", address="127.0.0.3").status == 200
    until(lambda: _core.PROBLEM_UPSTREAM_FULL in rig.problems())
    gate.open()
    assert [guest.answer().status for guest in flood] == [200] * 20
    assert rig.stat("parked") == 0


def test_one_scope_leaves_places_for_others(make_rig, gate):
    """Of 8 places a scope alone gets 6, by however many addresses; another scope's request is answered at once."""
    rig = make_rig(gate, settings={"max_upstream_connections": 8})
    rig.add_listener(2, 2)
    flood = [hold(rig, f"127.0.1.{number}") for number in range(1, 21)]
    until(lambda: len(rig.upstream.requests) == 6)
    rig.wait_stat("parked", 14)
    free = rig.guest("127.0.1.1", 2)
    free.get("/free")
    assert free.answer().status == 200
    assert len(rig.upstream.requests) == 7
    gate.open()
    assert [guest.answer().status for guest in flood] == [200] * 20


def test_a_node_with_few_places_still_serves(make_rig, gate):
    """With a single place everybody gets it in turn."""
    rig = make_rig(gate, settings={"max_upstream_connections": 1})
    rig.add_listener(2, 2)
    gate.open()
    guests = [hold(rig, f"127.0.0.{number}", listener=number % 2 + 1) for number in range(1, 9)]
    assert [guest.answer().status for guest in guests] == [200] * 8


def order(rig: Rig, gate: Gate, guests: list[Guest]) -> list[str]:
    """Lets one answer after the other go; the order in which requests reach the upstream."""
    for number in range(1, len(guests) + 1):
        until(lambda number=number: len(rig.upstream.requests) == number)
        gate.let()
    assert [guest.answer().status for guest in guests] == [200] * len(guests)
    return [target[-2:] for target in rig.upstream.targets()]


def test_addresses_take_turns(make_rig, gate):
    """Who has many requests waiting gets the next place no more often than who has one; its own stay in order."""
    rig = make_rig(gate, settings={"max_upstream_connections": 1})
    guests = []
    for name, address in (("a1", 2), ("a2", 2), ("a3", 2), ("a4", 2), ("b1", 3), ("b2", 3), ("c1", 4)):
        guests.append(hold(rig, f"127.0.0.{address}", f"/held/{name}"))
        rig.wait_stat("identity_hits", len(guests))
    assert order(rig, gate, guests) == ["a1", "a2", "b1", "c1", "a3", "b2", "a4"]


def test_scopes_take_turns(make_rig, gate):
    """Many addresses of one scope wait no less than the one of another."""
    rig = make_rig(gate, settings={"max_upstream_connections": 1})
    rig.add_listener(2, 2)
    guests = []
    for name, address, scope in (
        ("a1", 2, 1),
        ("b1", 3, 1),
        ("c1", 4, 1),
        ("d1", 5, 1),
        ("x1", 2, 2),
        ("y1", 3, 2),
    ):
        guests.append(hold(rig, f"127.0.0.{address}", f"/held/{name}", scope))
        rig.wait_stat("identity_hits", len(guests))
    assert order(rig, gate, guests) == ["a1", "b1", "x1", "c1", "y1", "d1"]


def test_who_goes_while_it_waits_takes_no_turn(make_rig, gate):
    """Requests that are given up in the queue reach nobody; the others come in their order."""
    rig = make_rig(gate, settings={"max_upstream_connections": 1})
    guests = []
    for name, address in (("a1", 2), ("a2", 2), ("b1", 3), ("c1", 4), ("b2", 3)):
        guests.append(hold(rig, f"127.0.0.{address}", f"/held/{name}"))
        rig.wait_stat("identity_hits", len(guests))
    guests.pop(2).reset()
    guests.pop(1).reset()
    rig.wait_stat("aborted", 2)
    assert order(rig, gate, guests) == ["a1", "b2", "c1"]
    assert rig.stat("parked") == 0


def test_who_has_closed_while_it_waited_is_not_asked_for(make_rig, gate):
    """A FIN: when its turn comes, the request does not go to Nova, which would work for nobody."""
    rig = make_rig(gate, settings={"max_upstream_connections": 1})
    first = hold(rig, "127.0.0.2")
    rig.wait_stat("identity_hits", 1)
    gone = [hold(rig, "127.0.0.3", "/held/gone") for _ in range(5)]
    rig.wait_stat("parked", 5)
    last = hold(rig, "127.0.0.3", "/held/last")
    rig.wait_stat("parked", 6)
    for guest in gone:
        guest.close()
    gate.open()
    assert [first.answer().status, last.answer().status] == [200, 200]
    assert rig.upstream.targets() == ["/held", "/held/last"]
    assert rig.stat("aborted") == rig.stat("ended_aborted") == 5


def test_a_scope_that_goes_while_it_waits(make_rig, gate):
    """Its requests are gone with it, and the others' go on."""
    rig = make_rig(gate, settings={"max_upstream_connections": 1})
    rig.add_listener(2, 2)
    first = hold(rig, "127.0.0.2")
    rig.wait_stat("identity_hits", 1)
    leaving = [hold(rig, f"127.0.0.{number}", listener=2) for number in (2, 3, 3)]
    rig.wait_stat("parked", 3)
    last = hold(rig, "127.0.0.3")
    rig.wait_stat("parked", 4)
    rig.remove_scope(2)
    assert [guest.ended() for guest in leaving] == ["reset"] * 3
    gate.open()
    assert [first.answer().status, last.answer().status] == [200, 200]
    assert len(rig.upstream.requests) == 2
