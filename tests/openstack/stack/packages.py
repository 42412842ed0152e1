"""What the stack needs of Debian and of PyPI, and how it is installed.

The servers are programs of the OpenStack release that constraints.txt fixes, in a virtual environment of their own:
their dependencies would not fit beside fastmeta's. MariaDB and RabbitMQ are Debian's; as services of this machine they
do not run.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

CONSTRAINTS = Path(__file__).with_name("constraints.txt")

DEBIAN = (
    "mariadb-server",
    "rabbitmq-server",
    "python3-venv",
    "python3-dev",
    "gcc",
    "libc6-dev",
    "iproute2",
    "iptables",
    "haproxy",
)
"""python3-dev and gcc: uwsgi is compiled."""
PROGRAMS = (
    "/usr/sbin/haproxy",
    "/usr/sbin/mariadbd",
    "/usr/bin/mariadb-install-db",
    "/usr/lib/rabbitmq/bin/rabbitmq-server",
    "/usr/bin/epmd",
)
PYTHON = ("keystone", "neutron", "nova", "PyMySQL")

_POLICY = Path("/usr/sbin/policy-rc.d")


class SetUpError(Exception):
    """The stack cannot be made; says what was tried and what came of it."""


def run(
    command: Sequence[str], log: Path, *, timeout: float = 600.0, environment: dict[str, str] | None = None
) -> None:
    """Runs a program to its end, with its output at the end of log. Raises SetUpError."""
    with log.open("ab") as output:
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=timeout,
                check=False,
                env=environment,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SetUpError(f"{' '.join(command)}: {error}") from error
    if done.returncode:
        end = log.read_text(errors="replace")[-3000:]
        raise SetUpError(f"{' '.join(command)}: exit status {done.returncode}; the end of {log}:\n{end}")


def install(environment: Path, log: Path) -> None:
    """Everything that is missing; nothing when all is there."""
    log.parent.mkdir(parents=True, exist_ok=True)
    _install_debian(log)
    _install_python(environment, log)


def _install_debian(log: Path) -> None:
    if all(os.access(program, os.X_OK) for program in PROGRAMS):
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise SetUpError(f"these Debian packages are needed; as root: apt-get install {' '.join(DEBIAN)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with _no_service_starts():
        run(["apt-get", "update", "-q"], log, environment=environment)
        run(
            ["apt-get", "install", "-y", "-q", "--no-install-recommends", *DEBIAN],
            log,
            environment=environment,
        )


@contextlib.contextmanager
def _no_service_starts() -> Iterator[None]:
    """While it lasts, Debian's packages start no service of theirs (invoke-rc.d(8): exit status 101)."""
    try:
        with _POLICY.open("x") as file:
            file.write("#!/bin/sh\nexit 101\n")
    except FileExistsError:  # the machine's own rule
        yield
        return
    try:
        _POLICY.chmod(0o755)
        yield
    finally:
        _POLICY.unlink(missing_ok=True)


def _install_python(environment: Path, log: Path) -> None:
    installed = environment / "installed"
    wanted = hashlib.sha256(CONSTRAINTS.read_bytes() + " ".join(PYTHON).encode()).hexdigest()
    with contextlib.suppress(FileNotFoundError):
        if installed.read_text() == wanted:
            return
    # With other versions it is made anew: what an earlier one had installed must not hide that something is missing.
    shutil.rmtree(environment, ignore_errors=True)
    run(["/usr/bin/python3", "-m", "venv", str(environment)], log)
    pip = [str(environment / "bin/pip"), "install", "-q", "--disable-pip-version-check"]
    # pkg_resources, which some of the dependencies still import, left setuptools with version 81.
    run([*pip, "setuptools<81", "wheel"], log)
    run([*pip, "-c", str(CONSTRAINTS), *PYTHON], log)
    # It has the interpreter compiled in: one that pip has kept may have been made for another Python of this machine.
    run([*pip, "-c", str(CONSTRAINTS), "--no-cache-dir", "--no-binary", "uWSGI", "uWSGI"], log)
    installed.write_text(wanted)
