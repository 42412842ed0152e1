"""A network with many ports in the real Neutron, and the two namespaces that belong to it on this machine."""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from ipaddress import IPv4Address
from pathlib import Path

from bench import processes
from fastmeta.lab.namespaces import inside, run_command
from fastmeta.lab.topology import METADATA_ADDRESS, Lab
from tests.openstack.stack.api import Api

PREFIX = "fastmeta-bench-"
"""Of the names of projects."""
SUBNET = "10.96.0.0/19"
PROXY_ADDRESS = "10.96.0.2"
GUESTS_ADDRESS = "10.96.0.3"
GUESTS_PREFIX = "10.96.16.0/20"
ROOT = Path(__file__).parent.parent

Waiting = Callable[[], AbstractContextManager[None]]


def remove_leftovers(api: Api) -> None:
    """Projects of runs that were killed."""
    for project in api.projects():
        if project["name"].startswith(PREFIX):
            api.remove_project(project["id"])


@contextmanager
def crowd(api: Api, number: int, waiting: Waiting) -> Iterator[tuple[str, dict[str, str]]]:
    """The id of a new network, and so many guests: address and instance id of each. Gone with the context."""
    project_id = api.create_project(f"{PREFIX}{secrets.token_hex(3)}")
    try:
        network_id = api.create_network("crowd", project_id)["id"]
        api.create_subnet(network_id, project_id, SUBNET)
        api.create_port(
            network_id,
            project_id,
            [PROXY_ADDRESS],
            device_id=f"dhcp{uuid.uuid4()}-{network_id}",
            device_owner="network:dhcp",
        )
        first = IPv4Address(GUESTS_PREFIX.partition("/")[0]) + 1
        guests = {str(first + at): str(uuid.uuid4()) for at in range(number)}
        with waiting():
            api.create_ports(network_id, project_id, guests)
        yield network_id, guests
    finally:
        api.remove_project(project_id)


class Place:
    """qdhcp-<network> with the metadata address, where proxies listen, and a namespace in which all guests are.

    Every address of the guests is local there (a route of type local, ip-route(8)), and the proxy's side has a route to
    them all: with an entry in the neighbour table for each, 1,000 guests would meet its limit (gc_thresh3, arp(7))."""

    def __init__(self, lab: Lab, network_id: str) -> None:
        self.lab = lab
        network = lab.add_network("crowd", network_id)
        self.proxy = lab.add_namespace(f"qdhcp-{network_id}")
        self.guests = lab.add_namespace(f"fastmeta-{lab.tag}-crowd")
        lab.add_port(
            network,
            self.proxy,
            "tap0",
            [f"{PROXY_ADDRESS}/24"],
            extra_addresses=[f"{METADATA_ADDRESS}/32"],
            routes=[(GUESTS_PREFIX, GUESTS_ADDRESS)],
        )
        lab.add_port(
            network,
            self.guests,
            "eth0",
            [f"{GUESTS_ADDRESS}/24"],
            routes=[(f"{METADATA_ADDRESS}/32", PROXY_ADDRESS)],
        )
        local = ["ip", "route", "add", "local", GUESTS_PREFIX, "dev", "lo"]
        inside(self.guests, lambda: run_command(local))


class Guests:
    """bench/storm.py in its namespace."""

    def __init__(self, process: subprocess.Popen[str], waiting: Waiting) -> None:
        self._process = process
        self._waiting = waiting

    def storm(
        self, server: tuple[str, int], guests: Mapping[str, str], limit: float
    ) -> list[tuple[str, float]]:
        """How each guest's request ended, and after how many seconds."""
        plan = {"server": server, "guests": guests, "limit": limit}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(plan) + "\n")
        self._process.stdin.flush()
        return [(str(kind), float(seconds)) for kind, seconds in json.loads(self._line())]

    def until_ready(self) -> None:
        self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        with self._waiting():
            line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the program that plays the guests has ended")
        return line


@contextmanager
def play_guests(lab: Lab, namespace: str, waiting: Waiting) -> Iterator[Guests]:
    command = ["setpriv", "--pdeathsig", "KILL", sys.executable, str(ROOT / "bench/storm.py")]
    process = lab.start(
        namespace,
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for us
    )
    try:
        guests = Guests(process, waiting)
        guests.until_ready()
        yield guests
    finally:
        processes.end(process)
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
