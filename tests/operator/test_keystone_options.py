"""Options with which the first metadata agents (until 2015) reached Keystone, in metadata_agent.ini, for a real agent
before servers in Keystone's and Neutron's place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lookup.cloud import PASSWORD, PROJECT, REGION, USER, Cloud
from tests.nova_side.certificates import Authority

from .kit import PORT
from .node import Node

GOOD = {
    "auth_region": REGION,
    "admin_tenant_name": PROJECT,
    "admin_user": USER,
    "admin_password": PASSWORD,
}


@pytest.fixture
def node(folder: Path) -> Iterator[Node]:
    """Without a ports file: who has an address must be asked."""
    with Node(folder) as made:
        del made.fastmeta["ports_file"]
        yield made


def options(cloud: Cloud, **changes: str) -> str:
    values = {"auth_url": f"{cloud.keystone.url}/v2.0", **GOOD} | changes
    return "\n".join(f"{name} = {value}" for name, value in values.items())


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("auth_url", "http://127.0.0.7:9/v2.0"),
        ("auth_region", "Elsewhere"),
        ("admin_tenant_name", "another"),
        ("admin_user", "another"),
        ("admin_password", "another"),
    ],
)
def test_an_old_name(node: Node, name: str, wrong: str) -> None:
    """With the right value the guest is served; with a wrong one of this option alone it waits in vain."""
    with Cloud([PORT]) as cloud:
        right = node.agent(metadata_agent=options(cloud))
        assert node.is_served()
        assert len(cloud.logins) == 1
        assert len(cloud.calls) >= 1
        assert PASSWORD not in right.log
        right.end()
        asked = len(cloud.calls)
        agent = node.agent(metadata_agent=options(cloud, **{name: wrong}))
        assert node.ask().status == 503
        assert len(cloud.calls) == asked
        assert PASSWORD not in agent.log


def test_auth_insecure(node: Node) -> None:
    """Certificates of nobody whom we know."""
    context = Authority(node.folder, "unknown").sign("server", "IP:127.0.0.1").server()
    with Cloud([PORT], context) as cloud:
        strict = node.agent(metadata_agent=options(cloud))
        assert node.ask().status == 503
        assert cloud.logins == []
        strict.end()
        agent = node.agent(metadata_agent=options(cloud, auth_insecure="true"))
        assert node.is_served()
        assert any("[neutron] insecure is true" in line for line in agent.messages)
