"""A loop of the core in a process of its own, with Python's part played so that some scopes never get an answer.

Its one argument is JSON: nova, a TCP port; secret; settings of the loop; scopes, their number; silent, those of them
whose misses nobody answers; ttl_ms, for which the answers of all others are believed. Scope n listens on all addresses
of 127.0.0.0/8, and there each address is an instance. The first line on standard output is JSON with the TCP port of
each scope; the others, one every quarter of a second, have the counters of the loop ("loop") and of each scope ("1",
"2", …) and the problems that it had. A line on standard input is a number of seconds for which Python does nothing at
all; it ends with its standard input.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import threading
import time

from fastmeta import _core


def main() -> None:
    plan = json.loads(sys.argv[1])
    loop = _core.Loop(plan["settings"], secret=plan["secret"].encode())
    loop.set_upstream([("127.0.0.1", plan["nova"])], "nova")
    scopes = range(1, plan["scopes"] + 1)
    tcp_ports = []
    for scope in scopes:
        loop.add_scope(scope)
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        listener.bind(("0.0.0.0", 0))
        listener.listen(4096)
        tcp_ports.append(listener.getsockname()[1])
        loop.add_listener(scope, scope, listener.detach())
    print(json.dumps({"tcp_ports": tcp_ports}), flush=True)
    thread = threading.Thread(target=loop.run)
    thread.start()
    problems: set[int] = set()
    misses = dict.fromkeys(scopes, 0)
    tell_at = 0.0
    while True:
        ready, _, _ = select.select([sys.stdin, loop.fileno()], [], [], 0.25)
        for event in loop.events():
            if event[0] == _core.EVENT_PROBLEM:
                problems.add(event[1])
            elif event[0] == _core.EVENT_MISS:
                _, scope, address, _ = event
                misses[scope] += 1
                if scope not in plan["silent"]:
                    put(loop, scope, address, plan["ttl_ms"])
        if sys.stdin in ready:
            line = sys.stdin.readline()
            if not line:
                break
            time.sleep(float(line))
        if time.monotonic() >= tell_at:
            tell_at = time.monotonic() + 0.25
            stats = {str(scope): loop.stats(scope) for scope in scopes}
            told = {"loop": loop.stats(), **stats, "problems": sorted(problems), "misses": misses}
            print(json.dumps(told), flush=True)
    loop.stop()
    thread.join()


def put(loop: _core.Loop, scope: int, address: bytes, ttl_ms: int) -> None:
    text = socket.inet_ntop(socket.AF_INET, address[12:])
    loop.put_identity(
        scope,
        address,
        0,
        instance_id=f"instance-{scope}-{text}",
        project_id="project",
        asked_at=time.monotonic(),
        ttl_ms=ttl_ms,
        generation=0,
    )


if __name__ == "__main__":
    main()
