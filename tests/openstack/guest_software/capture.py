"""What a guest sends to the metadata address, seen on its interface: nothing stands in between."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType

from fastmeta.lab.namespaces import inside
from fastmeta.lab.topology import METADATA_ADDRESS, METADATA_ADDRESS_V6

_ETH_P_ALL = 0x0003
_SPACE = 64 << 20
"""Bytes for what has not been read: all that the guest does in a test."""
_SYN = 0x02
_SOL_PACKET, _STATISTICS = 263, 6  # packet(7); Python has no names for them
_SO_RCVBUFFORCE = 33
_TO = {ipaddress.ip_address(address).packed for address in (METADATA_ADDRESS, METADATA_ADDRESS_V6)}


@dataclass(frozen=True)
class Request:
    """connection: their number, in the order in which they were opened."""

    connection: int
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]


@dataclass
class _Connection:
    number: int
    next: int
    """The sequence number of what comes next."""
    unread: bytearray = field(default_factory=bytearray)


class Capture:
    """From entering to leaving; then requests has all that were sent."""

    def __init__(self, namespace: str, interface: str = "eth0") -> None:
        self._namespace = namespace
        self._interface = interface
        self.requests: list[Request] = []

    def __enter__(self) -> Capture:
        self._socket = inside(self._namespace, self._open)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._socket:
            if kind is None:
                self.requests = list(_requests(self._segments()))
                _, lost = struct.unpack("II", self._socket.getsockopt(_SOL_PACKET, _STATISTICS, 8))
                assert not lost, f"{lost} packets were not seen"

    def _open(self) -> socket.socket:
        # Without a protocol: nothing of other interfaces, before it is bound to this one.
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _SPACE)
        opened.bind((self._interface, _ETH_P_ALL))
        opened.setblocking(False)
        return opened

    def _segments(self) -> Iterator[tuple[bytes, bytes]]:
        """Addresses, and what TCP carries between them: sent from here to the metadata address."""
        while True:
            try:
                packet, (_, _, direction, *_) = self._socket.recvfrom(1 << 17)
            except BlockingIOError:
                return
            if direction != socket.PACKET_OUTGOING:
                continue
            if packet[0] >> 4 == 4:
                size = int.from_bytes(packet[2:4], "big")
                protocol, addresses, start = packet[9], packet[12:20], (packet[0] & 15) * 4
            else:
                size = 40 + int.from_bytes(packet[4:6], "big")
                protocol, addresses, start = packet[6], packet[8:40], 40
            if protocol == socket.IPPROTO_TCP and addresses[len(addresses) // 2 :] in _TO:
                yield addresses, packet[start:size]


def _requests(segments: Iterator[tuple[bytes, bytes]]) -> Iterator[Request]:
    """In the order in which their heads ended."""
    connections: dict[bytes, _Connection] = {}
    opened = 0
    for addresses, segment in segments:
        tcp_ports, sequence, offset, flags = segment[:4], *struct.unpack(">IxxxxBB", segment[4:14])
        key = addresses + tcp_ports
        if flags & _SYN:
            if key not in connections or connections[key].next != (sequence + 1) % 2**32:
                connections[key] = _Connection(opened, (sequence + 1) % 2**32)
                opened += 1
            continue
        connection = connections[key]
        content = segment[(offset >> 4) * 4 :]
        ahead = (sequence - connection.next) % 2**32
        if ahead >= 2**31:  # sent again
            continue
        assert not (ahead and content), "a segment was not seen"
        connection.next = (sequence + len(content)) % 2**32
        connection.unread += content
        while b"\r\n\r\n" in connection.unread:
            head, _, connection.unread = connection.unread.partition(b"\r\n\r\n")
            yield _request(connection.number, head.decode("latin-1"))


def _request(connection: int, head: str) -> Request:
    """Without content: nobody here sends any."""
    first, *lines = head.split("\r\n")
    method, target, _ = first.split(" ")
    headers = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))
    assert all(value == "0" for name, value in headers if name.lower() == "content-length"), head
    return Request(connection, method, target, headers)
