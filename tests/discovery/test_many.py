"""Namespaces by the hundreds: none is lost, and how long it takes is printed."""

from __future__ import annotations

import fcntl
import os
import re
import socket
import struct
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from tests.service.agents import Agent, until

from .scene import Scene, listens, ours

NETWORKS = 1000
ROUTERS = 200

_TUNSETIFF, _TUNSETPERSIST, _IFF_TAP = 0x400454CA, 0x400454CB, 0x1002  # linux/if_tun.h
_SIOCSIFADDR, _SIOCSIFNETMASK = 0x8916, 0x891C  # linux/sockios.h


def plug_in() -> None:
    """A port with the metadata address, as the DHCP agent's, in the namespace that the thread is in."""
    name = b"tap0".ljust(16, b"\0")
    tun = os.open("/dev/net/tun", os.O_RDWR)
    try:
        fcntl.ioctl(tun, _TUNSETIFF, name + struct.pack("H22x", _IFF_TAP))
        fcntl.ioctl(tun, _TUNSETPERSIST, 1)
    finally:
        os.close(tun)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for request, address in ((_SIOCSIFADDR, "169.254.169.254"), (_SIOCSIFNETMASK, "255.255.255.255")):
            value = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))
            fcntl.ioctl(any_socket, request, name + value)


def make(scene: Scene, names: Sequence[str]) -> float:
    """Several at once; how long it took, in seconds."""
    began = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: scene.namespaces.add(name, then=plug_in), names))
    return time.monotonic() - began


def names_of(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{uuid.uuid4()}" for _ in range(count)]


def seconds_from_start(agent: Agent, last: str) -> float:
    """From the agent's first line to the last one of this kind."""

    def at(line: str) -> datetime:
        return datetime.fromisoformat(" ".join(line.split(" ")[:2]))

    return (at(agent.logged(last)[-1]) - at(agent.log.splitlines()[0])).total_seconds()


def served(agent: Agent) -> set[str]:
    """The namespaces in which it listens."""
    names = set()
    for line in agent.log.splitlines():
        found = re.search(r"(listening|closing):? \S+@(\S+)/", line)
        if found:
            (names.add if found[1] == "listening" else names.discard)(found[2])
    return names


def test_networks_that_are_there_at_the_start(scene: Scene) -> None:
    names = names_of("qdhcp-", NETWORKS)
    print(f"\n{NETWORKS} namespaces made in {make(scene, names):.1f} s")
    agent = scene.agent("dhcp")
    until(lambda: len(agent.logged("listening: ")) == NETWORKS)
    took = seconds_from_start(agent, "listening: ")
    print(f"{NETWORKS} networks listen {took:.2f} s after the start")
    assert served(agent) == set(names)
    assert took < 5  # promised: 1


def test_a_burst_of_networks(scene: Scene) -> None:
    """None of them is lost; and when they go nothing is left of them."""
    agent = scene.agent("dhcp")
    before = agent.quiet_descriptors(scene.upstream)
    names = names_of("qdhcp-", NETWORKS)
    made = make(scene, names)
    began = time.monotonic()
    until(lambda: len(agent.logged("listening: ")) == NETWORKS)
    print(
        f"\n{NETWORKS} networks in {made:.1f} s: all listen {time.monotonic() - began:.3f} s after the last"
    )
    assert served(agent) == set(names)
    assert all(listens(scene.namespaces.path(name), 80) for name in names[::10])
    began = time.monotonic()
    for name in names:
        scene.namespaces.remove(name)
    until(lambda: not served(agent), "end of all")
    print(f"{NETWORKS} networks deleted, and let go, in {time.monotonic() - began:.1f} s")
    assert agent.quiet_descriptors(scene.upstream) == before


def test_routers(scene: Scene) -> None:
    """Their rules take most of the time."""
    names = names_of("qrouter-", ROUTERS)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(scene.namespaces.add, names))
    agent = scene.agent("router")
    until(lambda: len(agent.logged("listening: ")) == ROUTERS)
    took = seconds_from_start(agent, "listening: ")
    print(f"\n{ROUTERS} routers have rules and listen {took:.2f} s after the start")
    assert served(agent) == set(names)
    assert all(len(ours(scene.namespaces.path(name))) == 13 for name in names[::10])
    began = time.monotonic()
    agent.terminate()
    assert agent.exit_status() == 0
    print(f"the rules of {ROUTERS} routers are gone {time.monotonic() - began:.2f} s after SIGTERM")
    assert all(ours(scene.namespaces.path(name)) == [] for name in names)
