"""The socket itself: who may open it, and that an ordinary user is enough."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from fastmeta.control import client as control_client
from tests.service.agents import until
from tests.service.upstream import WAIT

from .places import NETWORK, Scene, ask
from .users import BLUE, NOBODY, SOMEBODY, STRANGER, OrdinaryAgent, connect_as, is_served


def mode_of(path: str) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


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
