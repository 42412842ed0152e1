# The rings between a loop's thread and Python: bounded, one writer, one reader, no lock; types only.
#
#   mailbox   Python writes (the GIL makes it one writer), the loop reads
#   events    the loop writes, Python reads: misses and problems
#   requests  the loop writes, Python reads: finished requests, only with access_log
#
# Indices only grow; a slot is index % capacity. The writer fills the slot, then releases the index; the reader acquires
# the index, then uses the slot.

cdef enum:
    RG_MAILBOX = 1024
    RG_EVENTS = 8192
    RG_REQUESTS = 1024
    RG_TARGET = 256            # bytes of a target kept for the log

cdef enum:
    MS_ADD_SCOPE = 1
    MS_REMOVE_SCOPE = 2
    MS_ADD_LISTENER = 3
    MS_REMOVE_LISTENER = 4
    MS_IDENTITY = 5
    MS_ABSENT = 6
    MS_REFUSED = 7
    MS_REVOKE = 8
    MS_REVOKE_ALL = 9
    MS_UPSTREAMS = 10
    MS_STOP = 11
    MS_SETTINGS = 12
    MS_RENEW = 13
    MS_SHORTEN = 14
    MS_RETIRE_SCOPE = 15
    MS_ADD_RELAY = 16
    MS_HANDED = 17
    MS_RATES = 18

cdef enum:
    EV_MISS = 1
    EV_REQUEST = 2
    EV_PROBLEM = 3
    EV_LISTENER_CLOSED = 4
    EV_SCOPE_REMOVED = 5
    EV_HANDED = 6

cdef enum:
    PR_ACCEPT = 1
    PR_DESCRIPTORS = 2
    PR_MEMORY = 3
    PR_CONNECTIONS_FULL = 4
    PR_PARKED_FULL = 5
    PR_UPSTREAM_AWAY = 6
    PR_UPSTREAM_BACK = 7
    PR_UPSTREAM_NONSENSE = 8
    PR_UPSTREAM_TIMEOUT = 9
    PR_UPSTREAM_REFUSES_SIGNATURE = 10
    PR_EVENTS_LOST = 11
    PR_UPSTREAM_FULL = 12
    PR_UPSTREAM_SILENT = 13
    PR_SCOPE_CONNECTIONS = 14
    PR_ADDRESS_CONNECTIONS = 15
    PR_SCOPE_PARKED = 16
    PR_ADDRESS_PARKED = 17
    PR_BODIES_FULL = 18
    PR_RATE_LIMITED = 19
    PR_SCOPE_MISSES = 20
    PR_UPSTREAM_CERTIFICATE = 21
    PR_UPSTREAM_TLS = 22
    PR_UPSTREAM_SLOW = 23
    PR_UPSTREAM_ALL_AWAY = 24
    PR_UPSTREAM_SOME_BACK = 25
    PR_NEXT_SECRET = 26
    PR_STRANGER = 27


cdef enum:
    MAX_SERVERS = 64           # addresses of all upstreams
    MAX_HOST = 255


cdef struct Target:
    sockaddr_storage address
    socklen_t length


cdef struct ServerSpec:
    # One address of an upstream, as Python names it.
    uint32_t number
    Target target
    uint8_t host[MAX_HOST]     # for the Host header
    uint32_t host_length
    char name[MAX_HOST + 1]    # that its certificate must be for, a host name or an address
    SSL_CTX *tls               # with a reference of its own; NULL: without TLS


cdef struct UpstreamsMessage:
    uint32_t server_n
    ServerSpec servers[MAX_SERVERS]


cdef enum:
    # What a scope is, as far as the core knows: only what has a kind and a UUID can be found by them.
    SC_UNNAMED = 0
    SC_NETWORK = 1
    SC_ROUTER = 2
    SC_RELAY = 3               # where the relay's connections are that belong to no other


cdef enum:
    MAX_PEERS = 8


cdef struct Peers:
    # Who may connect to the relay's socket: effective users and groups.
    uint32_t uid_n
    uint32_t gid_n
    uid_t uids[MAX_PEERS]
    gid_t gids[MAX_PEERS]


cdef enum:
    RL_OWN = 4
    RL_MOST = 0x7fffffff       # requests in a window


cdef struct Rates:
    # Limits of the requests of each address, by two sliding windows.
    uint64_t base_window_ms
    uint64_t burst_window_ms
    uint32_t base_limit
    uint32_t burst_limit
    uint32_t versions          # 1: IPv4, 2: IPv6, 3: both; RL_OWN: of this scope


cdef struct Handed:
    # A relay connection on its way to the loop of its scope; the bytes that were read of it lie behind this.
    int fd                     # owned by whoever owns this
    uint64_t arrived_us        # the first of them
    uint32_t length
    uint8_t times              # it has been handed on
    bint refused               # by Python: there is no scope for it


cdef struct Message:
    uint8_t kind
    bint drain
    uint32_t scope
    uint32_t listener
    int fd                     # owned by the message
    uint8_t address[16]
    uint32_t interface
    uint64_t generation
    uint64_t ends_us
    uint64_t asked_us          # MS_IDENTITY: when the question was sent
    void *payload              # owned by the message: Identity, UpstreamsMessage, SettingsMessage, Peers, Handed, Rates
    Counters *counters         # of a new scope; Python's, lent until EV_SCOPE_REMOVED
    uint8_t scope_kind         # MS_ADD_SCOPE: SC_*
    uint8_t uuid[16]


cdef struct Event:
    uint8_t kind
    uint8_t code               # EV_PROBLEM: PR_*; EV_SCOPE_REMOVED: whether it was retired
    int error
    uint32_t scope
    uint32_t listener
    uint32_t interface
    uint8_t address[16]
    bint has_address           # EV_PROBLEM
    uint32_t upstream          # EV_PROBLEM: the number of a server; 0: none
    Counters *counters         # EV_SCOPE_REMOVED: given back
    Handed *handed             # EV_HANDED: owned by the event
    uint8_t scope_kind
    uint8_t uuid[16]


cdef struct RequestRecord:
    uint32_t scope
    uint32_t interface
    uint8_t address[16]
    uint16_t status
    uint16_t upstream_status
    bint whole
    uint64_t content_bytes
    uint64_t total_us
    uint64_t parked_us
    uint64_t upstream_us
    uint8_t instance_length
    uint8_t instance[HD_MAX_ID]
    uint8_t method_length
    uint8_t method[H1_MAX_METHOD]
    uint16_t target_length
    uint8_t target[RG_TARGET]


cdef struct Mailbox:
    uint64_t written
    uint64_t taken
    Message *slots


cdef struct Ring:
    uint64_t written
    uint64_t taken
    uint64_t capacity
    void *slots
