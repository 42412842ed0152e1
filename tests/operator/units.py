"""Unit files of systemd, as far as ours go: what is in force when a unit and its drop-ins are read one after the other
(systemd.unit(5), systemd.syntax(7))."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "etc" / "systemd"
RELAY = FOLDER / "fastmeta.service"
NAMESPACES = FOLDER / "fastmeta-namespaces.service"
DROP_IN = FOLDER / "neutron-metadata-agent.service.d" / "fastmeta.conf"

STOCK = """\
[Unit]
Description=Neutron's metadata agent, as distributions have its unit

[Service]
Type=simple
User=neutron
Group=neutron
RuntimeDirectory=neutron lock/neutron
CacheDirectory=neutron
WorkingDirectory=~
ExecStart=/usr/bin/neutron-metadata-agent --config-file /etc/neutron/neutron.conf
ExecStart=
ExecStart=/etc/init.d/neutron-metadata-agent systemd-start
PrivateTmp=false
KillMode=control-group
Restart=on-failure
LimitNOFILE=65535
TimeoutStopSec=15

[Install]
WantedBy=multi-user.target
"""
"""What is in Debian's and RDO's units, together."""


class Unit:
    """What files say that are read one after the other: an empty value takes away what was there."""

    def __init__(self, *texts: str) -> None:
        self._values: dict[tuple[str, str], list[str]] = {}
        for text in texts:
            section = ""
            for line in text.splitlines():
                line = line.strip()
                if not line or line[0] in "#;":
                    continue
                if line[0] == "[":
                    section = line[1:-1]
                    continue
                name, _, value = line.partition("=")
                values = self._values.setdefault((section, name), [])
                if value:
                    values.append(value)
                else:
                    values.clear()

    @classmethod
    def of(cls, *paths: Path) -> Unit:
        return cls(*(path.read_text() for path in paths))

    @property
    def settings(self) -> set[str]:
        """The names of what [Service] sets."""
        return {name for section, name in self._values if section == "Service"}

    def values(self, name: str, section: str = "Service") -> list[str]:
        """Of a setting that may be given several times."""
        return self._values.get((section, name), [])

    def value(self, name: str) -> str:
        """Of one that counts once, the last time; "" where it is not there."""
        return (self.values(name) or [""])[-1]

    def words(self, name: str) -> list[str]:
        """Of one that is a list."""
        return [word for value in self.values(name) for word in value.split()]

    def is_true(self, name: str) -> bool:
        return self.value(name).lower() in ("yes", "true", "on", "1")

    @property
    def environment(self) -> dict[str, str]:
        pairs = [pair.partition("=") for value in self.values("Environment") for pair in shlex.split(value)]
        return {name: value for name, _, value in pairs}

    def command(self, name: str, given: Mapping[str, str] | None = None) -> list[str]:
        """The one command line of a setting, with variables of the unit, or those given in their place. $NAME as a word
        of its own becomes as many words as it has."""
        (line,) = self.values(name)
        variables = self.environment | dict(given or {})
        words: list[str] = []
        for word in shlex.split(line):
            variable = re.fullmatch(r"\$([A-Za-z_]+)", word)
            words += variables[variable[1]].split() if variable else [word]
        return words
