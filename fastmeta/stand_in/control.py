"""The agent's side of stand-ins and holders: takes what they hand over, and notices when a holder ends.

A stand-in connects to the control socket, and its holder keeps that connection. When an agent starts it connects to
every holder that it finds, and is given the same. In both ways the end of the connection is the end of the proxy.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
from collections.abc import Callable

from oslo_log import log as logging

from fastmeta.exceptions import FastmetaError, StandInError
from fastmeta.folders import FolderWatcher, Seen
from fastmeta.stand_in.folder import StandInFolder
from fastmeta.stand_in.message import HOLDER, MAX_MESSAGE, MAX_SOCKETS, HandOver
from fastmeta.stand_in.proxies import Proxies
from fastmeta.unix_socket import peer_of

LOG = logging.getLogger(__name__)

PATIENCE = 5.0
"""Seconds that a stand-in has to say what it wants."""
TRY_AGAIN = 0.1
"""Seconds until a holder that does not accept is tried again,"""
LATER = 1.0
"""or one whose sockets we cannot take now, for want of descriptors or of a capability."""

_ROOM = socket.CMSG_SPACE(MAX_SOCKETS * array.array("i").itemsize)


class Control:
    """Lives in the event loop's thread, from start() to stop()."""

    def __init__(
        self, proxies: Proxies, folders: FolderWatcher, control_dir: str, on_taken: Callable[[HandOver], None]
    ) -> None:
        """on_taken: called with what is served from then on."""
        self._proxies = proxies
        self._on_taken = on_taken
        self._folders = folders
        self._folder = StandInFolder(control_dir)
        self._listening: socket.socket | None = None
        self._heard: set[_Connection] = set()
        """Stand-ins that have handed nothing over yet;"""
        self._asked: dict[str, _Connection] = {}
        """holders that have not, by name."""
        self._held: dict[str, _Connection] = {}
        """Those that have, by the holder's name."""
        self._retries: dict[str, asyncio.TimerHandle] = {}

    def start(self) -> None:
        """Listens, and asks all holders that are there. Raises ListenError, ConfigError."""
        self._listening = self._folder.open()
        asyncio.get_running_loop().add_reader(self._listening.fileno(), self._accept)
        self._folders.watch(self._folder.holders, self._seen)
        self._ask_all()
        LOG.info(
            "listening: %s, for haproxy's stand-ins; %d holders are there",
            self._folder.path,
            len(self._asked),
        )

    def stop(self) -> None:
        """Stand-ins find nobody any more. Holders stay, and keep what they have for the next agent."""
        if self._listening is None:
            return
        asyncio.get_running_loop().remove_reader(self._listening.fileno())
        self._listening.close()
        self._listening = None
        for retry in self._retries.values():
            retry.cancel()
        for connection in [*self._heard, *self._asked.values(), *self._held.values()]:
            connection.close()
        self._heard.clear()
        self._asked.clear()
        self._held.clear()
        self._folder.close()

    def end(self, holder: str, why: str) -> None:
        """Nothing of a proxy is to be served any more, and its holder is to end."""
        LOG.info("%s: %s", holder, why)
        connection = self._held.get(holder)
        if connection is not None:
            connection.say(b"end")
            self._gone(connection)

    def _accept(self) -> None:
        """All that wait; each says itself what it wants."""
        while self._listening is not None:
            try:
                accepted, _ = self._listening.accept()
            except (BlockingIOError, ConnectionAbortedError, InterruptedError):
                return
            except OSError as error:
                reason = error.strerror
                break
            connection = self._connection(accepted, "")
            if connection is not None:
                self._heard.add(connection)
        else:
            return
        LOG.error("stand-ins cannot be heard, and wait: %s", reason)
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._listening.fileno())
        self._retries[""] = loop.call_later(LATER, self._accept_again)

    def _accept_again(self) -> None:
        if self._listening is not None:
            asyncio.get_running_loop().add_reader(self._listening.fileno(), self._accept)

    def _connection(self, connected: socket.socket, holder: str) -> _Connection | None:
        """Somebody will hand over; None: it is a stranger. holder: who has been asked; "": a stand-in, which is told
        what comes of it."""
        process, user = peer_of(connected)
        if user not in (0, os.geteuid()):
            LOG.warning("process %d of user %d would hand over sockets, and was turned away", process, user)
            connected.close()
            return None
        return _Connection(connected, holder, self._readable, self._late)

    def _readable(self, connection: _Connection) -> None:
        if connection in self._heard or self._asked.get(connection.holder) is connection:
            self._take(connection)
        elif not connection.is_open():
            self._gone(connection)

    def _late(self, connection: _Connection) -> None:
        if not connection.holder:  # (a holder may be stopped, and go on)
            self._heard.discard(connection)
            connection.close()
            LOG.warning("a stand-in was silent for %g seconds", PATIENCE)

    def _take(self, connection: _Connection) -> None:
        """What is handed over; or the connection has ended without."""
        descriptors: list[int] = []
        refused = ""
        final = False
        asked = bool(connection.holder)
        self._heard.discard(connection)
        self._asked.pop(connection.holder, None)
        try:
            data = connection.receive(descriptors)
            if not data:
                connection.close()
                if asked:
                    self._folder.forget(connection.holder)
                return
            claim = HandOver.parse(data)
            if asked and claim.holder != connection.holder:
                raise StandInError(f"holder {connection.holder} says that it is {claim.holder}")
            predecessors = self._proxies.take(claim, descriptors)
        except (FastmetaError, OSError) as error:
            refused = str(error)
            final = isinstance(error, StandInError)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        if refused:  # (outside of except, where oslo.log would say it twice)
            LOG.error("a stand-in's sockets are refused: %s", refused)
            if not asked:
                connection.say(f"refused {refused[:400]}".encode("ascii", "replace"))
            elif final:
                connection.say(b"end")
            else:  # it is we who cannot take them now: that is no reason to end a proxy
                self._ask_later(connection.holder, LATER)
            connection.close()
            return
        connection.holder = claim.holder
        self._held[claim.holder] = connection
        if not asked:
            connection.say(b"taken")
        self._on_taken(claim)
        for predecessor in predecessors:
            # Its sockets close when it has ended: until then connections may come to its copies.
            before = self._held.get(predecessor.claim.holder)
            if before is not None:
                before.say(b"end")

    def _gone(self, connection: _Connection) -> None:
        connection.close()
        if self._held.get(connection.holder) is connection:
            del self._held[connection.holder]
            self._proxies.close(connection.holder)
            self._folder.forget(connection.holder)

    def _seen(self, seen: Seen, name: str) -> None:
        if self._listening is None:
            return
        if seen is Seen.ANEW:
            self._ask_all()
        elif seen is Seen.MOVED_IN:
            self._ask(name)

    def _ask_all(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            for name in self._folder.names():
                self._ask(name)

    def _ask(self, name: str) -> None:
        """A holder whose sockets we do not have, as those that were there before us, for its sockets."""
        retry = self._retries.pop(name, None)
        if retry is not None:
            retry.cancel()
        if not HOLDER.fullmatch(name) or name in self._held or name in self._asked:
            return
        try:
            connection = self._connection(self._folder.connect(name), name)
            if connection is not None:
                self._asked[name] = connection
        except ConnectionRefusedError:
            self._folder.forget(name)  # it has ended while nobody was there to see it
        except FileNotFoundError:
            return
        except BlockingIOError:
            self._ask_later(name, TRY_AGAIN)
        except OSError as error:
            LOG.debug("holder %s cannot be asked now: %s", name, error.strerror)
            self._ask_later(name, LATER)

    def _ask_later(self, name: str, seconds: float) -> None:
        self._retries[name] = asyncio.get_running_loop().call_later(seconds, self._ask, name)


class _Connection:
    """To a stand-in or holder. holder: its name, as soon as it is known."""

    def __init__(
        self,
        connected: socket.socket,
        holder: str,
        on_readable: Callable[[_Connection], None],
        on_late: Callable[[_Connection], None],
    ) -> None:
        self.holder = holder
        self._socket = connected
        self._socket.setblocking(False)
        loop = asyncio.get_running_loop()
        loop.add_reader(connected.fileno(), on_readable, self)
        self._deadline = loop.call_later(PATIENCE, on_late, self)

    def receive(self, descriptors: list[int]) -> bytes:
        """A message; its descriptors, which are the caller's, are added. b"": it has ended. Raises OSError, also for
        one that is not whole."""
        self._deadline.cancel()
        data, ancillary, flags, _ = self._socket.recvmsg(MAX_MESSAGE, _ROOM, socket.MSG_CMSG_CLOEXEC)
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                found = array.array("i")
                found.frombytes(content[: len(content) - len(content) % found.itemsize])
                descriptors += found
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            # Descriptors are cut off also when we have none left.
            raise OSError(
                "the message is too long, or has too many descriptors, or none are left: raise LimitNOFILE"
            )
        return data

    def is_open(self) -> bool:
        """Whether the other end is there still."""
        try:
            return bool(self._socket.recv(16))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def say(self, text: bytes) -> None:
        """If nobody hears it any more, its end is noticed."""
        with contextlib.suppress(OSError):
            self._socket.send(text)

    def close(self) -> None:
        self._deadline.cancel()
        if self._socket.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
