"""Agents that have something to complain of, and the control socket's own life."""

from __future__ import annotations

import socket
import time
import uuid
from pathlib import Path

import pytest

from .agents import Agent
from .conftest import Setting
from .control import scope_of, snapshot, status


def free_tcp_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_what_is_wrong_is_seen(setting: Setting) -> None:
    """Nova away, a listener that cannot be opened, the last error of a network."""
    upstream = setting.upstream(listening=False)
    network = str(uuid.uuid4())
    namespace = setting.cloud.guests["blue-5"].port.namespace
    waiting = f"network:{network}@{namespace}/[fe80::a9fe:a9fe%nowhere]:80"
    agent = setting.agent(
        upstream,
        listen=[*setting.cloud.listen, waiting],
        max_parked_per_address=1,
        park_timeout=2,
        beside=True,
    )
    guest = setting.cloud.guests["blue-5"]
    with guest.connect() as first, guest.connect() as second:
        first.get("/parked")
        second.get("/refused")
        statuses = {first.answer().status, second.answer().status}
    assert statuses == {503}
    found = snapshot(agent)
    assert [server["state"] for server in found["upstreams"]] == ["away"]
    [listener] = scope_of(found, network)["listeners"]
    assert not listener["open"]
    assert "nowhere" in listener["error"]
    scope = scope_of(found, guest.port.network.network_id)
    assert "max_parked_per_address" in scope["last_error"]["text"]
    assert abs(time.time() - scope["last_error"]["at"]) < 60
    assert scope["answers_5xx"] == 2
    table = status(agent).stdout
    assert "max_parked_per_address" in table
    assert "0 of 1 open" in table


def test_a_second_agent_serves_without_one(setting: Setting) -> None:
    """It does not take the socket away; which process has it is said."""
    first = setting.agent(setting.upstream())
    folder = first.options["control_dir"]
    with Agent(
        [f"network:{uuid.uuid4()}@127.0.0.1:{free_tcp_port()}"], [], nova_tcp_port=9, control_dir=folder
    ) as other:
        [line] = other.until_logged("there is no control socket")
        assert f"process {first.pid} " in line
        assert snapshot(first)["pid"] == first.pid
    assert snapshot(first)["pid"] == first.pid


@pytest.mark.parametrize("mode", [0o755, 0o770])
def test_a_folder_that_others_may_enter_is_not_used(setting: Setting, tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(mode)
    agent = setting.agent(setting.upstream(), control_dir=folder)
    [line] = agent.until_logged("there is no control socket")
    assert f"mode {mode:04o}" in line
    assert setting.cloud.guests["blue-5"].ask("/served/all/the/same").status == 200
    done = status(agent)
    assert (done.returncode, done.stdout) == (1, "")
    assert "is fastmeta agent running" in done.stderr


def test_it_ends_with_the_agent(setting: Setting) -> None:
    """Its name goes at the end; after a kill the next agent takes the name over."""
    upstream = setting.upstream()
    agent = setting.agent(upstream)
    path = Path(str(agent.options["control_dir"])) / "control"
    assert path.is_socket()
    agent.terminate()
    agent.exit_status()
    assert not path.exists()
    done = status(agent)
    assert done.returncode == 1
    assert "is not there" in done.stderr
