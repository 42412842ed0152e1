"""Where a stack has its files, on which TCP ports it listens, and the passwords in it."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

ADDRESS = "127.0.0.1"
"""Everything listens here and nowhere else."""

REGION = "RegionOne"
HOST = "fastmeta-stack"
"""What the servers call the host that they are on."""


@dataclass(frozen=True)
class TcpPorts:
    """Seven in a row, so that one number tells one stack from another."""

    base: int

    @property
    def keystone(self) -> int:
        return self.base

    @property
    def neutron(self) -> int:
        return self.base + 1

    @property
    def nova(self) -> int:
        return self.base + 2

    @property
    def mariadb(self) -> int:
        return self.base + 3

    @property
    def rabbitmq(self) -> int:
        return self.base + 4

    @property
    def distribution(self) -> int:
        """RabbitMQ's own, between Erlang nodes."""
        return self.base + 5

    @property
    def epmd(self) -> int:
        """Erlang's port mapper: one of this stack's own, whatever runs at the usual 4369."""
        return self.base + 6


@dataclass(frozen=True)
class Secrets:
    """Passwords, made anew for each stack: its servers run as root, on a machine that others may be on."""

    admin: str
    service: str
    database: str
    bus: str
    metadata: str
    """What Nova and the metadata agent share."""
    cookie: str
    """Erlang's."""


class Layout:
    """Folders and values of one stack."""

    def __init__(self, folder: Path, environment: Path, base_port: int) -> None:
        """folder: the stack's own, made when it is missing; environment: the virtual environment, which several stacks
        can share."""
        self.folder = folder
        self.environment = environment
        self.tcp_ports = TcpPorts(base_port)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.etc = self._folder("etc")
        self.logs = self._folder("logs")
        self.run = self._folder("run")
        self.data = self._folder("data")
        self.secrets = self._secrets()

    def program(self, name: str) -> str:
        """The path of a program of the virtual environment."""
        return str(self.environment / "bin" / name)

    @property
    def auth_url(self) -> str:
        return f"http://{ADDRESS}:{self.tcp_ports.keystone}/v3"

    @property
    def neutron_url(self) -> str:
        return f"http://{ADDRESS}:{self.tcp_ports.neutron}"

    @property
    def transport_url(self) -> str:
        return f"rabbit://openstack:{self.secrets.bus}@{ADDRESS}:{self.tcp_ports.rabbitmq}/"

    def database_url(self, name: str) -> str:
        return f"mysql+pymysql://openstack:{self.secrets.database}@{ADDRESS}:{self.tcp_ports.mariadb}/{name}"

    def _folder(self, name: str) -> Path:
        path = self.folder / name
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def _secrets(self) -> Secrets:
        path = self.etc / "secrets.json"
        try:
            return Secrets(**json.loads(path.read_text()))
        except FileNotFoundError:
            made = Secrets(*(secrets.token_hex(16) for _ in range(6)))
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w") as file:
            json.dump(asdict(made), file)
        return made
