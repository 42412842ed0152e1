"""A TCP relay before the bus: connections can be cut, and what is sent held back, at a moment of a test's choice."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading


class Gate:
    """Listens on tcp_port, and relays to the target, from entering to leaving."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.tcp_port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._holding = False
        self._ended = False
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._relay, name="gate")

    def __enter__(self) -> Gate:
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._thread.join()
        self.cut()
        self._selector.close()
        self._listener.close()

    def cut(self) -> int:
        """Ends all connections at once; gives their number."""
        with self._lock:
            ended = list(self._pairs)
            for one in ended:
                self._selector.unregister(one)
                one.close()
            self._pairs.clear()
        return len(ended) // 2

    def hold(self) -> None:
        """What is sent from now on arrives only after let_go()."""
        with self._lock:
            self._holding = True

    def let_go(self) -> None:
        with self._lock:
            self._holding = False

    def _relay(self) -> None:
        while not self._ended:
            if self._holding:
                threading.Event().wait(0.01)
                continue
            for key, _ in self._selector.select(0.02):
                with self._lock:
                    if not self._holding:
                        self._ready(key.fileobj)  # type: ignore[arg-type]

    def _ready(self, one: socket.socket) -> None:
        if one is self._listener:
            client, _ = one.accept()
            try:
                server = socket.create_connection(("127.0.0.1", self._target), 5)
            except OSError:
                client.close()
                return
            for here, there in ((client, server), (server, client)):
                self._pairs[here] = there
                self._selector.register(here, selectors.EVENT_READ)
            return
        other = self._pairs.get(one)
        if other is None:
            return
        data = b""
        with contextlib.suppress(OSError):
            data = one.recv(65536)
        try:
            if data:
                other.sendall(data)
                return
        except OSError:
            pass
        for end in (one, other):
            del self._pairs[end]
            self._selector.unregister(end)
            end.close()
