"""A loop in a process of its own, for what cannot be done to the process of the tests: run as a program.

Arguments: the upstream's TCP port, the limit of descriptors (0: as it is), settings as JSON. It writes the
TCP port it listens on, answers every miss, says what problems it met, forks when a line comes, and
ends with its standard input.
"""

import json
import os
import resource
import select
import socket
import sys
import threading
import time

from fastmeta import _core


def fork() -> None:
    """A child that shares all descriptors and ends with this process."""
    alive, ours = os.pipe()
    if os.fork() == 0:
        os.close(ours)
        os.read(alive, 1)
        os._exit(0)
    os.close(alive)


def main(tcp_port: int, descriptors: int, settings: dict[str, int]) -> None:
    loop = _core.Loop(settings, secret=b"secret")
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    print(listener.getsockname()[1], flush=True)
    loop.set_upstream([("127.0.0.1", tcp_port)], "nova")
    loop.add_scope(1)
    loop.add_listener(1, 1, listener.detach())
    if descriptors:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
    thread = threading.Thread(target=loop.run)
    thread.start()
    while True:
        ready, _, _ = select.select([sys.stdin, loop.fileno()], [], [])
        for event in loop.events():
            if event[0] == _core.EVENT_MISS:
                _, scope, address, _ = event
                text = socket.inet_ntop(socket.AF_INET, address[12:])
                loop.put_identity(
                    scope,
                    address,
                    0,
                    instance_id=f"instance-1-{text}-0",
                    project_id="project",
                    asked_at=time.monotonic(),
                    ttl_ms=60_000,
                    generation=0,
                )
            elif event[0] == _core.EVENT_PROBLEM:
                print("problem", event[1], flush=True)
        if sys.stdin in ready:
            if not sys.stdin.readline():
                break
            fork()
    loop.stop()
    thread.join()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]))
