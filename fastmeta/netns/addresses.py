"""The addresses of a namespace's interfaces, followed: by one of them the DHCP agent asks for metadata there."""

from __future__ import annotations

import ipaddress
import socket
import struct

from fastmeta.models import IPAddress
from fastmeta.netns.rtnetlink import KernelTable, attributes

_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix length, flags, scope, index
_RTM_NEWADDR = 20
_RTM_DELADDR = 21
_RTM_GETADDR = 22
_RTMGRP_IPV4_IFADDR = 0x10
_RTMGRP_IPV6_IFADDR = 0x100
_IFA_ADDRESS = 1
_IFA_LOCAL = 2
_IFA_F_DADFAILED = 0x08


class AddressTable(KernelTable):
    """The addresses of one namespace."""

    what = "addresses"
    groups = _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR
    request = (_RTM_GETADDR, _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0))

    def __init__(self, namespace_path: str | None = None, *, entered: bool = False) -> None:
        """As of KernelTable. What update() tells of is an address that has come or gone."""
        self._addresses: set[tuple[IPAddress, int]] = set()
        super().__init__(namespace_path, entered=entered)

    def interfaces(self, address: IPAddress) -> frozenset[int]:
        """The indexes of the interfaces that have this address. One that somebody else on the link has, too, nobody
        has (duplicate address detection)."""
        return frozenset(index for one, index in self._addresses if one == address)

    def of(self, index: int) -> frozenset[IPAddress]:
        """The addresses of an interface."""
        return frozenset(address for address, one in self._addresses if one == index)

    def clear(self) -> None:
        self._addresses = set()

    def take(self, kind: int, body: bytes) -> bool:
        if kind not in (_RTM_NEWADDR, _RTM_DELADDR):
            return False
        _, _, flags, _, index = _ADDRESS.unpack_from(body)
        found = attributes(body[_ADDRESS.size :])
        # Of a link between two, IFA_ADDRESS is the other end's.
        packed = found.get(_IFA_LOCAL, found.get(_IFA_ADDRESS, b""))
        if len(packed) not in (4, 16):
            return False
        one = (ipaddress.ip_address(packed), index)
        there = kind == _RTM_NEWADDR and not flags & _IFA_F_DADFAILED
        if there == (one in self._addresses):
            return False
        if there:
            self._addresses.add(one)
        else:
            self._addresses.remove(one)
        return True
