"""Slow guests: their heads never end, nor do their bodies, or they take their answers by the byte, or not at all."""

from __future__ import annotations

from ..service.agents import until
from .field import (
    ALLOWANCE,
    CONNECTION,
    LARGE,
    MAX_CONNECTIONS_PER_ADDRESS,
    MAX_CONNECTIONS_PER_SCOPE,
    MAX_GATHERED_BODIES,
    MAX_UPSTREAM_CONNECTIONS,
    SMALL,
    Attack,
    Ground,
    address_of,
    get,
)
from .measure import MIB, kernel_memory
from .siege import OTHERS

SLOWHTTPTEST = ["slowhttptest", "-c", "1000", "-r", "500", "-l", "4"]
URL = "http://169.254.169.254"
LARGE_TARGET = "/large/4000000"


def test_slow_heads(ground: Ground) -> None:
    """slowhttptest -H: 1,000 connections of one address whose heads never end."""
    # Each connection holds a part of a head; an address has 128 of them at most.
    bound = MAX_CONNECTIONS_PER_ADDRESS * (CONNECTION + SMALL) + ALLOWANCE
    with Attack(ground, "slow heads, one address", bound=bound) as attack:
        slow = attack.start(*SLOWHTTPTEST, "-H", "-i", "1", "-u", f"{URL}/head")
        attack.until_connected(MAX_CONNECTIONS_PER_ADDRESS)
        attack.go_on(3)
        attack.connections_were(MAX_CONNECTIONS_PER_ADDRESS, least=MAX_CONNECTIONS_PER_ADDRESS)
        slow.end()


def test_slow_heads_of_many_addresses(ground: Ground) -> None:
    """6,000 connections of 100 addresses, more than a scope may have: a byte each second."""
    bound = MAX_CONNECTIONS_PER_SCOPE * (CONNECTION + SMALL) + ALLOWANCE
    with Attack(ground, "slow heads, 100 addresses", bound=bound, head_timeout=4) as attack:
        slow = attack.attacker(
            first_source=address_of(0),
            sources=100,
            connections=6000,
            again=True,
            rate=3000,
            send="GET / HTTP/1.1\r\nHost: a\r\nX-A: ",
            then="a",
            drip=1.0,
        )
        attack.until_connected(MAX_CONNECTIONS_PER_SCOPE - 200)
        attack.go_on(4)
        attack.connections_were(MAX_CONNECTIONS_PER_SCOPE, least=MAX_CONNECTIONS_PER_SCOPE - 200)
        # Who is over its time is told so, the oldest make room.
        until(lambda: slow.statuses().get("408", 0) + slow.get("closed"), "ends of slow heads")


def test_slow_bodies(ground: Ground) -> None:
    """slowhttptest -B: 1,000 connections whose bodies never end, once with small bodies and once with large ones."""
    # Of an address few bodies are gathered or streamed; whoever is refused has only a head.
    bound = 2 * MAX_CONNECTIONS_PER_ADDRESS * (CONNECTION + LARGE) + ALLOWANCE
    with Attack(ground, "slow bodies, one address each", bound=bound, body_timeout=3) as attack:
        slow = [
            attack.start(*SLOWHTTPTEST, "-B", "-i", "1", "-s", size, "-u", f"{URL}/body", number=number)
            for number, size in ((1, "8192"), (2, "500000"))
        ]
        attack.go_on(4)
        # 16 bodies are gathered; 4 are streamed, each on a connection to Nova; the others are refused.
        attack.connections_were(2 * MAX_CONNECTIONS_PER_ADDRESS + 4, least=16 + 2 * 4)
        for program in slow:
            program.end()


def test_slow_bodies_of_many_addresses(ground: Ground) -> None:
    """4,000 connections of 100 addresses, half of them with bodies that are gathered, half with streamed ones."""
    bound = (
        2 * MAX_CONNECTIONS_PER_SCOPE * CONNECTION
        + MAX_GATHERED_BODIES * (LARGE + SMALL)
        + MAX_UPSTREAM_CONNECTIONS * (SMALL + LARGE)
        + ALLOWANCE
    )
    with Attack(ground, "slow bodies, 100 addresses", bound=bound, body_timeout=3) as attack:
        slow = [
            attack.attacker(
                number,
                first_source=address_of(0),
                sources=100,
                connections=2000,
                again=True,
                rate=1000,
                send=f"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n",
                then="a",
                drip=1.0,
            )
            for number, length in ((1, 60_000), (2, 1_000_000))
        ]
        attack.go_on(6)
        # Streamed ones have an eighth of the places at Nova, those that are gathered have none.
        assert attack.nova.seen()["most_connections"] <= MAX_UPSTREAM_CONNECTIONS // 8 + OTHERS
        for program in slow:
            statuses = program.statuses()
            assert set(statuses) <= {"408", "503"}, statuses
            assert "408" in statuses, statuses
            assert "503" in statuses, statuses


def test_slow_reading(ground: Ground) -> None:
    """slowhttptest -X: a large answer, three times, taken a few bytes a second; at the same time never taken at all, by
    600 connections of the same address."""
    # Who is answered has a place at Nova, an answer's part on its way, and its head; who waits for a place its head.
    bound = (
        MAX_UPSTREAM_CONNECTIONS * 2 * LARGE + MAX_CONNECTIONS_PER_ADDRESS * (CONNECTION + SMALL) + ALLOWANCE
    )
    with Attack(ground, "slow reading, one address", bound=bound, write_timeout=3) as attack:
        slow = attack.start(
            *SLOWHTTPTEST,
            *["-X", "-w", "10", "-y", "20", "-n", "1", "-z", "5", "-k", "3"],
            *["-u", f"{URL}{LARGE_TARGET}"],
        )
        attack.attacker(
            connections=600, again=True, rate=500, receive_buffer=4096, read=False, send=get(LARGE_TARGET)
        )
        attack.go_on(4)
        attack.connections_were(
            MAX_CONNECTIONS_PER_ADDRESS + MAX_UPSTREAM_CONNECTIONS // 5, least=MAX_CONNECTIONS_PER_ADDRESS
        )
        slow.end()


def test_never_reading_from_many_addresses(ground: Ground) -> None:
    """1,000 connections of 100 addresses in each of two networks, none of which takes its answer: other networks do not
    notice, and nothing spins."""
    bound = MAX_UPSTREAM_CONNECTIONS * 2 * LARGE + 2000 * (CONNECTION + SMALL) + ALLOWANCE
    with Attack(ground, "never reading, 100 addresses", bound=bound, neighbour=False) as attack:
        for number in (1, 2):
            attack.attacker(
                number,
                first_source=address_of(0),
                sources=100,
                connections=1000,
                receive_buffer=4096,
                read=False,
                reset=True,
                send=get(LARGE_TARGET),
            )
        attack.until_connected(2000)
        attack.go_on(1)
        with attack.nothing_spins():
            attack.go_on(3)
        seen = attack.nova.seen()
        assert seen["requests"]["large"] > 100
        assert seen["most_connections"] <= MAX_UPSTREAM_CONNECTIONS


def test_reading_no_more(ground: Ground) -> None:
    """200 guests read the first 8 MB of an answer as fast as they can, which makes the kernel give their connections
    large buffers, and then no more: what it keeps of the answers is bounded all the same."""
    # Of an answer 256 KiB towards the guest and 256 KiB from Nova, and in guests and Nova, which are on this machine
    # too, not quite 512 KiB. Left to itself the kernel kept 1.7 GiB.
    count = 200
    kernel_bound = count * 3 * MIB // 2
    with Attack(ground, "reading no more", bound=count * 2 * LARGE + ALLOWANCE, neighbour=False) as attack:
        before = kernel_memory()
        readers = [
            attack.attacker(
                number,
                first_source=address_of(0),
                sources=100,
                connections=count // 2,
                receive_buffer=200_000,
                read_bytes=8_000_000,
                reset=True,
                send=get("/large/60000000"),
            )
            for number in (1, 2)
        ]
        until(lambda: sum(reader.get("stopped_reading") for reader in readers) > count // 2, "reading")
        attack.go_on(2)
        kernel = kernel_memory() - before
        attack.note(f"{kernel / MIB:.0f} of {kernel_bound / MIB:.0f} MiB of the kernel's")
        assert kernel < kernel_bound
