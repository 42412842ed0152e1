"""Options of neutron.conf for the message bus, each set for a real agent before a real RabbitMQ."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fastmeta.bus.connection import import_library
from tests.bus.neutron import NeutronServer
from tests.bus.rabbit import RabbitMQ
from tests.service.upstream import WAIT

from .kit import NETWORK, PORT
from .node import ADDRESS, Node

QUESTION = {"network_id": [NETWORK], "fixed_ips": {"ip_address": [ADDRESS]}}


@pytest.fixture
def node(folder: Path) -> Iterator[Node]:
    """Without a ports file: who has an address must be asked."""
    with Node(folder) as made:
        del made.fastmeta["ports_file"]
        made.fastmeta["park_timeout"] = "20"  # the first question may wait for the bus
        yield made


def reports(neutron: NeutronServer) -> list[dict[str, Any]]:
    return [call["arguments"]["agent_state"]["agent_state"] for call in neutron.calls("report_state")]


def test_transport_url(node: Node, rabbit: RabbitMQ, neutron: NeutronServer) -> None:
    neutron.tell(ports=[PORT])
    node.agent(neutron=f"transport_url = {rabbit.url}")
    assert node.is_served()
    assert QUESTION in neutron.filters


def test_what_neutron_is_told(node: Node, rabbit: RabbitMQ, neutron: NeutronServer) -> None:
    """host, [agent] log_agent_heartbeats."""
    told = f"transport_url = {rabbit.url}\nhost = node-9\n[agent]\nlog_agent_heartbeats = true"
    agent = node.agent(neutron=told)
    agent.until(lambda: reports(neutron), "a report")
    (state,) = reports(neutron)
    assert state["host"] == "node-9"
    assert state["configurations"] == {
        "metadata_proxy_socket": str(node.socket_path),
        "nova_metadata_host": "127.0.0.1",
        "nova_metadata_port": node.upstream.tcp_port,
        "log_agent_heartbeats": True,
    }


def test_report_interval(node: Node, rabbit: RabbitMQ, neutron: NeutronServer) -> None:
    """Of the default, 30 s, one would come; of 0 none."""
    neutron.tell(ports=[PORT])
    often = node.agent(neutron=f"transport_url = {rabbit.url}\n[agent]\nreport_interval = 0.5")
    often.until(lambda: len(reports(neutron)) >= 4, "four reports")
    often.end()
    neutron.asked.clear()
    never = node.agent(neutron=f"transport_url = {rabbit.url}\n[agent]\nreport_interval = 0")
    assert node.is_served()
    assert reports(neutron) == []
    assert any("report_interval is 0" in line for line in never.messages)


def test_control_exchange(node: Node) -> None:
    """A bus of its own: queues have the same names on all exchanges, so another Neutron's server could take questions
    from them."""
    node.fastmeta["park_timeout"] = "4"
    with RabbitMQ() as rabbit, NeutronServer(rabbit.url, "neutron-2") as neutron:
        neutron.tell(ports=[PORT])
        default = node.agent(neutron=f"transport_url = {rabbit.url}")
        assert node.ask().status == 503
        default.end()
        assert neutron.asked == []
        other = node.agent(neutron=f"transport_url = {rabbit.url}\ncontrol_exchange = neutron-2")
        assert node.is_served()
        assert QUESTION in neutron.filters
        other.end()  # while it has its bus


@pytest.mark.parametrize(("ssl", "first"), [("false", b"AMQP\0\0\x09\x01"), ("true", b"\x16\x03")])
def test_oslo_messaging_rabbit(node: Node, ssl: str, first: bytes) -> None:
    """What comes first on a connection: AMQP's greeting, or a record of TLS's handshake."""
    with closing(socket.create_server(("127.0.0.1", 0))) as bus:
        bus.settimeout(WAIT)
        url = f"rabbit://neutron:secret@127.0.0.1:{bus.getsockname()[1]}/"
        node.agent(neutron=f"transport_url = {url}\n[oslo_messaging_rabbit]\nssl = {ssl}")
        connection, _ = bus.accept()
        with connection:
            connection.settimeout(WAIT)
            assert connection.recv(8).startswith(first)


def test_options_that_oslo_messaging_will_drop(node: Node, rabbit: RabbitMQ, neutron: NeutronServer) -> None:
    """Reading one changes it, and the library, which registers its options once more, must not take it for another."""
    neutron.tell(ports=[PORT])
    lines = [
        f"[{group or 'DEFAULT'}]\n{option.name} = {option.default}"
        for group, options in import_library().opts.list_opts()
        for option in options
        if option.deprecated_for_removal
    ]
    assert lines
    node.agent(neutron="\n".join([f"transport_url = {rabbit.url}", *lines]))
    assert node.is_served()
