"""What many networks cost: opening a listener in each namespace, the memory of the service, idle listeners.

All namespaces are ours alone: the bench moves into a mount namespace of its own, in which /run/netns is an empty
folder, and binds them there. Nobody else sees them, and they end with the bench, however it ends.
"""

import contextlib
import ctypes
import ipaddress
import os
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench import configs, peers, processes, rounds
from bench.agents import started
from bench.scenarios import Scenario
from fastmeta.exceptions import FastmetaError
from fastmeta.netns.sockets import Place, open_listening_sockets
from tests.bus import rabbit

NUMBER = 1000
REPEATS = 7
BUS_SETTLE = 8.0
# Peers' figures are of a few, and multiplied: a thousand of them would take minutes and gigabytes.
FEW = 20

FOLDER = Path("/run/netns")
ADDRESS = ipaddress.IPv4Address("169.254.169.254")

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000


class NamespaceError(Exception):
    """There are no namespaces: the text says why."""


@dataclass
class Figures:
    """Seconds and bytes; peers' are of one each. None: not measured."""

    number: int
    opened: float | None = None
    ip_netns_exec: float | None = None
    haproxy_start: float | None = None
    memory: int | None = None
    further: float | None = None
    haproxy_memory: float | None = None
    memory_rpc: int | None = None
    """With lookup = rpc, on a message bus on which no server of Neutron's is."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        raise NamespaceError(f"{name}: {os.strerror(ctypes.get_errno())}")


def _mount(source: str, target: str, kind: str | None, flags: int) -> None:
    _call(
        "mount",
        source.encode(),
        target.encode(),
        kind.encode() if kind else None,
        ctypes.c_ulong(flags),
        None,
    )


def hide() -> None:
    """Moves this process into a mount namespace of its own, with an empty folder of namespaces. For good."""
    if os.geteuid() != 0:
        raise NamespaceError("only root may make namespaces")
    FOLDER.mkdir(exist_ok=True)
    _call("unshare", CLONE_NEWNS)
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    _mount("tmpfs", str(FOLDER), "tmpfs", 0)


def make(names: Sequence[str]) -> None:
    """Makes namespaces, in a thread that ends afterwards: unshare(2) moves the thread that calls it."""
    errors: list[BaseException] = []

    def work() -> None:
        # Ctrl-C is the main thread's.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        try:
            for name in names:
                (FOLDER / name).touch()
                _call("unshare", CLONE_NEWNET)
                _mount("/proc/thread-self/ns/net", str(FOLDER / name), None, MS_BIND)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def names(number: int) -> list[str]:
    return [f"qdhcp-{configs.network_id(i)}" for i in range(number)]


def opening(places: Sequence[str]) -> float:
    """Seconds to open a listener in each, by the function that the agent calls."""
    taken = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        found = open_listening_sockets([Place(ADDRESS, 80, str(FOLDER / name)) for name in places])
        taken.append(time.perf_counter() - start)
        for descriptor in found:
            if isinstance(descriptor, FastmetaError):
                raise descriptor
            os.close(descriptor)
    return statistics.median(taken)


def ip_netns_exec(places: Sequence[str]) -> float:
    """Seconds for one call that does nothing."""
    start = time.perf_counter()
    for name in places:
        subprocess.run(["ip", "netns", "exec", name, "true"], check=True)
    return (time.perf_counter() - start) / len(places)


@contextmanager
def haproxies(places: Sequence[str]) -> Iterator[tuple[float, list[int]]]:
    """One in each, as Neutron configures them; gives the seconds that one took to start, and their process ids."""
    program = peers.find("haproxy")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fastmeta-haproxy-")))
        log = stack.enter_context((folder / "log").open("wb"))
        pids = []
        start = time.perf_counter()
        for number, name in enumerate(places):
            config = folder / f"{number}.cfg"
            config.write_text(configs.stock_haproxy(folder / "metadata_proxy", configs.network_id(number)))
            command = ["ip", "netns", "exec", name, program, "-db", "-q", "-f", str(config)]
            pids.append(_listening(stack, command, log))
        yield (time.perf_counter() - start) / len(places), pids


def _listening(stack: contextlib.ExitStack, command: list[str], log: Any) -> int:
    process = processes.start(["setpriv", "--pdeathsig", "TERM", *command], log, {})
    stack.callback(processes.end, process)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and process.poll() is None:
        # Its own view of TCP: ip(8) has become haproxy, which is in the namespace.
        with contextlib.suppress(OSError):
            table = Path(f"/proc/{process.pid}/net/tcp").read_text()
            if " 0A " in table and Path(f"/proc/{process.pid}/comm").read_text() == "haproxy\n":
                return process.pid
        time.sleep(0.002)
    raise NamespaceError("haproxy did not start in a namespace")


def memory(pids: Sequence[int]) -> int:
    """The proportional set size of these processes, in bytes."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def measure(setting: peers.Setting, figures: Figures, more: int, gap: Callable[[str], None]) -> None:
    """All but idle listeners. The namespaces of names(more) are there."""
    everywhere = names(more)
    first = everywhere[: figures.number]
    figures.opened = opening(first)
    with _told(gap, "ip netns exec"):
        figures.ip_netns_exec = ip_netns_exec(first[:FEW])
    with _told(gap, "haproxy in namespaces"), haproxies(first[:FEW]) as (seconds, pids):
        figures.haproxy_start = seconds
        figures.haproxy_memory = memory(pids) / len(pids)
    with _told(gap, "memory"):
        sizes = []
        for number in (figures.number, more):
            wider = replace(setting, idle=tuple(everywhere[:number]))
            with peers.running("fastmeta", wider, patience=120) as service:
                # It has answered a request, and is at rest.
                time.sleep(1)
                sizes.append(memory(service.pids()))
        figures.memory = sizes[0]
        figures.further = (sizes[1] - sizes[0]) / (more - figures.number)
    with (
        _told(gap, "memory with lookup = rpc"),
        message_bus() as transport_url,
        started(first, setting.upstream_port, setting.core, transport_url) as process,
    ):
        # It has subscribed to events, reported, and got its own message back.
        time.sleep(BUS_SETTLE)
        figures.memory_rpc = memory(processes.family(process.pid))


@contextmanager
def message_bus() -> Iterator[str]:
    """A RabbitMQ of our own; gives its transport_url. Raises NamespaceError when there is none."""
    if not Path(rabbit.PROGRAM).exists():
        raise NamespaceError("RabbitMQ is not installed (make setup installs it as root)")
    with rabbit.RabbitMQ() as server:
        yield server.url


@contextmanager
def _told(gap: Callable[[str], None], what: str) -> Iterator[None]:
    try:
        yield
    except (peers.PeerMissing, NamespaceError, OSError, subprocess.SubprocessError) as error:
        gap(f"{what}: not measured: {error}")


def idle(
    setting: peers.Setting,
    scenarios: Sequence[Scenario],
    number: int,
    *,
    rounds_of_each: int,
    seconds: float,
    progress: Callable[[str], None],
    gap: Callable[[str], None],
) -> Iterator[rounds.Sample]:
    """CPU/request of a service with so many idle listeners beside one with none, and one more of these: the noise."""
    wider = replace(setting, idle=tuple(names(number)))
    with contextlib.ExitStack() as stack:
        some = [
            stack.enter_context(peers.running(name, one, patience=120))
            for name, one in ((peers.IDLE, wider), (peers.NONE_IDLE, setting))
        ]
        for scenario in scenarios:
            yield from rounds.take(
                setting.programs["load"],
                setting.core,
                some,
                scenario,
                rounds=rounds_of_each,
                seconds=seconds,
                progress=progress,
                gap=gap,
            )
