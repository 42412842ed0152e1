# The one record that owns all others, and the settings. No functions. Continues state.pxi, which says who owns what.

cdef struct Settings:
    uint64_t park_timeout_ms
    uint64_t upstream_timeout_ms
    uint64_t connect_timeout_ms
    uint64_t head_timeout_ms
    uint64_t body_timeout_ms
    uint64_t write_timeout_ms
    uint64_t keepalive_timeout_ms
    uint64_t linger_timeout_ms
    uint64_t upstream_idle_timeout_ms
    uint64_t max_connections
    uint64_t max_parked
    uint64_t max_absent
    uint64_t max_head
    uint64_t max_body
    uint64_t max_upstream_connections
    uint64_t access_log
    uint64_t answer_timeout_ms
    uint64_t max_connections_per_scope
    uint64_t max_connections_per_address
    uint64_t max_parked_per_scope
    uint64_t max_parked_per_address
    uint64_t max_gathered
    uint64_t max_headers
    uint64_t max_target
    uint64_t rate_versions     # as of Rates; RL_OWN besides: a scope has limits of its own, so that one look tells both
    uint64_t base_window_ms
    uint64_t base_limit
    uint64_t burst_window_ms
    uint64_t burst_limit
    uint64_t second_try_after_ms
    uint64_t warm_connections


cdef struct SettingsMessage:
    Settings settings
    HeadLimits head_limits


cdef enum:
    MAX_EVENTS = 1024          # of a batch
    UP_SPARES = 16
    SCOPE_BUCKETS = 1024
    SCRATCH = 98304            # more than a head and the largest gathered body
    LARGEST_HEAD = 14000       # of an answer: with what surrounds it, it fits in BF_SMALL


cdef struct LoopState:
    int epoll
    Socket mailbox_socket      # eventfd: messages from Python wait
    Socket clock               # timerfd: the wheel must be looked at
    int notify                 # eventfd: events for Python wait
    bint notify_wanted
    uint64_t now_us            # once a turn
    uint64_t now_ms
    uint64_t random
    uint64_t hash_seed
    Settings settings
    HeadLimits head_limits
    Counters counters
    Mailbox mailbox
    Ring events                # misses and problems
    Ring requests              # finished ones
    Scope *scope_hash[SCOPE_BUCKETS]
    Scope *named[SCOPE_BUCKETS]    # those that have a UUID, by it
    Scope *relay_scope         # of connections on the relay's socket that belong to no other; NULL: there is no relay
    Listener *relay            # holds all of those connections; NULL: there is none (any more)
    Peers peers                # who may be on the other end
    uint64_t handed_n          # connections that were handed to Python, of which it has taken:
    uint64_t handed_taken      # (Python's)
    Link scopes
    Link *sweep_at             # the scope to sweep next
    Link idle_guests           # oldest first
    Link round                 # scopes with guests that wait for a place at Nova
    Link servers               # in the order in which equals are used
    Link removed_servers
    Link released              # upstream connections that are idle, but epoll has not been asked since
    Link busy                  # upstream connections with a guest
    Link dead_guests
    Link dead_upstreams
    Link dead_listeners
    uint32_t released_n
    uint32_t streams_n
    uint32_t busy_n
    uint32_t listener_n
    uint32_t quiet_n
    Source **sources           # hash table
    uint32_t source_bucket_n   # a power of two, or 0
    uint32_t source_n
    uint64_t miss_turn         # counts how often Python was found to have read all events
    Buffer *small
    Buffer *large
    uint32_t small_n
    Spares spare_guests        # records: who closes and comes again costs no malloc
    Spares spare_sources
    uint32_t large_n
    uint32_t server_n
    uint32_t usable_n          # servers that are not away
    uint32_t second_n          # guests with two connections to Nova
    uint64_t namings           # how often an address has become another instance's, or nobody's
    bint away                  # all servers are
    bint away_told
    bint starved               # no descriptor is left for a connection to Nova
    int spares[UP_SPARES]      # descriptors that are kept for one: else guests could take all of them
    uint32_t spare_n
    bint pump_wanted           # guests may have a place now
    bint batch_full            # epoll had perhaps more to report than there was room for
    Timer sweep
    Timer accept
    Timer stop
    bint stopping
    bint out_of_time
    int failed                 # errno that ended the loop
    uint64_t problem_at_ms[PROBLEM_CODES]
    Link wheel[TM_SLOTS]
    uint64_t wheel_bits[TM_WORDS]
    uint64_t wheel_ms          # up to here the wheel has been turned
    uint64_t due_ms            # the earliest slot that holds anything is over then; TM_NEVER: none
    bint due_changed           # the timerfd does not know due_ms yet
    uint8_t scratch[SCRATCH]   # heads are built here, with a body behind
    epoll_event batch[MAX_EVENTS]
