"""Log files: oslo.log's options with a real ``fastmeta agent``, also those that rotate."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from oslo_log import _options

from fastmeta.conf.settings import load

from .kit import LISTEN, Nova, free_tcp_port, write_config

SECONDS = 20.0
FASTMETA = str(Path(sys.executable).with_name("fastmeta"))


class Agent:
    """One that listens on loopback, and logs each request."""

    def __init__(self, folder: Path, nova: Nova, *default: str) -> None:
        self.folder = folder
        self.tcp_port = free_tcp_port()
        self._config = write_config(
            folder,
            default=[f"nova_metadata_port = {nova.tcp_port}", *default],
            fastmeta=[
                LISTEN.format(self.tcp_port),
                "access_log = true",
                "drain_timeout = 0",
                f"control_dir = {folder}/control",
            ],
        )

    @contextlib.contextmanager
    def running(self) -> Iterator[Agent]:
        self.stderr = self.folder / "stderr"
        with self.stderr.open("wb") as output:
            command = [FASTMETA, "agent", "--config-file", str(self._config)]
            process = subprocess.Popen(command, stdout=output, stderr=output, cwd=self.folder)
        try:
            self.until(self._serves, process)
            yield self
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(SECONDS)
            finally:
                process.kill()
        assert process.returncode == 0, self.stderr.read_text()

    def _serves(self) -> bool:
        with contextlib.suppress(OSError):
            self.ask("/")
            return True
        return False

    def ask(self, path: str = "/") -> None:
        """A request, which is a line of the log. (Nobody has our address, so that the answer is 404.)"""
        connection = http.client.HTTPConnection("127.0.0.1", self.tcp_port, timeout=SECONDS)
        try:
            connection.request("GET", path)
            connection.getresponse().read()
        finally:
            connection.close()

    def until(self, done: Callable[[], bool], process: subprocess.Popen[bytes] | None = None) -> None:
        deadline = time.monotonic() + SECONDS
        while not done():
            assert process is None or process.poll() is None, self.stderr.read_text()
            assert time.monotonic() < deadline, f"not in {SECONDS} s: {self.stderr.read_text()}"
            time.sleep(0.05)


def run(folder: Path, nova: Nova, *default: str) -> str:
    """What one writes to standard error from its start to its end, with a request between."""
    agent = Agent(folder, nova, *default)
    with agent.running():
        agent.ask("/marked")
    return agent.stderr.read_text()


def is_whole(log: str) -> bool:
    return all(text in log for text in ("ready: 1 of 1 listeners", "/marked", "fastmeta agent ended"))


def test_without_options_it_is_standard_error(folder: Path, nova: Nova) -> None:
    assert is_whole(run(folder, nova))


def test_a_file(folder: Path, nova: Nova) -> None:
    assert run(folder, nova, f"log_file = {folder}/agent.log") == ""
    assert is_whole((folder / "agent.log").read_text())


def test_a_folder(folder: Path, nova: Nova) -> None:
    """With the name of a file in it, or else that of the program."""
    (folder / "log").mkdir()
    assert run(folder, nova, f"log_dir = {folder}/log", "log_file = agent.log") == ""
    assert run(folder, nova, f"log_dir = {folder}/log") == ""
    assert sorted(path.name for path in (folder / "log").iterdir()) == ["agent.log", "fastmeta.log"]
    assert all(is_whole(path.read_text()) for path in (folder / "log").iterdir())


def test_a_folder_that_is_not_there(folder: Path, nova: Nova) -> None:
    """Said, and nothing is served without a log."""
    config = Agent(folder, nova, f"log_dir = {folder}/log")._config
    done = subprocess.run(
        [FASTMETA, "agent", "--config-file", str(config)],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 1
    assert "logging cannot be set up" in done.stderr
    assert "Traceback" not in done.stderr


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


def test_formats(folder: Path, nova: Nova) -> None:
    log = run(
        folder,
        nova,
        "logging_default_format_string = <%(asctime)s> %(message)s",
        "log_date_format = at %H-%M",
    )
    assert all(re.match(r"<at \d\d-\d\d> ", line) for line in log.splitlines())
    assert is_whole(log)


def test_as_json(folder: Path, nova: Nova) -> None:
    messages = [json.loads(line)["message"] for line in run(folder, nova, "use_json = true").splitlines()]
    assert is_whole("\n".join(messages))


def test_levels(folder: Path, nova: Nova) -> None:
    assert run(folder, nova, "default_log_levels = fastmeta=ERROR") == ""


def test_a_configuration(folder: Path, nova: Nova) -> None:
    """Of Python's logging, with all that it can do."""
    path = folder / "logging.conf"
    path.write_text(
        f"""\
[loggers]
keys = root
[handlers]
keys = own
[formatters]
keys = own
[logger_root]
level = INFO
handlers = own
[handler_own]
class = FileHandler
args = ({str(folder / "own.log")!r},)
formatter = own
[formatter_own]
format = own %(message)s
"""
    )
    assert run(folder, nova, f"log_config_append = {path}") == ""
    log = (folder / "own.log").read_text()
    assert is_whole(log)
    assert all(line.startswith("own ") for line in log.splitlines())


def test_options_of_the_library(folder: Path) -> None:
    """oslo.log has all of its own, and reads them itself."""
    path = folder / "empty.conf"
    path.touch()
    conf = load(["--config-file", str(path)], prog="fastmeta", version="0")
    for options in (
        _options.common_cli_opts,
        _options.logging_cli_opts,
        _options.generic_log_opts,
        _options.log_opts,
    ):
        for option in options:
            assert option.dest in conf
