"""Reads the core's events: passes on misses, and makes log lines of the rest that an operator can act on.

The core never logs. What a guest sent is shown in printable ASCII only, and cut.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from oslo_log import log as logging

from fastmeta import _core
from fastmeta.models import Scope, ScopeKind, unpack_address
from fastmeta.repeats import Repeats, more

LOG = logging.getLogger(__name__)

MAX_SHOWN = 128
"""Characters of a guest's method or target in a log line."""
_KINDS = {_core.SCOPE_NETWORK: ScopeKind.NETWORK, _core.SCOPE_ROUTER: ScopeKind.ROUTER}
REPEAT_PERIOD = 30.0
"""Seconds for which the same problem is not said again."""


class EventSource(Protocol):
    """The part of the core's loop that is read."""

    def events(self) -> list[tuple[Any, ...]]: ...


class UpstreamNames(Protocol):
    """What is known of the servers of Nova's metadata API, by the numbers that events carry (0: all of them)."""

    def __len__(self) -> int: ...

    def text(self, number: int) -> str: ...

    def others(self, number: int) -> int:
        """How many beside this one are not known to be away."""
        ...

    def away(self, number: int) -> None: ...

    def back(self, number: int) -> None: ...


class EventReader:
    """Takes the core's events in the event loop's thread, whenever the loop's descriptor is readable.

    on_miss(scope, address, interface) is called for each miss, before anything is logged;
    on_listener_closed(listener) gives the place that a listener was at. upstreams is told which servers are away.
    on_handed(fd, scope, state) and on_scope_removed(number) are the relay's, in the order in which a loop says it;
    scopes that are a text are its own. on_error(scope, text) is told of what is wrong with one.
    """

    def __init__(
        self,
        source: EventSource,
        *,
        scopes: Mapping[int, Scope | str],
        upstreams: UpstreamNames,
        on_miss: Callable[[int, bytes, int], None],
        on_listener_closed: Callable[[int], str | None],
        place: Callable[[int], str | None],
        on_handed: Callable[[int, Scope, tuple[bytes, int, int]], None] | None = None,
        on_scope_removed: Callable[[int], None] | None = None,
        on_error: Callable[[int, str], None] | None = None,
    ) -> None:
        self._source = source
        self._scopes = scopes
        self._upstreams = upstreams
        self._on_miss = on_miss
        self._on_listener_closed = on_listener_closed
        self._place = place
        self._on_handed = on_handed
        self._on_scope_removed = on_scope_removed
        self._on_error = on_error
        self._repeats = Repeats(REPEAT_PERIOD)

    def read(self) -> None:
        """All events that wait. Misses, and connections that wait for their loop, come first: log lines take time."""
        later = []
        for event in self._source.events():
            if event[0] == _core.EVENT_MISS:
                self._on_miss(event[1], event[2], event[3])
            elif event[0] == _core.EVENT_HANDED and self._on_handed is not None:
                _, fd, kind, identifier, state = event
                self._on_handed(fd, Scope(_KINDS[kind], str(uuid.UUID(bytes=identifier))), state)
            elif event[0] == _core.EVENT_SCOPE_REMOVED and self._on_scope_removed is not None:
                # Before what its loop hands on after it.
                self._on_scope_removed(event[1])
            else:
                later.append(event)
        for event in later:
            kind = event[0]
            if kind == _core.EVENT_REQUEST:
                LOG.log(_request_level(event[1], self._scopes), "%s", request_line(event[1], self._scopes))
            elif kind == _core.EVENT_PROBLEM:
                self._problem(*event[1:])
            elif kind == _core.EVENT_LISTENER_CLOSED:
                place = self._on_listener_closed(event[1])
                if place is not None:
                    LOG.info("closed: %s", place)

    def _problem(
        self, code: int, number: int, scope: int, listener: int, address: bytes, upstream: int
    ) -> None:
        self._note(code, upstream)
        if code in _OF_ALL:
            if len(self._upstreams) == 1:
                return  # what is said of the only server says it all
            upstream = 0
        held_back = self._repeats.admit((code, scope, listener, upstream))
        if held_back is None:
            return
        level, text = self._level_and_text(code, number, upstream)
        server = self._upstreams.text(upstream)
        advice = _advice(code, number, server, only=len(self._upstreams) == 1)
        said = f"{text % {'upstream': server}}{_reason(code, number)}{advice}"
        if scope and level >= logging.WARNING and self._on_error is not None:
            self._on_error(scope, said)
        LOG.log(level, "%s%s%s", said, self._where(scope, listener, address), more(held_back))

    def _note(self, code: int, upstream: int) -> None:
        """Who is away now. When it goes after it came, or comes after it went, that is news."""
        if code in (_core.PROBLEM_UPSTREAM_AWAY, _core.PROBLEM_UPSTREAM_ALL_AWAY):
            self._upstreams.away(upstream)
        elif code == _core.PROBLEM_UPSTREAM_BACK:
            self._upstreams.back(upstream)
        if code in _OPPOSITES:
            self._repeats.forget((_OPPOSITES[code], 0, 0, 0 if code in _OF_ALL else upstream))

    def _level_and_text(self, code: int, number: int, upstream: int) -> tuple[int, str]:
        if code == _core.PROBLEM_UPSTREAM_TLS and _alert(number) in _ALERTS:
            return logging.ERROR, _REFUSES_US
        if code == _core.PROBLEM_UPSTREAM_AWAY and len(self._upstreams) > 1:
            return logging.WARNING, _AWAY_OTHERS if self._upstreams.others(upstream) else _AWAY_LAST
        return _PROBLEMS.get(code, (logging.WARNING, f"problem {code} of the core"))

    def _where(self, scope: int, listener: int, address: bytes) -> str:
        guest = f"{unpack_address(address)}, " if address else ""
        place = self._place(listener) if listener else None
        if place is not None:
            return f" [{guest}{place}]"
        return f" [{guest}{self._scopes.get(scope, scope)}]" if scope else ""


def _reason(code: int, number: int) -> str:
    """Why, where a number says so."""
    if code == _core.PROBLEM_UPSTREAM_CERTIFICATE:
        return f": {_core.certificate_error_text(number)} ({number})"
    if code == _core.PROBLEM_UPSTREAM_TLS:
        return (
            f": {_core.tls_error_text(number) if number else 'the connection was closed in the middle of it'}"
        )
    if code == _core.PROBLEM_STRANGER:
        return f": user {number}"
    if code == _core.PROBLEM_UPSTREAM_AWAY and number == errno.EPROTO:
        return ": TLS with it does not work, a line about its certificate or about TLS says why"
    if not number or code == _core.PROBLEM_UPSTREAM_NONSENSE:
        return ""
    return f": {os.strerror(number)} ({errno.errorcode.get(number, number)})"


def _advice(code: int, number: int, server: str, *, only: bool) -> str:
    """The end of a line, where it depends on more than the problem: where to look. only: there is no other server."""
    advice = ""
    if code == _core.PROBLEM_UPSTREAM_CERTIFICATE:
        advice = _CERTIFICATES.get(number, "look at the certificate there, and at auth_ca_cert")
    elif code == _core.PROBLEM_UPSTREAM_TLS:
        advice = _ALERTS.get(_alert(number), _TLS_ADVICE)
    elif code == _core.PROBLEM_UPSTREAM_AWAY and number != errno.EPROTO and only:
        advice = (
            "does it run, and is it there (nova_metadata_host, nova_metadata_port, or [fastmeta] upstreams)?"
        )
    elif code == _core.PROBLEM_UPSTREAM_SILENT and server.startswith("http://"):
        advice = "or does it speak TLS there (nova_metadata_protocol = https, or https:// in [fastmeta] upstreams)?"
    elif code == _core.PROBLEM_UPSTREAM_SILENT and server.startswith("https://"):
        advice = "or does it want a certificate of ours, or refuse the one it gets (nova_client_cert)?"
    return f"; {advice}" if advice else ""


def _alert(number: int) -> int:
    """The alert of TLS that the other side has sent (RFC 8446 section 6), of OpenSSL's code: SSL_AD_REASON_OFFSET of
    openssl/ssl.h is added to it. 0: it was none."""
    reason = number & 0xFFF
    return reason - 1000 if 1000 < reason < 1256 else 0


_TLS_ADVICE = (
    "does it speak TLS 1.2 or later there, and does it want a certificate of ours (nova_client_cert, "
    "nova_client_priv_key)?"
)

_OURS = "look at nova_client_cert, and at the log there"

_ALERTS: Mapping[int, str] = {
    # AlertDescription of RFC 8446 section 6: those that are about the certificate of whom they are sent to.
    42: _OURS,  # bad_certificate
    43: _OURS,  # unsupported_certificate
    44: "it has been revoked: nova_client_cert must be another",  # certificate_revoked
    45: "renew it, or look at the clocks of both machines",  # certificate_expired
    46: _OURS,  # certificate_unknown
    48: "an authority that Nova's side trusts must have issued it (and nova_client_cert must hold those between)",
    49: _OURS,  # access_denied
    116: "Nova's side wants one: set nova_client_cert and nova_client_priv_key",  # certificate_required
}

_ISSUER = (
    "auth_ca_cert must be a file with the certificate of the authority that issued it (and the server must send those "
    "between)"
)
_CLOCK = "look at the clocks of both machines, and renew it"
_NAME = "it must be for the name or address by which the server is given (nova_metadata_host, or [fastmeta] upstreams)"

_CERTIFICATES: Mapping[int, str] = {
    # X509_V_ERR_… of openssl/x509_vfy.h.
    2: _ISSUER,  # UNABLE_TO_GET_ISSUER_CERT
    9: _CLOCK,  # CERT_NOT_YET_VALID
    10: _CLOCK,  # CERT_HAS_EXPIRED
    18: _ISSUER,  # DEPTH_ZERO_SELF_SIGNED_CERT
    19: _ISSUER,  # SELF_SIGNED_CERT_IN_CHAIN
    20: _ISSUER,  # UNABLE_TO_GET_ISSUER_CERT_LOCALLY
    21: _ISSUER,  # UNABLE_TO_VERIFY_LEAF_SIGNATURE
    62: _NAME,  # HOSTNAME_MISMATCH
    64: _NAME,  # IP_ADDRESS_MISMATCH
}

_OF_ALL = frozenset({_core.PROBLEM_UPSTREAM_ALL_AWAY, _core.PROBLEM_UPSTREAM_SOME_BACK})

_OPPOSITES: Mapping[int, int] = {
    _core.PROBLEM_UPSTREAM_AWAY: _core.PROBLEM_UPSTREAM_BACK,
    _core.PROBLEM_UPSTREAM_BACK: _core.PROBLEM_UPSTREAM_AWAY,
    _core.PROBLEM_UPSTREAM_ALL_AWAY: _core.PROBLEM_UPSTREAM_SOME_BACK,
    _core.PROBLEM_UPSTREAM_SOME_BACK: _core.PROBLEM_UPSTREAM_ALL_AWAY,
}

_AWAY_OTHERS = "Nova's metadata API %(upstream)s is away, others serve"
_AWAY_LAST = "Nova's metadata API %(upstream)s is away"

_REFUSES_US = (
    "Nova's metadata API %(upstream)s refuses us for our certificate (nova_client_cert), or because there is none; "
    "nothing is sent there"
)

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
        "Nova's metadata API %(upstream)s is away, guests wait up to park_timeout and then get 503",
    ),
    _core.PROBLEM_UPSTREAM_BACK: (logging.INFO, "Nova's metadata API %(upstream)s answers again"),
    _core.PROBLEM_UPSTREAM_ALL_AWAY: (
        logging.ERROR,
        "all servers of Nova's metadata API are away (%(upstream)s), guests wait up to park_timeout and then get 503: "
        "do they run, and are they there (nova_metadata_host, nova_metadata_port, or [fastmeta] upstreams)?",
    ),
    _core.PROBLEM_UPSTREAM_SOME_BACK: (
        logging.INFO,
        "a server of Nova's metadata API answers again, guests are served",
    ),
    _core.PROBLEM_UPSTREAM_CERTIFICATE: (
        logging.ERROR,
        "the certificate of Nova's metadata API %(upstream)s is not accepted, nothing is sent there",
    ),
    _core.PROBLEM_UPSTREAM_TLS: (
        logging.ERROR,
        "TLS with Nova's metadata API %(upstream)s cannot begin, nothing is sent there",
    ),
    _core.PROBLEM_UPSTREAM_SLOW: (
        logging.WARNING,
        "Nova's metadata API %(upstream)s took longer than second_try_after, and another server that was asked then "
        "answered first: is it frozen or overloaded? It gets few requests until it answers in time again",
    ),
    _core.PROBLEM_NEXT_SECRET: (
        logging.INFO,
        "Nova's metadata API %(upstream)s accepts next_shared_secret, and no more metadata_proxy_shared_secret: when "
        "all do, put it into metadata_proxy_shared_secret",
    ),
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
        "Nova's metadata API %(upstream)s refuses our signature (403): metadata_proxy_shared_secret (or, in a "
        "change of it, [fastmeta] next_shared_secret) must equal the one in section [neutron] of nova.conf",
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
    _core.PROBLEM_STRANGER: (
        logging.WARNING,
        "a process of a user or group that is not served connected to metadata_proxy_socket, and was turned away: if "
        "it is a haproxy of Neutron's agents, metadata_proxy_user or metadata_proxy_group must be the one it runs as",
    ),
    _core.PROBLEM_EVENTS_LOST: (
        logging.WARNING,
        "events of the core were lost because they came faster than they were read: log lines are missing",
    ),
}


def _request_level(request: Mapping[str, Any], scopes: Mapping[int, Scope | str]) -> int:
    """A request on the relay's socket that names no network or router, and so got 404, is somebody who looks whether
    an agent lives (openstack-helm does, all the time)."""
    probe = isinstance(scopes.get(request["scope"]), str) and request["status"] == 404
    return logging.DEBUG if probe else logging.INFO


def request_line(request: Mapping[str, Any], scopes: Mapping[int, Scope | str]) -> str:
    """One finished request as a line of the access log. Times are milliseconds; - stands for what was not
    there."""
    guest = "-"
    if any(request["address"]):  # all zero: of the relay, and it did not say whose
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
