"""Opens listening TCP sockets, in namespaces too, and returns their descriptors. Knows nothing of the
proxy."""

from __future__ import annotations

import errno
import functools
import ipaddress
import os
import socket
from collections.abc import Sequence
from typing import NamedTuple

from fastmeta.exceptions import FastmetaError, ListenError
from fastmeta.netns.namespaces import Raised, in_namespaces

BACKLOG = 4096
"""Connections that may wait to be accepted (the kernel cuts it to net.core.somaxconn of the namespace).
Large, so that silent connections, which are handed over after the second of TCP_DEFER_ACCEPT, leave room for
those that talk."""
DEFER_ACCEPT = 1
"""Seconds for which the kernel keeps a connection back until its first bytes arrive."""

SEND_BUFFER = 128 * 1024
"""Bytes of an answer that the kernel keeps for a guest that does not read (it makes it twice that); left to
itself, net.ipv4.tcp_wmem allows it some MiB for each connection. core/upstream.pxi has the same towards Nova."""

IP_FREEBIND = 15  # linux/in.h; the socket module does not have these two
IPV6_FREEBIND = 78


class Place(NamedTuple):
    """Where to listen. namespace_path: the file on which the namespace is mounted; None for our own. interface: for a
    link-local IPv6 address, the interface it is on. ``::`` takes IPv4 too (peers then come as ::ffff:a.b.c.d), as the
    proxies of Neutron's L3 agent do."""

    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    tcp_port: int
    namespace_path: str | None = None
    interface: str | None = None

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        where = f"{host}:{self.tcp_port}"
        return f"{where} in namespace {self.namespace_path}" if self.namespace_path else where


def open_listening_socket(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
    tcp_port: int,
    *,
    namespace_path: str | None = None,
    interface: str | None = None,
) -> int:
    """A listening, non-blocking descriptor that is closed on exec; the caller owns it. See Place. Raises NamespaceError
    (NamespaceNotFoundError) and ListenError."""
    (found,) = open_listening_sockets([Place(address, tcp_port, namespace_path, interface)])
    if isinstance(found, FastmetaError):
        raise found
    return found


def open_listening_sockets(places: Sequence[Place]) -> list[int | FastmetaError]:
    """One for each place, or what open_listening_socket would raise. A thousand namespaces take some 25 ms."""
    inside = [place for place in places if place.namespace_path]
    opened = iter(
        in_namespaces([(place.namespace_path or "", functools.partial(_open, place)) for place in inside])
    )
    found: list[int | FastmetaError] = []
    for place in places:
        result: int | Raised
        if place.namespace_path:
            result = next(opened)
        else:
            try:
                result = _open(place)
            except OSError as error:
                result = Raised(error)
        found.append(result if isinstance(result, int) else _failure(place, result.error))
    return found


def _failure(place: Place, error: BaseException) -> FastmetaError:
    if isinstance(error, FastmetaError):
        return error
    if not isinstance(error, OSError):
        raise error
    failure = ListenError(f"cannot listen on {place}: {_advice(error, place.tcp_port, place.interface)}")
    failure.__cause__ = error
    return failure


def bound_interface(fd: int) -> int:
    """The index of the interface that a socket of open_listening_socket is bound to, 0 for none."""
    with socket.socket(fileno=os.dup(fd)) as listener:
        name = listener.getsockname()
    return int(name[3]) if listener.family == socket.AF_INET6 else 0


def _open(place: Place) -> int:
    address, tcp_port, interface = place.address, place.tcp_port, place.interface
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as listener:
        # Connections of a predecessor that linger must not keep us from binding. But never SO_REUSEPORT: with
        # it a second service that believes this address to be in another network would silently get a part
        # of the connections, and hand its guests a stranger's data.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        target: tuple[str, int] | tuple[str, int, int, int] = (str(address), tcp_port)
        # FREEBIND: the address may come later (Neutron's agents add it when they please; an IPv6 address is
        # tentative for a second). The socket works as soon as it is there, and survives its removal and
        # return.
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if address.is_unspecified else 1)
            target = (str(address), tcp_port, 0, _interface_index(interface) if interface else 0)
        else:
            listener.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        # All three are inherited by the connections that are accepted.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, DEFER_ACCEPT)
        listener.bind(target)
        listener.listen(BACKLOG)
        return listener.detach()


def _interface_index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError as error:  # it comes without a number
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV)) from error


def _advice(error: OSError, tcp_port: int, interface: str | None) -> str:
    """What went wrong, and what an operator can do about it."""
    if error.errno == errno.EADDRINUSE:
        return (
            "somebody else listens there (another fastmeta agent, a haproxy?); end it: "
            f"ss -ltnp 'sport = :{tcp_port}' in that namespace names it"
        )
    if error.errno == errno.EACCES:
        return (
            f"TCP port {tcp_port} is privileged: CAP_NET_BIND_SERVICE is missing "
            "(or sysctl net.ipv4.ip_unprivileged_port_start in that namespace)"
        )
    if error.errno in (errno.ENODEV, errno.ENXIO):
        return f"there is no interface {interface}"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "no descriptors are left: raise LimitNOFILE of the service"
    return error.strerror or os.strerror(error.errno or 0)
