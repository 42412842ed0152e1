"""What it means when a call over the bus fails, in words that an operator can act on.

The text is the same for the same cause, and holds nothing that came over the bus but the name of an exception.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator

from fastmeta.exceptions import LookupFailedError, LookupRefusedError, LookupUnavailableError

# AMQP 0-9-1: the texts of RabbitMQ's Connection.Close with code 403 and 530.
_REFUSED = {
    "ACCESS_REFUSED": "refuses our user or password (ACCESS_REFUSED); right are those of transport_url in the "
    "neutron.conf of Neutron's servers",
    "NOT_ALLOWED": "does not let our user use this virtual host (NOT_ALLOWED): the end of transport_url is wrong, or "
    "the user lacks permissions",
}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,79}", re.ASCII)


def explain(error: BaseException, *, place: str, call: str, timeout: float) -> LookupFailedError:
    """place: of the bus, without secrets. call: what was called. timeout: seconds that it had."""
    chain = list(_chain(error))
    names = {base.__name__ for one in chain for base in type(one).__mro__}
    # One of Python's own comes as itself; that the server raised it shows in the traceback that it brings along.
    remote = type(error).__module__.endswith("_Remote") or "Traceback (most recent call last)" in str(error)
    if "RemoteError" in names or remote:
        kind = str(getattr(error, "exc_type", None) or type(error).__name__.removesuffix("_Remote"))
        kind = kind if _NAME.fullmatch(kind) else "an exception"
        return LookupUnavailableError(
            f"Neutron's server failed at {call} ({kind}): its log says why (neutron-server or neutron-rpc-server)"
        )
    if "MessagingTimeout" in names:
        return LookupUnavailableError(
            f"no answer to {call} in {timeout:g} s, though {place} took the question: is neutron-server (or "
            "neutron-rpc-server) running, and on this bus?"
        )
    for one in chain:
        for mark, text in _REFUSED.items():
            if mark in str(one):
                return LookupRefusedError(f"{place} {text}")
    for one in chain:
        if isinstance(one, ssl.SSLError):
            reason = getattr(one, "verify_message", "") or one.reason or "no TLS there"
            return LookupRefusedError(
                f"no TLS with {place} ({reason}): see ssl, ssl_ca_file, ssl_cert_file and ssl_key_file in "
                "[oslo_messaging_rabbit]"
            )
    for one in reversed(chain):  # what was first is the cause
        if isinstance(one, socket.gaierror):
            return LookupUnavailableError(f"{place}: the host name cannot be resolved ({one.strerror})")
        if isinstance(one, FileNotFoundError | PermissionError):
            return LookupRefusedError(
                f"a file of [oslo_messaging_rabbit] cannot be read: {one.filename}: {one.strerror}"
            )
        if isinstance(one, TimeoutError):
            return LookupUnavailableError(f"{place} does not answer")
        if isinstance(one, OSError):
            return LookupUnavailableError(f"{place} cannot be reached ({one.strerror or type(one).__name__})")
    return LookupUnavailableError(f"{place} cannot be used ({type(chain[-1]).__name__})")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and what led to it."""
    seen: set[int] = set()
    waiting: BaseException | None = error
    while waiting is not None and id(waiting) not in seen:
        seen.add(id(waiting))
        yield waiting
        waiting = waiting.__cause__ or waiting.__context__
