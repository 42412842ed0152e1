"""The relay: who asks, each request's head says; its connections are in the scope of a request for as long as it
lasts, on whichever loop that is, and nothing is lost on the way."""

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fastmeta import _core

from .accounts import check_sums
from .loop_kit import (
    DEADLINE_S,
    Request,
    Script,
    Upstream,
    answer,
    echo,
    know,
    mark,
    nothing_left_behind,
    once,
    silence,
    until,
)
from .relay_kit import NAMES, RELAY, RelayRig, ask, claims, network, router

MakeRelay = Callable[..., RelayRig]


@pytest.fixture
def make_relay() -> Iterator[MakeRelay]:
    made: list[RelayRig] = []

    def make(
        count: int = 1, script: Script = echo, settings: dict[str, int] | None = None, **more: Any
    ) -> RelayRig:
        options = {name: more.pop(name) for name in ("uids", "gids", "most_made") if name in more}
        rig = RelayRig(count, settings or {}, Upstream(script), **more)
        for name, value in options.items():
            setattr(rig, name, value)
        made.append(rig)
        rig.start()
        until(lambda: all(loop.running for loop in rig.loops))
        return rig

    with nothing_left_behind():
        yield make
        for rig in made:
            rig.end()
        made.clear()


@pytest.fixture(params=[1, 3])
def relay(request: pytest.FixtureRequest, make_relay: MakeRelay) -> RelayRig:
    return make_relay(request.param)


# Who asks.


def test_networks_and_routers_with_the_same_id_and_address(relay: RelayRig) -> None:
    """Two tenants' networks, and a router with the UUID of one: three guests."""
    for _ in range(2):
        for scope in (network(1), network(2), router(2)):
            with contextlib.closing(relay.proxy()) as proxy:
                ask(relay, proxy, scope, "10.0.0.5")
    numbers = {relay.numbers[scope] for scope in (network(1), network(2), router(2))}
    assert len(numbers) == 3
    assert sorted(relay.misses) == sorted((number, "10.0.0.5") for number in numbers)


def test_the_scope_is_the_one_of_a_listener(relay: RelayRig) -> None:
    """What a guest's own connection has made known is known to the relay, and the other way round."""
    relay.ask()
    with contextlib.closing(relay.proxy()) as proxy:
        ask(relay, proxy, network(1), "127.0.0.1")
    assert relay.misses == [(1, "127.0.0.1")]
    assert relay.loop.stats(1)["requests"] == 2


@pytest.mark.parametrize(
    ("sent", "means"),
    [
        ("10.0.0.5", "10.0.0.5"),
        ("::ffff:10.0.0.5", "10.0.0.5"),
        ("::FFFF:0a00:0005", "10.0.0.5"),
        ("2001:DB8:0::5", "2001:db8::5"),
        ("fe80::f816:3eff:fe00:1", "fe80::f816:3eff:fe00:1"),
        ("  10.0.0.5\t", "10.0.0.5"),
    ],
)
def test_addresses(relay: RelayRig, sent: str, means: str) -> None:
    with contextlib.closing(relay.proxy()) as proxy:
        proxy.get("/", f"X-Forwarded-For: {sent}", f"X-Neutron-Router-ID: {router(3).uuid.upper()}")
        assert proxy.answer().body.decode().startswith(relay.instance(router(3), means))


IDENTIFIER = f"X-Neutron-Network-ID: {network(1).uuid}"
FORWARDED = "X-Forwarded-For: 10.0.0.5"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [FORWARDED],
        [IDENTIFIER],
        [IDENTIFIER, IDENTIFIER, FORWARDED],
        [IDENTIFIER, f"X-Neutron-Router-ID: {router(1).uuid}", FORWARDED],
        [IDENTIFIER, "X-Neutron-Router-ID: pings", FORWARDED],
        [IDENTIFIER, f"x_neutron_network_id: {network(2).uuid}", FORWARDED],
        [f"X_NEUTRON-router_id: {network(2).uuid}", IDENTIFIER, FORWARDED],
        [IDENTIFIER, "X-Forwarded-For: 10.0.0.5, 10.0.0.6"],
        [IDENTIFIER, "X-Forwarded-For: 10.0.0.5,"],
        [IDENTIFIER, "X-Forwarded-For:"],
        [IDENTIFIER, "X-Forwarded-For: 10.0.0.5:80"],
        [IDENTIFIER, "X-Forwarded-For: fe80::1%eth0"],
        [IDENTIFIER, "X-Forwarded-For: [::1]"],
        [IDENTIFIER, "X-Forwarded-For: 010.0.0.5"],
        [IDENTIFIER, "X-Forwarded-For: 10.0.5"],
        [IDENTIFIER, "X-Forwarded-For: 167772165"],
        [IDENTIFIER, "X-Forwarded-For: unknown"],
        [IDENTIFIER, f"X-Forwarded-For: {'1' * 300}"],
        [IDENTIFIER, FORWARDED, "X_Forwarded_For: nonsense"],
    ],
)
def test_missing_or_ambiguous_is_400(relay: RelayRig, headers: list[str]) -> None:
    with contextlib.closing(relay.proxy()) as proxy:
        proxy.get("/", *headers)
        assert proxy.answer().status == 400
        assert proxy.ended() == "closed"
    assert relay.loop.stats(RELAY)["refused_proxy"] == 1
    assert not relay.misses
    assert not relay.handed


@pytest.mark.parametrize(
    "identifier",
    [
        "",
        "pings",
        "0" * 32,
        network(1).uuid[:-1],
        network(1).uuid + "0",
        f"{{{network(1).uuid}}}",
        "g" + network(1).uuid[1:],
    ],
)
@pytest.mark.parametrize("forwarded", [[], [FORWARDED], ["X-Forwarded-For: a, b"]])
def test_what_is_no_uuid_is_nobodys(make_relay: MakeRelay, identifier: str, forwarded: list[str]) -> None:
    """At once, and without a question: so operators' probes ask whether an agent lives."""
    rig = make_relay(settings={"access_log": 1})
    for name in NAMES.values():
        with contextlib.closing(rig.proxy()) as proxy:
            proxy.get("/", f"{name}: {identifier}", *forwarded)
            assert proxy.answer().status == 404
    assert not rig.misses
    assert not rig.handed
    until(lambda: len(rig.records()) == 2)
    assert {record["scope"] for record in rig.records()} == {RELAY}


def test_only_the_last_forwarded_line_counts(relay: RelayRig) -> None:
    """Those before it are the guest's."""
    with contextlib.closing(relay.proxy()) as proxy:
        proxy.get("/", "X-Forwarded-For: 10.0.0.66", "x_forwarded_for: 1, 2", IDENTIFIER, FORWARDED)
        assert proxy.answer().body.decode().startswith(relay.instance(network(1), "10.0.0.5"))


def test_nova_sees_nothing_of_what_proxy_or_guest_say(relay: RelayRig) -> None:
    with contextlib.closing(relay.proxy()) as proxy:
        ask(relay, proxy, network(2), "10.0.0.5", "/", "X-Instance-ID: another", "X-Forwarded-For: 10.0.0.5")
    (request,) = relay.upstream.requests
    assert request.all("X-Forwarded-For") == ["10.0.0.5"]
    assert request.all("X-Instance-ID") == [relay.instance(network(2), "10.0.0.5")]
    assert b"neutron" not in request.head.lower()


# Connections.


def test_a_kept_connection_for_guests_of_many_scopes(relay: RelayRig) -> None:
    """To and fro between loops."""
    with contextlib.closing(relay.proxy()) as proxy:
        for turn in range(3):
            for number in range(1, 8):
                for address in ("10.0.0.5", "10.0.0.6"):
                    ask(relay, proxy, network(number), address, f"/{turn}")
    for number in range(1, 8):
        check_sums(
            *(
                figures(relay.numbers[network(number)])
                for figures in (relay.loop.stats, relay.loop.histograms)
            )
        )
    assert len({relay.loop.place(relay.numbers[network(number)]) for number in range(1, 8)}) == len(
        relay.loops
    )


def test_pipelined_requests_of_many_scopes(relay: RelayRig) -> None:
    """All are there when the first is read: the rest goes along."""
    asked = [(network(number), f"10.0.0.{turn}") for turn in range(1, 5) for number in range(1, 6)]
    lines = [
        "\r\n".join([f"GET /{at} HTTP/1.1", "Host: h", *claims(*who), "", ""]) for at, who in enumerate(asked)
    ]
    with contextlib.closing(relay.proxy()) as proxy:
        proxy.send("".join(lines).encode())
        for at, (scope, address) in enumerate(asked):
            assert proxy.answer().body.decode() == f"{relay.instance(scope, address)} GET /{at}\n"


def test_a_head_byte_by_byte(relay: RelayRig) -> None:
    head = "\r\n".join(["GET /slow HTTP/1.1", "Host: h", *claims(network(4), "10.0.0.5"), "", ""]).encode()
    with contextlib.closing(relay.proxy()) as proxy:
        for at in range(len(head)):
            proxy.send(head[at : at + 1])
        assert proxy.answer().body.decode() == f"{relay.instance(network(4), '10.0.0.5')} GET /slow\n"


@pytest.mark.parametrize("here", [0, 1, 5000, 7000], ids=lambda here: f"{here} with the head")
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_body_that_comes_later(make_relay: MakeRelay, here: int, number: int) -> None:
    """Binary, and more than one read takes; on a loop of its own or another one."""
    body = bytes(range(256)) * 200
    rig = make_relay(3, once(lambda request: answer(request.body)))
    with contextlib.closing(rig.proxy()) as proxy:
        head = [
            "POST / HTTP/1.1",
            "Host: h",
            *claims(network(number), "10.0.0.5"),
            f"Content-Length: {len(body)}",
            "",
            "",
        ]
        proxy.send("\r\n".join(head).encode() + body[:here])
        until(lambda: not here or rig.misses)
        proxy.send(body[here:])
        assert proxy.answer().body == body
        ask_again = [*claims(network(number), "10.0.0.5"), "Transfer-Encoding: chunked"]
        proxy.get("/", *ask_again, method="POST")
        proxy.send(b"3\r\na\x00b\r\n0\r\n\r\n")
        assert proxy.answer().body == b"a\x00b"
        assert rig.upstream.requests[-1].all("Content-Length") == ["3"]


def test_the_largest_head(relay: RelayRig) -> None:
    """The proxy's headers come last: 8,192 bytes, of which none is lost."""
    lines = ["GET / HTTP/1.1", "Host: h", "X-Long: ", *claims(network(5), "10.0.0.5"), "", ""]
    lines[2] += "a" * (8192 - len("\r\n".join(lines)))
    with contextlib.closing(relay.proxy()) as proxy:
        proxy.send("\r\n".join(lines).encode())
        assert proxy.answer().status == 200


def test_a_malformed_head_belongs_to_nobody(relay: RelayRig) -> None:
    """Also after a good one: the connection is not the last guest's any more."""
    with contextlib.closing(relay.proxy()) as proxy:
        ask(relay, proxy, network(1), "10.0.0.5")
        proxy.send(b"GET / HTTP/1.1\r\nHost: h\r\n folded\r\n\r\n")
        assert proxy.answer().status == 400
    own = [relay.loop.stats(RELAY + place) for place in range(len(relay.loops))]
    assert sum(stats["refused_malformed"] for stats in own) == 1
    assert relay.loop.stats(1)["requests"] == 1


def test_a_slow_head_is_nobodys(make_relay: MakeRelay) -> None:
    rig = make_relay(settings={"head_timeout_ms": 50})
    with contextlib.closing(rig.proxy()) as proxy:
        ask(rig, proxy, network(1), "10.0.0.5")
        proxy.send(b"GET / HTTP/1.1\r\n")
        assert proxy.answer().status == 408
    assert rig.loop.stats(RELAY)["refused_head_slow"] == 1


def test_a_guest_that_goes_while_it_waits(make_relay: MakeRelay) -> None:
    """The proxy closes its connection then: nobody waits any more, and Nova is not asked."""
    rig = make_relay(3, on_miss=silence)
    for number in range(1, 6):
        proxy = rig.proxy()
        proxy.get("/", *claims(network(number), "10.0.0.5"))
    until(lambda: len(rig.misses) == 5)
    for proxy in rig.guests:
        proxy.close()
    until(lambda: rig.stat("connections_open") == 0 and rig.stat("parked") == 0)
    assert rig.stat("aborted") == 5
    assert not rig.upstream.requests


def test_a_revocation_ends_what_is_in_flight(make_relay: MakeRelay) -> None:
    """As for every guest: the answer of the old instance does not go down."""
    go = threading.Event()

    def slowly(request: Request) -> bytes:
        if request.one("X-Instance-ID").endswith("-0"):
            go.wait(DEADLINE_S)
        return answer(mark(request))

    rig = make_relay(1, once(slowly))
    with contextlib.closing(rig.proxy()) as proxy:
        proxy.get("/", *claims(network(1), "10.0.0.5"))
        until(lambda: rig.upstream.requests)
        rig.revoke("10.0.0.5")
        assert proxy.answer().body.decode() == "instance-1-10.0.0.5-1 GET /\n"
        go.set()


# Bounds.


@pytest.mark.parametrize("bound", ["address", "scope"])
def test_bounds_hold_when_the_guest_is_known(make_relay: MakeRelay, bound: str) -> None:
    """Of a guest's and of a scope's connections; others are not concerned."""
    rig = make_relay(3, on_miss=silence, settings={f"max_connections_per_{bound}": 2})
    for _ in range(2):
        rig.proxy().get("/", *claims(network(2), "10.0.0.5"))
    until(lambda: rig.stat("parked") == 2)
    with contextlib.closing(rig.proxy()) as proxy:
        proxy.get("/", *claims(network(2), "10.0.0.5"))
        refused = proxy.answer()
        assert refused.status == 503
        assert refused.all("Retry-After")
        assert proxy.ended() == "closed"
    assert rig.stat(f"refused_connections_{bound}") == 1
    proxy = rig.proxy()
    other = network(2) if bound == "address" else network(3)
    proxy.get("/", *claims(other, "10.0.0.6"))
    until(lambda: rig.stat("parked") == 3)


def test_all_connections_together_are_bounded(make_relay: MakeRelay) -> None:
    rig = make_relay(on_miss=silence, settings={"max_connections": 2})
    for number in (1, 2):
        rig.proxy().get("/", *claims(network(number), "10.0.0.5"))
    until(lambda: rig.stat("parked") == 2)
    with contextlib.closing(rig.proxy()) as proxy:
        proxy.get("/", *claims(network(3), "10.0.0.5"))
        assert proxy.answer().status == 503


def test_idle_connections_make_room(make_relay: MakeRelay) -> None:
    rig = make_relay(settings={"max_connections": 2})
    first, second = rig.proxy(), rig.proxy()
    ask(rig, first, network(1), "10.0.0.5")
    ask(rig, second, network(1), "10.0.0.5")
    ask(rig, rig.proxy(), network(2), "10.0.0.5")
    assert first.ended() == "closed"


def test_rates_are_the_guests(make_relay: MakeRelay) -> None:
    """Not the proxy's."""
    rig = make_relay(settings={"rate_versions": 3, "base_limit": 2, "burst_limit": 2})
    statuses = []
    for _ in range(3):
        for address in ("10.0.0.5", "fd00::5"):
            with contextlib.closing(rig.proxy()) as proxy:
                proxy.get("/", *claims(network(2), address))
                statuses.append(proxy.answer().status)
    assert statuses == [200] * 4 + [429] * 2


def test_no_more_scopes_than_there_may_be(make_relay: MakeRelay) -> None:
    """What Python refuses gets 503, and the connection is nobody's."""
    rig = make_relay(3, most_made=1)
    ask(rig, rig.proxy(), network(2), "10.0.0.5")
    with contextlib.closing(rig.proxy()) as proxy:
        proxy.get("/", *claims(network(3), "10.0.0.5"))
        refused = proxy.answer()
        assert refused.status == 503
        assert refused.all("Retry-After")
    assert rig.stat("refused_scopes") == 1
    ask(rig, rig.proxy(), network(2), "10.0.0.5")


# Scopes that go.


def test_a_scope_that_nobody_uses_is_retired(relay: RelayRig) -> None:
    with contextlib.closing(relay.proxy()) as proxy:
        ask(relay, proxy, network(2), "10.0.0.5")
        number = relay.numbers[network(2)]
        relay.loop.retire_scope(number)
        until(lambda: network(2) not in relay.numbers)
        relay.loop.scope_removed(number)
        del relay.generation[number]
        with pytest.raises(ValueError, match="there is no scope"):
            relay.loops[relay.loop.place(number)].stats(number)
        ask(relay, proxy, network(2), "10.0.0.5")
        assert relay.numbers[network(2)] != number


def test_a_scope_that_somebody_uses_stays(make_relay: MakeRelay) -> None:
    """Also when the request comes after it was said, and before the loop has heard it."""
    rig = make_relay(3, on_miss=silence)
    proxy = rig.proxy()
    proxy.get("/", *claims(network(2), "10.0.0.5"))
    until(lambda: rig.misses)
    number = rig.numbers[network(2)]
    rig.loop.retire_scope(number)
    rig.put("10.0.0.5", scope=number)
    assert proxy.answer().status == 200
    rig.loop.retire_scope(1)  # that has a listener
    rig.on_miss = know
    ask(rig, proxy, network(1), "127.0.0.1")
    assert rig.numbers[network(2)] == number


def test_a_scope_that_is_removed_ends_its_requests(make_relay: MakeRelay) -> None:
    rig = make_relay(on_miss=silence)
    rig.proxy().get("/", *claims(network(2), "10.0.0.5"))
    until(lambda: rig.stat("parked") == 1)
    rig.remove_scope(rig.numbers[network(2)])
    assert rig.guests[0].ended() in ("closed", "reset")


# The ends.


def test_a_stop_lets_requests_end(make_relay: MakeRelay) -> None:
    go = threading.Event()

    def slowly(request: Request) -> bytes:
        go.wait(DEADLINE_S)
        return answer(mark(request))

    rig = make_relay(3, once(slowly))
    for number in range(1, 7):
        rig.proxy().get("/", *claims(network(number), "10.0.0.5"))
    until(lambda: len(rig.upstream.requests) == 6)
    rig.loop.stop(5000)
    go.set()
    for proxy in rig.guests:
        assert proxy.answer().status == 200
        assert proxy.ended() == "closed"


def test_who_comes_while_it_ends_is_told(make_relay: MakeRelay) -> None:
    """What waits in the queue is taken: a scope that is here is served, for another one there is 503."""
    rig = make_relay(3)
    ask(rig, rig.proxy(), network(1), "10.0.0.5")
    proxies = {number: rig.proxy() for number in range(1, 8)}
    for number, proxy in proxies.items():
        proxy.get("/", *claims(network(number), "10.0.0.5"))
    rig.loop.stop(5000)
    statuses = {proxy.answer().status for proxy in proxies.values()}
    assert statuses <= {200, 503}


def test_what_is_on_the_way_when_nobody_takes_it() -> None:
    """Events that Python never reads own a connection: it is closed with the loop."""
    with nothing_left_behind(), socket.socket(socket.AF_UNIX) as proxy:
        loop = _core.Loop()
        listening = socket.socket(socket.AF_UNIX)
        listening.bind("")  # a name that the kernel chooses: unix(7)
        listening.listen(8)
        listening.setblocking(False)
        name = listening.getsockname()
        loop.add_relay(1, 1, listening.detach(), uids=[os.geteuid()], gids=[])
        runner = threading.Thread(target=loop.run)
        runner.start()
        proxy.settimeout(DEADLINE_S)
        proxy.connect(name)
        lines = ["GET / HTTP/1.1", "Host: h", *claims(network(9), "10.0.0.5"), "", ""]
        proxy.sendall("\r\n".join(lines).encode())
        loops = [loop]
        del loop
        until(lambda: loops[0].stats()["ended_handed"] == 1)
        loops[0].stop()
        runner.join(DEADLINE_S)
        del runner
        loops.clear()
        assert proxy.recv(9000).startswith(b"HTTP/1.1 503 ")
        assert proxy.recv(1) == b""


# Who may connect.


def test_strangers_are_turned_away(make_relay: MakeRelay) -> None:
    rig = make_relay(uids=(os.geteuid() + 1,))
    with contextlib.closing(rig.proxy()) as proxy:
        assert proxy.ended() == "closed"
    until(lambda: _core.PROBLEM_STRANGER in rig.problems())
    (problem,) = [event for event in rig.events if event[0] == _core.EVENT_PROBLEM]
    assert problem[2:5] == (os.geteuid(), RELAY, RELAY)
    assert rig.loop.stats(RELAY)["ended_stranger"] == 1


def test_a_group_is_enough(make_relay: MakeRelay) -> None:
    rig = make_relay(uids=(), gids=(os.getegid() + 1, os.getegid()))
    ask(rig, rig.proxy(), network(1), "10.0.0.5")


# Python's part of the core.


def test_what_python_may_not_say() -> None:
    loop = _core.Loop()
    with pytest.raises(ValueError, match="16 bytes"):
        loop.add_scope(1, _core.SCOPE_NETWORK, b"short")
    with pytest.raises(ValueError, match="network or a router"):
        loop.add_scope(1, 3, bytes(16))
    with pytest.raises(ValueError, match="above 0"):
        loop.add_relay(0, 1, -1, uids=[], gids=[])
    with pytest.raises(ValueError, match="at most 8"):
        loop.add_relay(1, 1, -1, uids=range(9), gids=[])
    with pytest.raises(ValueError, match="EVENT_HANDED"):
        loop.hand_over(0, (b"", 0, 0))
