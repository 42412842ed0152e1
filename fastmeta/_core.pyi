"""The compiled core: listening sockets in, requests to Nova out; no GIL on the request path.

Python talks to a loop only through the methods below, which put messages into the loop's mailbox (bounded, applied in
order) and read its two event rings. All methods but ``run`` may be called from any thread that holds the GIL.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, final

from typing_extensions import Buffer

# Event tuples from Loop.events(); the first element is one of these.
EVENT_MISS: Final[int]
"""(EVENT_MISS, scope, address, interface): a request waits for the identity of address in scope.

address is 16 bytes (IPv4 as ::ffff:a.b.c.d), interface the index for link-local addresses, else 0. Sent once for each
address and again about every second as long as new requests for it arrive; also when renew() asks for it, and when Nova
answers 404 under an identity that was confirmed more than 2 s ago, at most every 10 s: that answer is held for up to 3 s, until
put_identity, put_absent, put_refused or revoke says whether it is this instance's."""
EVENT_REQUEST: Final[int]
"""(EVENT_REQUEST, dict): one finished request, when access_log is on. Keys: scope, address (16 bytes), interface,
instance_id, method, target (str; '' when there is none; a target's first 256 characters), status (0: the guest went
before its answer began), whole (False: the guest did not get all of its answer), bytes (of content), total_us, parked_us, upstream_us, upstream_status (0: Nova gave none)."""
EVENT_PROBLEM: Final[int]
"""(EVENT_PROBLEM, code, errno, scope, listener, address, upstream): something an operator should know; code is one of
PROBLEM_*. The loop reports each code, of each server, at most once a second; scope, listener and upstream (the number of a
server) are 0, and address (else 16 bytes) is empty, where they do not apply. Of PROBLEM_UPSTREAM_CERTIFICATE and
PROBLEM_UPSTREAM_TLS the third is a number for certificate_error_text or tls_error_text."""
EVENT_LISTENER_CLOSED: Final[int]
"""(EVENT_LISTENER_CLOSED, listener): remove_listener has ended: the socket and all of its connections are closed."""
EVENT_SCOPE_REMOVED: Final[int]
"""(EVENT_SCOPE_REMOVED, scope): remove_scope has ended, or retire_scope found nobody: nothing of the scope is left."""
EVENT_HANDED: Final[int]
"""(EVENT_HANDED, fd, kind, uuid, state): a connection of the relay with a request for a scope that its loop does not have.
Who takes the event owns fd, and hands it over to the loop that has the scope, which may have to be made first: with
hand_over(fd, state), at once, since a guest waits. kind is SCOPE_NETWORK or SCOPE_ROUTER, uuid 16 bytes."""

RELAY_OVER: Final[int]
"""Connections over max_connections that a loop's relay keeps until their request is here, to answer it with 503."""

SCOPE_UNNAMED: Final[int]
SCOPE_NETWORK: Final[int]
SCOPE_ROUTER: Final[int]

PROBLEM_ACCEPT: Final[int]
PROBLEM_DESCRIPTORS: Final[int]
PROBLEM_MEMORY: Final[int]
PROBLEM_CONNECTIONS_FULL: Final[int]
PROBLEM_PARKED_FULL: Final[int]
PROBLEM_UPSTREAM_AWAY: Final[int]
PROBLEM_UPSTREAM_BACK: Final[int]
PROBLEM_UPSTREAM_NONSENSE: Final[int]
PROBLEM_UPSTREAM_TIMEOUT: Final[int]
PROBLEM_UPSTREAM_REFUSES_SIGNATURE: Final[int]
PROBLEM_EVENTS_LOST: Final[int]
PROBLEM_UPSTREAM_FULL: Final[int]
PROBLEM_UPSTREAM_SILENT: Final[int]
PROBLEM_SCOPE_CONNECTIONS: Final[int]
PROBLEM_ADDRESS_CONNECTIONS: Final[int]
PROBLEM_SCOPE_PARKED: Final[int]
PROBLEM_ADDRESS_PARKED: Final[int]
PROBLEM_BODIES_FULL: Final[int]
PROBLEM_RATE_LIMITED: Final[int]
PROBLEM_SCOPE_MISSES: Final[int]
PROBLEM_UPSTREAM_CERTIFICATE: Final[int]
PROBLEM_UPSTREAM_TLS: Final[int]
PROBLEM_UPSTREAM_SLOW: Final[int]
PROBLEM_UPSTREAM_ALL_AWAY: Final[int]
PROBLEM_UPSTREAM_SOME_BACK: Final[int]
PROBLEM_NEXT_SECRET: Final[int]
PROBLEM_STRANGER: Final[int]
"""Who connected to the relay's socket is none of those who may; its errno is the user's number."""

SETTINGS: Final[Mapping[str, tuple[int, int, int]]]
"""name -> (default, smallest, largest) of every integer setting of a loop; times in milliseconds, sizes in bytes.

rate_versions says which requests the two windows limit: 0 none, 1 those from IPv4, 2 those from IPv6, 3 all."""

REFUSALS: Final[tuple[str, ...]]
"""Why requests are refused by the core itself: stats()["refused_<reason>"]. docs/limits.md says what each one means."""
ENDS: Final[tuple[str, ...]]
"""How connections of guests end: stats()["ended_<how>"]."""
STATUSES: Final[tuple[int, ...]]
"""Statuses that are counted one by one, stats()["status_<number>"]; others are in status_other_2xx to status_other_5xx."""
HISTOGRAM_BOUNDS_US: Final[tuple[int, ...]]
"""Upper bounds, exclusive, of the buckets of all histograms in microseconds; one bucket more takes the rest."""

def certificate_error_text(error: int) -> str:
    """What OpenSSL says of a certificate that was refused, by its X509_V_ERR number."""

def tls_error_text(error: int) -> str:
    """What OpenSSL's packed error code means."""

@final
class TlsContext:
    """How to speak TLS (1.2 and up) with Nova: the files are read once, here.

    ca_file: the certificates that are trusted, PEM; None: those of the system. insecure: any certificate is. certificate,
    private_key: of ours, for servers that ask for one, PEM; the key must not be encrypted. Raises CoreError, which names the
    file and what is wrong."""

    def __new__(
        cls,
        *,
        ca_file: str | None = None,
        insecure: bool = False,
        certificate: str | None = None,
        private_key: str | None = None,
    ) -> TlsContext: ...
    @property
    def expires(self) -> float | None:
        """When the certificate of ours does: seconds since 1970; None when there is none."""

@final
class Loop:
    """One loop thread's whole world: epoll, listeners, connections, identities, pool of upstream connections, counters."""

    def __new__(cls, settings: Mapping[str, int] | None = None, *, secret: bytes = b"") -> Loop:
        """settings: names as in SETTINGS, missing ones have their default. Raises ValueError for an unknown name or a
        value out of bounds, OSError when the kernel gives no epoll or eventfd."""

    def run(self) -> None:
        """Runs in the calling thread until stop(); releases the GIL for all of that time. Once only.
        Raises CoreError when the loop itself cannot go on (never for the failure of one connection), or when it is
        called a second time or in another process than the one that made the loop."""

    @property
    def running(self) -> bool:
        """Whether run() has begun, so that the loop takes messages, and has not ended."""

    def stop(self, drain_ms: int = 0) -> None:
        """Asks run() to end: listeners take what is queued and close, requests in progress get drain_ms milliseconds."""

    def fileno(self) -> int:
        """A descriptor (eventfd) that is readable when events() has something to give."""

    def events(self) -> list[tuple[Any, ...]]:
        """Takes all waiting events, oldest first."""

    # All that follow but stats() put a message into the mailbox. When it is full they wait, without the GIL, and raise
    # CoreError after 5 seconds, or at once when the loop does not run.

    def add_scope(self, scope: int, kind: int = ..., uuid: bytes = b"") -> None:
        """scope: a number above 0, chosen by the caller. Its generation starts at 0. kind (SCOPE_NETWORK, SCOPE_ROUTER)
        and uuid (16 bytes): what requests of the relay name it by; SCOPE_UNNAMED: they cannot. Raises ValueError for a
        number in use."""

    def set_rates(self, scope: int, rates: Mapping[str, int]) -> None:
        """Limits that hold in a scope in place of those of the settings: rate_versions, base_window_ms, base_limit,
        burst_window_ms, burst_limit of SETTINGS. Raises ValueError as Loop() does."""

    def remove_scope(self, scope: int) -> None:
        """Forgets the identities of a scope and closes, at once, what is left of its listeners."""

    def retire_scope(self, scope: int) -> None:
        """The same, but only if it has neither a listener nor a connection, which only the loop knows for certain.
        EVENT_SCOPE_REMOVED says that it is done; until then the scope is there."""

    def add_relay(
        self, listener: int, scope: int, fd: int, *, uids: Iterable[int], gids: Iterable[int]
    ) -> None:
        """The relay, once for each loop. fd: a listening, non-blocking unix socket, which the loop owns from this call
        on, also when the call raises; -1 for a loop that only gets what others hand over. scope: where its connections
        are counted that belong to no other (yet). uids, gids: effective users and groups, up to eight each, of which a
        process that connects must have one."""

    def hand_over(self, fd: int, state: tuple[bytes, int, int], *, refused: bool = False) -> None:
        """A connection of an EVENT_HANDED, of this loop or another one. refused: there is no scope for it, it gets 503.
        The loop owns fd from this call on, unless it raises."""

    def add_listener(self, listener: int, scope: int, fd: int) -> None:
        """fd: a listening, non-blocking TCP socket. The loop owns it from this call on, also when the call raises."""

    def remove_listener(self, listener: int, *, drain: bool) -> None:
        """drain=False (its namespace is gone): listener and connections close at once, with SO_LINGER 0. drain=True:
        the accept queue is emptied, requests in progress end (2 s at most). EVENT_LISTENER_CLOSED says when."""

    def put_identity(
        self,
        scope: int,
        address: bytes,
        interface: int,
        *,
        instance_id: str,
        project_id: str,
        asked_at: float,
        ttl_ms: int,
        generation: int,
    ) -> None:
        """address (16 bytes) in scope is this instance. asked_at: time.monotonic() when the question was sent, from
        which the identity's age counts. Thrown away when generation is not the scope's present one. Raises ValueError
        for ids that cannot be a header's value."""

    def put_absent(
        self, scope: int, address: bytes, interface: int, *, asked_at: float, ttl_ms: int, generation: int
    ) -> None:
        """The source answered, and nobody (or nobody certain) has this address: those who wait get 404, and so do
        others until ttl_ms after asked_at."""

    def put_refused(self, scope: int, address: bytes, interface: int, *, generation: int) -> None:
        """The source's answer about this address cannot be trusted (malformed): those who wait get 503."""

    def revoke(self, scope: int, generation: int, address: bytes | None = None, interface: int = 0) -> None:
        """Ends what is known of address (that nobody has it, too), or of all addresses when it is None, and sets the
        scope's generation. Requests in progress under them whose answer has not begun are aborted and ask anew (GET and
        HEAD) or get 503."""

    def renew(self, scope: int, before: float) -> None:
        """Sends EVENT_MISS for each identity of a scope that ends before this time (seconds of CLOCK_MONOTONIC) and was
        used by a request since it was confirmed. At most 2,048 at once; further ones end."""

    def shorten(self, scope: int, ttl_ms: int) -> None:
        """Ends the identities of a scope so long after their asked_at, unless they end earlier. Without a new generation:
        answers that are under way count, with the time to live that they are put with."""

    def set_upstream(self, addresses: Sequence[tuple[str, int]], host: str) -> None:
        """A short form of set_upstreams: numeric IP and TCP port of servers without TLS; host: value of the Host header.
        Raises ValueError for what is not numeric."""

    def set_upstreams(self, servers: Iterable[tuple[int, str, int, str, TlsContext | None, str]]) -> None:
        """All of Nova's servers from now on, 0 to 64 (with none requests park). Each: (number above 0, which events
        carry; numeric IP, or the path of a unix socket; TCP port, 0 for a path; value of the Host header; TLS or None;
        the host name or numeric address that its certificate must be for, with TLS).

        A server that was there before, with the same address, Host header and name, keeps its health and, if its context
        is the same object, its connections. Connections to others end after their present request. Raises ValueError for
        what is not numeric, too long, or too many."""

    def set_settings(self, settings: Mapping[str, int] | None = None) -> None:
        """Replaces all settings, as they are given when a loop is made. They hold for what comes next: nobody is thrown
        out because there are more than there may be now, and what has begun keeps its deadline."""

    def set_secret(self, secret: bytes, next_secret: bytes | None = None) -> None:
        """The shared secret for signatures of identities that are put from now on. With a next one, too, a GET or HEAD
        that a server answers with 403 is sent once more, signed with the other one; what a server accepted last it gets
        from then on."""

    def requests(self, scope: int) -> int:
        """Of stats(scope) the requests, for who looks often."""

    def stats(self, scope: int | None = None) -> dict[str, int]:
        """Counters since the start and gauges, by name, of the loop or of one scope (from add_scope to remove_scope);
        taken without stopping the loop, so that of two of them one may be a moment older. When nothing is in progress
        they add up: requests = aborted + answers of all classes; connections = connections_open + all ended_*;
        refused = all refused_*. Raises ValueError for a scope that there is not."""

    def histograms(self, scope: int | None = None) -> dict[str, tuple[int, ...]]:
        """Answered requests by time, in the buckets of HISTOGRAM_BOUNDS_US: total (first byte to the answer's last, all
        of them), parked (those that had to wait), upstream (those that Nova answered). Raises as stats() does."""

def _parse_request(data: Buffer, max_head: int = 8192) -> dict[str, Any] | int:
    """Test hook: parses a request head as a connection would. A dict when it is complete and valid (method, target,
    version, length, chunked, content_length, keep_alive, expect_continue, headers as a list of pairs), 0 when more is
    needed, else the status (400, 413, 414, 431, 501) that refuses it."""

def _parse_request_pieces(pieces: Sequence[bytes], max_head: int = 8192) -> dict[str, Any] | int:
    """Test hook: as _parse_request, with the data arriving in these pieces; the parser keeps its state in between."""

def _parse_response(data: Buffer, head_request: bool = False) -> dict[str, Any] | int:
    """Test hook: parses a response head. A dict (status, length, framing: 'none', 'length', 'chunked' or 'close',
    content_length, keep_alive, headers), 0 when more is needed, 502 when it is refused."""

def _build_request(data: bytes, identity: bytes, host: bytes, content_length: int = -1) -> bytes:
    """Test hook: the head that goes to Nova for this valid request head. content_length: of a gathered body, or -1."""

def _build_response(data: bytes, *, head_request: bool = False, http10: bool = False, keep_alive: bool = True) -> bytes:
    """Test hook: the head that goes to the guest for this valid response head."""

def _decode_chunked(pieces: Sequence[bytes]) -> tuple[bytes, int, int]:
    """Test hook: (content, state, rest): state 0 more is needed, 1 complete, else the negative error; rest: bytes that
    follow the end of the message in the last piece used."""

def _sign(secret: bytes, message: bytes) -> str:
    """Test hook: lower-case hex of HMAC-SHA256."""

def _identity_block(address: bytes, instance_id: str, project_id: str, secret: bytes) -> bytes:
    """Test hook: the header lines of one identity."""
