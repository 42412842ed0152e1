"""How h11 and llhttp (through httptools) read a message: the second and third opinion on what we accept.

Where a peer is stricter than we are, it is said here, once, and handled so that the rest of the message
is still compared:

- h11 takes no empty line before the request line (RFC 9112 section 2.2 lets it be skipped; we skip
  one).
- h11 never keeps a connection of HTTP/1.0 alive.
- llhttp knows only the methods of LLHTTP_METHODS.
- llhttp takes fewer characters in the authority of an absolute target, which we drop:
  LLHTTP_AUTHORITY.
- llhttp judges the grammar of a chunk's extensions, of which we judge the characters and the
  length: they are dropped, and where they end is never in doubt.
- llhttp does not see an option of Connection that white space and a comma follow (RFC 9110 section
  5.6.1 allows it), and in HTTP/1.0 to it keep-alive counts more than close (RFC 9112 section 9.3:
  less).
- llhttp takes Proxy-Connection for Connection (RFC 9110 section 7.6.1 does not).
- llhttp takes a tab behind "chunked" for a part of it (RFC 9110 section 5.5 does not).
- llhttp reads content after a 304 that names a transfer coding (RFC 9112 section 6.1 allows the
  name and forbids the content).
- llhttp and h11 stop after a request that asks for an Upgrade (RFC 9110 section 7.8 lets a server
  ignore it, as we do); the message itself they read to its end, and h11 leaves open whether the
  connection lives on.
- llhttp (as httptools uses it) ends such a request at its head even when content follows. Neither
  Upgrade nor Connection goes to Nova, so nobody behind us has to decide.

Where they are laxer (bare LF, unknown versions, lists of lengths, chunked besides a length, white
space after a chunk's size) does not matter here: what we refuse goes nowhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import h11
import httptools

LLHTTP_METHODS = frozenset(
    b"DELETE GET HEAD POST PUT OPTIONS TRACE COPY LOCK MKCOL MOVE PROPFIND PROPPATCH SEARCH UNLOCK "
    b"BIND REBIND UNBIND ACL REPORT MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE "
    b"PATCH PURGE MKCALENDAR LINK UNLINK SOURCE QUERY".split()
)
LLHTTP_AUTHORITY = re.compile(rb"[A-Za-z0-9\-_.!~*'()%;:&=+$,\[\]]+")

REFUSED = "refused"
INCOMPLETE = "incomplete"


@dataclass(frozen=True)
class Reading:
    """start: the method and target of a request, the status of a response. end: offset behind the message,
    -1 when it ends with the connection or is not there yet."""

    start: tuple[bytes, bytes] | int
    version: int
    headers: list[tuple[bytes, bytes]]
    content: bytes
    end: int
    keep_alive: bool


def normal(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Without what has no meaning: the case of names, and of codings, which h11 gives in lower case; the
    white space behind a value, which llhttp leaves there (RFC 9112 section 5: no part of it)."""
    found = []
    for name, value in headers:
        name, value = bytes(name).lower(), bytes(value).strip(b" \t")
        found.append((name, value.lower() if name == b"transfer-encoding" else value))
    return found


def h11_knows_connection(reading: Reading) -> bool:
    return reading.version == 11 and all(name != b"upgrade" for name, _ in reading.headers)


def llhttp_may_stop_at_head(reading: Reading) -> bool:
    return any(name == b"upgrade" for name, _ in reading.headers)


def llhttp_knows_connection(reading: Reading) -> bool:
    says = b",".join(value for name, value in reading.headers if name == b"connection")
    if any(name == b"proxy-connection" for name, _ in reading.headers):
        return False
    return not re.search(rb"[ \t],", says) and (reading.version == 11 or b"close" not in says.lower())


def for_llhttp(data: bytes) -> bytes:
    """With spaces for tabs where llhttp does not know them; as long as before."""
    head, end, rest = data.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    for at, line in enumerate(lines):
        if line.lower().startswith(b"transfer-encoding:"):
            lines[at] = line.replace(b"\t", b" ")
    return b"\r\n".join(lines) + end + rest


def h11_request(data: bytes) -> Reading | str:
    return h11_read(h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20), data)


def h11_response(data: bytes, to_head: bool) -> Reading | str:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    connection.send(h11.Request(method="HEAD" if to_head else "GET", target="/", headers=[("Host", "h")]))
    connection.send(h11.EndOfMessage())
    return h11_read(connection, data)


def h11_read(connection: h11.Connection, data: bytes) -> Reading | str:
    if not data:
        return INCOMPLETE  # to h11 no data is the end of the connection
    connection.receive_data(data)
    content = b""
    try:
        head = connection.next_event()
        if head is h11.NEED_DATA:
            return INCOMPLETE
        if isinstance(head, h11.InformationalResponse):
            event: object = h11.EndOfMessage()
        else:
            event = connection.next_event()
        while isinstance(event, h11.Data):
            content += event.data
            event = connection.next_event()
    except h11.RemoteProtocolError:
        return REFUSED
    rest = len(connection.trailing_data[0])
    assert isinstance(head, h11.Request | h11.Response | h11.InformationalResponse), head
    return Reading(
        start=(head.method, head.target) if isinstance(head, h11.Request) else head.status_code,
        version=int(head.http_version.replace(b".", b"")),
        headers=normal(list(head.headers)),
        content=content,
        end=len(data) - rest if isinstance(event, h11.EndOfMessage) else -1,
        keep_alive=connection.their_state is not h11.MUST_CLOSE and isinstance(event, h11.EndOfMessage),
    )


class Notes:
    """The callbacks of httptools."""

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.head_complete = False
        self.complete = False
        self.content = b""
        self.parser: httptools.HttpRequestParser | httptools.HttpResponseParser | None = None
        self.keep_alive = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.head_complete:  # else it is a trailer
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.head_complete = True

    def on_body(self, body: bytes) -> None:
        self.content += body

    def on_message_complete(self) -> None:
        assert self.parser is not None
        self.complete = True
        self.keep_alive = bool(self.parser.should_keep_alive())


def llhttp_request(data: bytes) -> Reading | str:
    notes = Notes()
    return llhttp_read(httptools.HttpRequestParser(notes), notes, for_llhttp(data))


def llhttp_response(data: bytes) -> Reading | str:
    """To GET; httptools cannot be told of HEAD."""
    notes = Notes()
    return llhttp_read(httptools.HttpResponseParser(notes), notes, for_llhttp(data))


def llhttp_read(
    parser: httptools.HttpRequestParser | httptools.HttpResponseParser, notes: Notes, data: bytes
) -> Reading | str:
    notes.parser = parser
    end = -1
    for at in range(len(data)):
        try:
            # One by one: so it is known which byte ended the message.
            parser.feed_data(data[at : at + 1])
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError:
            return REFUSED
        if notes.complete:
            end = at + 1
            break
    if not notes.head_complete:
        return INCOMPLETE
    request = isinstance(parser, httptools.HttpRequestParser)
    return Reading(
        start=(parser.get_method(), notes.target) if request else parser.get_status_code(),
        version=int(parser.get_http_version().replace(".", "")),
        headers=normal(notes.headers),
        content=notes.content,
        end=end,
        keep_alive=notes.keep_alive,
    )
