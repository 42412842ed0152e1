"""Where Nova's metadata API is, as an operator writes it: ``http://host:port``, ``https://host``, ``unix:/path``."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from oslo_config import types

from fastmeta.exceptions import ConfigError

MAX_UPSTREAMS = 16
"""Entries of the list."""

DEFAULT_TCP_PORTS = {"http": 80, "https": 443}

MAX_HOST = 249
"""Characters of a name: with its TCP port it must fit into a Host header of 255."""

MAX_PATH = 107
"""Bytes of a unix socket's path: sun_path of unix(7) has 108, with the zero at its end."""

FORM = (
    "right is http://<host>:<tcp port>, https://<host>:<tcp port> or unix:/<path>, where :<tcp port> may be left "
    "out (80, 443) and an IPv6 address is in brackets"
)

_URL = re.compile(r"(https?)://([^/?#]*)([/?#].*)?", re.ASCII | re.IGNORECASE)
_AUTHORITY = re.compile(r"(?:\[([^\[\]]*)\]|([^:\[\]]*))(?::([0-9]{1,5}))?", re.ASCII)
_PATH = re.compile(r"/[^/\x00-\x20\x7f][^\x00-\x20\x7f]*")


@dataclass(frozen=True, slots=True)
class UpstreamSpec:
    """One upstream. host: a name in lower case, or a numeric address without brackets; of a unix socket it is
    empty, and tcp_port is 0."""

    scheme: str
    host: str
    tcp_port: int
    path: str = ""

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else f"{self.scheme}://{self.host_header}"

    @property
    def host_header(self) -> str:
        """The value of the Host header (RFC 9112 section 3.2): IPv6 in brackets, the TCP port unless it is the
        scheme's own."""
        if self.path:
            return "localhost"
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return shown if self.tcp_port == DEFAULT_TCP_PORTS[self.scheme] else f"{shown}:{self.tcp_port}"

    @property
    def tls_name(self) -> str:
        """What a certificate is checked for; empty without TLS. A name is absolute here whether it ends with a
        dot or not (RFC 6066 section 3: SNI has none)."""
        return self.host.rstrip(".") if self.scheme == "https" else ""

    @property
    def numeric(self) -> bool:
        """Whether there is no name to be resolved."""
        return bool(self.path) or is_numeric(self.host)


def is_numeric(host: str) -> bool:
    """Whether it is an address that needs no link beside it, which the core could not be told."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return "%" not in host


def upstream_at(scheme: str, host: str, tcp_port: int) -> UpstreamSpec:
    """host: a valid name or address. Raises ConfigError for one that does not fit."""
    if len(host) > MAX_HOST:
        raise ConfigError(f"the name has more than {MAX_HOST} characters")
    return UpstreamSpec(
        scheme, str(ipaddress.ip_address(host)) if is_numeric(host) else host.lower(), tcp_port
    )


def parse_upstream(text: str) -> UpstreamSpec:
    """Raises ConfigError with the reason only."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not _PATH.fullmatch(path):
            raise ConfigError("unix: is followed by the absolute path of a socket, without blanks")
        if len(path.encode()) > MAX_PATH:
            raise ConfigError(f"the path has more than {MAX_PATH} bytes")
        return UpstreamSpec("unix", "", 0, path)
    url = _URL.fullmatch(text)
    if url is None:
        raise ConfigError("it begins with none of http://, https://, unix:/")
    scheme, authority, rest = url[1].lower(), url[2], url[3]
    if "@" in authority:
        raise ConfigError("user and password mean nothing to Nova's metadata API")
    if rest:
        what = {"/": "a path", "?": "a query", "#": "a fragment"}[rest[0]]
        raise ConfigError(f"{what} ({rest}) cannot be given: guests say what they ask for")
    place = _AUTHORITY.fullmatch(authority)
    if place is None:
        raise ConfigError(f"{authority!r} is not <host> or <host>:<tcp port>")
    six, host, digits = place[1], place[2], place[3]
    if six is not None and not (is_numeric(six) and ":" in six):
        raise ConfigError(f"[{six}] is not an IPv6 address")
    if six is None:
        try:
            types.HostAddress()(host)
        except ValueError:
            raise ConfigError(f"{host!r} is neither the name of a host nor an address") from None
    tcp_port = int(digits) if digits else DEFAULT_TCP_PORTS[scheme]
    if not 1 <= tcp_port <= 65535:
        raise ConfigError(f"{tcp_port} is not a TCP port from 1 to 65535")
    return upstream_at(scheme, six or host, tcp_port)


def parse_upstreams(texts: Sequence[str]) -> tuple[UpstreamSpec, ...]:
    """The entries of [fastmeta] upstreams, each once. Raises ConfigError."""
    if len(texts) > MAX_UPSTREAMS:
        raise ConfigError(f"[fastmeta] upstreams has {len(texts)} entries: right is {MAX_UPSTREAMS} at most")
    specs: dict[UpstreamSpec, str] = {}
    for text in texts:
        # A password in a URL belongs into no log.
        shown = re.sub(r"//.*@", "//...@", text)
        try:
            spec = parse_upstream(text)
        except ConfigError as error:
            raise ConfigError(f"[fastmeta] upstreams, entry {shown!r}: {error}; {FORM}") from None
        if spec in specs:
            raise ConfigError(
                f"[fastmeta] upstreams, entry {shown!r}: it is the same as {specs[spec]!r}; give it once"
            )
        specs[spec] = text
    return tuple(specs)
