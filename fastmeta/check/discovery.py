"""What [fastmeta] discover would find now. Needs the right to enter namespaces, and says so where it is not there."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Iterator
from typing import TypeVar

from fastmeta.check.findings import Finding, State
from fastmeta.conf.discovery import DiscoverySpec
from fastmeta.discovery.ha import PRIMARY, state_in
from fastmeta.discovery.iptables import find_programs, ip_versions
from fastmeta.discovery.names import QDHCP, QROUTER, SNAT, namespaces_in
from fastmeta.discovery.networks import ADDRESS, TCP_PORT, Seen, first_look
from fastmeta.exceptions import ConfigError, NamespaceNotFoundError
from fastmeta.netns.listening import listening_tcp_ports
from fastmeta.netns.namespaces import Raised, in_namespaces

PART = "What is found by itself"

MOST_SHOWN = 20
"""Namespaces of a kind that are named one by one."""

Result = TypeVar("Result")


def routers(spec: DiscoverySpec, folder: str, without: Collection[str | None]) -> Iterator[Finding]:
    """without: names of namespaces that are left alone."""
    for version in ip_versions():
        try:
            programs = find_programs(version)
        except ConfigError as error:
            yield Finding(PART, State.WRONG, str(error), ends=True)
        else:
            yield Finding(PART, State.OK, f"rules of IPv{version} are put by {programs.restore}")

    def judge(name: str, taken: frozenset[int]) -> str:
        uuid = name.removeprefix(QROUTER)
        own = os.path.join(spec.ha_confs_path, uuid)
        if os.path.isdir(own) and not os.path.lexists(os.path.join(folder, f"{SNAT}{uuid}")):
            state = state_in(own)
            if state not in PRIMARY:
                return f"not served: it is an HA router, and its state here is {state}"
        return _served(spec.metadata_port, spec.metadata_port in taken)

    names = [name for name in namespaces_in(folder, [QROUTER]) if name not in without]
    yield from _findings("routers", names, folder, lambda _: listening_tcp_ports(), judge)


def networks(spec: DiscoverySpec, folder: str, without: Collection[str | None]) -> Iterator[Finding]:
    """Likewise."""

    def judge(_: str, seen: Seen) -> str:
        if seen.table is not None:
            seen.table.close()
        look = seen.look
        if look is None:
            return f"not served: no interface in it has {ADDRESS}"
        text = _served(TCP_PORT, look.taken)
        if spec.metadata_networks and look.wish.metadata_network:
            text += "; a metadata network: Neutron is asked for the router that is attached"
        return text

    names = [name for name in namespaces_in(folder, [QDHCP]) if name not in without]
    yield from _findings("networks", names, folder, first_look, judge)


def _served(tcp_port: int, taken: bool) -> str:
    if taken:
        return f"somebody listens on TCP port {tcp_port} there already; if that is no agent of ours, it is not served"
    return f"served, on TCP port {tcp_port}"


def _findings(
    what: str,
    names: list[str],
    folder: str,
    function: Callable[[str], Result],
    judge: Callable[[str, Result], str],
) -> Iterator[Finding]:
    """function: called in each namespace, with its path."""
    yield Finding(PART, State.OK, f"{len(names)} {what} in {folder}; others as they come")
    paths = [os.path.join(folder, name) for name in names]
    looks = in_namespaces([(path, functools.partial(function, path)) for path in paths[:MOST_SHOWN]])
    for name, look in zip(names, looks, strict=False):
        if not isinstance(look, Raised):
            yield Finding(PART, State.OK, f"{name}: {judge(name, look)}")
        elif not isinstance(look.error, NamespaceNotFoundError):
            yield Finding(PART, State.WRONG, f"{name}: {look.error}")
    if len(names) > MOST_SHOWN:
        yield Finding(PART, State.OK, f"and {len(names) - MOST_SHOWN} more")
