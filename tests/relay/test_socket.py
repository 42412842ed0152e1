"""The socket itself: who may open it, whose place it takes, and that an ordinary user is enough."""

from __future__ import annotations

import os
import pwd
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fastmeta.control import client as control_client
from tests.service.agents import Agent, until
from tests.service.upstream import WAIT

from .places import NETWORK, Scene, ask

BLUE = str(uuid.uuid4())
NOBODY = pwd.getpwnam("nobody")
SOMEBODY = 64_321
"""A number that no user of this machine has: an ordinary user all the same."""
STRANGER = 64_322

NO_RIGHTS = ["--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]


class OrdinaryAgent(Agent):
    """Runs as an ordinary user, without any capability."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        as_user = ["setpriv", f"--reuid={SOMEBODY}", f"--regid={SOMEBODY}", *NO_RIGHTS, "--pdeathsig", "KILL"]
        super().__init__(*arguments, prefix=as_user, **options)
        for path in (self.folder, *self.folder.iterdir()):
            os.chown(path, SOMEBODY, SOMEBODY)

    def __enter__(self) -> OrdinaryAgent:
        # It must be able to write to the socket of sd_notify.
        before = os.umask(0)
        try:
            super().__enter__()
        finally:
            os.umask(before)
        return self


def connect_as(user: int, path: str, *, group: int | None = None) -> str:
    """What somebody gets who connects as this user and group, and asks: the first line, or why there is none."""
    lines = f"GET /as HTTP/1.1\\r\\nHost: x\\r\\n{NETWORK}: {BLUE}\\r\\nX-Forwarded-For: 10.0.0.5\\r\\n\\r\\n"
    script = f"""
import socket
connection = socket.socket(socket.AF_UNIX)
connection.settimeout({WAIT})
try:
    connection.connect({path!r})
    connection.sendall(b"{lines}")
    print(connection.recv(9000).partition(b"\\r\\n")[0].decode())
except OSError as error:
    print(type(error).__name__)
"""
    command = ["setpriv", f"--reuid={user}", f"--regid={user if group is None else group}", *NO_RIGHTS]
    return subprocess.run(
        [*command, "/usr/bin/python3", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=WAIT * 2,
    ).stdout.strip()


def mode_of(path: str) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


def fails(scene: Scene, *lines: str) -> str:
    """What an agent that cannot start says."""
    config = scene.folder / f"fails-{uuid.uuid4()}.conf"
    ports = scene.folder / "ports.json"
    ports.write_text('{"ports": []}')
    config.write_text("\n".join(["[DEFAULT]", *lines, "[fastmeta]", f"ports_file = {ports}", ""]))
    config.chmod(0o600)
    ports.chmod(0o600)
    done = subprocess.run(
        [sys.executable, "-m", "fastmeta", "agent", "--config-file", str(config)],
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT * 2,
    )
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture
def known(scene: Scene) -> Scene:
    scene.add_known(BLUE, "10.0.0.5")
    return scene


def is_served(scene: Scene) -> bool:
    return ask(scene, NETWORK, BLUE, "10.0.0.5", "/served")[0] == 200


@pytest.mark.parametrize(
    ("lines", "mode"),
    [
        ([], 0o666),
        (["metadata_proxy_user = root"], 0o644),
        (["metadata_proxy_user = 0", "metadata_proxy_group = nogroup"], 0o644),
        (["metadata_proxy_user = nobody"], 0o666),
        (["metadata_proxy_socket_mode = user"], 0o644),
        (["metadata_proxy_socket_mode = group"], 0o664),
        (["metadata_proxy_socket_mode = all", "metadata_proxy_user = root"], 0o666),
    ],
)
def test_mode_as_root(known: Scene, lines: list[str], mode: int) -> None:
    known.agent(default=lines)
    assert mode_of(known.path) == mode
    assert is_served(known)


@pytest.mark.parametrize(
    ("lines", "mode"),
    [
        ([], 0o644),
        ([f"metadata_proxy_user = {SOMEBODY}"], 0o644),
        (["metadata_proxy_user = root"], 0o644),
        (["metadata_proxy_user = nobody"], 0o664),
        (["metadata_proxy_user = nobody", f"metadata_proxy_group = {SOMEBODY}"], 0o664),
        (["metadata_proxy_user = nobody", "metadata_proxy_group = nogroup"], 0o666),
        (["metadata_proxy_socket_mode = all"], 0o666),
    ],
)
def test_mode_as_an_ordinary_user(known: Scene, lines: list[str], mode: int) -> None:
    os.chown(known.folder, SOMEBODY, SOMEBODY)
    known.agent(kind=OrdinaryAgent, default=lines)
    assert mode_of(known.path) == mode


def test_an_ordinary_user_is_enough(known: Scene) -> None:
    """Without any capability."""
    os.chown(known.folder, SOMEBODY, SOMEBODY)
    agent = known.agent(kind=OrdinaryAgent)
    status = Path(f"/proc/{agent.pid}/status").read_text()
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
    assert re.search(rf"^Uid:\s+{SOMEBODY}\s+{SOMEBODY}", status, re.MULTILINE)
    assert os.stat(known.path).st_uid == SOMEBODY
    assert connect_as(SOMEBODY, known.path) == "HTTP/1.1 200 OK"
    assert is_served(known)  # root may, too
    # The mode keeps others away already.
    assert connect_as(STRANGER, known.path) == "PermissionError"
    agent.terminate()
    assert agent.exit_status() == 0
    assert not os.path.lexists(known.path)


def test_proxies_of_another_user_before_an_agent_of_root(known: Scene) -> None:
    """Neutron's user is the one whom the folder belongs to; anybody else is turned away, and that is said once."""
    os.chown(known.folder, SOMEBODY, SOMEBODY)
    agent = known.agent()
    assert connect_as(SOMEBODY, known.path) == "HTTP/1.1 200 OK"
    for _ in range(3):
        assert connect_as(STRANGER, known.path) in ("", "ConnectionResetError", "BrokenPipeError")
    (line,) = agent.until_logged("is not served connected")
    assert f"user {STRANGER}" in line
    assert len(known.upstream.asked("/as")) == 1
    assert is_served(known)


@pytest.mark.parametrize(
    ("lines", "served"),
    [
        (["metadata_proxy_user = nobody"], {(NOBODY.pw_uid, STRANGER)}),
        ([f"metadata_proxy_user = {SOMEBODY}"], {(SOMEBODY, STRANGER)}),
        (
            ["metadata_proxy_user = nobody", f"metadata_proxy_group = {SOMEBODY}"],
            {(NOBODY.pw_uid, STRANGER), (STRANGER, SOMEBODY)},
        ),
        ([f"metadata_proxy_group = {SOMEBODY}"], {(STRANGER, SOMEBODY)}),
    ],
)
def test_who_is_served(known: Scene, lines: list[str], served: set[tuple[int, int]]) -> None:
    """By effective user and group. The folder's owner counts only when nobody is named."""
    os.chown(known.folder, STRANGER, 0)
    known.agent(default=[*lines, "metadata_proxy_socket_mode = all"])
    everybody = {(NOBODY.pw_uid, STRANGER), (SOMEBODY, STRANGER), (STRANGER, SOMEBODY), (STRANGER, STRANGER)}
    found = {
        (user, group)
        for user, group in everybody
        if connect_as(user, known.path, group=group) == "HTTP/1.1 200 OK"
    }
    assert found == served


def test_haproxy_as_nobody(known: Scene) -> None:
    """As Neutron's agents start it where metadata_proxy_user is given."""
    known.cloud.add_network("blue", ["10.0.0.5"])
    known.agent(default=["metadata_proxy_user = nobody", "metadata_proxy_group = nogroup"])
    known.proxies(user="nobody", group="nogroup")
    assert known.cloud.guests["blue-5"].is_served()


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


def test_with_listeners_it_is_on_only_when_asked_for(scene: Scene) -> None:
    """The folder of the default need not be there."""
    nowhere = f"network:{BLUE}@not-there/169.254.169.254:80"
    agent = scene.agent(listen=[nowhere], socket=False, default=[f"state_path = {scene.folder}/absent"])
    agent.until_logged("ready: 0 of 1 listeners are open$")
    assert not agent.logged("metadata_proxy")


def test_the_scope_of_a_listener_is_the_same(scene: Scene) -> None:
    """On a listener of its own and over the socket a guest of a network is one guest: one question for both."""
    known = scene.add_known(BLUE, "127.0.0.1")
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        tcp_port = free.getsockname()[1]
    agent = scene.agent(listen=[f"network:{BLUE}@127.0.0.1:{tcp_port}"])
    with closing(socket.create_connection(("127.0.0.1", tcp_port), WAIT)) as direct:
        direct.sendall(b"GET /direct HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert direct.makefile("rb").read().endswith(known.mark("/direct"))
    assert ask(scene, NETWORK, BLUE, "127.0.0.1", "/relayed") == (200, known.mark("/relayed"))
    assert agent.logged("ready: 1 of 1 listeners are open, and ")


def test_the_backlog(known: Scene) -> None:
    """Neutron's agent has room for 5: here as many wait as the kernel lets, and all of them are served."""
    agent = known.agent()
    assert is_served(known)
    room = min(1000, int(Path("/proc/sys/net/core/somaxconn").read_text()))
    os.kill(agent.pid, signal.SIGSTOP)
    waiting = []
    try:
        for _ in range(room):
            waiting.append(known.wire())
            waiting[-1].socket.setblocking(True)
    finally:
        os.kill(agent.pid, signal.SIGCONT)
    for wire in waiting:
        wire.socket.settimeout(WAIT)
        wire.get("/waiting", f"{NETWORK}: {BLUE}", "X-Forwarded-For: 10.0.0.5")
        assert wire.answer().status == 200
        wire.socket.close()
    assert (
        f"up to {min(65535, int(Path('/proc/sys/net/core/somaxconn').read_text()))} connections wait"
        in agent.log
    )


def test_a_stop_ends_what_is_in_progress(known: Scene) -> None:
    gate = threading.Event()
    known.upstream.scripts["slow"] = lambda exchange: (
        gate.wait(WAIT) and exchange.send(exchange.whole()) is None
    )
    agent = known.agent()
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(ask, known, NETWORK, BLUE, "10.0.0.5", "/slow")
        known.upstream.until_asked("/slow")
        agent.terminate()
        until(lambda: not os.path.lexists(known.path))
        gate.set()
        assert slow.result()[0] == 200
    assert agent.exit_status() == 0


def test_a_change_of_its_options_needs_a_restart(known: Scene) -> None:
    agent = known.agent()
    agent.reload(default={"metadata_proxy_socket_mode": "user", "metadata_proxy_socket": f"{known.path}2"})
    (line,) = agent.until_logged("needs a restart")
    assert "metadata_proxy_socket, metadata_proxy_socket_mode" in line
    assert is_served(known)
    assert os.listdir(known.folder) == ["metadata_proxy"]


def test_status_with_many_networks(known: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    """What proxies have named is seen, each with its figures; also 5,000 of them, without keeping anybody waiting."""
    agent = known.agent(loops=2)
    for n in range(5000):
        assert ask(known, NETWORK, f"00000000-0000-4000-8000-{n:012x}", "10.0.0.5", "/many")[0] == 404
    assert ask(known, NETWORK, BLUE, "10.0.0.5", "/one")[0] == 200
    folder = str(agent.options["control_dir"])
    taken = []
    for _ in range(5):
        begin = time.monotonic()
        found = control_client.ask(folder, {"command": "status"})
        taken.append(time.monotonic() - begin)
    assert found["metadata_proxy_socket"] == known.path
    scopes = {scope["id"]: scope for scope in found["scopes"]}
    assert len(scopes) == 5001
    assert (scopes[BLUE]["way"], scopes[BLUE]["requests"], scopes[BLUE]["namespace"]) == ("relay", 1, None)
    with capsys.disabled():
        print(f"\nstatus of 5,001 networks after {min(taken):.2f} to {max(taken):.2f} s")
    assert min(taken) < 5
