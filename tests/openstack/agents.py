"""The agent's process, with configuration files as an operator writes them for it."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from fastmeta.lab.services import Service, write_private

from .stack.layout import ADDRESS, REGION, Layout

SOURCES = ("rest", "rpc")

LOOKUP_TIMEOUT = 2.0
IDENTITY_TTL = 3.0
"""Shorter than the default, so that what depends on it does not take long; the rule between the two still holds."""
IDENTITY_TTL_WITH_EVENTS = 300.0
"""So long that a change that is missed shows."""
RELIED_ON = "port events are relied on"
"""What the log says from when on changes are announced."""
PARK_TIMEOUT = 8.0


class Agent:
    """One agent, from entering to leaving."""

    def __init__(
        self,
        layout: Layout,
        source: str,
        listen: Sequence[str],
        *,
        host: str,
        transport_url: str = "",
        report_interval: int = 20,
        nova_port: int = 0,
        secret: str = "",
        metadata_socket: Path | None = None,
        more: Sequence[str] = (),
    ) -> None:
        """source: rest or rpc; host: as it reports itself; transport_url: the stack's own when it is empty
        and needed; report_interval: seconds, by default so many that an outage of some is no reason for Neutron to take
        us for dead, and to send no events for a minute; nova_port, secret: of what stands in Nova's place, if not
        the stack's own; metadata_socket: the path of the socket for haproxies (metadata_proxy_socket); more: lines
        of metadata_agent.ini."""
        self.source = source
        self.host = host
        self._secrets = layout.secrets
        # Short enough for a unix socket in it.
        self.folder = Path(tempfile.mkdtemp(prefix="fmo-", dir="/tmp"))
        neutron = ["[DEFAULT]", f"host = {host}", "debug = true"]
        if transport_url or source == "rpc":
            neutron.append(f"transport_url = {transport_url or layout.transport_url}")
        metadata_agent = [
            "[DEFAULT]",
            f"nova_metadata_host = {ADDRESS}",
            f"nova_metadata_port = {nova_port or layout.tcp_ports.nova}",
            f"metadata_proxy_shared_secret = {secret or layout.secrets.metadata}",
            *([f"metadata_proxy_socket = {metadata_socket}"] if metadata_socket else []),
            *more,
            "[agent]",
            f"report_interval = {report_interval}",
        ]
        fastmeta = [
            "[fastmeta]",
            f"control_dir = {self.folder / 'control'}",
            f"lookup = {source}",
            f"identity_ttl = {IDENTITY_TTL:g}",
            f"identity_ttl_with_events = {IDENTITY_TTL_WITH_EVENTS:g}",
            f"lookup_timeout = {LOOKUP_TIMEOUT:g}",
            f"park_timeout = {PARK_TIMEOUT:g}",
            *(f"listen = {entry}" for entry in listen),
        ]
        if source == "rest":
            fastmeta += [
                "[neutron]",
                "auth_type = password",
                f"auth_url = {layout.auth_url}",
                "username = neutron",
                f"password = {layout.secrets.service}",
                "project_name = service",
                "user_domain_name = Default",
                "project_domain_name = Default",
                f"region_name = {REGION}",
            ]
        command = [sys.executable, "-m", "fastmeta", "agent"]
        files = {"neutron.conf": neutron, "metadata_agent.ini": metadata_agent, "fastmeta.conf": fastmeta}
        for name, lines in files.items():
            path = write_private(self.folder / name, "\n".join([*lines, ""]))
            command += ["--config-file", str(path)]
        self.service = Service("agent", command, self.folder)

    def __enter__(self) -> Agent:
        try:
            self.service.__enter__()
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.service.__exit__(kind, error, trace)
            self.check_log()
            if kind is not None:  # what pytest shows of a test that has failed
                print(f"The end of the agent's log:\n{self.log[-20_000:]}")
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def log(self) -> str:
        return self.service.log_path.read_text(errors="backslashreplace")

    def logged(self, pattern: str) -> list[str]:
        """The lines in which the pattern is found."""
        return [line for line in self.log.splitlines() if re.search(pattern, line)]

    def check_log(self) -> None:
        """No secret, whatever happened, and no traceback."""
        log = self.log
        secrets = self._secrets
        for secret in (secrets.admin, secrets.service, secrets.bus, secrets.metadata, secrets.database):
            assert secret not in log
        assert "Traceback" not in log, log[-20_000:]
