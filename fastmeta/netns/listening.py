"""Who listens in a namespace already: asked of the kernel by sock_diag(7), which lists listening sockets only."""

from __future__ import annotations

import errno
import os
import socket
import struct

from fastmeta.netns.rtnetlink import READ_SIZE

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port id
_REQUEST = struct.Struct("=BBBxI48x")  # struct inet_diag_req_v2: family, protocol, extensions, states, socket
_TCP_PORT = struct.Struct(
    ">4xH"
)  # struct inet_diag_msg begins with 4 numbers of a byte, then the socket with its port
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLM_F_REQUEST = 0x1
_NLM_F_DUMP = 0x300
_LISTEN = 1 << 10  # TCP_LISTEN of linux/tcp.h


def listening_tcp_ports() -> frozenset[int]:
    """TCP ports on which anybody listens in the namespace that the calling thread is in. Raises OSError."""
    found: set[int] = set()
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG
    ) as diagnosis:
        for family in (socket.AF_INET, socket.AF_INET6):
            body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, _LISTEN)
            flags = _NLM_F_REQUEST | _NLM_F_DUMP
            diagnosis.send(_HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, flags, 0, 0) + body)
            while not _take(diagnosis.recv(READ_SIZE), found):
                pass
    return frozenset(found)


def _take(data: bytes, found: set[int]) -> bool:
    """Whether it was the last part of the list."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size or at + length > len(data):
            raise OSError(errno.EBADMSG, "a message that is cut off")
        if kind == _NLMSG_DONE:
            return True
        if kind == _NLMSG_ERROR:
            code = -struct.unpack_from("=i", data, at + _HEADER.size)[0]
            raise OSError(code, os.strerror(code))
        if kind == _SOCK_DIAG_BY_FAMILY:
            found.add(_TCP_PORT.unpack_from(data, at + _HEADER.size)[0])
        at += (length + 3) & ~3
    return False
