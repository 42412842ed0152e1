"""What operators see of a running agent: fastmeta status, and who may ask the control socket."""

from __future__ import annotations

import array
import json
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from .agents import SECRET, until
from .conftest import Served
from .control import connected, raw, scope_of, snapshot, status

SOMEBODY = 64_321
"""A number that no user of this machine has."""


def test_every_network_and_router(served: Served) -> None:
    """With its namespace, listeners and figures, which grow by what is asked."""
    guest = served.guests["blue-5"]
    network = guest.port.network.network_id
    before = scope_of(snapshot(served.agent), network)
    for n in range(3):
        guest.ask(f"/status/{n}")
    found = snapshot(served.agent)
    scope = scope_of(found, network)
    assert scope["requests"] - before["requests"] == 3
    assert scope["known"] == 1
    assert (scope["kind"], scope["way"], scope["last_error"]) == ("network", "listen", None)
    [listener] = scope["listeners"]
    assert listener == {
        "place": next(e for e in served.cloud.listen if network in e),
        "open": True,
        "error": None,
    }
    assert scope["namespace"] in listener["place"]
    assert sorted(scope["kind"] for scope in found["scopes"]) == ["network", "network", "router"]
    assert found["pid"] == served.agent.pid
    assert found["lookup"] == {"source": "static", "health": "healthy"}
    assert found["upstreams"] == [
        {"server": f"http://127.0.0.1:{served.upstream.tcp_port}", "state": "in use"}
    ]
    assert found["totals"]["requests"] == sum(scope["requests"] for scope in found["scopes"])


def test_as_a_table(served: Served) -> None:
    """A line for each network and router, and no secret."""
    guest = served.guests["green-5"]
    guest.ask("/status/table")
    done = status(served.agent)
    assert (done.returncode, done.stderr) == (0, "")
    [line] = [line for line in done.stdout.splitlines() if guest.port.network.network_id in line]
    assert "1 of 1 open" in line
    assert SECRET not in done.stdout + status(served.agent, "--json").stdout


def test_only_root_and_its_user_may_ask(served: Served) -> None:
    """By the modes of folder and socket; and where somebody has changed these, by who is at the other end."""
    folder = Path(str(served.agent.options["control_dir"]))
    path = folder / "control"
    assert (stat.S_IMODE(folder.stat().st_mode), stat.S_IMODE(path.stat().st_mode)) == (0o700, 0o600)
    script = (
        "import socket\n"
        "connection = socket.socket(socket.AF_UNIX)\n"
        f"connection.connect({str(path)!r})\n"
        "try:\n"
        '    connection.sendall(b\'{"command": "status"}\\n\')\n'
        "    print(len(connection.recv(100)))\n"
        "except OSError:\n"
        "    print(0)\n"
    )
    who = ["setpriv", f"--reuid={SOMEBODY}", f"--regid={SOMEBODY}", "--clear-groups"]
    for opened, at in ((served.agent.folder, 0o711), (folder, 0o711), (path, 0o666)):
        opened.chmod(at)
    try:
        # Debian's, which every user can run.
        command = [*who, "/usr/bin/python3", "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    finally:
        folder.chmod(0o700)
        path.chmod(0o600)
    assert (done.stdout, done.stderr) == ("0\n", "")
    served.agent.until_logged(f"of user {SOMEBODY} asked on the control socket, and was turned away")


@pytest.mark.parametrize(
    "request_line",
    [
        b"\n",
        b"{}\n",
        b"[]\n",
        b'{"command": "take over"}\n',
        b'{"command": []}\n',
        b"\xff\n",
        b"[" * 60_000 + b"\n",
    ],
    ids=["nothing", "empty", "list", "unknown", "no name", "no text", "deep"],
)
def test_nonsense_is_answered(served: Served, request_line: bytes) -> None:
    """And the agent goes on."""
    assert "error" in json.loads(raw(served.agent, request_line))
    assert snapshot(served.agent)["pid"] == served.agent.pid


def test_what_is_too_long_ends(served: Served) -> None:
    """Nothing unbounded is kept."""
    with connected(served.agent) as connection:
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            for _ in range(1000):
                connection.sendall(b"x" * 65536)
        assert snapshot(served.agent)["pid"] == served.agent.pid


def test_descriptors_that_nobody_wanted_are_closed(served: Served) -> None:
    """With a request, with nonsense, and with half a request."""
    before = served.agent.descriptors()
    with open("/dev/null") as file:
        for line in (b'{"command": "status"}\n', b"nonsense\n", b"half"):
            for count in (1, 16, 17):
                with connected(served.agent) as connection:
                    rights = array.array("i", [file.fileno()] * count)
                    connection.sendmsg([line], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
                    if line.endswith(b"\n"):
                        connection.recv(100)
    until(lambda: served.agent.descriptors() == before, "the descriptors are closed")


def test_many_that_say_nothing(served: Served) -> None:
    """They are waited for, a bounded number at a time; who asks has an answer when they have gone."""
    silent = [connected(served.agent) for _ in range(80)]
    with connected(served.agent) as waiting:
        waiting.sendall(b'{"command": "status"}\n')
        for connection in silent:
            connection.close()
        assert waiting.recv(100).startswith(b"{")
