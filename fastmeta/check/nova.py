"""Whether Nova's metadata API is there, and takes our signature.

Each server is asked twice, over a connection of its own each time, as the agent would connect to it. Nova answers
unsigned requests with 400 where [neutron] service_metadata_proxy in its nova.conf is true; and a request that is signed
for an instance that it does not have with 404, but with 403 where the secret is another one than its own. So both
answers show what must be right, without an instance, and without a line of alarm in Nova's log.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import http
import os
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Mapping

from fastmeta import _core
from fastmeta.check.findings import Finding, State
from fastmeta.conf.settings import Settings
from fastmeta.conf.tls import TlsOptions
from fastmeta.conf.upstreams import UpstreamSpec, is_numeric
from fastmeta.upstreams.names import MAX_ADDRESSES, resolve
from fastmeta.upstreams.servers import Upstreams, warn_of_end

PART = "Nova's metadata API"

PATH = "/openstack/latest/meta_data.json"
RESOLVE_TIMEOUT = 10.0
ANSWER_TIMEOUT = 15.0
"""Seconds at most that it has for an answer here; guests wait for longer (upstream_timeout)."""
MAX_HEAD = 16384
"""Bytes of an answer that are read."""


class _NoTable:
    """In place of the core: nothing is told to anybody."""

    def set_upstreams(self, servers: object) -> None:
        raise NotImplementedError


def check_certificates(settings: Settings) -> None:
    """Loads them as the agent does, and warns as it does. Raises ConfigError for what cannot be used."""
    warn_of_end(Upstreams(_NoTable(), _core.TlsContext).prepare(settings))


async def ask(settings: Settings) -> AsyncIterator[Finding]:
    """One finding for each server, all of them asked at once."""
    context = _tls_context(settings.tls) if settings.tls is not None else None
    tasks = [asyncio.ensure_future(_ask_upstream(spec, settings, context)) for spec in settings.upstreams]
    for task in tasks:
        for finding in await task:
            yield finding


def _tls_context(tls: TlsOptions) -> ssl.SSLContext:
    """Like the core's (tls.pxi)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif tls.ca_file is not None:
        context.load_verify_locations(tls.ca_file)
    else:
        context.set_default_verify_paths()
    if tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.private_key)
    return context


async def _ask_upstream(
    spec: UpstreamSpec, settings: Settings, context: ssl.SSLContext | None
) -> list[Finding]:
    addresses = [spec.path or spec.host]
    if not spec.numeric:
        try:
            found = await asyncio.wait_for(resolve(spec.host), RESOLVE_TIMEOUT)
        except asyncio.TimeoutError:
            reason = f"no answer in {RESOLVE_TIMEOUT:g} s"
        except (OSError, UnicodeError) as error:
            reason = str(error)
        else:
            reason = "it has no usable address"
            addresses = [address for address in dict.fromkeys(found) if is_numeric(address)][:MAX_ADDRESSES]
            if addresses:
                reason = ""
        if reason:
            return [Finding(PART, State.WRONG, f"{spec}: the name cannot be resolved: {reason}")]
    return list(
        await asyncio.gather(*(_ask_server(spec, address, settings, context) for address in addresses))
    )


async def _ask_server(
    spec: UpstreamSpec, address: str, settings: Settings, context: ssl.SSLContext | None
) -> Finding:
    who = str(spec) if spec.numeric else f"{spec} ({address})"
    server = _Server(spec, address, settings, context if spec.scheme == "https" else None)
    began = time.monotonic()
    try:
        unsigned = await server.status_of({})
        took = time.monotonic() - began
        signed = await server.status_of(_signed(settings.secret))
        state, text = _judgement(unsigned, signed)
        if signed == http.HTTPStatus.FORBIDDEN and settings.next_secret is not None:
            signed = await server.status_of(_signed(settings.next_secret))
            if signed != http.HTTPStatus.FORBIDDEN:
                state, text = _judgement(unsigned, signed)
                text += "; it is next_shared_secret that it takes"
    except _Failed as failure:
        return Finding(PART, State.WRONG, f"{who}: {failure}")
    if state is State.OK:
        text += f" ({took * 1000:.0f} ms)"
    return Finding(PART, state, f"{who}: {text}")


def _judgement(unsigned: int, signed: int) -> tuple[State, str]:
    """What two statuses mean."""
    if signed == http.HTTPStatus.FORBIDDEN:
        return State.WRONG, (
            "it refuses our signature (403): metadata_proxy_shared_secret is not the one in section [neutron] of its "
            "nova.conf"
        )
    if signed >= 500:
        return State.WRONG, f"it answers {signed} to a signed request: its log says why"
    if unsigned in (http.HTTPStatus.NOT_FOUND, http.HTTPStatus.OK) or unsigned >= 500:
        return State.WRONG, (
            f"it answers {unsigned} to a request that nobody has signed: either service_metadata_proxy in section "
            "[neutron] of its nova.conf is not true, or it is something else than Nova's metadata API"
        )
    if signed != http.HTTPStatus.NOT_FOUND:
        return State.WRONG, (
            f"it answers {signed} to a request that is signed for an instance that is none, where Nova's metadata API "
            "answers 404: is something else there?"
        )
    return State.OK, "it answers, and takes our signature"


def _signed(secret: bytes) -> dict[str, str]:
    """Headers for an instance that nobody has."""
    instance = str(uuid.uuid4())
    return {
        "X-Forwarded-For": "169.254.169.254",
        "X-Instance-ID": instance,
        "X-Tenant-ID": uuid.uuid4().hex,
        "X-Instance-ID-Signature": hmac.new(secret, instance.encode(), hashlib.sha256).hexdigest(),
    }


class _Failed(Exception):
    """There is no answer; the text says why."""


class _Server:
    """One address of an upstream."""

    def __init__(
        self, spec: UpstreamSpec, address: str, settings: Settings, context: ssl.SSLContext | None
    ) -> None:
        self._spec = spec
        self._address = address
        self._context = context
        self._connect_timeout = settings.core["connect_timeout_ms"] / 1000
        self._answer_timeout = min(ANSWER_TIMEOUT, settings.core["upstream_timeout_ms"] / 1000)

    async def status_of(self, headers: Mapping[str, str]) -> int:
        """Of the answer to a GET with these headers. Raises _Failed."""
        try:
            reader, writer = await asyncio.wait_for(self._connect(), self._connect_timeout)
        except asyncio.TimeoutError:
            raise _Failed(f"no connection in {self._connect_timeout:g} s (connect_timeout)") from None
        except ssl.SSLCertVerificationError as error:
            raise _Failed(
                f"its certificate is not accepted: {error.verify_message}; see auth_ca_cert, and for which name it is "
                "asked"
            ) from None
        except ssl.SSLError as error:
            raise _Failed(f"TLS does not work: {_reason(error)}") from None
        except OSError as error:
            raise _Failed(f"no connection: {_text_of(error)}") from None
        try:
            lines = [f"GET {PATH} HTTP/1.1", f"Host: {self._spec.host_header}", "Connection: close"]
            lines += [f"{name}: {value}" for name, value in headers.items()]
            writer.write("\r\n".join([*lines, "", ""]).encode())
            return await asyncio.wait_for(_status(reader), self._answer_timeout)
        except asyncio.TimeoutError:
            raise _Failed(f"no answer in {self._answer_timeout:g} s") from None
        except ssl.SSLError as error:
            # With TLS 1.3 a server refuses our certificate after the handshake.
            raise _Failed(
                f"TLS does not work: {_reason(error)}; does it want a certificate of ours?"
            ) from None
        except OSError as error:
            raise _Failed(f"the connection breaks: {_text_of(error)}") from None
        finally:
            writer.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._spec.path:
            return await asyncio.open_unix_connection(self._spec.path, limit=MAX_HEAD)
        return await asyncio.open_connection(
            self._address,
            self._spec.tcp_port,
            limit=MAX_HEAD,
            ssl=self._context,
            server_hostname=self._spec.tls_name if self._context is not None else None,
        )


async def _status(reader: asyncio.StreamReader) -> int:
    """Of the answer's first line (RFC 9112 section 4)."""
    try:
        line = await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            raise _Failed("it closes the connection without an answer") from None
        line = error.partial
    except asyncio.LimitOverrunError:
        line = b""
    version, _, rest = line.partition(b" ")
    digits = rest[:3].decode("ascii", "replace")
    if not version.startswith(b"HTTP/1.") or not digits.isdecimal():
        hint = "; does it want https?" if line[:1] in (b"\x15", b"\x16") else ""
        raise _Failed(f"what it answers is not HTTP/1.1: {ascii(line[:40])[1:]}{hint}")
    return int(digits)


def _text_of(error: OSError) -> str:
    # asyncio's own texts name the address once more.
    return os.strerror(error.errno) if error.errno else str(error)


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).lower().replace("_", " ")
