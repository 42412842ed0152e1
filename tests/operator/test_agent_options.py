"""Options of neutron.conf and metadata_agent.ini, each set for a real agent, and what comes of it: where Nova is, the
socket, rate limits."""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nova_side.certificates import Authority
from tests.service.upstream import signature

from .kit import SECRET, free_tcp_port
from .node import ADDRESS, Node

ELSEWHERE = "127.0.0.7"
"""Nobody listens there but who says so."""
LONG, SHORT = 600, 1
"""Windows of rate limits, in seconds. In the former everything of a test is; the latter is waited for."""


@pytest.fixture
def node(folder: Path) -> Iterator[Node]:
    with Node(folder) as made:
        yield made


def _nova_is_found_by(folder: Path, name: str) -> None:
    with Node(folder, nova_address=ELSEWHERE) as node:
        plain = node.agent()
        assert node.ask().status == 503, "there is nothing at the default"
        plain.end()
        node.agent(metadata_agent=f"{name} = {ELSEWHERE}")
        assert node.is_served()


def test_nova_metadata_host(folder: Path) -> None:
    _nova_is_found_by(folder, "nova_metadata_host")


def test_nova_metadata_ip(folder: Path) -> None:
    """The old name."""
    _nova_is_found_by(folder, "nova_metadata_ip")


def test_nova_metadata_port(node: Node) -> None:
    wrong = node.agent(metadata_agent=f"nova_metadata_port = {free_tcp_port()}")
    assert node.ask().status == 503
    wrong.end()
    node.agent()
    assert node.is_served()


def test_nova_metadata_insecure(node: Node) -> None:
    """A certificate of nobody whom we know: refused, and taken with this option."""
    node.upstream.tls = Authority(node.folder, "unknown").sign("server", "IP:127.0.0.1").server()
    strict = node.agent(metadata_agent="nova_metadata_protocol = https")
    assert node.ask().status == 503
    strict.end()
    insecure = node.agent(
        metadata_agent="nova_metadata_protocol = https\nnova_metadata_insecure = true",
    )
    assert node.is_served()
    assert any("nova_metadata_insecure is true" in line for line in insecure.messages)


def test_metadata_proxy_shared_secret(node: Node) -> None:
    """Nova sees a signature made with it: hex HMAC-SHA256 of the instance's id."""
    node.agent()
    assert node.is_served()
    (request,) = node.upstream.received
    assert request.value("x-instance-id-signature") == signature(SECRET, request.instance)


def test_state_path(node: Node) -> None:
    """Where the socket is when nothing else says so."""
    other = node.folder / "other"
    other.mkdir()
    node.agent(neutron=f"state_path = {other}")
    assert node.is_served(path=other / "metadata_proxy")
    assert list(node.socket_path.parent.iterdir()) == []


def test_metadata_proxy_socket(node: Node) -> None:
    """$state_path in it is that of the other file."""
    (node.folder / "state" / "sockets").mkdir()
    node.agent(metadata_agent="metadata_proxy_socket = $state_path/sockets/metadata")
    path = node.folder / "state" / "sockets" / "metadata"
    assert stat.S_ISSOCK(path.lstat().st_mode)
    assert node.is_served(path=path)


def limits(**options: object) -> str:
    """The section, with windows in which a test has no end."""
    section = {
        "rate_limit_enabled": "true",
        "base_window_duration": LONG,
        "base_query_rate_limit": 1000,
        "burst_window_duration": LONG,
        "burst_query_rate_limit": 1000,
    } | options
    return "\n".join(["[metadata_rate_limiting]", *(f"{name} = {value}" for name, value in section.items())])


def test_rate_limit_enabled(node: Node) -> None:
    off = node.agent(metadata_agent=limits(rate_limit_enabled="false", base_query_rate_limit=2))
    assert node.statuses(4) == [200] * 4
    off.end()
    node.agent(metadata_agent=limits(base_query_rate_limit=2))
    assert node.statuses(4) == [200, 200, 429, 429]


@pytest.mark.parametrize(("versions", "status"), [("4", 429), ("6", 200), ("4,6", 429)])
def test_ip_versions(node: Node, versions: str, status: int) -> None:
    """The guest asks by IPv4."""
    node.agent(metadata_agent=limits(ip_versions=versions, base_query_rate_limit=2))
    assert node.statuses(3) == [200, 200, status]


def test_base_query_rate_limit(node: Node) -> None:
    node.agent(metadata_agent=limits(base_query_rate_limit=3))
    assert node.statuses(5) == [200, 200, 200, 429, 429]


def test_base_window_duration(node: Node) -> None:
    """In a new window requests are served again."""
    node.agent(metadata_agent=limits(base_query_rate_limit=2, base_window_duration=SHORT))
    _is_served_after_a_window(node)


def test_burst_query_rate_limit(node: Node) -> None:
    node.agent(metadata_agent=limits(burst_query_rate_limit=3))
    assert node.statuses(5) == [200, 200, 200, 429, 429]


def test_burst_window_duration(node: Node) -> None:
    node.agent(metadata_agent=limits(burst_query_rate_limit=2, burst_window_duration=SHORT))
    _is_served_after_a_window(node)


def _is_served_after_a_window(node: Node) -> None:
    """A limit of 2 requests in SHORT; what is refused counts, too, so nothing is asked meanwhile."""
    deadline = time.monotonic() + 5 * SHORT
    while 429 not in node.statuses(3):
        assert time.monotonic() < deadline, "three requests never came within a window"
    time.sleep(2.1 * SHORT)
    assert node.ask(address=ADDRESS).status == 200
