"""h11 and llhttp (through httptools) with their own defaults: what they make of a guest's or an upstream's bytes."""

from __future__ import annotations

import contextlib

import h11
import httptools

from .outcomes import CLOSES, OPEN, REFUSES, WAITS, AnswerReading, Reading


def h11_requests(data: bytes) -> Reading:
    """Every request is answered at once, so that the next one can be read."""
    connection = h11.Connection(h11.SERVER)
    found: list[tuple[str, bytes]] = []
    connection.receive_data(data)
    try:
        while True:
            event = connection.next_event()
            if event is h11.PAUSED:
                return Reading(tuple(found), CLOSES)  # what follows is another protocol's
            if event is h11.NEED_DATA:
                started = connection.their_state is not h11.IDLE or connection.trailing_data[0]
                return Reading(tuple(found), WAITS if started else OPEN)
            if isinstance(event, h11.ConnectionClosed):
                return Reading(tuple(found), CLOSES)
            if isinstance(event, h11.Request):
                method, content = event.method.decode(), b""
            elif isinstance(event, h11.Data):
                content += event.data
            elif isinstance(event, h11.EndOfMessage):
                found.append((method, content))
                # An answer to CONNECT that refuses it; to others any answer.
                status = 400 if method == "CONNECT" else 200
                connection.send(h11.Response(status_code=status, headers=[("Content-Length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is h11.MUST_CLOSE:
                    return Reading(tuple(found), CLOSES)
                if connection.their_state is h11.DONE:
                    connection.start_next_cycle()
    except h11.RemoteProtocolError:
        return Reading(tuple(found), REFUSES)


def h11_answer(data: bytes, method: str, ends: bool) -> AnswerReading:
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "h")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    if ends:
        connection.receive_data(b"")
    status, content = 0, b""
    try:
        while True:
            event = connection.next_event()
            if event in (h11.NEED_DATA, h11.PAUSED) or isinstance(event, h11.ConnectionClosed):
                # PAUSED: 101, which nobody asked for, or CONNECT, which nobody sends.
                return AnswerReading(status, content, False, REFUSES if event is h11.PAUSED else WAITS)
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                content += event.data
            elif isinstance(event, h11.EndOfMessage):
                return AnswerReading(status, content, True)
    except h11.RemoteProtocolError:
        return AnswerReading(status, content, False, OPEN if status else REFUSES)


class Notes:
    """The callbacks of httptools, for any number of messages."""

    def __init__(self) -> None:
        self.started = False
        self.head = False
        self.method = ""
        self.status = 0
        self.content = b""
        self.whole: list[tuple[str, int, bytes]] = []
        self.keeps = True
        self.parser: httptools.HttpRequestParser | httptools.HttpResponseParser | None = None

    def on_message_begin(self) -> None:
        self.started, self.head, self.content = True, False, b""

    def on_headers_complete(self) -> None:
        self.head = True
        if isinstance(self.parser, httptools.HttpRequestParser):
            self.method = self.parser.get_method().decode()
        else:
            assert self.parser is not None
            self.status = self.parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self.content += body

    def on_message_complete(self) -> None:
        assert self.parser is not None
        self.started = False
        self.whole.append((self.method, self.status, self.content))
        self.keeps = bool(self.parser.should_keep_alive())


def llhttp_requests(data: bytes) -> Reading:
    notes = Notes()
    parser = notes.parser = httptools.HttpRequestParser(notes)
    try:
        parser.feed_data(data)
        end = WAITS if notes.started else OPEN
    except httptools.HttpParserUpgrade:
        end = CLOSES  # it gives the rest to somebody else
    except httptools.HttpParserError:
        # It refuses what follows a message that says close; as everywhere that is no refusal, nobody looks at it.
        end = REFUSES if notes.keeps else CLOSES
    return Reading(tuple((method, content) for method, _, content in notes.whole), end)


def llhttp_answer(data: bytes, method: str, ends: bool) -> AnswerReading | None:
    """None: httptools cannot be told that an answer is one to HEAD."""
    if method == "HEAD":
        return None
    notes = Notes()
    parser = notes.parser = httptools.HttpResponseParser(notes)
    failed = False
    for at in range(len(data)):
        try:
            parser.feed_data(data[at : at + 1])
        except httptools.HttpParserUpgrade:
            return AnswerReading(0, b"", False, REFUSES)
        except httptools.HttpParserError:
            failed = True
            break
        with contextlib.suppress(StopIteration):
            # The first answer that is not an interim one.
            status, content = next((s, c) for _, s, c in notes.whole if s >= 200)
            return AnswerReading(status, content, True)
    status = notes.status if notes.head and notes.status >= 200 else 0
    if failed:
        return AnswerReading(status, notes.content, False, OPEN if status else REFUSES)
    if ends and status:
        # httptools has no way to say that the connection ended; who uses it looks at the framing then.
        return AnswerReading(status, notes.content, parser.should_keep_alive() is False)
    return AnswerReading(status, notes.content, False, WAITS)
