"""What lookups cost Neutron, and how long guests wait for them: storms of guests on one network that all ask at once
for the first time, and one guest alone. fastmeta with both of its sources beside the stock pair, asking a real Neutron.

    python -m bench.lookups [--runs N] [--guests N …] [--peer NAME …] [--json FILE]

It needs root, for namespaces, and the servers that make test-openstack sets up.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import functools
import json
import os
import random
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keystoneauth1.exceptions import ClientException

from bench import lookup_figures, machine
from bench.bus_calls import BusCalls
from bench.cpu_clock import family_seconds
from bench.crowd import Guests, Place, Waiting, crowd, play_guests, remove_leftovers
from bench.lookup_figures import BEHIND, KEYSTONE, NEUTRON, PROXIES, Figures, Idle, Single, Storm
from bench.lookup_peers import PEERS, TITLES, Setting, neutron_and_keystone, running, upstream
from bench.peers import PeerMissing, find
from bench.relay import Relay
from bench.storm import OK
from fastmeta.exceptions import LabError
from fastmeta.lab.interrupts import Interrupted, Interrupts
from fastmeta.lab.topology import METADATA_ADDRESS, Lab
from tests.openstack.stack.layout import ADDRESS, Layout
from tests.openstack.stack.packages import SetUpError
from tests.openstack.stack.processes import ProcessError
from tests.openstack.stack.stack import BASE_PORT, PROJECT, Stack

SERVER = (METADATA_ADDRESS, 80)
SIZES = (10, 100, 1000)
MOST_GUESTS = 4000
IDLE_SECONDS = 2.0
QUIET_SECONDS = 1.0
QUIET_CPU = 0.06
"""Of a processor, the peer and Neutron together: less than this, and no calls, is quiet."""
QUIET_LIMIT = 120.0
WARM_UP_TRIES = 5


@dataclass(frozen=True)
class Bench:
    """What there is when everything is up. guests: one more than the largest storm has; it warms up."""

    options: argparse.Namespace
    stack: Stack
    setting: Setting
    players: Guests
    guests: dict[str, str]
    waiting: Waiting
    figures: Figures


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.lookups",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=3, help="of everything (default: %(default)s)")
    parser.add_argument(
        "--guests", type=int, nargs="+", default=list(SIZES), metavar="N", help="sizes of storms"
    )
    parser.add_argument(
        "--peer", action="append", choices=PEERS, help="only this one; may be given many times"
    )
    parser.add_argument(
        "--single",
        type=int,
        default=30,
        help="guests that ask one by one, in each run (default: %(default)s)",
    )
    parser.add_argument(
        "--limit", type=float, default=60, help="seconds for a request (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything, raw samples included")
    parser.add_argument("--port", type=int, help="of the stack: as for python -m tests.openstack")
    parser.add_argument("--folder", type=Path, help="the same")
    parser.add_argument("--environment", type=Path, help="the same")
    options = parser.parse_args(arguments)
    if options.runs < 1 or options.single < 0 or not 0 < options.limit <= 600:
        parser.error("--runs must be at least 1, --single at least 0, --limit above 0 and at most 600")
    if not all(1 <= size <= MOST_GUESTS for size in options.guests):
        parser.error(f"--guests must be from 1 to {MOST_GUESTS:,}")
    options.peer = options.peer or list(PEERS)
    return options


def missing(options: argparse.Namespace) -> list[str]:
    """What must be there and is not; each with what to do."""
    found = []
    if os.geteuid() != 0:
        found.append("it needs root, for network namespaces")
    port = options.port or int(os.environ.get("FASTMETA_OPENSTACK_PORT", BASE_PORT))
    build = PROJECT / "build/openstack"
    folder = options.folder or build / str(port)
    environment = options.environment or build / "environment"
    if not (environment / "installed").exists() or not (folder / "data/prepared").exists():
        found.append(
            f"there is no OpenStack in {folder} with its programs in {environment}: make test-openstack sets it up"
            " (or python -m tests.openstack set-up, without the tests; it takes some minutes)"
        )
    for program in ("haproxy", "nginx"):
        try:
            find(program)
        except PeerMissing as error:
            found.append(str(error))
    return found


def progress(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def running_stack(options: argparse.Namespace, waiting: Waiting) -> Iterator[Stack]:
    """All of its servers run; afterwards they are as they were."""
    folder = options.folder and options.folder.resolve()
    environment = options.environment and options.environment.resolve()
    stack = Stack(base_port=options.port, folder=folder, environment=environment)
    with (stack.layout.folder / "bench.lock").open("a") as lock:
        try:
            # Another one's ports would look like leftovers.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PeerMissing(
                f"another bench.lookups works with the OpenStack in {stack.layout.folder}"
            ) from None
        ran = stack.running
        try:
            with waiting():
                stack.start()
            yield stack
        finally:
            if not ran:
                stack.stop()


def measure(options: argparse.Namespace, waiting: Waiting, figures: Figures) -> dict[str, str | None]:
    """Gives versions of what was measured."""
    with contextlib.ExitStack() as exits:
        progress("OpenStack")
        stack = exits.enter_context(running_stack(options, waiting))
        api = stack.api()
        exits.callback(api.close)
        remove_leftovers(api)
        number = max(*options.guests, options.single) + 1
        progress(f"{number:,} ports")
        network_id, guests = exits.enter_context(crowd(api, number, waiting))
        lab = exits.enter_context(Lab())
        place = Place(lab, network_id)
        players = exits.enter_context(play_guests(lab, place.guests, waiting))
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="fml-", dir="/tmp")))
        nova = exits.enter_context(upstream(folder))
        setting = Setting(stack.layout, place, network_id, nova)
        bench = Bench(options, stack, setting, players, guests, waiting, figures)
        versions = _versions(stack.layout)
        for run in range(options.runs):
            for peer in random.sample(options.peer, len(options.peer)):
                progress(f"run {run + 1} of {options.runs}: one guest, {TITLES[peer]}")
                _kept(figures, peer, functools.partial(_single, bench, run, peer))
            for size in options.guests:
                for peer in random.sample(options.peer, len(options.peer)):
                    progress(f"run {run + 1} of {options.runs}: {size:,} guests, {TITLES[peer]}")
                    _kept(figures, peer, functools.partial(_storm, bench, run, peer, size))
    return versions


def _kept(figures: Figures, peer: str, work: Callable[[], None]) -> None:
    """A peer that fails is a gap, and not the end."""
    try:
        work()
    except (PeerMissing, LabError) as error:
        figures.gaps.append(f"{TITLES[peer]}: {error}")


def _single(bench: Bench, run: int, peer: str) -> None:
    """Without the relay, which takes its time."""
    neutron, keystone = neutron_and_keystone(bench.setting.layout)
    first: list[float] = []
    again: list[float] = []
    with _peer(bench, peer, neutron, keystone):
        load_average = os.getloadavg()[0]
        for address in list(bench.guests)[: bench.options.single]:
            for seconds in (first, again):
                [(kind, took)] = _ask(bench, [address])
                if kind != OK:
                    raise PeerMissing(f"one guest alone got: {kind}")
                seconds.append(took)
    bench.figures.singles.append(Single(run, peer, first, again, load_average))


def _storm(bench: Bench, run: int, peer: str, size: int) -> None:
    layout = bench.setting.layout
    with contextlib.ExitStack() as exits:
        neutron = exits.enter_context(Relay(layout.tcp_ports.neutron))
        keystone = exits.enter_context(Relay(layout.tcp_ports.keystone))
        bus = exits.enter_context(
            BusCalls(f"{ADDRESS}:{layout.tcp_ports.rabbitmq}", "openstack", layout.secrets.bus)
        )
        pids = exits.enter_context(_peer(bench, peer, neutron.url, keystone.url))

        def calls() -> dict[str, int]:
            return {**neutron.counts(), **bus.counts()}

        cpu = _cpu(bench, pids)
        with bench.waiting():
            time.sleep(IDLE_SECONDS)
        bench.figures.idle.append(Idle(peer, IDLE_SECONDS, _difference(cpu, _cpu(bench, pids))))
        load_average = os.getloadavg()[0]
        called, tokens, cpu = calls(), sum(keystone.counts().values()), _cpu(bench, pids)
        began = time.monotonic()
        answers = _ask(bench, list(bench.guests)[:size])
        while True:
            # A proxy may go on for guests that have given up; Neutron pays for that, too.
            before, used = calls(), _cpu(bench, pids)
            with bench.waiting():
                time.sleep(QUIET_SECONDS)
            more = _difference(used, _cpu(bench, pids))
            working = sum(more[name] for name in (*NEUTRON, *PROXIES))
            quiet = calls() == before and working < QUIET_CPU * QUIET_SECONDS
            if quiet or time.monotonic() - began > QUIET_LIMIT + bench.options.limit:
                break
        bench.figures.storms.append(
            Storm(
                run,
                peer,
                size,
                answers,
                {name: number for name, number in _difference(called, calls()).items() if number},
                sum(keystone.counts().values()) - tokens,
                _difference(cpu, _cpu(bench, pids)),
                time.monotonic() - began,
                load_average,
            )
        )
        if not quiet:
            bench.figures.gaps.append(
                f"{TITLES[peer]}, {size:,} guests, run {run + 1}: it did not get quiet; its figures are too low"
            )


@contextlib.contextmanager
def _peer(bench: Bench, peer: str, neutron: str, keystone: str) -> Iterator[list[int]]:
    """A new one that has answered a guest: it has its token and its connections. Gives the ids of its processes."""
    with contextlib.ExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="fml-", dir="/tmp")))
        pids = exits.enter_context(running(peer, bench.setting, folder, neutron=neutron, keystone=keystone))
        kind = ""
        for _ in range(WARM_UP_TRIES):
            [(kind, _)] = _ask(bench, list(bench.guests)[-1:])
            if kind == OK:
                break
        else:
            raise PeerMissing(f"it does not do the job: a guest got: {kind}")
        yield pids


def _ask(bench: Bench, addresses: Sequence[str]) -> list[tuple[str, float]]:
    guests = {address: bench.guests[address] for address in addresses}
    return bench.players.storm(SERVER, guests, bench.options.limit)


def _cpu(bench: Bench, pids: Sequence[int]) -> dict[str, float]:
    """By service, and of the peer's own processes."""
    services = bench.stack.services
    found = {
        name: family_seconds(process.pid for process in getattr(services, name).processes)
        for name in (*NEUTRON, *BEHIND, *KEYSTONE)
    }
    return {**found, "proxies": family_seconds(pids)}


def _difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value - before.get(name, 0) for name, value in after.items()}


def _versions(layout: Layout) -> dict[str, str | None]:
    """Of the stack."""
    found: dict[str, str | None] = {}
    listed = subprocess.run(
        [layout.program("pip"), "list", "--format=json", "--disable-pip-version-check"],
        capture_output=True,
        check=False,
    )
    packages = {one["name"]: one["version"] for one in json.loads(listed.stdout or b"[]")}
    for name in ("neutron", "keystone", "oslo.messaging", "uWSGI"):
        found[name] = packages.get(name)
    for name, package in (("mariadb", "mariadb-server-core"), ("rabbitmq", "rabbitmq-server")):
        asked = subprocess.run(
            ["dpkg-query", "-W", "-f", "${Version}", package], capture_output=True, text=True, check=False
        )
        found[name] = asked.stdout or None
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    if lacking := missing(options):
        for line in lacking:
            print(f"bench.lookups: {line}", file=sys.stderr)
        return 2
    origin = machine.describe()
    origin["command"] = shlex.join(["python", "-m", "bench.lookups", *(arguments or sys.argv[1:])])
    figures = Figures()
    status = 0
    with Interrupts() as interrupts:
        try:
            origin["versions"].update(measure(options, interrupts.allowed, figures))
        except Interrupted as interrupted:
            figures.gaps.append(f"ended by {interrupted}: the figures are of what was measured until then")
            status = 128 + interrupted.number
        except (SetUpError, ProcessError, LabError, PeerMissing, ClientException) as error:
            figures.gaps.append(f"ended by an error: {error}")
            status = 1
    print(
        f"commit {origin['commit']}, {origin['machine']['cores']} cores, kernel {origin['machine']['kernel']}"
    )
    print(f"{origin['command']}\n")
    for text in (
        lookup_figures.storms(figures, options.guests, options.peer, TITLES),
        lookup_figures.failures(figures, TITLES),
        lookup_figures.singles(figures, options.peer, TITLES),
        lookup_figures.idle(figures, options.peer, TITLES),
    ):
        if text:
            print(text, end="\n\n")
    for gap in figures.gaps:
        print(f"GAP: {gap}")
    if options.json:
        document = {
            **origin,
            "options": {key: str(value) for key, value in vars(options).items()},
            **figures.as_dict(),
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
