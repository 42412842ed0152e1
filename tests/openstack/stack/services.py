"""The stack's services: of which processes each is made, and how one sees that it is ready."""

from __future__ import annotations

import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from .layout import ADDRESS, Layout
from .processes import Process, ProcessError
from .rabbitmq import rabbitmq_environment

READY_TIMEOUT = 90.0
"""Seconds; a few are enough on an idle machine."""
_TURN = 0.1


class Service:
    """What a test stops, kills and starts by itself. Started, it is ready."""

    def __init__(self, name: str, processes: Sequence[Process], ready: Callable[[], bool]) -> None:
        self.name = name
        self.processes = list(processes)
        self._ready = ready

    @property
    def running(self) -> bool:
        return all(process.running for process in self.processes)

    def launch(self) -> None:
        """Starts it, and does not wait."""
        for process in self.processes:
            process.start()

    def wait(self) -> None:
        """Until it is ready. Raises ProcessError."""
        end = time.monotonic() + READY_TIMEOUT
        while not self._ready():
            for process in self.processes:
                if not process.running:
                    raise ProcessError(
                        f"{self.name}: {process.name} has ended; its output:\n{process.output()}"
                    )
            if time.monotonic() > end:
                outputs = "\n".join(process.output() for process in self.processes)
                raise ProcessError(
                    f"{self.name} is not ready after {READY_TIMEOUT:g} s; its output:\n{outputs}"
                )
            time.sleep(_TURN)

    def start(self) -> None:
        self.launch()
        self.wait()

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.stop()

    def kill(self) -> None:
        for process in reversed(self.processes):
            process.kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    def freeze(self) -> None:
        for process in self.processes:
            process.freeze()

    def thaw(self) -> None:
        for process in self.processes:
            process.thaw()

    def cpu_seconds(self) -> float:
        return sum(process.cpu_seconds() for process in self.processes)


class Services:
    """All of them, by what they are to fastmeta; in `all` in the order in which they need each other."""

    def __init__(self, layout: Layout) -> None:
        tcp_ports = layout.tcp_ports
        etc = layout.etc

        def process(name: str, *command: str, environment: dict[str, str] | None = None) -> Process:
            return Process(name, command, run=layout.run, logs=layout.logs, environment=environment)

        def uwsgi(name: str) -> Process:
            return process(name, layout.program("uwsgi"), "--ini", str(etc / f"{name}-uwsgi.ini"))

        self.database = Service(
            "MariaDB",
            [process("mariadb", "/usr/sbin/mariadbd", f"--defaults-file={etc / 'mariadb.cnf'}")],
            lambda: _speaks(tcp_ports.mariadb, b"", b"\x00"),
        )
        environment = rabbitmq_environment(layout)
        self.port_mapper = Service(
            "epmd",
            [process("epmd", "/usr/bin/epmd", environment=environment)],
            lambda: _accepts(tcp_ports.epmd),
        )
        self.bus = Service(
            "RabbitMQ",
            [process("rabbitmq", "/usr/lib/rabbitmq/bin/rabbitmq-server", environment=environment)],
            # The server's first frame is a method (AMQP 0-9-1, 2.2.4 and 2.3.5).
            lambda: _speaks(tcp_ports.rabbitmq, b"AMQP\x00\x00\x09\x01", b"\x01"),
        )
        self.keystone = Service(
            "Keystone", [uwsgi("keystone")], lambda: _answers(f"http://{ADDRESS}:{tcp_ports.keystone}/v3")
        )
        self.neutron_api = Service(
            "Neutron's API", [uwsgi("neutron")], lambda: _answers(f"http://{ADDRESS}:{tcp_ports.neutron}/")
        )
        rpc = process(
            "neutron-rpc",
            layout.program("neutron-rpc-server"),
            *("--config-file", str(etc / "neutron.conf"), "--config-file", str(etc / "ml2_conf.ini")),
            *("--log-file", str(layout.logs / "neutron-rpc.log")),
        )
        self.neutron_rpc = Service(
            "Neutron's RPC server", [rpc], lambda: _consumed(layout, "q-plugin", "q-reports-plugin")
        )
        self.nova = Service(
            "Nova's metadata API", [uwsgi("nova")], lambda: _answers(f"http://{ADDRESS}:{tcp_ports.nova}/")
        )
        self.all = [
            self.database,
            self.port_mapper,
            self.bus,
            self.keystone,
            self.neutron_api,
            self.neutron_rpc,
            self.nova,
        ]


def _accepts(tcp_port: int) -> bool:
    try:
        socket.create_connection((ADDRESS, tcp_port), timeout=2).close()
    except OSError:
        return False
    return True


def _speaks(tcp_port: int, hello: bytes, expected: bytes) -> bool:
    """Whether the server's first words have these bytes in them."""
    try:
        with socket.create_connection((ADDRESS, tcp_port), timeout=5) as connection:
            connection.sendall(hello)
            return expected in connection.recv(4096)
    except OSError:
        return False


def _consumed(layout: Layout, *queues: str) -> bool:
    """Whether somebody reads each of these queues of the bus."""
    script = Path(__file__).with_name("consumers.py")
    address = f"{ADDRESS}:{layout.tcp_ports.rabbitmq}"
    done = subprocess.run(
        [layout.program("python"), str(script), address, "openstack", *queues],
        input=layout.secrets.bus,
        text=True,
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def _answers(url: str) -> bool:
    """Whether there is an answer by HTTP, of any status but a failure of the server's."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return bool(answer.status < 500)
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False
