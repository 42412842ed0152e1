# What a loop is made of: all records, their lists, and who owns what.
#
#   LoopState   owns everything below; made and freed by the Python class Loop, used by the loop's thread only (but for
#               the rings and counters, see ring.pxi)
#   Scope       owned by LoopState.scopes; owns its identity table
#   Entry       one address of a scope; owned by the table; waiters are guests that do not belong to it
#   Source      one address that has connections, and what it may; owned by LoopState.sources
#   Listener    owns its descriptor; its guests are in .guests
#   Guest       one connection of a guest, or of a proxy that hands over guests' requests (relay.pxi); owns its
#               descriptor and buffers, and its upstream connection while .up is set
#   Server      one address of an upstream; owned by LoopState.servers, or, when it was removed, by .removed_servers
#               until its last connection is gone
#   Upstream    one connection to a server; owned by Server.idle (kept alive, unused), LoopState.released,
#               Server.warming, by its guest, or by LoopState.busy, when its guest has gone and left a request at Nova
#   Buffer      owned by who points at it; returned to a free list
#
# A record that epoll knows (Socket is its first member) is never freed inside a batch of events: it is marked dead, put
# on LoopState.dead, and freed when the batch is done; so a stale event meets a dead record, never another one.

cdef enum:
    ST_LISTENER = 1
    ST_GUEST = 2
    ST_UPSTREAM = 3
    ST_MAILBOX = 4
    ST_CLOCK = 5

cdef enum:
    BF_SMALL = 16384           # a request, an answer's first part
    BF_LARGE = 65536           # an answer's further parts, a gathered body
    BF_FRONT = 128             # room before the data: a longer head (HD_RESPONSE_GROWTH) or a chunk's size
    BF_BACK = 16               # room behind it: a chunk's end and the last chunk
    BF_KEEP = 64               # buffers of each size kept for reuse

cdef enum:
    PROBLEM_CODES = 32

cdef enum:
    TM_SLOTS = 4096            # of TM_SLOT_MS each: 65 s ahead; later ones wait for another round
    TM_SLOT_MS = 16
    TM_WORDS = 64              # of 64 bits: one for each slot


cdef struct Link:
    # A place in a circular list; owner is the record that it lies in. Unlinked: next is NULL.
    Link *previous
    Link *next
    void *owner


cdef struct Timer:
    Link link
    uint64_t deadline_ms       # when to act; may move later without touching the wheel
    uint64_t slot_ms           # when the wheel looks at it
    uint8_t kind               # ST_GUEST, ST_UPSTREAM, ST_LISTENER or one of TM_*


cdef enum:
    TM_RETRY = 16              # a server that is away may be tried
    TM_SWEEP = 17              # forget identities that have ended
    TM_ACCEPT = 18             # accept again after descriptors ran out
    TM_STOP = 19               # the time for ending is over


cdef struct Spare:
    # A record that is kept for reuse: this lies where it was.
    Spare *next


cdef struct Spares:
    size_t size                # of a record
    Spare *first
    uint32_t n


cdef struct Socket:
    int fd
    uint32_t interest          # what epoll reports; 0: not registered
    uint8_t kind
    bint dead


cdef struct Buffer:
    Buffer *next               # in the free list
    uint32_t capacity
    uint32_t start             # data[start:end] is what counts
    uint32_t end
    Head head
    uint8_t *data


cdef struct Window:
    # Requests in a sliding window: those of the present period, and of the one before, as far as it reaches in.
    uint64_t start_ms
    uint64_t count
    uint64_t before


cdef struct Source:
    Source *next               # in its bucket
    uint64_t hash
    Scope *scope               # NULL: it was removed
    uint8_t address[16]
    uint32_t interface
    uint32_t guest_n           # records of guests, and abandoned connections to Nova, that point here
    uint32_t connection_n
    uint32_t parked_n
    uint32_t gathered_n
    uint32_t busy_n            # places at Nova that it has
    uint32_t streams_n
    Link link                  # in Scope.sources
    Link idle                  # its connections without a request in progress, oldest first
    Link places                # its requests that wait for a place at Nova
    Link round                 # in Scope.round as long as there are any
    Link quiet                 # in Scope.quiet while it has no connection and is remembered for its rate
    Window base
    Window burst


cdef struct Scope:
    uint32_t number
    uint8_t kind               # SC_*
    uint8_t uuid[16]
    Scope *named               # the next in the hash of scopes that have a UUID
    uint64_t generation
    uint64_t revision          # grows with each revocation, and whenever an address is another instance's or nobody's
    Counters *counters         # lent by Python
    Link listeners
    Link link                  # in LoopState.scopes
    Scope *next                # in the hash of scopes
    Link sources
    Link idle                  # its connections without a request in progress, oldest first
    Link round                 # in LoopState.round as long as a source of it waits for a place at Nova
    Link waiting               # those sources
    Link quiet                 # sources without connections, oldest first
    uint32_t quiet_n
    uint32_t busy_n            # places at Nova that it has
    uint32_t streams_n
    uint32_t miss_n            # misses told to Python since it last had read all (miss_turn)
    uint64_t miss_turn
    Entry **buckets
    uint32_t bucket_n          # a power of two, or 0
    uint32_t entry_n
    uint32_t absent_n
    Rates rates                # in place of those of the settings, if RL_OWN is in its versions


cdef enum:
    EN_PENDING = 0
    EN_VALID = 1
    EN_ABSENT = 2


cdef struct Entry:
    Entry *next
    uint8_t address[16]
    uint32_t interface
    uint8_t state
    uint64_t asked_us          # when the last miss was told to Python; 0: never
    uint64_t ends_us           # VALID: age limit of the identity; ABSENT: until when it is kept
    uint64_t confirmed_us      # VALID: when the question was sent that it is the answer to
    uint64_t rechecked_us      # when a 404 of Nova's led to a question about its identity; 0: never
    uint64_t naming            # VALID, ABSENT: its number of all that were named; the same again is no other
    bint used                  # VALID: by a request, since it was confirmed
    bint rechecking            # the question of rechecked_us has not been answered
    Identity *identity         # owned; VALID only
    Link waiters               # guests, by .wait


cdef struct Listener:
    Socket socket
    uint32_t number
    Scope *scope
    Link link                  # in Scope.listeners
    Link guests
    uint32_t guest_n
    bint draining
    bint paused
    bint relays                # the agent's unix socket: see relay.pxi
    Timer timer                # end of draining


cdef enum:
    GS_IDLE = 0                # between requests, no byte of the next one
    GS_HEAD = 1                # part of a head
    GS_GATHER = 2              # reading a body that goes up in one piece
    GS_RESOLVE = 3             # waits for its identity
    GS_PLACE = 4               # waits for a connection to Nova
    GS_CONNECT = 5             # its connection to Nova is being made
    GS_SEND = 6                # head and body go up
    GS_ANSWER = 7              # waits for the answer's head
    GS_RELAY = 8               # the answer's content comes down
    GS_FLUSH = 9               # the answer is complete, the guest has not taken all of it
    GS_PAUSE = 10              # Nova took its request and gave no answer: waits before it is sent again
    GS_LINGER = 11             # answered and shut down; what still comes is thrown away
    GS_RECHECK = 12            # Nova says 404: it waits for what the source says of its identity


cdef struct Guest:
    Socket socket
    Listener *listener
    Scope *scope
    Source *source
    Link link                  # in Listener.guests
    Link wait                  # in Entry.waiters or Source.places
    Link idle                  # in LoopState.idle_guests, with no request in progress; of its scope and source, too:
    Link scope_idle
    Link source_idle
    Timer timer
    uint8_t address[16]
    uint32_t interface
    uint8_t phase
    bint busy                  # gs_process is on the stack
    bint request_open          # a request has begun and is not done: counted, to be logged
    bint http11
    bint keep_alive
    bint head_method
    bint repeatable            # GET or HEAD without content
    bint begun                 # bytes of the answer have gone to the guest, or wait for its kernel (held)
    bint held                  # the kernel has not taken one byte of Nova's answer yet: all of it is in `out`
    bint continue_wanted       # 100 Continue is still owed
    bint body_missing          # part of the request's body is still to come
    bint gathers               # its body goes up in one piece
    bint parked
    bint was_parked
    bint park_counts           # the wait uses up park_left_ms
    bint fresh_only            # no kept connection for this request any more
    uint8_t signature          # SG_*: which it must be sent with,
    uint32_t signature_for     # to the server with this number, which refused the other one
    bint cut                   # the answer was cut off: close without completing it
    bint relayed               # a proxy's connection: who asks, each request's head says
    uint8_t handed             # how often it was handed on to find its scope
    uint8_t relay_reason       # RF_*: why the present request is refused, whoever asks
    Buffer *received           # from the guest: head, body, what is pipelined
    Buffer *body               # gathered
    Buffer *out                # to the guest, not yet taken by the kernel
    Upstream *up
    Upstream *second           # on which the same request was sent, or will be, because .up is slow
    Entry *entry               # while in its waiters
    Chunked chunked            # of a chunked request body
    uint32_t consumed          # bytes of `received` that belong to the present request
    uint32_t body_at           # where in `received` the body's bytes that came with the head are
    uint32_t body_here         # and how many
    uint32_t pause_ms
    uint64_t body_left         # bytes of the body that have not come (gathering) or not gone up (streaming)
    int64_t body_length        # -1: none
    uint64_t arrived_us
    uint64_t parked_at_us
    uint64_t parked_us
    uint64_t park_left_ms
    uint64_t upstream_by_ms    # deadline of place and answer together; 0: not set yet
    uint64_t answer_by_ms      # deadline of the whole answer; 0: it has not begun
    uint64_t sent_us
    uint64_t revision          # the scope's when the request went to Nova
    uint64_t naming            # of the connection whose answer goes down (Upstream.naming)
    uint64_t upstream_us
    uint64_t answer_bytes
    uint16_t status
    uint16_t upstream_status
    uint8_t reason             # RF_*: why it was refused
    uint8_t instance_length
    uint8_t instance[HD_MAX_ID]


cdef struct Server:
    ServerSpec spec            # owns its reference to spec.tls
    Link link                  # in LoopState.servers or .removed_servers
    Link idle                  # connections, most recently used first
    Link warming               # connections that are made without a guest
    SSL_SESSION *session       # to be resumed, owned; or NULL
    Timer retry                # while it rests
    uint32_t connection_n      # records of connections that point here, dead ones too
    uint32_t busy_n            # its requests in flight
    uint32_t released_n
    uint32_t idle_n
    uint32_t warming_n
    uint32_t failures          # in a row
    uint32_t version           # of spec.tls
    bint away                  # it does not take connections
    bint probing               # one connection tries whether it does again
    bint suspect               # silent or slow: for when nobody else has room, and for one request now and then
    bint prefers_next          # the secret that it accepted last
    bint wanted
    bint removed
    uint64_t try_at_ms         # suspect: when one request may go to it
    uint64_t problem_at_ms[PROBLEM_CODES]


cdef enum:
    UP_CONNECTING = 0          # for a guest
    UP_IDLE = 1
    UP_BUSY = 2
    UP_RELEASED = 3
    UP_WARMING = 4             # connecting, for the pool


cdef struct Upstream:
    Socket socket
    Server *server
    SSL *tls                   # NULL: without TLS
    Link link                  # in LoopState.busy or .released, Server.idle or .warming
    Timer timer                # connecting; idle; when a second server is tried; abandoned
    Guest *guest
    Scope *scope               # whose place it takes, while busy
    Source *source
    Buffer *received
    Buffer *unsent             # of the request
    Chunked chunked
    uint8_t phase
    uint8_t framing            # of the answer
    uint8_t framing_down       # towards the guest
    bint reused
    bint signed_twice          # the identity of its request has signatures of two secrets
    bint signed_next           # and that of the next one was sent
    bint streams               # a body that is still on its way in goes up on it
    bint probe                 # tries whether the server is back
    bint session_kept
    uint64_t naming            # Entry.naming when its request was sent
    bint abandoned             # its guest has gone; it points to its source as a guest would
    bint has_head              # the answer's final head has come
    bint reusable              # as far as the answer says
    uint8_t interim_n          # 1xx answers
    uint32_t head_length       # of an answer that is held
    uint32_t version           # Server.version when it was made
    uint64_t made_us
    uint64_t second_us         # when a second try was sent on it
    uint64_t content_left
