"""Bodies that are too large, and an answer that is large."""

from __future__ import annotations

import zlib

from ..service.agents import until
from .field import ALLOWANCE, CONNECTION, LARGE, MAX_CONNECTIONS_PER_ADDRESS, SMALL, Attack, Ground
from .measure import MIB
from .programs_kit import Teller

GIGABYTE = 1_000_000_000


def test_bodies_of_10_gigabytes(ground: Ground) -> None:
    """100 connections say Content-Length 10,000,000,000 and go on sending: 413, before a byte goes to Nova."""
    # A refused connection is read for a moment, into a buffer that all of them share.
    bound = MAX_CONNECTIONS_PER_ADDRESS * (CONNECTION + SMALL) + ALLOWANCE
    with Attack(ground, "bodies of 10 GB", bound=bound) as attack:
        stuffers = attack.attacker(
            connections=100,
            send="POST /stuffed HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000000\r\n\r\n",
            then="x" * 1000,
        )
        until(lambda: stuffers.statuses().get("413") == 100, "refusals")
        attack.go_on(2)
        assert stuffers.statuses() == {"413": 100}
        # Nobody is read for ever.
        until(lambda: stuffers.line["open"] == 0, "ends of the connections")
        assert stuffers.get("bytes_sent") < 10 * GIGABYTE
        attack.nothing_came_of("stuffed")


def test_chunked_bodies_without_end(ground: Ground) -> None:
    """300 connections send chunk after chunk: those who may gather a body get 413 behind 64 KiB, the others 503 at
    once; nothing of it goes to Nova."""
    bound = MAX_CONNECTIONS_PER_ADDRESS * (CONNECTION + SMALL) + 16 * LARGE + ALLOWANCE
    with Attack(ground, "chunked bodies without end", bound=bound) as attack:
        chunk = "x" * 1000
        stuffers = attack.attacker(
            connections=20,
            total=300,
            again=True,
            send="POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            then=f"{len(chunk):x}\r\n{chunk}\r\n",
        )
        until(lambda: stuffers.get("started") == 300 and stuffers.line["open"] == 0, "refusals")
        attack.go_on(0)
        assert set(stuffers.statuses()) <= {"413", "503"}
        assert stuffers.statuses()["413"] > 100
        attack.nothing_came_of("chunked")


def test_an_answer_of_a_gigabyte(ground: Ground) -> None:
    """It is streamed: whole, right, and in the memory of one connection."""
    bound = CONNECTION + SMALL + 2 * LARGE + 2 * MIB
    guest = ground.neighbour
    with Attack(ground, "an answer of 1 GB", bound=bound) as attack:
        target = f"/large/{GIGABYTE}"
        with Teller("reader.py", target, namespace=guest.port.namespace) as reader:
            until(lambda: reader.line, "the whole answer", seconds=90)
        mark = guest.mark(target)
        checksum = checksum_of(mark * (65536 // len(mark)), GIGABYTE)
        found = {name: reader.line[name] for name in ("status", "bytes", "crc32")}
        assert found == {"status": 200, "bytes": GIGABYTE, "crc32": checksum}
        attack.note(f"{GIGABYTE / 1e6 / reader.line['seconds']:.0f} MB/s")


def checksum_of(piece: bytes, size: int) -> int:
    """CRC-32 of size bytes: piece over and over."""
    checksum = 0
    while size:
        part = piece[:size]
        checksum = zlib.crc32(part, checksum)
        size -= len(part)
    return checksum
