"""Where attacks take place: an agent before a Nova, hostile guests, and innocent ones who must not notice them.

Each attack has an agent of its own, so that its peak of memory is that of the attack. What was measured is printed at
the end of the run (see conftest.py).
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from pyroute2 import IPRoute

from fastmeta.lab.namespaces import inside
from fastmeta.lab.topology import METADATA_ADDRESS, Lab

from ..service.agents import SECRET, Agent, Cloud, port_item, until
from ..service.guests import Guest
from .programs_kit import Nova, Program, Teller

KIB = 1024
MIB = 1024 * KIB

CONNECTION = 2 * KIB
"""Records of a guest's connection and of its address, with what malloc adds."""
SMALL = 20 * KIB
"""A buffer of 16 KiB with the table of its head: a request, the first part of an answer."""
LARGE = 68 * KIB
"""The same of 64 KiB: a gathered body, further parts of an answer."""
ALLOWANCE = 10 * MIB
"""What does not depend on the attack: Python's objects for the misses under way and its log's lines, kept buffers."""

MAX_PARKED_PER_SCOPE = 2048
MAX_CONNECTIONS_PER_SCOPE = 4096
MAX_CONNECTIONS_PER_ADDRESS = 128
MAX_UPSTREAM_CONNECTIONS = 256
MAX_GATHERED_BODIES = 512
"""Defaults of [fastmeta]."""

IDLE_CPU = 0.2
"""Part of a second that the agent may use in a second in which only the innocent ask: about 0.02 is usual, and who
spins uses all of it."""
NETWORKS = 4
KNOWN = 128
"""Of a hostile network so many addresses are an instance's, the others are nobody's."""


class Ground:
    """Networks hostile-1 to hostile-4, in each a guest with the 65,536 addresses of 10.1.0.0/16, and an innocent one;
    networks with innocent guests only, one of them behind a router."""

    def __init__(self, lab: Lab) -> None:
        self.cloud = Cloud(lab)
        self.attackers: list[Guest] = []
        ports = []
        for number in range(1, NETWORKS + 1):
            name = f"hostile{number}"
            _, dhcp = self.cloud.add_network(name, ["10.0.0.5", "10.0.0.66"])
            attacker = self.cloud.guests[f"{name}-66"]
            self.attackers.append(attacker)
            _own_many(attacker.port.namespace, dhcp.namespace)
            many = port_item(attacker.port, attacker.instance_id, attacker.project_id)
            many["fixed_ips"] += [{"ip_address": address_of(index)} for index in range(KNOWN)]
            ports.append(many)
        self.cloud.add_network("elsewhere", ["10.0.0.5"])
        self.cloud.add_routed_network("routed", ["10.0.0.5"])
        self.ports = self.cloud.ports(*self.attackers) + ports
        guests = self.cloud.guests
        self.neighbour = guests["hostile1-5"]
        self.others = [guests["elsewhere-5"], guests["routed-5"]]


def address_of(index: int) -> str:
    """An address of a hostile guest."""
    return str(ipaddress.ip_address("10.1.0.0") + index)


def get(target: str) -> str:
    """A request of a hostile guest."""
    return f"GET {target} HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n"


def _own_many(namespace: str, dhcp_namespace: str) -> None:
    """All of 10.1.0.0/16 is local to one namespace; the other one routes it there."""

    def local() -> None:
        with IPRoute() as ipr:
            ipr.route("add", dst="10.1.0.0/16", oif=1, type="local", table=255, scope="host")

    def route() -> None:
        with IPRoute() as ipr:
            ipr.route("add", dst="10.1.0.0/16", gateway="10.0.0.66")

    inside(namespace, local)
    inside(dhcp_namespace, route)


@dataclass
class Figures:
    """What is printed of an attack."""

    name: str
    peak: int = 0
    bound: int = 0
    cpu: float = 0.0
    seconds: float = 0.0
    asked: int = 0
    failed: int = 0
    p50: float = 0.0
    p99: float = 0.0
    longest: float = 0.0
    note: str = ""


FIGURES: list[Figures] = []


class Attack:
    """One attack, from entering to leaving; leaving it checks what holds for all of them.

    name: for the table; bound: bytes by which the agent's peak of memory may be above what it had before; neighbour:
    an innocent guest of the network hostile-1 is among those who ask. Options are the agent's.
    """

    def __init__(
        self, ground: Ground, name: str, *, bound: int, neighbour: bool = True, **options: object
    ) -> None:
        self.ground = ground
        self.figures = Figures(name, bound=bound)
        self.innocents = [*([ground.neighbour] if neighbour else []), *ground.others]
        self.options = {"access_log": "false", **options}
        self.stack = ExitStack()
        self.programs: list[Teller] = []
        self.askers: list[Teller] = []

    def __enter__(self) -> Attack:
        with self.stack:
            self._start()
            self.stack = self.stack.pop_all()
        return self

    def _start(self) -> None:
        self.nova = self.stack.enter_context(Nova(SECRET))
        self.agent = self.stack.enter_context(
            Agent(
                self.ground.cloud.listen,
                self.ground.ports,
                nova_tcp_port=self.nova.tcp_port,
                default=["debug = false"],
                **self.options,
            )
        )
        self.descriptors = self.agent.descriptors()
        for guest in self.innocents:
            plan = {
                "target": [METADATA_ADDRESS, guest.tcp_port],
                "own": f"<{guest.instance_id}|{guest.project_id}|{guest.address}|",
                "pause": 0.03,
            }
            asker = self.stack.enter_context(Teller("innocent.py", plan, namespace=guest.port.namespace))
            self.askers.append(asker)
        self.until_asked(5)
        # "5": the peak (VmHWM) begins anew, proc_pid_clear_refs(5).
        Path(f"/proc/{self.agent.pid}/clear_refs").write_text("5")
        self.memory = self.agent.memory()
        self.began = time.monotonic()
        self.cpu = cpu_seconds(self.agent.pid)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self.stack:
            if kind is None:
                self._end()

    def attacker(self, number: int = 1, **plan: Any) -> Teller:
        """Starts a hostile guest of network hostile-<number>."""
        namespace = self.ground.attackers[number - 1].port.namespace
        program = self.stack.enter_context(Teller("attacker.py", plan, namespace=namespace))
        self.programs.append(program)
        return program

    def start(self, *command: str, number: int = 1) -> Program:
        """Starts another program in a hostile guest."""
        namespace = self.ground.attackers[number - 1].port.namespace
        return self.stack.enter_context(Program(command, namespace=namespace))

    def asked(self) -> list[int]:
        """Requests that the innocent have made, each of them in both ways."""
        return [
            int(asker.line.get(name, {}).get("asked", 0))
            for asker in self.askers
            for name in ("fresh", "kept")
        ]

    def until_asked(self, more: int) -> None:
        """Waits until each of the innocent has got so many more answers, or failed."""
        wanted = [count + more for count in self.asked()]
        until(
            lambda: all(have >= want for have, want in zip(self.asked(), wanted, strict=True)),
            "answers to the innocent",
        )

    def until_connected(self, count: int) -> None:
        """Waits until the agent has so many connections more than before."""
        until(
            lambda: self.agent.descriptors() - self.descriptors >= count,
            f"{count} connections, {self.agent.descriptors()} descriptors",
        )

    def go_on(self, seconds: float) -> None:
        """Lets the attack go on for so long, and until the innocent have got answers meanwhile."""
        end = time.monotonic() + seconds
        self.until_asked(5)
        time.sleep(max(0.0, end - time.monotonic()))

    @contextlib.contextmanager
    def nothing_spins(self) -> Iterator[None]:
        """In here only the innocent want something of the agent, for some seconds."""
        began, before = time.monotonic(), cpu_seconds(self.agent.pid)
        yield
        seconds = time.monotonic() - began
        used = cpu_seconds(self.agent.pid) - before
        assert seconds > 1, "too short to tell"
        assert used / seconds < IDLE_CPU, (
            f"{used:.2f} s of CPU in {seconds:.2f} s in which there was little to do"
        )

    def nothing_came_of(self, name: str) -> None:
        """Nova has not seen a request whose target begins so, nor a byte of any body."""
        seen = self.nova.seen()
        assert name not in seen["requests"]
        assert seen["body_bytes"] == 0

    def note(self, text: str) -> None:
        """What else is printed."""
        self.figures.note = text

    def end_attackers(self) -> None:
        for program in self.programs:
            program.end()

    def _end(self) -> None:
        figures = self.figures
        self.end_attackers()
        self.until_asked(3)  # they are served as before
        figures.seconds = time.monotonic() - self.began
        figures.cpu = cpu_seconds(self.agent.pid) - self.cpu
        figures.peak = peak(self.agent.pid) - self.memory
        seen = self.nova.seen()
        for asker in self.askers:
            asker.end()
        self._judge_innocents()
        FIGURES.append(figures)
        assert seen["wrong"] == []
        assert figures.failed == 0, [
            asker.line[name]["failures"] for asker in self.askers for name in ("fresh", "kept")
        ]
        assert figures.peak <= figures.bound, f"{figures.peak / MIB:.1f} MiB above the start"
        # Its connections to Nova end with Nova, those of guests have ended: it is as it was at its start.
        self.nova.end()
        until(
            lambda: self.agent.descriptors() <= self.descriptors,
            f"descriptors as at the start: {self.descriptors}, not {self.agent.descriptors()}",
        )

    def _judge_innocents(self) -> None:
        times: list[float] = []
        for asker in self.askers:
            for name in ("fresh", "kept"):
                entry = asker.line[name]
                times += entry["times"]
                self.figures.failed += entry["failed"]
        times.sort()
        self.figures.asked = len(times)
        self.figures.p50 = times[len(times) // 2]
        self.figures.p99 = times[len(times) * 99 // 100]
        self.figures.longest = times[-1]


def peak(pid: int) -> int:
    """The most resident bytes it has had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+([0-9]+) kB", status)[0]) * KIB


def kernel_memory() -> int:
    """Bytes that all TCP connections of this machine, in whatever namespace, have in the kernel."""
    found = re.findall(r"^TCP:.* mem ([0-9]+)", Path("/proc/net/sockstat").read_text(), re.MULTILINE)
    return int(found[0]) * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def report() -> Iterator[str]:
    """A table of all attacks."""
    yield (
        f"{'attack':42} {'peak':>9} {'bound':>9} {'CPU':>7} {'time':>6}   others: asked failed "
        f"{'p50':>8} {'p99':>8} {'longest':>8}"
    )
    for row in FIGURES:
        yield (
            f"{row.name:42} {row.peak / MIB:5.1f} MiB {row.bound / MIB:5.0f} MiB {row.cpu:5.2f} s {row.seconds:4.1f} s"
            f"   {row.asked:13} {row.failed:6} {row.p50:5.1f} ms {row.p99:5.1f} ms {row.longest:5.0f} ms  {row.note}"
        )
