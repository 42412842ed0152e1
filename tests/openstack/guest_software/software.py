"""What guests run, unpacked from Debian's packages and from PyPI's into a folder. Nothing of it is installed: else
cloud-init would run when this machine boots next."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.openstack.stack.packages import SetUpError, run
from tests.openstack.stack.stack import PROJECT

PYTHON = "/usr/bin/python3"
"""Debian's interpreter, which its packages are for."""
RELEASES = {"22.4": "bookworm", "25.1": "trixie"}
"""Versions of cloud-init, and the release of Debian that has them. Since 25.1 it tries again after a status of 503."""
LIBRARIES = tuple(
    f"python3-{name}"
    for name in ("certifi", "chardet", "configobj", "idna", "requests", "six", "urllib3", "yaml")
)
"""Debian's packages of all that its data sources load."""
BOTOCORE = "botocore==1.44.8"

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MODULES = Path("usr/lib/python3/dist-packages")
TRACES = (
    "/etc/cloud",
    "/run/cloud-init",
    "/var/lib/cloud",
    "/usr/bin/cloud-init",
    "/lib/systemd/system/cloud-init.service",
    f"/{MODULES}/cloudinit",
)
"""What there is where cloud-init is installed, or has run."""


def traces() -> list[str]:
    """Whether anything of it is on this machine itself: equal before and after whatever is done here."""
    packages = ["cloud-init", *LIBRARIES]
    state = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Status}\n", *packages],
        capture_output=True,
        text=True,
        check=False,  # it fails when there is none
    )
    return [*state.stdout.splitlines(), *(path for path in TRACES if os.path.lexists(path))]


class Software:
    """A folder with cloud-init in several versions, and botocore."""

    def __init__(self, folder: Path = PROJECT / "build/openstack/guest_software") -> None:
        self._folder = folder

    def modules(self, name: str) -> list[str]:
        """The folders that Python finds it in; name: a version of cloud-init, or "botocore"."""
        if name == "botocore":
            return [str(self._folder / name)]
        return [str(self._folder / each / MODULES) for each in (name, "libraries")]

    def unpack(self) -> None:
        """Everything, once; it is kept. Raises SetUpError, also when something was installed on the way."""
        wanted = hashlib.sha256(repr((RELEASES, LIBRARIES, BOTOCORE)).encode()).hexdigest()
        mark = self._folder / "unpacked"
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder.parent / "guest_software.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if mark.read_text() == wanted:
                    return
            shutil.rmtree(self._folder)
            self._folder.mkdir()
            before = traces()
            self._unpack()
            if traces() != before:
                raise SetUpError(f"this machine has what it had not: {set(traces()) ^ set(before)}")
            mark.write_text(wanted)

    def _unpack(self) -> None:
        archive = _Archive(self._folder)
        try:
            for version, release in RELEASES.items():
                archive.unpack(self._folder / version, release, ["cloud-init"])
            # Python code for the most part; what is not is for the interpreter of this release, and not needed.
            archive.unpack(self._folder / "libraries", RELEASES["22.4"], LIBRARIES)
        finally:
            archive.remove()
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-compile"]
        target = ["--target", str(self._folder / "botocore"), "--only-binary", ":all:"]
        run([*pip, *target, BOTOCORE], self._folder / "pip.log")


class _Archive:
    """Debian's archive, with lists of packages of our own: those of this machine stay what they are."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "apt.log"
        self._home = folder / "apt"
        self._packages = self._home / "packages"
        for each in ("lists/partial", "cache/archives/partial", "packages"):
            (self._home / each).mkdir(parents=True)
        mirror = self._mirror()
        sources = self._home / "sources.list"
        releases = set(RELEASES.values())
        sources.write_text("".join(f"deb [signed-by={KEYRING}] {mirror} {name} main\n" for name in releases))
        options = {
            "Dir::Etc::sourcelist": sources,
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::State::lists": self._home / "lists",
            "Dir::Cache": self._home / "cache",
            # Another user could not write here.
            "APT::Sandbox::User": "root",
        }
        self._apt = ["apt-get", "-q", *(f"-o{name}={value}" for name, value in options.items())]
        run([*self._apt, "update"], self._log)

    def unpack(self, folder: Path, release: str, names: Sequence[str]) -> None:
        folder.mkdir()
        # It downloads to where it is started.
        download = [*self._apt, "download", *(f"{name}/{release}" for name in names)]
        run(["env", "-C", str(self._packages), *download], self._log)
        for package in sorted(self._packages.iterdir()):
            run(["dpkg", "-x", str(package), str(folder)], self._log)
            package.unlink()

    def remove(self) -> None:
        shutil.rmtree(self._home)

    def _mirror(self) -> str:
        """Where this machine gets Debian's packages. Raises SetUpError."""
        release = platform.freedesktop_os_release()
        if release.get("ID") != "debian" or not KEYRING.exists():
            raise SetUpError(f"this is for Debian, with the package that has {KEYRING}")
        show = [
            "apt-get",
            "indextargets",
            "--format",
            "$(REPO_URI)",
            "Created-By: Packages",
            "Component: main",
        ]
        show.append(f"Release: {release['VERSION_CODENAME']}")
        for _ in range(2):
            found = subprocess.run(show, capture_output=True, text=True, check=False).stdout.split()
            if found:
                return found[0]
            # It tells of those alone that it has a list of.
            run(["apt-get", "-q", "update"], self._log)
        raise SetUpError(f"no source of packages: {' '.join(show)}")
