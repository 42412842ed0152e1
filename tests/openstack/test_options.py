"""The table of the stock agent's options (fastmeta/conf/stock.py) against the stock agent itself, and fastmeta with all
options that Neutron has, as a distribution's files have them."""

from __future__ import annotations

import re
import secrets
import socket
import subprocess
import sys
import uuid
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from fastmeta.conf.stock import row_of
from fastmeta.lab.services import Service, write_private
from tests.service.guests import Wire
from tests.service.upstream import WAIT, Upstream

from .stack.layout import Layout
from .stack.stack import Stack
from .stock.agent import StockAgent

OF_THE_LIBRARY = {"config_file", "config_dir", "config_source"}
"""Of oslo.config: which files there are."""

# As Neutron's sources have them for its sample files (etc/oslo-config-generator).
NEUTRON_CONF = (
    *("neutron", "neutron.agent", "neutron.db", "neutron.extensions", "nova.auth", "ironic.auth"),
    *("placement.auth", "oslo.log", "oslo.db", "oslo.policy", "oslo.privsep", "oslo.concurrency"),
    *("oslo.messaging", "oslo.middleware.cors", "oslo.middleware.http_proxy_to_wsgi"),
    *("oslo.middleware.healthcheck", "oslo.service.sslutils", "keystonemiddleware.auth_token"),
)
METADATA_AGENT_INI = ("neutron.metadata.agent", "oslo.log", "oslo.cache")


def ask(path: Path) -> int:
    """For a network that there is none of: the status."""
    with closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.settimeout(WAIT)
        connection.connect(str(path))
        with Wire(connection) as wire:
            lines = ["GET /openstack HTTP/1.1", "Host: x", "Connection: close", "X-Forwarded-For: 10.0.0.5"]
            lines.append(f"X-Neutron-Network-ID: {uuid.uuid4()}")
            wire.send(("\r\n".join(lines) + "\r\n\r\n").encode())
            return int(wire.end().split()[1])


def test_all_that_the_stock_agent_reads_is_in_the_table(stack: Stack, tmp_path: Path) -> None:
    """From its start to the answer to a request, and a report."""
    trace = tmp_path / "trace"
    with Upstream("secret") as nova, StockAgent(stack.layout, nova.tcp_port, "secret", trace=trace) as agent:
        assert ask(agent.socket) == 404
    keys = [(section, name) for section, name in map(str.split, trace.read_text().splitlines())]
    assert ("DEFAULT", "metadata_proxy_socket") in keys
    assert ("AGENT", "report_interval") in keys
    assert ("DEFAULT", "rpc_response_timeout") in keys, "it has asked Neutron"
    missing = [
        (section, name)
        for section, name in keys
        if row_of(section, name) is None and name not in OF_THE_LIBRARY
    ]
    assert missing == []


def sample(layout: Layout, namespaces: Sequence[str]) -> str:
    """All of their options, with the values that the sample says."""
    command = [layout.program("oslo-config-generator")]
    for namespace in namespaces:
        command += ["--namespace", namespace]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    return re.sub(r"^#([a-z0-9_]+ =(?! <None>).*)$", r"\1", text, flags=re.MULTILINE)


def test_with_all_of_neutrons_options(stack: Stack, tmp_path: Path) -> None:
    """And what an operator sets behind them."""
    layout = stack.layout
    neutron = sample(layout, NEUTRON_CONF)
    agent = sample(layout, METADATA_AGENT_INI)
    assert len(re.findall(r"^[a-z0-9_]+ =", neutron, re.MULTILINE)) > 200
    assert len(re.findall(r"^[a-z0-9_]+ =", agent, re.MULTILINE)) > 40
    files = {
        "neutron.conf": f"{neutron}\n[DEFAULT]\nstate_path = {tmp_path}\ntransport_url = {layout.transport_url}\n"
        # The library's default, which the sample has, is not Neutron's.
        f"control_exchange = neutron\nhost = all-options-{secrets.token_hex(3)}\n",
        "metadata_agent.ini": f"{agent}\n[DEFAULT]\nmetadata_proxy_shared_secret = {layout.secrets.metadata}\n"
        f"nova_metadata_port = {layout.tcp_ports.nova}\n",
    }
    arguments = []
    for name, text in files.items():
        arguments += ["--config-file", str(write_private(tmp_path / name, text))]
    fastmeta = [sys.executable, "-m", "fastmeta"]
    checked = subprocess.run(
        [*fastmeta, "config", "check", *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    assert (checked.returncode, checked.stderr) == (0, ""), checked.stdout
    with Service("agent", [*fastmeta, "agent", *arguments], tmp_path) as service:
        assert ask(tmp_path / "metadata_proxy") == 404
        log = service.log()
    assert "Traceback" not in log
    assert "ready: 0 of 0 listeners are open, and" in log
