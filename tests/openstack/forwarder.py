"""Stands between the agent and the bus, so that the agent alone can be cut off while all others go on."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from types import TracebackType

from .stack.layout import ADDRESS


class Forwarder:
    """Listens on a TCP port of its own, and passes everything on to another one, from entering to leaving."""

    def __init__(self, tcp_port: int) -> None:
        self._target = tcp_port
        self._lock = threading.Lock()
        self._passing = threading.Event()
        """Not set: what arrives is kept back."""
        self._passing.set()
        self._refusing = False
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Forwarder:
        self._listener = socket.create_server((ADDRESS, 0))
        self.tcp_port: int = self._listener.getsockname()[1]
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A thread in accept(2) is not woken by close(2).
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self._passing.set()
        for thread in self._threads:
            thread.join()

    def cut(self) -> None:
        """Ends all connections with an RST, and each new one as soon as it is made."""
        with self._lock:
            self._refusing = True
            for pair in self._pairs:
                for end in pair:
                    _reset(end)
            self._pairs.clear()

    def silence(self) -> None:
        """Connections stay, new ones are taken, and nothing passes."""
        self._passing.clear()

    def resume(self) -> None:
        with self._lock:
            self._refusing = False
        self._passing.set()

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, name="forwarder")  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = self._listener.accept()[0]
                with self._lock:
                    if self._refusing:
                        _reset(connection)
                        continue
                    try:
                        onward = socket.create_connection((ADDRESS, self._target))
                    except OSError:
                        _reset(connection)
                        continue
                    self._pairs.append((connection, onward))
                self._start(self._pass, connection, onward)
                self._start(self._pass, onward, connection)

    def _pass(self, source: socket.socket, to: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._passing.wait()
                to.sendall(data)
        # The other direction's thread sees it, too.
        for end in (source, to):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # Wakes the thread that reads; it fails when the other side has ended the connection.
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
