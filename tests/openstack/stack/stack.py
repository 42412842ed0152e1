"""The whole stack: made ready, started, stopped."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import IO

from .api import Api
from .files import write_files
from .layout import ADDRESS, Layout
from .packages import SetUpError, install
from .prepare import prepare, prepared
from .services import Services

PROJECT = Path(__file__).parents[3]
BASE_PORT = 23610
"""Below those that the kernel gives to whoever asks for any (ip_local_port_range(7)), and nobody's by IANA's list."""


def _silent(message: str) -> None:
    pass


class Stack:
    """One stack of servers. What it has started goes on after this object, and after our process, until stop()."""

    def __init__(
        self,
        *,
        base_port: int | None = None,
        folder: Path | None = None,
        environment: Path | None = None,
        tell: Callable[[str], None] = _silent,
    ) -> None:
        """base_port: of seven TCP ports in a row; FASTMETA_OPENSTACK_PORT, or BASE_PORT, when None. folder,
        environment: below build/openstack when None. tell: is told what takes long."""
        if base_port is None:
            base_port = int(os.environ.get("FASTMETA_OPENSTACK_PORT", BASE_PORT))
        build = PROJECT / "build/openstack"
        self.layout = Layout(
            folder or build / str(base_port), environment or build / "environment", base_port
        )
        self.services = Services(self.layout)
        self._tell = tell

    def set_up(self) -> None:
        """Installs and prepares what is missing. Raises SetUpError, ProcessError."""
        with self._locked():
            self._set_up()

    def start(self) -> None:
        """Starts what does not run, after set_up() if it must. Raises SetUpError, ProcessError."""
        with self._locked():
            self._set_up()
            self._check_ports()
            self._tell("starting")
            services = self.services
            try:
                for service in (services.database, services.port_mapper, services.bus):
                    service.launch()
                services.database.wait()
                services.bus.wait()
                for service in services.all:
                    service.launch()
                for service in services.all:
                    service.wait()
            except BaseException:
                self._stop()
                raise

    def stop(self) -> None:
        """Ends everything that start() has started."""
        with self._locked():
            self._stop()

    @property
    def running(self) -> bool:
        return all(service.running for service in self.services.all)

    def api(self) -> Api:
        return Api(self.layout)

    def _stop(self) -> None:
        for service in reversed(self.services.all):
            service.stop()

    def _set_up(self) -> None:
        self._tell("packages")
        install(self.layout.environment, self.layout.logs / "install.log")
        write_files(self.layout)
        if not prepared(self.layout):
            self._prepare()

    def _prepare(self) -> None:
        self._stop()
        for path in (self.layout.data, self.layout.run):
            shutil.rmtree(path)
            path.mkdir(mode=0o700)
        self._check_ports()
        self._tell("databases and Keystone's users (a minute)")
        try:
            prepare(self.layout, self.services, self.api)
        except BaseException:
            self._stop()
            raise

    def _check_ports(self) -> None:
        """Nobody else may be where a service of ours will listen."""
        tcp_ports = self.layout.tcp_ports
        for service, tcp_port in (
            (self.services.database, tcp_ports.mariadb),
            (self.services.port_mapper, tcp_ports.epmd),
            (self.services.bus, tcp_ports.rabbitmq),
            (self.services.bus, tcp_ports.distribution),
            (self.services.keystone, tcp_ports.keystone),
            (self.services.neutron_api, tcp_ports.neutron),
            (self.services.nova, tcp_ports.nova),
        ):
            if service.running:
                continue
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((ADDRESS, tcp_port))
                except OSError as error:
                    raise SetUpError(
                        f"TCP port {tcp_port}, for {service.name}: {error.strerror}; FASTMETA_OPENSTACK_PORT is the"
                        f" first of seven in a row, now {tcp_ports.base}"
                    ) from error

    def _locked(self) -> IO[str]:
        """Two of us do not change one stack at the same time; freed by closing."""
        file = (self.layout.folder / "lock").open("a")
        fcntl.flock(file, fcntl.LOCK_EX)
        return file
