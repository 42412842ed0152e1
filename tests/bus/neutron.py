"""Neutron's server as a process of its own, as a test speaks to it."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).parent / "programs" / "neutron_server.py"
WAIT = 30.0


class NeutronServer:
    """From entering to leaving. asked: what it was asked since the last reset()."""

    def __init__(self, url: str, exchange: str = "neutron") -> None:
        """exchange: control_exchange."""
        self._arguments = [url, exchange]
        self._said: queue.Queue[dict[str, Any]] = queue.Queue()
        self.asked: list[dict[str, Any]] = []
        self.pushed_at = 0.0

    def __enter__(self) -> NeutronServer:
        self._process = subprocess.Popen(
            [sys.executable, str(PROGRAM), *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._thread = threading.Thread(target=self._read, name="neutron server's output")
        self._thread.start()
        try:
            assert "ready" in self._said.get(timeout=WAIT)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join()
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()

    def reset(self) -> None:
        self.tell(ports=[], mode="answer")
        self.asked.clear()

    def tell(self, **command: Any) -> None:
        """Returns when it is carried out."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        assert "done" in self._said.get(timeout=WAIT)

    def push(self, resources: Any, event_type: Any, topic: str) -> None:
        self.tell(push=[resources, event_type, topic])

    def calls(self, name: str) -> list[dict[str, Any]]:
        return [call for call in list(self.asked) if call["call"] == name]

    @property
    def filters(self) -> list[dict[str, Any]]:
        return [call["filters"] for call in self.calls("get_ports")]

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            if "call" in said:
                self.asked.append(said)
            elif "pushed_at" in said:
                self.pushed_at = said["pushed_at"]
            else:
                self._said.put(said)
