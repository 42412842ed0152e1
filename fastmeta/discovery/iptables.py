"""Runs iptables-restore and iptables-save in the namespace that the calling thread is in: as they are installed, legacy
or nft, those that Neutron's agents on this machine run too."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fastmeta.discovery.rules import RouterRules, removal, removal_of
from fastmeta.exceptions import ConfigError, RulesError

LOCK_WAIT = 5
"""Seconds that iptables (legacy) waits for others who change rules."""
TIMEOUT = 10.0
"""Seconds for one call; they take milliseconds."""

_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""An ordinary user's PATH may be without them."""
_IPV6_OFF = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")


def ip_versions() -> tuple[int, ...]:
    """Those that this machine has, as Neutron's agents see it."""
    try:
        return (4, 6) if _IPV6_OFF.read_text().strip() == "0" else (4,)
    except OSError:
        return (4,)


@dataclass(frozen=True, slots=True)
class Programs:
    """Paths of one version's programs."""

    version: int
    restore: str
    save: str


class Iptables:
    """Puts a router's rules into a namespace and takes them out. put() and remove() block, and belong into a thread
    that is in that namespace; they raise RulesError."""

    def __init__(self, versions: Iterable[int]) -> None:
        """Raises ConfigError that names what is not installed."""
        self._programs = [find_programs(version) for version in versions]

    def put(self, rules: RouterRules) -> None:
        """Whatever was there of ours before; rules of others stay as they are."""
        for programs in self._programs:
            # Most namespaces have nothing of ours: one program less than looking first.
            if _run([programs.restore, *_RESTORE], rules.fresh(programs.version)).returncode:
                saved = _succeed([programs.save])
                _succeed([programs.restore, *_RESTORE], rules.again(programs.version, saved))

    def remove(self) -> None:
        """Rules of others stay as they are."""
        for programs in self._programs:
            if _run([programs.restore, *_RESTORE], removal()).returncode:
                text = removal_of(_succeed([programs.save]))
                if text:
                    _succeed([programs.restore, *_RESTORE], text)


_RESTORE = ("--noflush", "--wait", str(LOCK_WAIT))


def find_programs(version: int) -> Programs:
    """Raises ConfigError when they are not installed."""
    base = "iptables" if version == 4 else "ip6tables"
    paths = []
    for name in (f"{base}-restore", f"{base}-save"):
        path = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *_FOLDERS]))
        if path is None:
            raise ConfigError(
                f"[fastmeta] discover = router needs {name}, which is not installed: apt-get install iptables"
            )
        paths.append(path)
    return Programs(version, *paths)


def _succeed(command: list[str], text: str = "") -> str:
    """What it prints."""
    done = _run(command, text)
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise RulesError(f"{os.path.basename(command[0])}: {said[:300]}")
    return done.stdout


def _run(command: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            input=text,
            text=True,
            errors="backslashreplace",
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
            env={"PATH": os.pathsep.join((*_FOLDERS, "/usr/bin", "/bin")), "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        raise RulesError(f"{os.path.basename(command[0])}: no end after {TIMEOUT:g} s") from None
    except OSError as error:
        raise RulesError(f"{command[0]} cannot be run: {error.strerror}") from error
