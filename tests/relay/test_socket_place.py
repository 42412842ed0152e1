"""Whose place the socket takes: never that of one on which somebody listens, always that of one on which nobody is."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from tests.service.upstream import WAIT

from .places import Scene
from .users import SOMEBODY, is_served


def fails(scene: Scene, *lines: str, user: int = 0) -> str:
    """What an agent that cannot start says. user: as whom it runs."""
    config = scene.folder / f"fails-{uuid.uuid4()}.conf"
    ports = scene.folder / "ports.json"
    ports.write_text('{"ports": []}')
    config.write_text("\n".join(["[DEFAULT]", *lines, "[fastmeta]", f"ports_file = {ports}", ""]))
    for path in (config, ports):
        path.chmod(0o600)
        os.chown(path, user, user)
    done = subprocess.run(
        [
            *("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--"),
            *(sys.executable, "-m", "fastmeta", "agent", "--config-file", str(config)),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT * 2,
    )
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_socket_that_nobody_listens_on_is_replaced(known: Scene) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(known.path)
    assert stat.S_ISSOCK(os.lstat(known.path).st_mode)
    known.agent()
    assert is_served(known)
    assert sorted(os.listdir(known.folder)) == ["metadata_proxy"]


def test_after_a_kill(known: Scene) -> None:
    """The socket is left behind, and nobody is in the way of the next one."""
    first = known.agent()
    os.kill(first.pid, signal.SIGKILL)
    assert first.exit_status() == -signal.SIGKILL
    assert os.path.lexists(known.path)
    known.agent()
    assert is_served(known)


@pytest.fixture
def other(scene: Scene) -> Iterator[subprocess.Popen[bytes]]:
    """Another agent, which listens there already."""
    script = f"""
import socket
listening = socket.socket(socket.AF_UNIX)
listening.bind({scene.path!r})
listening.listen(1)
print("ready", flush=True)
connections = []
while True:
    connections.append(listening.accept())
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process
        process.kill()


@pytest.mark.parametrize("frozen", [False, True])
def test_a_live_socket_stays(scene: Scene, other: subprocess.Popen[bytes], frozen: bool) -> None:
    """Whoever listens is named; also when it does not accept just now."""
    if frozen:
        os.kill(other.pid, signal.SIGSTOP)
    before = os.lstat(scene.path)
    with closing(socket.socket(socket.AF_UNIX)) as first, closing(socket.socket(socket.AF_UNIX)) as second:
        for waiting in (first, second) if frozen else ():
            waiting.connect(scene.path)
        said = fails(scene, f"metadata_proxy_socket = {scene.path}")
    assert f"metadata_proxy_socket = {scene.path}: somebody listens there already" in said
    assert "does neutron-metadata-agent still run?" in said
    if not frozen:
        assert f"process {other.pid} (" in said
    after = os.lstat(scene.path)
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert other.poll() is None


def test_two_agents(known: Scene) -> None:
    agent = known.agent()
    assert f"process {agent.pid} (" in fails(known, f"metadata_proxy_socket = {known.path}")
    assert is_served(known)


def test_only_our_own_is_taken_away(known: Scene) -> None:
    """Another agent took our place by force: its socket stays when we end."""
    agent = known.agent()
    os.unlink(known.path)
    with closing(socket.socket(socket.AF_UNIX)) as taken:
        taken.bind(known.path)
        inode = os.lstat(known.path).st_ino
        agent.terminate()
        assert agent.exit_status() == 0
        assert os.lstat(known.path).st_ino == inode


def test_what_is_no_socket_stays(scene: Scene) -> None:
    Path(scene.path).write_text("precious")
    assert "and no socket; move it away" in fails(scene, f"metadata_proxy_socket = {scene.path}")
    assert Path(scene.path).read_text() == "precious"


def test_a_socket_that_cannot_be_replaced(scene: Scene) -> None:
    """Nobody listens on it, but its folder is not ours: that is said, and nothing is left behind."""
    with closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(scene.path)
    os.chown(scene.path, SOMEBODY, SOMEBODY)
    before = os.lstat(scene.path)
    said = fails(scene, f"metadata_proxy_socket = {scene.path}", user=SOMEBODY)
    assert f"metadata_proxy_socket = {scene.path}: Permission denied" in said
    assert os.lstat(scene.path).st_ino == before.st_ino
    assert [name for name in os.listdir(scene.folder) if name.startswith("metadata_proxy")] == [
        "metadata_proxy"
    ]


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["metadata_proxy_socket = @/absent/metadata_proxy"], "there is no folder @/absent; make it"),
        (["state_path = @/absent"], "metadata_proxy_socket = @/absent/metadata_proxy: there is no folder"),
        (["metadata_proxy_socket = metadata_proxy"], "must be an absolute path"),
        (["metadata_proxy_socket = @/" + "x" * 108], "path too long"),
        (["metadata_proxy_socket ="], "there is nothing to serve"),
        (["metadata_proxy_user = no-such"], "metadata_proxy_user = 'no-such': there is no such user"),
        (["metadata_proxy_group = no-such"], "metadata_proxy_group = 'no-such': there is no such group"),
        (["metadata_proxy_socket_mode = 0660"], "metadata_proxy_socket_mode"),
    ],
)
def test_what_is_wrong_is_said(scene: Scene, lines: Sequence[str], text: str) -> None:
    folder = str(scene.folder)
    assert text.replace("@", folder) in fails(scene, *(line.replace("@", folder) for line in lines))
