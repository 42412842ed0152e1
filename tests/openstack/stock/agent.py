"""neutron-metadata-agent itself, as its package starts it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from fastmeta.lab.namespaces import sbin_environment
from fastmeta.lab.services import write_private

from ..stack.layout import ADDRESS, Layout

TRACED = Path(__file__).parent / "programs" / "traced_agent.py"
READY = 60.0
"""Seconds."""


class StockAgent:
    """From entering to leaving."""

    def __init__(self, layout: Layout, nova_port: int, secret: str, *, trace: Path | None = None) -> None:
        """nova_port: the TCP port on loopback of what it takes for Nova; trace: a file that gets the options that it
        reads."""
        self.folder = Path(tempfile.mkdtemp(prefix="fms-", dir="/tmp"))
        self.socket = self.folder / "metadata_proxy"
        options = {
            "host": "stock-metadata",
            "state_path": self.folder,
            "transport_url": layout.transport_url,
            "nova_metadata_host": ADDRESS,
            "nova_metadata_port": nova_port,
            "metadata_proxy_shared_secret": secret,
            # The default, half the processors, is one here: a slow answer would keep the others waiting.
            "metadata_workers": 8,
        }
        lines = ["[DEFAULT]", *(f"{name} = {value}" for name, value in options.items()), ""]
        config = write_private(self.folder / "metadata_agent.ini", "\n".join(lines))
        program = [layout.program("neutron-metadata-agent")]
        if trace is not None:
            program = [layout.program("python"), str(TRACED), str(trace)]
        self._command = ["setpriv", "--pdeathsig", "KILL", "--", *program, "--config-file", str(config)]
        self._log = self.folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> StockAgent:
        try:
            with self._log.open("wb") as output:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=sbin_environment(),
                )
            end = time.monotonic() + READY
            while not self.socket.exists():
                assert self._process.poll() is None and time.monotonic() < end, self.log
                time.sleep(0.05)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @property
    def log(self) -> str:
        """The end of what it has printed."""
        return self._log.read_text(errors="backslashreplace")[-5000:]

    def _end(self) -> None:
        try:
            if self._process is not None:
                self._process.kill()
                self._process.wait()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
