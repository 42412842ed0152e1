"""A RabbitMQ of our own: Debian's server, with its own folder, TCP ports and port mapper, found by nobody else."""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PROGRAM = "/usr/lib/rabbitmq/bin/rabbitmq-server"
USER, PASSWORD = "fastmeta", "s3cr3t-Zx81"
WAIT = 30.0


def free_tcp_ports(count: int) -> list[int]:
    """Below those that the kernel gives to clients: nobody takes them by chance before the servers do, and a server
    that looks whether one is free does not meet itself there."""
    found: list[int] = []
    while len(found) < count:
        tcp_port = random.randrange(20000, 32000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", tcp_port))
            if tcp_port not in found:
                found.append(tcp_port)
    return found


class RabbitMQ:
    """Started on entering, gone with all it made on leaving. What it holds is lost when it is started again: it only
    has what clients declare anew."""

    def __init__(self) -> None:
        self.tcp_port, distribution, port_mapper = free_tcp_ports(3)
        # Debian's start script insists on not being root.
        self._as_user: list[str] = []
        self.folder = Path(tempfile.mkdtemp(prefix="fms-bus-", dir="/tmp"))
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.local = 127.0.0.1:{self.tcp_port}\n"
            f"default_user = {USER}\ndefault_pass = {PASSWORD}\n"
            "log.console = true\nlog.console.level = warning\nlog.file = false\n"
        )
        (self.folder / "plugins").write_text("[].\n")
        (self.folder / "env").touch()
        if os.geteuid() == 0:
            user = pwd.getpwnam("rabbitmq")
            self._as_user = [
                "setpriv",
                f"--reuid={user.pw_uid}",
                f"--regid={user.pw_gid}",
                "--clear-groups",
                "--",
            ]
            for path in (self.folder, *self.folder.iterdir()):
                os.chown(path, user.pw_uid, user.pw_gid)
        self._environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(self.folder),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(port_mapper),
            # Or the machine's own would be read.
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "env"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_NODENAME": f"fastmeta-{self.tcp_port}@localhost",
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            # Schedulers that look for work in vain take the processor from the tests.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} "
            "+sbwt none +sbwtdcpu none +sbwtdio none",
            # The script becomes the server then, so that the process that was started is the one to end.
            "RUNNING_UNDER_SYSTEMD": "true",
        }
        self._port_mapper_port = port_mapper
        self._processes: list[subprocess.Popen[bytes]] = []
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"rabbit://{USER}:{PASSWORD}@127.0.0.1:{self.tcp_port}/"

    def __enter__(self) -> RabbitMQ:
        try:
            # Before the server, which would start one that outlives it.
            self._start("epmd", "epmd", "-port", str(self._port_mapper_port))
            _until(lambda: _speaks(self._port_mapper_port, b"", b""), lambda: "epmd")
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Returns when it takes clients."""
        shutil.rmtree(self.folder / "mnesia", ignore_errors=True)
        self._server = self._start("rabbitmq", PROGRAM)
        _until(lambda: _speaks(self.tcp_port, b"AMQP\0\0\x09\x01", b"\x01"), lambda: f"RabbitMQ: {self.log}")

    def kill(self) -> None:
        assert self._server is not None
        self._server.kill()
        self._server.wait()

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    @property
    def alive(self) -> bool:
        return self._server is not None and self._server.poll() is None

    @property
    def log(self) -> str:
        return (self.folder / "rabbitmq.out").read_text(errors="replace")[-2000:]

    def _signal(self, number: signal.Signals) -> None:
        assert self._server is not None
        self._server.send_signal(number)  # does nothing to one that has ended

    def _start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.out").open("ab") as output:
            process = subprocess.Popen(
                [*self._as_user, *command],
                env=self._environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._processes.append(process)
        return process


def _until(condition: object, what: Callable[[], str]) -> None:
    end = time.monotonic() + WAIT
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, what()
        time.sleep(0.05)


def _speaks(tcp_port: int, said: bytes, answered: bytes) -> bool:
    """The server's first frame is a method (AMQP 0-9-1, 2.2.4 and 2.3.5)."""
    try:
        with socket.create_connection(("127.0.0.1", tcp_port), 1) as client:
            client.settimeout(2)
            client.sendall(said)
            return not answered or client.recv(1) == answered
    except OSError:
        return False
