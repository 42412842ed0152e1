"""The stack itself: where it listens, and that it takes and ends nothing of anybody else's."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from .stack.layout import ADDRESS
from .stack.packages import SetUpError
from .stack.processes import Process
from .stack.stack import Stack


def test_it_listens_on_loopback_only(stack: Stack) -> None:
    """Each of its TCP ports, and nothing else of its processes."""
    pids = {
        pid for service in stack.services.all for process in service.processes for pid in process.members()
    }
    shown = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout
    mine = [
        line.split()[3]
        for line in shown.splitlines()
        if pids & {int(pid) for pid in re.findall(r"pid=(\d+)", line)}
    ]
    base = stack.layout.tcp_ports.base
    assert {int(place.rpartition(":")[2]) for place in mine} == set(range(base, base + 7))
    assert {place.rpartition(":")[0] for place in mine} <= {ADDRESS, "[::1]"}


def test_a_taken_port_is_named(stack: Stack, tmp_path: Path) -> None:
    """Before anything is started."""
    with socket.create_server((ADDRESS, 0)) as taken:
        tcp_port = taken.getsockname()[1]
        other = Stack(base_port=tcp_port - 4, folder=tmp_path / "other", environment=stack.layout.environment)
        with pytest.raises(SetUpError, match=f"TCP port {tcp_port}, for RabbitMQ"):
            other.start()
        assert not any(service.running for service in other.services.all)


def test_what_is_not_ours_is_not_ended(tmp_path: Path) -> None:
    """A process with the id that was written down, but another start, is somebody else's."""
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger:
        try:
            mine = Process("mine", [sys.executable, "-c", "pass"], run=tmp_path, logs=tmp_path)
            mine.start()
            file = tmp_path / "mine.pid"
            written = json.loads(file.read_text())
            # Its own would not do: the two may have begun in the same tick of the clock.
            file.write_text(json.dumps({**written, "pid": stranger.pid, "started": 1}))
            assert not mine.running
            mine.stop()
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_its_children_end_with_it(tmp_path: Path) -> None:
    """Those of a process that was killed, too."""
    script = (
        "import subprocess, time; print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)"
    )
    mine = Process("mine", [sys.executable, "-c", script], run=tmp_path, logs=tmp_path)
    mine.start()
    try:
        while not (output := mine.output().strip()):
            assert mine.running
        child = int(output)
        os.kill(mine.pid, signal.SIGKILL)
    finally:
        mine.stop()
    assert not Path(f"/proc/{child}").exists() or Path(f"/proc/{child}/stat").read_text().split()[2] == "Z"
