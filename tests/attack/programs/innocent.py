"""An innocent guest that asks who it is, over and over. Runs in a guest's namespace; needs only Python.

Its one argument is JSON: target, address and TCP port; source, its own address, if the kernel is not to choose; own,
what each of its answers begins with (and goes on with the request's target); pause, the seconds between two requests.
One thread asks on a fresh connection each time, one on a connection that it keeps. It asks until its standard input
ends. Lines on standard output are JSON, one every quarter of a second; the last one has the milliseconds that each
request took.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from typing import Any

TIMEOUT = 10.0
"""Seconds that cloud-init waits, and so do we."""
SHOWN = 10
"""Failures that are told, of each thread."""


class Asker(threading.Thread):
    def __init__(self, plan: dict[str, Any], *, kept: bool) -> None:
        super().__init__(daemon=True)
        self.server = plan["target"]
        self.source = (plan["source"], 0) if "source" in plan else None
        self.own = plan["own"]
        self.pause = plan["pause"]
        self.kept = kept
        self.name = "kept" if kept else "fresh"
        self.stop = threading.Event()
        self.times: list[float] = []
        self.failures: list[str] = []
        self.failed = 0
        self.reopened = 0
        self.connection: http.client.HTTPConnection | None = None

    def run(self) -> None:
        number = 0
        start = time.monotonic()
        while not self.stop.is_set():
            number += 1
            target = f"/{self.name}/{number}"
            began = time.monotonic()
            try:
                wrong = self.ask(target)
            except OSError as error:  # timeouts too
                wrong = f"{error!r}"
            except http.client.HTTPException as error:
                wrong = f"{error!r}"
            took = time.monotonic() - began
            self.times.append(round(took * 1000, 2))
            if wrong:
                self.leave()
                self.failed += 1
                if len(self.failures) < SHOWN:
                    self.failures.append(
                        f"{target}, asked after {began - start:.2f} s, ended {took:.2f} s later: {wrong}"
                    )
            self.stop.wait(self.pause)
        self.leave()

    def ask(self, target: str) -> str:
        """Empty, or what is wrong with the answer."""
        if self.kept and self.connection is not None:
            try:
                return self.ask_on(self.connection, target)
            except (http.client.RemoteDisconnected, ConnectionError):
                # RFC 9112 section 9.3.1: a kept connection may be closed at any time, and the request is sent again.
                self.reopened += 1
                self.leave()
        if self.connection is None:
            self.connection = http.client.HTTPConnection(
                *self.server, timeout=TIMEOUT, source_address=self.source
            )
        wrong = self.ask_on(self.connection, target)
        if not self.kept:
            self.leave()
        return wrong

    def ask_on(self, connection: http.client.HTTPConnection, target: str) -> str:
        connection.request("GET", target, headers={} if self.kept else {"Connection": "close"})
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            return f"{response.status} {body[:200]!r}"
        if body != f"{self.own}{target}>\n".encode():
            return f"not its own data: {body[:200]!r}"
        return ""

    def leave(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None


def tell(askers: list[Asker], *, last: bool) -> None:
    line: dict[str, object] = {"last": last}
    for asker in askers:
        entry: dict[str, object] = {
            "asked": len(asker.times),
            "failed": asker.failed,
            "failures": asker.failures,
            "reopened": asker.reopened,
        }
        if last:
            entry["times"] = asker.times
        line[asker.name] = entry
    print(json.dumps(line), flush=True)


def main() -> None:
    plan = json.loads(sys.argv[1])
    askers = [Asker(plan, kept=kept) for kept in (False, True)]
    for asker in askers:
        asker.start()
    ended = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    while not ended.wait(0.25):
        tell(askers, last=False)
    for asker in askers:
        asker.stop.set()
    for asker in askers:
        asker.join(TIMEOUT + 5)
    tell(askers, last=True)


if __name__ == "__main__":
    main()
