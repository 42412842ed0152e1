"""Who is asked by a storm's guests: fastmeta with each of its sources, and the stock pair. New for each storm."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import configs, processes
from bench.crowd import Place
from bench.peers import PeerMissing, find, last_words
from fastmeta.lab.namespaces import inside
from fastmeta.lab.services import Service, write_private
from fastmeta.lab.topology import METADATA_ADDRESS
from tests.openstack.stack.layout import ADDRESS, REGION, Layout

PEERS = ("rest", "rpc", "stock")
TITLES = {"rest": "fastmeta, rest", "rpc": "fastmeta, rpc", "stock": "stock pair"}
SECRET = "the-secret-of-the-bench"  # noqa: S105 - it guards nothing
READY = 60.0
"""Seconds."""


@dataclass(frozen=True)
class Setting:
    """What all peers of a run share. nova: the TCP port of what stands in Nova's place."""

    layout: Layout
    place: Place
    network_id: str
    nova: int


@contextmanager
def upstream(folder: Path) -> Iterator[int]:
    """In Nova's place nginx, which answers everything with the instance's id that it was told; gives its TCP port."""
    tcp_port = processes.free_port()
    config = write_private(folder / "nginx.conf", _nginx(tcp_port, folder))
    with (folder / "nginx.log").open("wb") as log:
        process = processes.start(
            [
                "setpriv",
                "--pdeathsig",
                "TERM",
                find("nginx"),
                "-e",
                "stderr",
                "-p",
                str(folder),
                "-c",
                str(config),
            ],
            log,
            {},
        )
    try:
        if not processes.wait_until_listening(tcp_port, process, 10):
            raise PeerMissing(f"nginx did not start: {last_words(folder / 'nginx.log')}")
        yield tcp_port
    finally:
        processes.end(process)


def _nginx(tcp_port: int, folder: Path) -> str:
    user = "user root;" if os.geteuid() == 0 else ""
    temporary = "\n".join(
        f"    {kind}_temp_path {folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""\
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 8192; }}
http {{
    access_log off;
{temporary}
    server {{
        listen 127.0.0.1:{tcp_port} backlog=4096;
        default_type text/plain;
        location / {{ return 200 "$http_x_instance_id"; }}
    }}
}}
"""


@contextmanager
def running(name: str, setting: Setting, folder: Path, *, neutron: str, keystone: str) -> Iterator[list[int]]:
    """Starts a peer; gives the ids of its processes. neutron, keystone: where REST finds them. Raises PeerMissing,
    LabError. folder: empty, and only for this one."""
    if name == "stock":
        with _stock(setting, folder) as pids:
            yield pids
        return
    config = write_private(folder / "fastmeta.conf", _fastmeta(name, setting, neutron, keystone))
    command = [sys.executable, "-m", "fastmeta", "agent", "--config-file", str(config)]
    with Service("agent", command, folder) as service:
        yield [service.pid]


def _fastmeta(name: str, setting: Setting, neutron: str, keystone: str) -> str:
    """Everything as it comes, but for who is asked, and where."""
    layout = setting.layout
    transport = f"transport_url = {layout.transport_url}\n" if name == "rpc" else ""
    credentials = f"""
[neutron]
auth_type = password
auth_url = {keystone}/v3
endpoint_override = {neutron}
username = neutron
password = {layout.secrets.service}
project_name = service
user_domain_name = Default
project_domain_name = Default
region_name = {REGION}
"""
    return f"""\
[DEFAULT]
host = fastmeta-bench
{transport}nova_metadata_host = 127.0.0.1
nova_metadata_port = {setting.nova}
metadata_proxy_shared_secret = {SECRET}

[fastmeta]
lookup = {name}
listen = network:{setting.network_id}@{setting.place.proxy}/{METADATA_ADDRESS}:80
{credentials if name == "rest" else ""}"""


@contextmanager
def _stock(setting: Setting, folder: Path) -> Iterator[list[int]]:
    metadata_socket = folder / "metadata_proxy"
    config = write_private(folder / "metadata_agent.ini", _stock_agent(setting, folder, metadata_socket))
    haproxy = folder / "haproxy.cfg"
    haproxy.write_text(configs.stock_haproxy(metadata_socket, setting.network_id))
    log = folder / "log"
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(log.open("wb"))
        agent = processes.start(
            [
                *("setpriv", "--pdeathsig", "TERM"),
                *(setting.layout.program("neutron-metadata-agent"), "--config-file", str(config)),
            ],
            output,
            {},
        )
        stack.callback(processes.end, agent)
        _until(metadata_socket.exists, agent, "neutron-metadata-agent", log)
        proxy = setting.place.lab.start(
            setting.place.proxy,
            ["setpriv", "--pdeathsig", "TERM", find("haproxy"), "-db", "-q", "-f", str(haproxy)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        stack.callback(processes.end, proxy)
        _until(lambda: inside(setting.place.proxy, _listens), proxy, "haproxy", log)
        yield [agent.pid, proxy.pid]


def _stock_agent(setting: Setting, folder: Path, metadata_socket: Path) -> str:
    """Everything as it comes, but for who is asked, and where."""
    return f"""\
[DEFAULT]
host = stock-bench
state_path = {folder}
metadata_proxy_socket = {metadata_socket}
transport_url = {setting.layout.transport_url}
nova_metadata_host = 127.0.0.1
nova_metadata_port = {setting.nova}
metadata_proxy_shared_secret = {SECRET}
"""


def _listens() -> bool:
    with contextlib.suppress(OSError), socket.create_connection((METADATA_ADDRESS, 80), 1):
        return True
    return False


def _until(condition: Callable[[], bool], process: subprocess.Popen[bytes], name: str, log: Path) -> None:
    end = time.monotonic() + READY
    while not condition():
        if process.poll() is not None or time.monotonic() > end:
            raise PeerMissing(f"{name} did not get ready; its last words: {last_words(log)}")
        time.sleep(0.05)


def neutron_and_keystone(layout: Layout) -> tuple[str, str]:
    """Where they are without a relay before them."""
    return layout.neutron_url, f"http://{ADDRESS}:{layout.tcp_ports.keystone}"
