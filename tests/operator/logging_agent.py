"""An agent that logs each request, for tests of its log."""

from __future__ import annotations

import contextlib
import http.client
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

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
