# cython: language_level=3
# cython: auto_pickle=False, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# cython: show_performance_hints=True
"""The compiled core of fastmeta. See _core.pyi for the contract of what Python sees, and core/*.pxi for the parts.

The parts are included in order of dependency. All of their functions are `noexcept nogil`: they return a status, they
never raise (a test reads the generated C and fails if one of them could take the GIL). Only this file touches objects.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer

import os

from fastmeta.exceptions import CoreError

include "core/extern.pxi"
include "core/bytes.pxi"
include "core/names.pxi"
include "core/http.pxi"
include "core/chunked.pxi"
include "core/signature.pxi"
include "core/head.pxi"
include "core/counters.pxi"
include "core/messages.pxi"
include "core/claim.pxi"
include "core/state.pxi"
include "core/loopstate.pxi"
include "core/common.pxi"
include "core/tls.pxi"
include "core/timer.pxi"
include "core/ring.pxi"
include "core/identity.pxi"
include "core/source.pxi"
include "core/scope.pxi"
include "core/finished.pxi"
include "core/guest.pxi"
include "core/parking.pxi"
include "core/exchange.pxi"
include "core/body.pxi"
include "core/places.pxi"
include "core/server.pxi"
include "core/pool.pxi"
include "core/second.pxi"
include "core/recheck.pxi"
include "core/upstream.pxi"
include "core/answer.pxi"
include "core/listener.pxi"
include "core/relay.pxi"
include "core/loop.pxi"

by_init_classes()

EVENT_MISS = EV_MISS
EVENT_REQUEST = EV_REQUEST
EVENT_PROBLEM = EV_PROBLEM
EVENT_LISTENER_CLOSED = EV_LISTENER_CLOSED
EVENT_SCOPE_REMOVED = EV_SCOPE_REMOVED
EVENT_HANDED = EV_HANDED

RELAY_OVER = RY_OVER

SCOPE_UNNAMED = SC_UNNAMED
SCOPE_NETWORK = SC_NETWORK
SCOPE_ROUTER = SC_ROUTER

PROBLEM_ACCEPT = PR_ACCEPT
PROBLEM_DESCRIPTORS = PR_DESCRIPTORS
PROBLEM_MEMORY = PR_MEMORY
PROBLEM_CONNECTIONS_FULL = PR_CONNECTIONS_FULL
PROBLEM_PARKED_FULL = PR_PARKED_FULL
PROBLEM_UPSTREAM_AWAY = PR_UPSTREAM_AWAY
PROBLEM_UPSTREAM_BACK = PR_UPSTREAM_BACK
PROBLEM_UPSTREAM_NONSENSE = PR_UPSTREAM_NONSENSE
PROBLEM_UPSTREAM_TIMEOUT = PR_UPSTREAM_TIMEOUT
PROBLEM_UPSTREAM_REFUSES_SIGNATURE = PR_UPSTREAM_REFUSES_SIGNATURE
PROBLEM_EVENTS_LOST = PR_EVENTS_LOST
PROBLEM_UPSTREAM_FULL = PR_UPSTREAM_FULL
PROBLEM_UPSTREAM_SILENT = PR_UPSTREAM_SILENT
PROBLEM_SCOPE_CONNECTIONS = PR_SCOPE_CONNECTIONS
PROBLEM_ADDRESS_CONNECTIONS = PR_ADDRESS_CONNECTIONS
PROBLEM_SCOPE_PARKED = PR_SCOPE_PARKED
PROBLEM_ADDRESS_PARKED = PR_ADDRESS_PARKED
PROBLEM_BODIES_FULL = PR_BODIES_FULL
PROBLEM_RATE_LIMITED = PR_RATE_LIMITED
PROBLEM_SCOPE_MISSES = PR_SCOPE_MISSES
PROBLEM_UPSTREAM_CERTIFICATE = PR_UPSTREAM_CERTIFICATE
PROBLEM_UPSTREAM_TLS = PR_UPSTREAM_TLS
PROBLEM_UPSTREAM_SLOW = PR_UPSTREAM_SLOW
PROBLEM_UPSTREAM_ALL_AWAY = PR_UPSTREAM_ALL_AWAY
PROBLEM_UPSTREAM_SOME_BACK = PR_UPSTREAM_SOME_BACK
PROBLEM_NEXT_SECRET = PR_NEXT_SECRET
PROBLEM_STRANGER = PR_STRANGER

# name: (default, smallest, largest)
SETTINGS = {
    "park_timeout_ms": (8_000, 0, 600_000),
    "upstream_timeout_ms": (60_000, 10, 3_600_000),
    "connect_timeout_ms": (3_000, 10, 60_000),
    "head_timeout_ms": (10_000, 10, 600_000),
    "body_timeout_ms": (30_000, 10, 600_000),
    "write_timeout_ms": (30_000, 10, 600_000),
    "keepalive_timeout_ms": (30_000, 10, 3_600_000),
    "answer_timeout_ms": (600_000, 10, 86_400_000),
    "linger_timeout_ms": (2_000, 10, 60_000),
    "upstream_idle_timeout_ms": (4_000, 10, 3_600_000),
    "max_connections": (16_384, 1, 1_000_000),
    "max_connections_per_scope": (4_096, 1, 1_000_000),
    "max_connections_per_address": (128, 1, 1_000_000),
    "max_parked": (8_192, 0, 1_000_000),
    "max_parked_per_scope": (2_048, 0, 1_000_000),
    "max_parked_per_address": (64, 0, 1_000_000),
    "max_gathered": (512, 1, 65_536),
    "max_absent": (1_024, 0, 1_000_000),
    "max_head": (8_192, 256, 14_000),
    "max_headers": (H1_MAX_HEADERS, 1, H1_MAX_HEADERS),
    "max_target": (4_096, 16, 14_000),
    "max_body": (1_048_576, 0, 1 << 40),
    "max_upstream_connections": (256, 1, 65_536),
    "access_log": (0, 0, 1),
    "rate_versions": (0, 0, 3),
    "base_window_ms": (10_000, 1, 1 << 40),
    "base_limit": (10, 1, 1 << 40),
    "burst_window_ms": (10_000, 1, 1 << 40),
    "burst_limit": (10, 1, 1 << 40),
    "second_try_after_ms": (3_000, 0, 600_000),
    "warm_connections": (0, 0, 64),
}

# The names of what is counted: its place in a block of counters.
REFUSALS = (
    "malformed", "body_malformed", "coding", "method", "target_long", "head_large", "body_large", "head_slow",
    "body_slow", "rate", "absent", "lookup", "parked_long", "parked", "parked_scope", "parked_address", "connections",
    "connections_scope", "connections_address", "bodies", "misses", "revoked", "nonsense", "silent", "no_place",
    "no_answer", "resources", "proxy", "scopes",
)
ENDS = (
    "guest", "aborted", "answered", "refused", "idle", "evicted", "turned_away", "slow_reader", "cut", "listener",
    "resources", "handed", "stranger",
)
STATUSES = tuple([ct_statuses[<size_t> at] for at in range(CT_STATUSES)])
HISTOGRAM_BOUNDS_US = tuple(1 << (n + 5) for n in range(CT_BUCKETS - 1))

cdef dict places():
    """Name of what is counted for loops and scopes -> its place in a block of counters."""
    found = {
        "connections": CT_CONNECTIONS,
        "connections_open": CT_CONNECTIONS_OPEN,
        "requests": CT_REQUESTS,
        "aborted": CT_ABORTED,
        "identity_hits": CT_IDENTITY_HITS,
        "identity_misses": CT_IDENTITY_MISSES,
        "identities": CT_IDENTITIES,
        "sources": CT_SOURCES,
        "parked": CT_PARKED,
        "parked_total": CT_PARKED_TOTAL,
        "gathered": CT_GATHERED,
        "revoked_in_flight": CT_REVOKED,
        "stale_retries": CT_STALE_RETRIES,
        "repeated": CT_REPEATED,
        "second_tries": CT_SECOND_TRIES,
        "second_tries_won": CT_SECOND_WON,
        "secret_retries": CT_SECRET_RETRIES,
        "rechecks": CT_RECHECKS,
        "bytes_up": CT_BYTES_UP,
        "bytes_down": CT_BYTES_DOWN,
    }
    found.update({f"refused_{name}": CT_REFUSED + at for at, name in enumerate(REFUSALS, 1)})
    found.update({f"ended_{name}": CT_ENDED + at for at, name in enumerate(ENDS)})
    found.update({f"status_{status}": CT_STATUS + at for at, status in enumerate(STATUSES)})
    found.update({f"status_other_{at}xx": CT_STATUS + CT_STATUSES + at - 2 for at in (2, 3, 4, 5)})
    return found


cdef dict PLACES = places()
# Of a loop only: they belong to no scope.
cdef dict LOOP_PLACES = {
    "upstream_connects": CT_UPSTREAM_CONNECTS,
    "upstream_connections": CT_UPSTREAM_CONNECTIONS,
    "upstream_idle": CT_UPSTREAM_IDLE,
    "upstream_failures": CT_UPSTREAM_FAILURES,
    "events_lost": CT_EVENTS_LOST,
}
cdef dict HISTOGRAMS = {"total": CT_TOTAL, "parked": CT_WAITED, "upstream": CT_UPSTREAM}

cdef enum:
    POST_TIMEOUT_S = 5


cdef int fill_settings(Settings *settings, HeadLimits *head_limits, dict values) except -1:
    settings.park_timeout_ms = values["park_timeout_ms"]
    settings.upstream_timeout_ms = values["upstream_timeout_ms"]
    settings.connect_timeout_ms = values["connect_timeout_ms"]
    settings.head_timeout_ms = values["head_timeout_ms"]
    settings.body_timeout_ms = values["body_timeout_ms"]
    settings.write_timeout_ms = values["write_timeout_ms"]
    settings.answer_timeout_ms = values["answer_timeout_ms"]
    settings.keepalive_timeout_ms = values["keepalive_timeout_ms"]
    settings.linger_timeout_ms = values["linger_timeout_ms"]
    settings.upstream_idle_timeout_ms = values["upstream_idle_timeout_ms"]
    settings.max_connections = values["max_connections"]
    settings.max_connections_per_scope = values["max_connections_per_scope"]
    settings.max_connections_per_address = values["max_connections_per_address"]
    settings.max_parked = values["max_parked"]
    settings.max_parked_per_scope = values["max_parked_per_scope"]
    settings.max_parked_per_address = values["max_parked_per_address"]
    settings.max_gathered = values["max_gathered"]
    settings.max_absent = values["max_absent"]
    settings.max_body = values["max_body"]
    settings.max_upstream_connections = values["max_upstream_connections"]
    settings.access_log = values["access_log"]
    settings.rate_versions = values["rate_versions"]
    settings.base_window_ms = values["base_window_ms"]
    settings.base_limit = values["base_limit"]
    settings.burst_window_ms = values["burst_window_ms"]
    settings.burst_limit = values["burst_limit"]
    settings.second_try_after_ms = values["second_try_after_ms"]
    settings.warm_connections = values["warm_connections"]
    head_limits.head = values["max_head"]
    head_limits.headers = values["max_headers"]
    head_limits.target = values["max_target"]
    return 0


cdef dict checked_settings(object given):
    values = {name: bounds[0] for name, bounds in SETTINGS.items()}
    for name, value in (given or {}).items():
        if name not in SETTINGS:
            raise ValueError(f"unknown setting {name!r}")
        _, smallest, largest = SETTINGS[name]
        value = int(value)
        if not smallest <= value <= largest:
            raise ValueError(f"{name} = {value} is not between {smallest} and {largest}")
        values[name] = value
    return values


cdef uint64_t to_us(double seconds, uint64_t more_ms) noexcept nogil:
    return <uint64_t> (seconds * 1e6) + more_ms * 1000


cdef bytes sixteen(object address):
    if not isinstance(address, bytes) or len(address) != 16:
        raise ValueError("an address is 16 bytes")
    return address


def certificate_error_text(int error):
    return (<bytes> X509_verify_cert_error_string(error)).decode("ascii", "replace")


def tls_error_text(int error):
    cdef const char *text = ERR_reason_error_string(<unsigned long> <unsigned int> error)
    if error == 0:
        return "the connection ended"
    return (<bytes> text).decode("ascii", "replace") if text is not NULL else f"OpenSSL's error {error:#x}"


@cython.final
cdef class TlsContext:
    cdef SSL_CTX *context

    def __cinit__(self, *, ca_file=None, bint insecure=False, certificate=None, private_key=None):
        self.context = tl_context(insecure)
        if self.context is NULL:
            raise MemoryError()
        ERR_clear_error()
        if ca_file is not None:
            self.check(SSL_CTX_load_verify_locations(self.context, os.fsencode(ca_file), NULL), ca_file, "certificates")
        elif not insecure:
            self.check(SSL_CTX_set_default_verify_paths(self.context), "the system's CA certificates", "certificates")
        if certificate is not None:
            self.check(SSL_CTX_use_certificate_chain_file(self.context, os.fsencode(certificate)), certificate,
                       "a certificate")
        if private_key is not None:
            self.check(SSL_CTX_use_PrivateKey_file(self.context, os.fsencode(private_key), SSL_FILETYPE_PEM),
                       private_key, "an unencrypted private key that fits the certificate")
        if certificate is not None or private_key is not None:
            self.check(SSL_CTX_check_private_key(self.context), private_key or certificate,
                       "the private key of the certificate")

    @property
    def expires(self):
        cdef X509 *certificate = SSL_CTX_get0_certificate(self.context)
        cdef tm ends
        if certificate is NULL or ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &ends) != 1:
            return None
        return <double> timegm(&ends)

    cdef int check(self, int result, object file, str what) except -1:
        cdef int error
        if result == 1:
            return 0
        error = tl_error()
        ERR_clear_error()
        raise CoreError(f"{file} cannot be used as {what}: {tls_error_text(error)}")

    def __dealloc__(self):
        SSL_CTX_free(self.context)         # loops that use it have references of their own


@cython.final
@cython.no_gc          # its dicts hold numbers only, and must be there when it is freed
cdef class Loop:
    # Owned: freed in __dealloc__, which Python calls when nobody runs the loop any more (run() holds a reference).
    cdef LoopState *state
    # The scopes' blocks of counters, by number; owned here, lent to the loop's thread from add_scope until it gives
    # them back (EV_SCOPE_REMOVED). Those of scopes that are being removed wait in `removed`, by address.
    cdef dict scopes
    cdef set removed
    cdef bytes secret
    cdef bytes next_secret
    cdef int process
    cdef bint started
    cdef bint ended

    def __cinit__(self, settings=None, *, bytes secret not None=b""):
        cdef int error
        self.state = NULL
        self.scopes = {}
        self.removed = set()
        values = checked_settings(settings)
        self.secret = secret
        self.next_secret = b""
        self.process = getpid()
        self.state = <LoopState *> calloc(1, sizeof(LoopState))
        if self.state is NULL:
            raise MemoryError()
        fill_settings(&self.state.settings, &self.state.head_limits, values)
        with nogil:
            error = lp_init(self.state)
        if error:
            raise OSError(error, os.strerror(error))

    def __dealloc__(self):
        if self.state is not NULL:
            lp_free(self.state)
        if self.removed is not None:       # else __cinit__ did not even begin
            for block in (*self.scopes.values(), *self.removed):
                free(<void *> <uintptr_t> block)

    def run(self):
        cdef int error
        cdef LoopState *state = self.state
        if self.started:
            raise CoreError("a loop runs once")
        if getpid() != self.process:
            raise CoreError("a loop runs in the process that made it: epoll is shared with its parent otherwise")
        self.started = True
        with nogil:
            error = lp_run(state)
        self.ended = True                  # whoever hands over a connection after this is told
        lp_drop_messages(state)
        if error:
            raise CoreError(f"the loop cannot wait for events: {os.strerror(error)}")

    @property
    def running(self):
        return self.started and not self.ended

    cdef int post(self, Message *message) except -1:
        """Puts a message into the mailbox; waits, without the GIL, while it is full. On failure what the message owns
        is freed. The GIL makes all callers one writer: the place is taken after it is held again."""
        cdef LoopState *state = self.state
        cdef Mailbox *mailbox = &state.mailbox
        cdef timespec pause
        cdef int tries = 0
        pause.tv_sec = 0
        pause.tv_nsec = 1000000
        while mailbox.written - at_load(&mailbox.taken) >= RG_MAILBOX:
            tries += 1
            if self.ended or tries > POST_TIMEOUT_S * 1000 or not self.started:
                if message.kind == MS_ADD_LISTENER or (message.kind == MS_ADD_RELAY and message.fd >= 0):
                    close(message.fd)
                elif message.kind == MS_UPSTREAMS:
                    sv_discard(<UpstreamsMessage *> message.payload)
                free(message.payload)
                raise CoreError("the loop does not take messages")
            with nogil:
                nanosleep(&pause, NULL)
        mailbox.slots[mailbox.written % RG_MAILBOX] = message[0]
        at_store(&mailbox.written, mailbox.written + 1)
        st_signal(state.mailbox_socket.fd)
        return 0

    def stop(self, drain_ms=0):
        cdef Message message
        memset(&message, 0, sizeof(message))
        message.kind = MS_STOP
        message.ends_us = drain_ms
        self.post(&message)

    def fileno(self):
        return self.state.notify

    def events(self):
        cdef LoopState *state = self.state
        cdef uint64_t written
        cdef Event *event
        found = []
        # First the signal, then the rings: what is written in between signals again.
        st_clear_signal(state.notify)
        written = at_load(&state.events.written)
        while state.events.taken != written:
            event = &(<Event *> state.events.slots)[state.events.taken % RG_EVENTS]
            if event.kind == EV_MISS:
                found.append((EVENT_MISS, event.scope, <bytes> event.address[:16], event.interface))
            elif event.kind == EV_SCOPE_REMOVED:
                # What a loop removes when it ends stays readable.
                if event.code and self.scopes.get(event.scope) == <uintptr_t> event.counters:
                    self.removed.add(self.scopes.pop(event.scope))
                if <uintptr_t> event.counters in self.removed:
                    self.removed.remove(<uintptr_t> event.counters)
                    free(event.counters)
                found.append((EVENT_SCOPE_REMOVED, event.scope))
            elif event.kind == EV_PROBLEM:
                found.append((EVENT_PROBLEM, event.code, event.error, event.scope, event.listener,
                              <bytes> event.address[:16] if event.has_address else b"", event.upstream))
            elif event.kind == EV_HANDED:
                found.append((EVENT_HANDED, event.handed.fd, event.scope_kind, <bytes> event.uuid[:16], (
                    <bytes> ry_bytes(event.handed)[:event.handed.length], event.handed.arrived_us,
                    event.handed.times)))
                free(event.handed)
                at_store(&state.handed_taken, state.handed_taken + 1)
            else:
                found.append((EVENT_LISTENER_CLOSED, event.listener))
            at_store(&state.events.taken, state.events.taken + 1)
        if state.requests.slots is not NULL:
            written = at_load(&state.requests.written)
            while state.requests.taken != written:
                found.append((EVENT_REQUEST, request_dict(
                    &(<RequestRecord *> state.requests.slots)[state.requests.taken % RG_REQUESTS])))
                at_store(&state.requests.taken, state.requests.taken + 1)
        return found

    cdef int lend_counters(self, Message *message, uint32_t scope) except -1:
        """The block of counters of a new scope."""
        cdef Counters *counters
        if scope == 0 or scope in self.scopes:
            raise ValueError("a scope's number is above 0 and not in use")
        counters = <Counters *> calloc(1, sizeof(Counters))
        if counters is NULL:
            raise MemoryError()
        self.scopes[scope] = <uintptr_t> counters
        message.scope = scope
        message.counters = counters
        return 0

    def add_scope(self, uint32_t scope, uint8_t kind=SC_UNNAMED, bytes uuid not None=b""):
        cdef Message message
        memset(&message, 0, sizeof(message))
        if kind > SC_ROUTER or (kind != SC_UNNAMED and len(uuid) != 16):
            raise ValueError("a scope is a network or a router with a UUID of 16 bytes, or unnamed")
        message.kind = MS_ADD_SCOPE
        message.scope_kind = kind
        if kind != SC_UNNAMED:
            memcpy(message.uuid, <const uint8_t *> uuid, 16)
        self.lend_counters(&message, scope)
        self.post(&message)

    def set_rates(self, uint32_t scope, rates):
        cdef Message message
        cdef Rates *payload
        values = checked_settings(rates)
        payload = <Rates *> calloc(1, sizeof(Rates))
        if payload is NULL:
            raise MemoryError()
        payload.versions = <uint32_t> values["rate_versions"]
        payload.base_window_ms = values["base_window_ms"]
        payload.base_limit = <uint32_t> min(values["base_limit"], RL_MOST)
        payload.burst_window_ms = values["burst_window_ms"]
        payload.burst_limit = <uint32_t> min(values["burst_limit"], RL_MOST)
        memset(&message, 0, sizeof(message))
        message.kind = MS_RATES
        message.scope = scope
        message.payload = payload
        self.post(&message)

    def remove_scope(self, uint32_t scope):
        cdef Message message
        memset(&message, 0, sizeof(message))
        message.kind = MS_REMOVE_SCOPE
        message.scope = scope
        if scope in self.scopes:
            self.removed.add(self.scopes.pop(scope))
        self.post(&message)

    def retire_scope(self, uint32_t scope):
        cdef Message message
        memset(&message, 0, sizeof(message))
        message.kind = MS_RETIRE_SCOPE
        message.scope = scope
        self.post(&message)

    def add_relay(self, uint32_t listener, uint32_t scope, int fd, *, uids, gids):
        cdef Message message
        cdef Peers *peers
        memset(&message, 0, sizeof(message))
        message.kind = MS_ADD_RELAY
        message.listener = listener
        message.fd = fd
        peers = <Peers *> calloc(1, sizeof(Peers))
        try:
            if peers is NULL:
                raise MemoryError()
            fill_peers(peers, sorted(set(uids)), sorted(set(gids)))
            if listener == 0:
                raise ValueError("a listener's number is above 0")
            self.lend_counters(&message, scope)
        except Exception:
            free(peers)
            if fd >= 0:
                close(fd)
            raise
        message.payload = peers
        self.post(&message)

    def hand_over(self, int fd, tuple state not None, *, bint refused=False):
        cdef Message message
        cdef Handed *handed
        cdef bytes data = state[0]
        memset(&message, 0, sizeof(message))
        if not 0 < len(data) <= BF_SMALL:
            raise ValueError("the state is that of an EVENT_HANDED")
        if self.ended:
            raise CoreError("the loop has ended")
        handed = <Handed *> malloc(sizeof(Handed) + <size_t> len(data))
        if handed is NULL:
            raise MemoryError()
        handed.length = <uint32_t> len(data)
        handed.fd = fd
        handed.arrived_us = state[1]
        handed.times = state[2]
        handed.refused = refused
        memcpy(ry_bytes(handed), <const uint8_t *> data, <size_t> len(data))
        message.kind = MS_HANDED
        message.payload = handed
        self.post(&message)

    def add_listener(self, uint32_t listener, uint32_t scope, int fd):
        cdef Message message
        if listener == 0 or fd < 0:
            if fd >= 0:
                close(fd)
            raise ValueError("a listener's number is above 0, a descriptor 0 or above")
        memset(&message, 0, sizeof(message))
        message.kind = MS_ADD_LISTENER
        message.scope = scope
        message.listener = listener
        message.fd = fd
        self.post(&message)

    def remove_listener(self, uint32_t listener, *, bint drain):
        cdef Message message
        memset(&message, 0, sizeof(message))
        message.kind = MS_REMOVE_LISTENER
        message.listener = listener
        message.drain = drain
        self.post(&message)

    def put_identity(self, uint32_t scope, bytes address not None, uint32_t interface, *, str instance_id not None,
                     str project_id not None, double asked_at, uint64_t ttl_ms, uint64_t generation):
        cdef Message message
        cdef bytes key = sixteen(address)
        cdef Identity *identity
        memset(&message, 0, sizeof(message))
        identity = new_identity(key, instance_id, project_id, self.secret, self.next_secret)
        message.kind = MS_IDENTITY
        message.scope = scope
        memcpy(message.address, <const uint8_t *> key, 16)
        message.interface = interface
        message.generation = generation
        message.asked_us = to_us(asked_at, 0)
        message.ends_us = to_us(asked_at, ttl_ms)
        message.payload = identity
        self.post(&message)

    def put_absent(self, uint32_t scope, bytes address not None, uint32_t interface, *, double asked_at,
                   uint64_t ttl_ms, uint64_t generation):
        cdef Message message
        cdef bytes key = sixteen(address)
        memset(&message, 0, sizeof(message))
        message.kind = MS_ABSENT
        message.scope = scope
        memcpy(message.address, <const uint8_t *> key, 16)
        message.interface = interface
        message.generation = generation
        message.ends_us = to_us(asked_at, ttl_ms)
        self.post(&message)

    def put_refused(self, uint32_t scope, bytes address not None, uint32_t interface, *, uint64_t generation):
        cdef Message message
        cdef bytes key = sixteen(address)
        memset(&message, 0, sizeof(message))
        message.kind = MS_REFUSED
        message.scope = scope
        memcpy(message.address, <const uint8_t *> key, 16)
        message.interface = interface
        message.generation = generation
        self.post(&message)

    def revoke(self, uint32_t scope, uint64_t generation, address=None, uint32_t interface=0):
        cdef Message message
        cdef bytes key
        memset(&message, 0, sizeof(message))
        message.kind = MS_REVOKE_ALL
        if address is not None:
            key = sixteen(address)
            message.kind = MS_REVOKE
            memcpy(message.address, <const uint8_t *> key, 16)
            message.interface = interface
        message.scope = scope
        message.generation = generation
        self.post(&message)

    def renew(self, uint32_t scope, double before):
        cdef Message message
        memset(&message, 0, sizeof(message))
        message.kind = MS_RENEW
        message.scope = scope
        message.ends_us = to_us(before, 0)
        self.post(&message)

    def shorten(self, uint32_t scope, uint64_t ttl_ms):
        cdef Message message
        memset(&message, 0, sizeof(message))
        message.kind = MS_SHORTEN
        message.scope = scope
        message.ends_us = ttl_ms * 1000
        self.post(&message)

    def set_upstream(self, addresses, str host not None):
        addresses = list(addresses)
        if not addresses:
            raise ValueError("an upstream has at least one address")
        self.set_upstreams(
            (number, ip, tcp_port, host, None, "") for number, (ip, tcp_port) in enumerate(addresses, 1))

    def set_upstreams(self, servers):
        cdef Message message
        cdef UpstreamsMessage *payload
        specs = [
            spec_of(number, where, tcp_port, host, tls, name)
            for number, where, tcp_port, host, tls, name in servers
        ]
        if len(specs) > MAX_SERVERS:
            raise ValueError(f"at most {MAX_SERVERS} servers are possible")
        memset(&message, 0, sizeof(message))
        payload = <UpstreamsMessage *> calloc(1, sizeof(UpstreamsMessage))
        if payload is NULL:
            raise MemoryError()
        for number, target, host, tls, name in specs:
            fill_spec(&payload.servers[payload.server_n], number, target, host, tls, name)
            payload.server_n += 1
        message.kind = MS_UPSTREAMS
        message.payload = payload
        self.post(&message)

    def set_settings(self, settings=None):
        cdef Message message
        cdef SettingsMessage *payload
        values = checked_settings(settings)
        if values["access_log"] and self.state.requests.slots is NULL:
            # The loop looks at this ring only when its settings say so, and they come after it.
            self.state.requests.slots = calloc(RG_REQUESTS, sizeof(RequestRecord))
            if self.state.requests.slots is NULL:
                raise MemoryError()
            self.state.requests.capacity = RG_REQUESTS
        payload = <SettingsMessage *> calloc(1, sizeof(SettingsMessage))
        if payload is NULL:
            raise MemoryError()
        fill_settings(&payload.settings, &payload.head_limits, values)
        memset(&message, 0, sizeof(message))
        message.kind = MS_SETTINGS
        message.payload = payload
        self.post(&message)

    def set_secret(self, bytes secret not None, bytes next_secret=None):
        self.secret = secret
        self.next_secret = next_secret or b""

    cdef Counters *counters(self, object scope) except NULL:
        """Of the loop (None) or of a scope. Valid as long as the GIL is held."""
        if scope is None:
            return &self.state.counters
        if scope not in self.scopes:
            raise ValueError(f"there is no scope {scope}")
        return <Counters *> <uintptr_t> self.scopes[scope]

    def requests(self, scope):
        return at_read(&self.counters(scope).values[CT_REQUESTS])

    def stats(self, scope=None):
        cdef Counters *counters = self.counters(scope)
        found = {name: at_read(&counters.values[<int> place]) for name, place in PLACES.items()}
        if scope is None:
            found |= {name: at_read(&counters.values[<int> place]) for name, place in LOOP_PLACES.items()}
        found["refused"] = sum(found[f"refused_{name}"] for name in REFUSALS)
        for kind in range(2, 6):
            found[f"answers_{kind}xx"] = found[f"status_other_{kind}xx"] + sum(
                found[f"status_{status}"] for status in STATUSES if status // 100 == kind)
        return found

    def histograms(self, scope=None):
        cdef Counters *counters = self.counters(scope)
        return {
            name: tuple(at_read(&counters.values[<int> place + n]) for n in range(CT_BUCKETS))
            for name, place in HISTOGRAMS.items()}


cdef int fill_peers(Peers *peers, list uids, list gids) except -1:
    if len(uids) > MAX_PEERS or len(gids) > MAX_PEERS:
        raise ValueError(f"there are at most {MAX_PEERS} users and groups")
    for number in uids:
        peers.uids[peers.uid_n] = number
        peers.uid_n += 1
    for number in gids:
        peers.gids[peers.gid_n] = number
        peers.gid_n += 1
    return 0


cdef bytes unix_target(object path):
    """A sockaddr_un for a path."""
    cdef sockaddr_un target
    cdef bytes name = os.fsencode(path)
    memset(&target, 0, sizeof(target))
    if not 1 <= len(name) < <Py_ssize_t> sizeof(target.sun_path) or b"\0" in name:
        raise ValueError(f"{path!r} cannot be a unix socket's path: it has 1 to {sizeof(target.sun_path) - 1} bytes")
    target.sun_family = AF_UNIX
    memcpy(target.sun_path, <const char *> name, <size_t> len(name))
    return <bytes> (<char *> &target)[:sizeof(target)]


cdef tuple spec_of(object number, object where, object tcp_port, object host, object tls, object tls_name):
    """What is said of a server, checked."""
    cdef bytes shown = host.encode("ascii")
    cdef bytes name = tls_name.encode("ascii")
    if not 1 <= number <= 0xffffffff:
        raise ValueError("a server's number is above 0")
    if not 1 <= len(shown) <= MAX_HOST or not hd_is_id(<const uint8_t *> shown, <size_t> len(shown)):
        raise ValueError(f"{host!r} cannot be the value of a Host header")
    if len(name) > MAX_HOST or b"\0" in name or (tls is not None and not name):
        raise ValueError(f"{tls_name!r} cannot be the name in a certificate")
    if tls is not None and not isinstance(tls, TlsContext):
        raise TypeError("tls is a TlsContext or None")
    return number, target_bytes(where, tcp_port) if tcp_port else unix_target(where), shown, tls, name


cdef int fill_spec(ServerSpec *spec, uint32_t number, bytes target, bytes host, object tls, bytes name) except -1:
    spec.number = number
    memcpy(&spec.target.address, <const uint8_t *> target, <size_t> len(target))
    spec.target.length = <socklen_t> len(target)
    memcpy(spec.host, <const uint8_t *> host, <size_t> len(host))
    spec.host_length = <uint32_t> len(host)
    memcpy(spec.name, <const char *> name, <size_t> len(name))
    if tls is not None:
        spec.tls = (<TlsContext> tls).context
        SSL_CTX_up_ref(spec.tls)
    return 0


cdef bytes target_bytes(object ip, object tcp_port):
    """A sockaddr for a numeric address."""
    cdef sockaddr_in target4
    cdef sockaddr_in6 target6
    cdef bytes text = str(ip).encode("ascii")
    cdef int number = tcp_port
    if not 1 <= number <= 65535:
        raise ValueError(f"{tcp_port} is no TCP port")
    memset(&target4, 0, sizeof(target4))
    memset(&target6, 0, sizeof(target6))
    if inet_pton(AF_INET, <const char *> text, &target4.sin_addr) == 1:
        target4.sin_family = AF_INET
        target4.sin_port = htons(<uint16_t> number)
        return <bytes> (<char *> &target4)[:sizeof(target4)]
    if inet_pton(AF_INET6, <const char *> text, &target6.sin6_addr) == 1:
        target6.sin6_family = AF_INET6
        target6.sin6_port = htons(<uint16_t> number)
        return <bytes> (<char *> &target6)[:sizeof(target6)]
    raise ValueError(f"{ip!r} is no numeric address")


cdef Identity *new_identity(bytes address, str instance_id, str project_id, bytes secret,
                            bytes next_secret) except NULL:
    """Made with malloc; the caller owns it."""
    cdef bytes instance = instance_id.encode("utf-8", "surrogateescape")
    cdef bytes project = project_id.encode("utf-8", "surrogateescape")
    cdef Identity *identity = <Identity *> malloc(sizeof(Identity))
    if identity is NULL:
        raise MemoryError()
    if hd_identity(identity, <const uint8_t *> address, <const uint8_t *> instance,
                   <size_t> len(instance), <const uint8_t *> project, <size_t> len(project),
                   <const uint8_t *> secret, <size_t> len(secret),
                   <const uint8_t *> next_secret, <size_t> len(next_secret)) < 0:
        free(identity)
        raise ValueError(
            f"an instance's and a project's id are 1 to {HD_MAX_ID} visible ASCII characters, not "
            f"{instance_id[:64]!r} and {project_id[:64]!r}")
    return identity


cdef dict request_dict(RequestRecord *record):
    return {
        "scope": record.scope,
        "address": <bytes> record.address[:16],
        "interface": record.interface,
        "instance_id": (<bytes> record.instance[:record.instance_length]).decode("ascii"),
        "method": (<bytes> record.method[:record.method_length]).decode("ascii"),
        "target": (<bytes> record.target[:record.target_length]).decode("ascii"),
        "status": record.status,
        "whole": bool(record.whole),
        "bytes": record.content_bytes,
        "total_us": record.total_us,
        "parked_us": record.parked_us,
        "upstream_us": record.upstream_us,
        "upstream_status": record.upstream_status,
    }


# Test hooks: the pure parts, callable one by one.

cdef list head_headers(const Head *head, const uint8_t *data):
    cdef uint16_t i
    found = []
    for i in range(head.header_n):
        found.append((
            <bytes> data[head.headers[i].name_at:head.headers[i].name_at + head.headers[i].name_length],
            <bytes> data[head.headers[i].value_at:head.headers[i].value_at + head.headers[i].value_length],
        ))
    return found


cdef dict request_head_dict(const Head *head, const uint8_t *data, int length):
    return {
        "length": length,
        "method": <bytes> data[head.method_at:head.method_at + head.method_length],
        "target": <bytes> data[head.target_at:head.target_at + head.target_length],
        "version": 11 if head.http11 else 10,
        "chunked": bool(head.chunked),
        "content_length": head.content_length,
        "keep_alive": bool(head.keep_alive),
        "expect_continue": bool(head.expects_continue),
        "headers": head_headers(head, data),
    }


cdef HeadLimits head_limits(size_t max_head) noexcept:
    cdef HeadLimits limits
    limits.head = max_head
    limits.headers = H1_MAX_HEADERS
    limits.target = 4096
    return limits


def _parse_request(data, size_t max_head=8192):
    cdef Py_buffer view
    cdef Head head
    cdef HeadLimits limits = head_limits(max_head)
    cdef int length
    memset(&head, 0, sizeof(head))
    # The caller's own memory is parsed, so that a guard page behind it catches an over-read.
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        with nogil:
            length = h1_parse_request(&head, <const uint8_t *> view.buf, <size_t> view.len, &limits)
        if length <= 0:
            return -length
        return request_head_dict(&head, <const uint8_t *> view.buf, length)
    finally:
        PyBuffer_Release(&view)


def _parse_request_pieces(pieces, size_t max_head=8192):
    cdef Head head
    cdef HeadLimits limits = head_limits(max_head)
    cdef int length = 0
    cdef bytes data = b""
    memset(&head, 0, sizeof(head))
    for piece in pieces:
        data = data + piece
        length = h1_parse_request(&head, <const uint8_t *> data, <size_t> len(data), &limits)
        if length != 0:
            break
    if length <= 0:
        return -length
    return request_head_dict(&head, <const uint8_t *> data, length)


def _parse_response(data, bint head_request=False):
    cdef Py_buffer view
    cdef Head head
    cdef int length
    cdef const uint8_t *start
    memset(&head, 0, sizeof(head))
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        start = <const uint8_t *> view.buf
        with nogil:
            length = h1_parse_response(&head, start, <size_t> view.len, LARGEST_HEAD, head_request)
        if length <= 0:
            return -length
        return {
            "length": length,
            "status": head.status,
            "version": 11 if head.http11 else 10,
            "reason": <bytes> start[head.reason_at:head.reason_at + head.reason_length],
            "framing": ("none", "length", "chunked", "close")[head.framing],
            "content_length": head.content_length,
            "keep_alive": bool(head.keep_alive),
            "headers": head_headers(&head, start),
        }
    finally:
        PyBuffer_Release(&view)


def _build_request(bytes data not None, bytes identity not None, bytes host not None, int64_t content_length=-1):
    cdef Head head
    cdef HeadLimits limits = head_limits(LARGEST_HEAD)
    cdef Identity block
    cdef Out out
    cdef uint8_t buffer[SCRATCH]
    memset(&head, 0, sizeof(head))
    if h1_parse_request(&head, <const uint8_t *> data, <size_t> len(data), &limits) <= 0 or (
            len(identity) > HD_MAX_BLOCK):
        raise ValueError("no valid head, or too long an identity")
    memcpy(block.data, <const uint8_t *> identity, <size_t> len(identity))
    block.length = <uint16_t> len(identity)
    out.data = buffer
    out.length = 0
    out.capacity = SCRATCH
    out.overflow = False
    hd_request(&out, &head, <const uint8_t *> data, &block, False, <const uint8_t *> host, <size_t> len(host),
               content_length)
    return <bytes> buffer[:<Py_ssize_t> out.length]


def _build_response(bytes data not None, *, bint head_request=False, bint http10=False, bint keep_alive=True):
    cdef Head head
    cdef Out out
    cdef uint8_t framing
    cdef uint8_t buffer[SCRATCH]
    memset(&head, 0, sizeof(head))
    if h1_parse_response(&head, <const uint8_t *> data, <size_t> len(data), LARGEST_HEAD, head_request) <= 0:
        raise ValueError("no valid head")
    framing = head.framing
    if framing == H1_FRAMING_CHUNKED or framing == H1_FRAMING_CLOSE:
        framing = <uint8_t> (H1_FRAMING_CLOSE if http10 else H1_FRAMING_CHUNKED)
    out.data = buffer
    out.length = 0
    out.capacity = SCRATCH
    out.overflow = False
    hd_response(&out, &head, <const uint8_t *> data, framing, not http10, keep_alive)
    return <bytes> buffer[:<Py_ssize_t> out.length]


def _decode_chunked(pieces):
    cdef Chunked chunked
    cdef bytearray copy
    cdef uint8_t *data
    cdef size_t length = 0
    cdef size_t used = 0
    cdef int state = CK_MORE
    cdef Py_ssize_t rest = 0
    memset(&chunked, 0, sizeof(chunked))
    content = b""
    for piece in pieces:
        copy = bytearray(piece)
        data = copy
        state = ck_decode(&chunked, data, <size_t> len(copy), &length, &used)
        if state < 0:
            return content, state, 0
        content += bytes(copy[:<Py_ssize_t> length])
        rest = len(copy) - <Py_ssize_t> used
        if state == CK_DONE:
            break
    return content, state, rest


def _sign(bytes secret not None, bytes message not None):
    cdef uint8_t text[SG_HEX_LENGTH]
    if sg_sign(<const uint8_t *> secret, <size_t> len(secret),
               <const uint8_t *> message, <size_t> len(message), text) < 0:
        raise CoreError("OpenSSL cannot sign")
    return (<bytes> text[:SG_HEX_LENGTH]).decode("ascii")


def _identity_block(bytes address not None, str instance_id not None, str project_id not None, bytes secret not None):
    cdef Identity *identity = new_identity(sixteen(address), instance_id, project_id, secret, b"")
    try:
        return <bytes> identity.data[:identity.length]
    finally:
        free(identity)
