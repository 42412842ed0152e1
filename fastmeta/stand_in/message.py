"""What a stand-in or holder says with the sockets that it hands over: lines of words, in ASCII, one message.

::

    hand-over 1
    holder <uuid>.<16 hexadecimal digits>
    scope network|router <uuid>
    namespace <device> <inode>
    rate 4|6 <base seconds> <base requests> <burst seconds> <burst requests>     (only where rates are limited)
    timeouts <http-request> <connect> <client> <server> <http-keep-alive>        (seconds, 0: not said)
    socket <address> <TCP port> <index of the interface, 0: none>                (for each descriptor, in order)
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from fastmeta.exceptions import StandInError
from fastmeta.models import IPAddress, Scope, ScopeKind, parse_address, parse_uuid

MAX_MESSAGE = 2048
"""Bytes; c/stand_in.h has the same."""
MAX_SOCKETS = 4

FIRST_LINE = "hand-over 1"

HOLDER = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\.[0-9a-f]{16}", re.ASCII)
"""How a holder and its socket are called."""

_NUMBER = re.compile(r"0|[1-9][0-9]{0,19}", re.ASCII)


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Of each address, by two windows, of one version of IP. Windows in seconds."""

    version: int
    base_window: int
    base_limit: int
    burst_window: int
    burst_limit: int

    @property
    def settings(self) -> dict[str, int]:
        """By the core's names."""
        return {
            "rate_versions": 1 if self.version == 4 else 2,
            "base_window_ms": self.base_window * 1000,
            "base_limit": self.base_limit,
            "burst_window_ms": self.burst_window * 1000,
            "burst_limit": self.burst_limit,
        }


@dataclass(frozen=True, slots=True)
class ClaimedSocket:
    """Where a socket is said to listen. interface: index of the one that a link-local address belongs to, else 0."""

    address: IPAddress
    tcp_port: int
    interface: int

    def __str__(self) -> str:
        zone = f"%{self.interface}" if self.interface else ""
        host = f"[{self.address}{zone}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.tcp_port}"

    def overlaps(self, other: ClaimedSocket) -> bool:
        """Whether connections to the other one could come here."""
        return self.tcp_port == other.tcp_port and (
            (self.address, self.interface) == (other.address, other.interface)
            or self.address.is_unspecified
            or other.address.is_unspecified
        )


@dataclass(frozen=True, slots=True)
class HandOver:
    """What is claimed of the sockets that come with it. namespace: device and inode; timeouts: seconds."""

    holder: str
    scope: Scope
    namespace: tuple[int, int]
    rate: RateLimits | None
    timeouts: tuple[int, ...]
    sockets: tuple[ClaimedSocket, ...]

    @property
    def place(self) -> str:
        """What tells its namespace apart from others. It need not have a name."""
        return f"namespace {self.namespace[0]}:{self.namespace[1]}"

    @classmethod
    def parse(cls, data: bytes) -> HandOver:
        """Raises StandInError for whatever is not exactly such a message."""
        try:
            lines = [line.split(" ") for line in data.decode("ascii").removesuffix("\n").split("\n")]
        except UnicodeDecodeError:
            raise StandInError("the message is not ASCII") from None
        if " ".join(lines.pop(0)) != FIRST_LINE:
            raise StandInError(
                f"the message does not begin with {FIRST_LINE!r}: another version of the stand-in?"
            )
        try:
            return cls(
                holder=_holder(_take(lines, "holder", 1)),
                scope=_scope(_take(lines, "scope", 2)),
                namespace=_namespace(_take(lines, "namespace", 2)),
                rate=_rate(_take(lines, "rate", 5)) if lines and lines[0][0] == "rate" else None,
                timeouts=tuple(map(_number, _take(lines, "timeouts", 5))),
                sockets=_sockets(lines),
            )
        except ValueError as error:
            raise StandInError(f"a line of the message cannot be read: {error}") from None


def _take(lines: list[list[str]], name: str, count: int) -> list[str]:
    """The words of the next line, which must be that one."""
    words = lines.pop(0) if lines else []
    if words[:1] != [name] or len(words) != count + 1:
        raise ValueError(f"{name!r} with {count} words is expected, not {' '.join(words)[:80]!a}")
    return words[1:]


def _number(text: str, largest: int = (1 << 64) - 1) -> int:
    if not _NUMBER.fullmatch(text) or int(text) > largest:
        raise ValueError(f"{text[:80]!a} is not a number up to {largest}")
    return int(text)


def _holder(words: list[str]) -> str:
    if not HOLDER.fullmatch(words[0]):
        raise ValueError(f"{words[0][:80]!a} is not a holder's name")
    return words[0]


def _scope(words: list[str]) -> Scope:
    uuid = parse_uuid(words[1])
    if uuid is None:
        raise ValueError(f"{words[1][:80]!a} is not a UUID")
    return Scope(ScopeKind(words[0]), uuid)


def _namespace(words: list[str]) -> tuple[int, int]:
    return _number(words[0]), _number(words[1])


def _rate(words: list[str]) -> RateLimits:
    limits = RateLimits(*(_number(word, (1 << 31) - 1) for word in words))
    if limits.version not in (4, 6) or 0 in (
        limits.base_window,
        limits.base_limit,
        limits.burst_window,
        limits.burst_limit,
    ):
        raise ValueError(f"{' '.join(words)!a} are no rate limits")
    return limits


def _sockets(lines: list[list[str]]) -> tuple[ClaimedSocket, ...]:
    sockets = []
    while lines:
        address_text, tcp_port, interface = _take(lines, "socket", 3)
        address = parse_address(address_text)
        if address is None:
            raise ValueError(f"{address_text[:80]!a} is not an address")
        sockets.append(ClaimedSocket(address, _number(tcp_port, 65535), _number(interface, (1 << 31) - 1)))
    if not 1 <= len(sockets) <= MAX_SOCKETS:
        raise ValueError(f"{len(sockets)} sockets, and not 1 to {MAX_SOCKETS}")
    return tuple(sockets)
