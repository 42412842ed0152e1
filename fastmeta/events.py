"""Reads the core's events: passes on misses, and makes log lines of the rest that an operator can act on.

The core never logs. What a guest sent is shown in printable ASCII only, and cut.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from oslo_log import log as logging

from fastmeta import _core
from fastmeta.models import Scope, unpack_address
from fastmeta.repeats import Repeats, more

LOG = logging.getLogger(__name__)

MAX_SHOWN = 128
"""Characters of a guest's method or target in a log line."""
REPEAT_PERIOD = 30.0
"""Seconds for which the same problem is not said again."""


class EventSource(Protocol):
    """The part of the core's loop that is read."""

    def events(self) -> list[tuple[Any, ...]]: ...


class EventReader:
    """Takes the core's events in the event loop's thread, whenever the loop's descriptor is readable.

    on_miss(scope, address, interface) is called for each miss, before anything is logged; on_upstream_away()
    when no address of Nova's metadata API answers; on_listener_closed(listener) gives the place that a
    listener was at.
    """

    def __init__(
        self,
        source: EventSource,
        *,
        scopes: Mapping[int, Scope],
        upstream: object,
        on_miss: Callable[[int, bytes, int], None],
        on_upstream_away: Callable[[], None],
        on_listener_closed: Callable[[int], str | None],
        place: Callable[[int], str | None],
    ) -> None:
        self._source = source
        self._scopes = scopes
        self._upstream = upstream
        self._on_miss = on_miss
        self._on_upstream_away = on_upstream_away
        self._on_listener_closed = on_listener_closed
        self._place = place
        self._repeats = Repeats(REPEAT_PERIOD)

    def read(self) -> None:
        """All events that wait. Misses come first: somebody waits for them, and log lines take time."""
        later = []
        for event in self._source.events():
            if event[0] == _core.EVENT_MISS:
                self._on_miss(event[1], event[2], event[3])
            else:
                later.append(event)
        for event in later:
            kind = event[0]
            if kind == _core.EVENT_REQUEST:
                LOG.info("%s", request_line(event[1], self._scopes))
            elif kind == _core.EVENT_PROBLEM:
                self._problem(*event[1:])
            elif kind == _core.EVENT_LISTENER_CLOSED:
                place = self._on_listener_closed(event[1])
                if place is not None:
                    LOG.info("closed: %s", place)

    def _problem(self, code: int, number: int, scope: int, listener: int, address: bytes) -> None:
        # When it goes after it came, or comes after it went, that is news.
        if code == _core.PROBLEM_UPSTREAM_AWAY:
            self._on_upstream_away()
            self._repeats.forget((_core.PROBLEM_UPSTREAM_BACK, 0, 0))
        elif code == _core.PROBLEM_UPSTREAM_BACK:
            self._repeats.forget((_core.PROBLEM_UPSTREAM_AWAY, 0, 0))
        held_back = self._repeats.admit((code, scope, listener))
        if held_back is None:
            return
        level, text = _PROBLEMS.get(code, (logging.WARNING, f"problem {code} of the core"))
        LOG.log(
            level,
            "%s%s%s%s",
            text % {"upstream": self._upstream},
            f": {os.strerror(number)} ({errno.errorcode.get(number, number)})" if number else "",
            self._where(scope, listener, address),
            more(held_back),
        )

    def _where(self, scope: int, listener: int, address: bytes) -> str:
        guest = f"{unpack_address(address)}, " if address else ""
        place = self._place(listener) if listener else None
        if place is not None:
            return f" [{guest}{place}]"
        return f" [{guest}{self._scopes.get(scope, scope)}]" if scope else ""


_PROBLEMS: Mapping[int, tuple[int, str]] = {
    _core.PROBLEM_ACCEPT: (logging.WARNING, "a connection of a guest could not be accepted"),
    _core.PROBLEM_DESCRIPTORS: (
        logging.ERROR,
        "no descriptors are left, guests wait: raise LimitNOFILE of the service, or lower max_connections",
    ),
    _core.PROBLEM_MEMORY: (logging.ERROR, "no memory is left for a connection or request"),
    _core.PROBLEM_CONNECTIONS_FULL: (
        logging.WARNING,
        "max_connections is reached and all of them have a request in progress: further guests get 503 at once",
    ),
    _core.PROBLEM_SCOPE_CONNECTIONS: (
        logging.WARNING,
        "max_connections_per_scope is reached and all of them have a request in progress: further guests of "
        "this network or router get 503 at once",
    ),
    _core.PROBLEM_ADDRESS_CONNECTIONS: (
        logging.WARNING,
        "a guest has max_connections_per_address connections, all with a request in progress: further ones get "
        "503 at once",
    ),
    _core.PROBLEM_PARKED_FULL: (
        logging.WARNING,
        "max_parked is reached, further requests get 503 at once: is the lookup source or Nova away?",
    ),
    _core.PROBLEM_SCOPE_PARKED: (
        logging.WARNING,
        "max_parked_per_scope is reached, further requests of this network or router get 503 at once: is the "
        "lookup source away, or do its guests keep many requests waiting for Nova?",
    ),
    _core.PROBLEM_ADDRESS_PARKED: (
        logging.WARNING,
        "a guest has max_parked_per_address requests waiting, further ones of it get 503 at once",
    ),
    _core.PROBLEM_BODIES_FULL: (
        logging.WARNING,
        "too many request bodies are on their way at once (max_gathered_bodies, or an eighth of "
        "max_upstream_connections for those above 64 KiB), further ones get 503 at once: does a guest send "
        "bodies slowly?",
    ),
    _core.PROBLEM_RATE_LIMITED: (
        logging.INFO,
        "a guest asks faster than [metadata_rate_limiting] allows, it gets 429",
    ),
    _core.PROBLEM_SCOPE_MISSES: (
        logging.WARNING,
        "a network or router asks for more addresses than can be looked up, further requests of unknown "
        "addresses get 503 at once: does a guest change its address all the time?",
    ),
    _core.PROBLEM_UPSTREAM_AWAY: (
        logging.ERROR,
        "Nova's metadata API %(upstream)s is away, guests wait up to park_timeout and then get 503: does "
        "it run, and are nova_metadata_host and nova_metadata_port right?",
    ),
    _core.PROBLEM_UPSTREAM_BACK: (logging.INFO, "Nova's metadata API %(upstream)s answers again"),
    _core.PROBLEM_UPSTREAM_NONSENSE: (
        logging.ERROR,
        "Nova's metadata API %(upstream)s answered with something that is not valid HTTP, the guest got "
        "502: is it another service, one that wants TLS, or a proxy that frames its answers ambiguously?",
    ),
    _core.PROBLEM_UPSTREAM_TIMEOUT: (
        logging.WARNING,
        "Nova's metadata API %(upstream)s gave no answer in upstream_timeout, the guest got 504",
    ),
    _core.PROBLEM_UPSTREAM_REFUSES_SIGNATURE: (
        logging.ERROR,
        "Nova's metadata API %(upstream)s refuses our signature (403): metadata_proxy_shared_secret must "
        "equal the one in section [neutron] of nova.conf",
    ),
    _core.PROBLEM_UPSTREAM_FULL: (
        logging.WARNING,
        "a request waits for a place at Nova's metadata API %(upstream)s, up to upstream_timeout: all of "
        "max_upstream_connections are taken, or what one network, router or guest may have of them; is Nova "
        "slow, or does a guest keep many busy?",
    ),
    _core.PROBLEM_UPSTREAM_SILENT: (
        logging.WARNING,
        "Nova's metadata API %(upstream)s took a request and closed the connection without an answer: its "
        "own log may say why",
    ),
    _core.PROBLEM_EVENTS_LOST: (
        logging.WARNING,
        "events of the core were lost because they came faster than they were read: log lines are missing",
    ),
}


def request_line(request: Mapping[str, Any], scopes: Mapping[int, Scope]) -> str:
    """One finished request as a line of the access log. Times are milliseconds; - stands for what was not
    there."""
    guest = "-"
    if request["address"]:
        guest = str(unpack_address(request["address"]))
    if request["interface"]:  # of a link-local address: RFC 4007 section 11
        guest += f"%{request['interface']}"
    return (
        f"{scopes.get(request['scope'], '-')} {guest} "
        f"instance {request['instance_id'] or '-'} "
        f'"{printable(request["method"])} {printable(request["target"])}" '
        f"{request['status']} {request['bytes']} bytes {_ms(request['total_us'])} ms "
        f"(waited {_ms(request['parked_us'])}, Nova {_ms(request['upstream_us'])}, "
        f"answered {request['upstream_status'] or '-'})"
        f"{'' if request['whole'] else ', cut off'}"
    )


def _ms(microseconds: int) -> str:
    return f"{microseconds / 1000:.1f}"


def printable(value: str | bytes) -> str:
    """What a guest sent, fit for a log: printable ASCII without quotes and backslashes, the rest escaped, and
    cut."""
    data = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    shown = "".join(
        chr(byte) if 0x20 <= byte < 0x7F and byte not in b'"\\' else f"\\x{byte:02x}"
        for byte in data[:MAX_SHOWN]
    )
    return shown + "..." if len(data) > MAX_SHOWN else shown
