"""Programs of guests: in the guest's namespace, with one folder of the file system that they can write to."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from fastmeta.lab.namespaces import sbin_environment
from tests.openstack.scene import Guest

from .software import PYTHON

PROGRAMS = Path(__file__).parent / "programs"
LIMIT = 60.0
"""Seconds."""

# In a mount namespace of its own. Names are asked for at loopback, where nobody is. ("ip netns exec" is there for /sys,
# in which the guest's interfaces are then.)
_CONFINED = """
mount --bind "$1" "$1"
mount --bind /dev/null /etc/resolv.conf
for each in /run /tmp /var /var/tmp /var/lib /; do
    if mountpoint -q "$each"; then mount -o remount,bind,ro "$each"; fi
done
shift
exec "$@"
"""


class Running:
    """A program of a guest."""

    def __init__(self, name: str, command: list[str], home: Path) -> None:
        """home: the one folder that it can write to; its log lies there, too."""
        self._name = name
        self._log = home / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env={"PATH": sbin_environment()["PATH"], "HOME": str(home), "TMPDIR": str(home)},
            )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="backslashreplace")

    @property
    def goes_on(self) -> bool:
        return self._process.poll() is None

    def result(self) -> dict[str, Any]:
        """What it has printed. Fails with what it has logged if it did not succeed."""
        printed, _ = self._process.communicate(timeout=LIMIT)
        status = self._process.returncode
        assert status == 0, f"{self._name}: exit status {status}\n{self.log}"
        return dict(json.loads(printed))

    def end(self) -> None:
        """If it still runs."""
        with self._process:
            self._process.kill()


def _start(guest: Guest, program: str, home: Path, **given: Any) -> Running:
    """program: one of programs/; home: it can write here, and nowhere else; given: its argument."""
    interpreter = [PYTHON, "-S", "-E", "-B", str(PROGRAMS / f"{program}.py"), json.dumps(given)]
    confined = ["unshare", "--mount", "sh", "-euc", _CONFINED, "sh", str(home), *interpreter]
    command = ["ip", "netns", "exec", guest.namespace, *confined]
    return Running(f"{program} of {guest.name}", command, home)


def cloud_init(guest: Guest, modules: list[str], data_source: str, folder: Path, **settings: Any) -> Running:
    """data_source: OpenStack or Ec2; settings: what cloud.cfg has for it."""
    return _start(
        guest,
        "cloud_init",
        folder,
        modules=modules,
        data_source=data_source,
        folder=str(folder),
        settings=settings,
    )


def botocore(guest: Guest, modules: list[str], folder: Path) -> Running:
    return _start(guest, "botocore_credentials", folder, modules=modules, timeout=LIMIT / 4)
