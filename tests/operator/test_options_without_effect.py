"""Rows of the table that say "without effect", and options that nobody knows: a real agent starts with them, serves,
and says of them nothing that it does not say without them."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastmeta.conf.stock import rows
from fastmeta.conf.stock_rows import Effect, StockOption

from .node import Node

ROWS = [pytest.param(row, id=row.shown) for row in rows(Effect.NONE)]

UNKNOWN = """\
core_plugin = ml2
l3_ha = true
no_such_option = 1
metadata_workerz = 4
[database]
connection = mysql+pymysql://neutron:hidden@192.0.2.1/neutron
[keystone_authtoken]
password = hidden
[quotas]
quota_port = $no_such_reference
[no_such_section]
no such = option
"""


@pytest.fixture
def node(folder: Path) -> Iterator[Node]:
    with Node(folder) as made:
        yield made


def said(node: Node, lines: str = "") -> list[str]:
    """All that an agent says that serves a request with these lines in both of its files; without times, numbers of
    processes, and names of places."""
    agent = node.agent(neutron=lines, metadata_agent=lines)
    assert node.is_served()
    agent.end()
    text = agent.log.replace(str(node.folder), "@").replace(f"127.0.0.1:{node.upstream.tcp_port}", "nova")
    text = re.sub(r"[0-9]+\.[0-9]+(?= ms|,)", "some", text)
    # A request may be said before or after the end that follows it at once.
    return sorted(re.sub(r"^\S+ \S+ [0-9]+ ", "", line) for line in text.splitlines())


@pytest.fixture(scope="module")
def plain() -> Iterator[list[str]]:
    """What is said without any of them."""
    with tempfile.TemporaryDirectory(prefix="fmo-", dir="/tmp") as folder, Node(Path(folder)) as node:
        yield said(node)


@pytest.mark.parametrize("row", ROWS)
def test_a_row(node: Node, plain: list[str], row: StockOption) -> None:
    line = row.example if row.is_section else f"{row.name} = {row.example}"
    assert said(node, f"[{row.section}]\n{line}") == plain


def test_unknown_options(node: Node, plain: list[str]) -> None:
    assert said(node, UNKNOWN) == plain
