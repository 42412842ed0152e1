"""fastmeta demo: shows on this machine that each guest gets its own metadata, whatever it claims."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from fastmeta.exceptions import FastmetaError, LabError
from fastmeta.lab.demo import META_DATA, Demo, Guest, Row
from fastmeta.lab.interrupts import Interrupted, Interrupts
from fastmeta.lab.namespaces import NETNS_FOLDER, sbin_environment
from fastmeta.lab.topology import METADATA_ADDRESS

SUMMARY = "build a small cloud of namespaces here and show that each guest gets its own metadata"

_DESCRIPTION = """\
Builds networks blue and green, both 10.0.0.0/24, and red behind a router, starts the metadata API and the
agent, and asks from inside each guest, honestly and lying. As root the namespaces appear in /run/netns; as an
ordinary user everything happens in a user namespace of its own. Whatever is made is removed at the end, also
after Ctrl-C.

Exit status: 0 all rows are right, 1 a row is wrong or the lab could not be built, 128 and the signal's number
when interrupted.
"""

_INSIDE = 'mount -t tmpfs -o mode=0755 tmpfs /run && ip link set dev lo up && exec "$@"'
"""What a new user namespace needs before it can hold a lab: a /run of its own for the names of namespaces
(nobody else sees the mount), and a loopback for the metadata API."""
_UNSHARE = ("unshare", "--user", "--map-root-user", "--net", "--mount", "--", "sh", "-c", _INSIDE, "sh")

_PROGRAMS = {
    "ip": "iproute2",
    "iptables-restore": "iptables",
    "curl": "curl",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "unshare": "util-linux",
}
"""Program and Debian package."""


def main(argv: list[str]) -> int:
    """See _DESCRIPTION for the exit status. stdout has the table (or JSON), stderr all else."""
    options = _parser().parse_args(argv)
    # Of what we start, each finds the programs of the sbin folders.
    os.environ.update(sbin_environment())
    try:
        _check_programs()
        if os.geteuid() != 0:
            return _in_user_namespace(argv)
        return _run(options)
    except FastmetaError as error:
        print(f"fastmeta demo: {error}", file=sys.stderr)
        return 1
    except Interrupted as interrupted:
        print(f"fastmeta demo: ended by {interrupted}; everything is cleaned up", file=sys.stderr)
        return 128 + interrupted.number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastmeta demo", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--json", action="store_true", help="print the rows as JSON, and nothing else, to standard output"
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave everything up until Ctrl-C, and say how to look around"
    )
    return parser


def _check_programs() -> None:
    missing = sorted(name for name in _PROGRAMS if shutil.which(name) is None)
    if missing:
        packages = " ".join(sorted({_PROGRAMS[name] for name in missing}))
        raise LabError(f"{', '.join(missing)} not installed; on Debian: apt-get install {packages}")


def _in_user_namespace(argv: list[str]) -> int:
    """Becomes the same command inside a user namespace of its own; returns only by raising LabError."""
    probe = subprocess.run([*_UNSHARE, "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        words = " ".join(probe.stderr.split()) or f"exit status {probe.returncode}"
        raise LabError(
            f"this machine does not let an ordinary user make namespaces ({words}); run the demo as root, or "
            "let the administrator allow it: sysctl user.max_user_namespaces above 0, and, where they exist, "
            "kernel.unprivileged_userns_clone=1 and kernel.apparmor_restrict_unprivileged_userns=0"
        )
    command = [*_UNSHARE, sys.executable, "-m", "fastmeta", "demo", *argv]
    try:
        os.execvp(command[0], command)  # noqa: S606
    except OSError as error:
        raise LabError(f"cannot start {command[0]}: {error.strerror}") from error


def _run(options: argparse.Namespace) -> int:
    with Interrupts() as interrupts:
        _say("building the lab")
        with Demo(waiting=interrupts.allowed) as demo:
            if demo.leftovers:
                _say(f"removed what a killed lab had left: {', '.join(demo.leftovers)}")
            rows = list(demo.rows())
            if options.json:
                print(json.dumps({"rows": [dataclasses.asdict(row) for row in rows]}, indent=2), flush=True)
            else:
                print(_table(rows, demo.guests), flush=True)
            wrong = sum(not row.ok for row in rows)
            if wrong:
                for service in demo.services:
                    _say(f"the end of the log of {service.name}:\n{service.log()}")
            if options.keep:
                _say(_how_to_look_around(demo))
                try:
                    with interrupts.allowed():
                        while True:
                            signal.pause()
                except Interrupted:
                    # That is how --keep ends.
                    _say("cleaning up")
    return 1 if wrong else 0


def _say(text: str) -> None:
    print(f"fastmeta demo: {text}", file=sys.stderr, flush=True)


def _table(rows: Sequence[Row], guests: Sequence[Guest]) -> str:
    names = {guest.instance_id: f"{guest.name} ({guest.instance_id[:8]})" for guest in guests}
    cells = [("network", "address", "request", "instance expected", "instance answered", "")]
    for row in rows:
        request = row.request if not row.lie else f"  with {row.lie.partition(':')[0]} of {row.claims}"
        cells.append(
            (
                row.network,
                row.address,
                request,
                names[row.expected],
                names.get(row.answered, row.answered),
                "ok" if row.ok else "WRONG",
            )
        )
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
    right = sum(row.ok for row in rows)
    return "\n".join(
        [lines[0], "-" * len(lines[0]), *lines[1:], "", f"{right} of {len(rows)} rows are right"]
    )


def _how_to_look_around(demo: Demo) -> str:
    """The exact commands for another terminal."""
    enter: list[str] = []
    who = "as root"
    if _in_own_user_namespace():
        who = "as the same user"
        enter = [
            "nsenter",
            f"--target={os.getpid()}",
            "--user",
            "--preserve-credentials",
            "--mount",
            "--net",
            "--",
        ]
    url = f"http://{METADATA_ADDRESS}/{META_DATA}"
    lines = [f"the lab is up until Ctrl-C. In another terminal, {who}:"]
    for guest in demo.guests:
        command = [*enter, "nsenter", f"--net={NETNS_FOLDER / guest.port.namespace}", "--", "curl", "-s", url]
        lines.append(f"  # {guest.name} ({guest.address})\n  {shlex.join(command)}")
    lines += [
        f"  # all namespaces\n  {shlex.join([*enter, 'ls', str(NETNS_FOLDER)])}",
        f"  # what the agent and the metadata API were given\n  ls {demo.folder}",
        f"  # the agent's log\n  tail {demo.services[-1].log_path}",
    ]
    return "\n".join(lines)


def _in_own_user_namespace() -> bool:
    """Whether our user ids are not the machine's."""
    try:
        fields = Path("/proc/self/uid_map").read_text().split()
    except OSError:
        return False
    return fields[:2] != ["0", "0"]
