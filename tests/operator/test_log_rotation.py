"""Log files that are rotated, by oslo.log itself or by logrotate, while a real ``fastmeta agent`` writes: no line is
lost."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .kit import Nova
from .logging_agent import SECONDS, Agent


def test_rotated_by_size(folder: Path, nova: Nova) -> None:
    """No line is lost on the way, and no file has more than it may."""
    agent = Agent(
        folder,
        nova,
        f"log_file = {folder}/agent.log",
        "log_rotation_type = size",
        "max_logfile_size_mb = 1",
        "max_logfile_count = 5",
        "logging_default_format_string = %(message)4000s",  # at least as long
    )
    with agent.running():
        for number in range(600):
            agent.ask(f"/{number}-x")
    assert agent.stderr.read_text() == ""
    files = sorted(folder.glob("agent.log*"))
    assert [path.name for path in files] == ["agent.log", "agent.log.1", "agent.log.2"]
    assert all(path.stat().st_size <= 1 << 20 for path in files)
    text = "".join(path.read_text() for path in files)
    assert {int(number) for number in re.findall(r"/(\d+)-x\b", text)} == set(range(600))


def test_rotated_by_time(folder: Path, nova: Nova) -> None:
    agent = Agent(
        folder,
        nova,
        f"log_file = {folder}/agent.log",
        "log_rotation_type = interval",
        "log_rotate_interval = 1",
        "log_rotate_interval_type = seconds",
        "max_logfile_count = 2",
    )
    seen: set[str] = set()

    def has_rotated_often() -> bool:
        agent.ask()
        seen.update(path.name for path in folder.glob("agent.log.*"))
        return len(seen) >= 4

    with agent.running():
        agent.until(has_rotated_often)
    assert len(list(folder.glob("agent.log.*"))) == 2, "the oldest are removed"
    assert agent.stderr.read_text() == ""


class Asking:
    """Requests without a pause, each a line of the log, from entering to leaving. count: how many."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.count = 0
        self._end = threading.Event()
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> Asking:
        self._asking = self._pool.submit(self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._asking.result(SECONDS)
        self._pool.shutdown()

    def _ask(self) -> None:
        while not self._end.is_set():
            self.agent.ask(f"/{self.count}-x")
            self.count += 1

    def until_more(self, count: int = 50) -> None:
        before = self.count
        self.agent.until(lambda: self.count >= before + count)


def lines_of(files: Iterable[Path]) -> list[int]:
    """The numbers of all requests that are in them, in any order."""
    return sorted(int(number) for path in files for number in re.findall(r"/(\d+)-x\b", path.read_text()))


def logrotate(folder: Path, log: Path, *lines: str) -> None:
    """logrotate(8) itself, at once, with these lines for our log."""
    config = folder / "logrotate.conf"
    config.write_text("\n".join([f"{log} {{", *lines, "rotate 5", "}", ""]))
    config.chmod(0o600)
    program = shutil.which("logrotate", path=os.environ.get("PATH", "") + ":/usr/sbin")
    assert program is not None, "logrotate is not installed: tools/setup.sh does that, as root"
    state = folder / "logrotate.state"
    subprocess.run([program, "--force", "--state", str(state), str(config)], check=True, timeout=60)


@pytest.mark.parametrize("line", ["create 0640", "nocreate"])
def test_a_log_that_logrotate_moves(folder: Path, nova: Nova, line: str) -> None:
    """Nobody tells the agent: it sees that its file has another name, and goes on in a new one. Of what is logged
    meanwhile no line is lost, and none is there twice."""
    log = folder / "agent.log"
    agent = Agent(folder, nova, f"log_file = {log}")
    with agent.running():
        with Asking(agent) as asking:
            for _ in range(3):
                asking.until_more()
                logrotate(folder, log, line)
                asking.until_more()
        agent.until(lambda: f"/{asking.count - 1}-x" in log.read_text())
    files = sorted(folder.glob("agent.log*"))
    assert [path.name for path in files] == ["agent.log", *(f"agent.log.{n}" for n in (1, 2, 3))]
    assert all(lines_of([path]) for path in files)
    assert lines_of(files) == list(range(asking.count))
    assert agent.stderr.read_text() == ""


def test_no_line_is_lost_between_intervals(folder: Path, nova: Nova) -> None:
    agent = Agent(
        folder,
        nova,
        f"log_dir = {folder}",
        "log_file = agent.log",
        "log_rotation_type = interval",
        "log_rotate_interval = 1",
        "log_rotate_interval_type = seconds",
        "max_logfile_count = 100",
    )
    with agent.running():
        with Asking(agent) as asking:
            agent.until(lambda: len(list(folder.glob("agent.log.*"))) >= 3)
        agent.until(lambda: lines_of(folder.glob("agent.log*")) == list(range(asking.count)))


def test_a_log_that_logrotate_copies(folder: Path, nova: Nova) -> None:
    """copytruncate, as Debian has it: while nothing is logged nothing is lost, and no bytes come between. (What is
    logged between the copy and the cut is lost, whatever the program does.)"""
    log = folder / "agent.log"
    agent = Agent(folder, nova, f"log_file = {log}")
    with agent.running():
        for number in range(3):
            agent.ask(f"/{number}-x")
            agent.until(lambda number=number: f"/{number}-x" in log.read_text())  # type: ignore[misc]
            logrotate(folder, log, "copytruncate")
    files = [*folder.glob("agent.log*")]
    assert len(files) == 4
    assert lines_of(files) == [0, 1, 2]
    assert all("\0" not in path.read_text() for path in files)


def test_a_log_that_logrotate_empties(folder: Path, nova: Nova) -> None:
    """With copytruncate, as distributions do with Neutron's logs: what follows is at the file's new beginning."""
    log = folder / "agent.log"
    agent = Agent(folder, nova, f"log_file = {log}")
    with agent.running():
        agent.until(lambda: "GET /" in log.read_text())
        os.truncate(log, 0)
        agent.ask("/marked")
        agent.until(lambda: "/marked" in log.read_text())
        assert "\0" not in log.read_text()
