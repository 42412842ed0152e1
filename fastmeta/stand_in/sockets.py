"""What is handed over must be what it is said to be: listening TCP sockets, in that namespace, at those addresses."""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack

from fastmeta.exceptions import NamespaceError, StandInError
from fastmeta.models import plain_address
from fastmeta.stand_in.message import ClaimedSocket, HandOver

SIOCGSKNS = 0x894C  # linux/sockios.h: a descriptor of the namespace that a socket is in
SO_DOMAIN = 39  # asm-generic/socket.h; the socket module does not have these two everywhere
SO_PROTOCOL = 38


def check(claim: HandOver, descriptors: Sequence[int]) -> None:
    """The descriptors stay the caller's, and do not block from then on. Raises StandInError, and NamespaceError when it
    is we who cannot tell."""
    if len(descriptors) != len(claim.sockets):
        raise StandInError(f"{len(descriptors)} descriptors came for {len(claim.sockets)} sockets")
    for claimed, descriptor in zip(claim.sockets, descriptors, strict=True):
        try:
            _check_socket(claimed, descriptor)
            found = _namespace_of(descriptor)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                raise NamespaceError(
                    f"{claimed}: its namespace cannot be looked at: {error.strerror}: raise LimitNOFILE of the service"
                ) from error
            raise StandInError(f"{claimed}: what came with it is no socket: {error.strerror}") from error
        if found != claim.namespace:
            raise StandInError(f"{claimed}: the socket is in another namespace than was said")
        os.set_blocking(descriptor, False)


def _check_socket(claimed: ClaimedSocket, descriptor: int) -> None:
    with ExitStack() as stack:
        listener = socket.socket(fileno=descriptor)
        stack.callback(listener.detach)  # it is not ours to close
        of_socket = [
            listener.getsockopt(socket.SOL_SOCKET, option)
            for option in (socket.SO_TYPE, SO_PROTOCOL, socket.SO_ACCEPTCONN)
        ]
        if of_socket != [socket.SOCK_STREAM, socket.IPPROTO_TCP, 1]:
            raise StandInError(f"{claimed}: what came with it is not a TCP socket that listens")
        if listener.getsockopt(socket.SOL_SOCKET, SO_DOMAIN) == socket.AF_INET:
            address, tcp_port = listener.getsockname()
            interface = 0
        else:
            address, tcp_port, _, interface = listener.getsockname()
            address = address.partition("%")[0]
    found = ClaimedSocket(plain_address(ipaddress.ip_address(address)), tcp_port, interface)
    if found != claimed:
        raise StandInError(f"{claimed}: the socket listens on {found}")


def _namespace_of(descriptor: int) -> tuple[int, int]:
    """Device and inode. Raises OSError, NamespaceError."""
    namespace = namespace_descriptor(descriptor)
    try:
        status = os.fstat(namespace)
    finally:
        os.close(namespace)
    return status.st_dev, status.st_ino


def namespace_descriptor(descriptor: int) -> int:
    """Of the namespace that a socket is in; the caller closes it. Raises OSError, NamespaceError."""
    try:
        return fcntl.ioctl(descriptor, SIOCGSKNS)
    except OSError as error:
        if error.errno == errno.EPERM:
            raise NamespaceError(
                "in which namespace a socket is may not be asked: CAP_NET_ADMIN is missing"
            ) from None
        raise
