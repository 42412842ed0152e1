# What is counted, and why requests are refused and how connections end: indices, tables, adding. Prefixes ct_
# (counters) and rf_ (refusals). Pure: a block of counters belongs to its loop or its scope.
#
# Everything about guests is counted twice, for the loop and for the scope, so that both add up by themselves. Only the
# loop's thread writes; Python reads at any time, without a lock.

# Why a request is refused. RF_NONE: it is not.
cdef enum:
    RF_NONE = 0
    RF_MALFORMED = 1           # head: RFC 9112
    RF_BODY_MALFORMED = 2      # chunked coding
    RF_CODING = 3              # a transfer coding other than chunked
    RF_METHOD = 4              # TRACE
    RF_TARGET_LONG = 5
    RF_HEAD_LARGE = 6          # bytes or headers
    RF_BODY_LARGE = 7
    RF_HEAD_SLOW = 8
    RF_BODY_SLOW = 9
    RF_RATE = 10
    RF_ABSENT = 11             # nobody, or nobody certain, has the address
    RF_LOOKUP = 12             # the source's answer cannot be trusted
    RF_PARKED_LONG = 13        # park_timeout is over
    RF_PARKED = 14             # too many parked: in all, of the scope, of the address
    RF_PARKED_SCOPE = 15
    RF_PARKED_ADDRESS = 16
    RF_CONNECTIONS = 17        # too many connections: in all, of the scope, of the address
    RF_CONNECTIONS_SCOPE = 18
    RF_CONNECTIONS_ADDRESS = 19
    RF_BODIES = 20             # too many bodies are on their way
    RF_MISSES = 21             # more misses than Python can take
    RF_REVOKED = 22            # the identity ended while a request was under way that may not be sent again
    RF_NONSENSE = 23           # Nova's answer is none
    RF_SILENT = 24             # Nova took a request that may not be sent again, and gave no answer
    RF_NO_PLACE = 25           # Nova is busy: no place in upstream_timeout
    RF_NO_ANSWER = 26          # in upstream_timeout
    RF_RESOURCES = 27          # no memory, or the kernel refuses
    RF_PROXY = 28              # what a proxy on the relay's socket says of its guest is missing or ambiguous
    RF_SCOPES = 29             # its network or router is not known here, and cannot be now
    RF_N = 30

# How a guest's connection ended.
cdef enum:
    CE_GUEST = 0               # the guest closed it, with no request in progress
    CE_ABORTED = 1             # the guest closed or reset it while one was
    CE_ANSWERED = 2            # we did, after an answer
    CE_REFUSED = 3             # we did, after a refusal
    CE_IDLE = 4                # keepalive_timeout
    CE_EVICTED = 5             # made room for another one
    CE_TURNED_AWAY = 6         # there was no room for it
    CE_SLOW_READER = 7         # write_timeout or answer_timeout
    CE_CUT = 8                 # Nova's answer was cut off
    CE_LISTENER = 9            # its listener was closed
    CE_RESOURCES = 10          # no memory, or the kernel refuses
    CE_HANDED = 11             # a relay connection went on to another scope, where it counts as a new one
    CE_STRANGER = 12           # who connected to the relay's socket may not
    CE_N = 13

cdef enum:
    CT_BUCKETS = 24            # of a histogram; bucket n counts what is below 2^(n + 5) microseconds, the last the rest

cdef extern from *:
    """
    /* Statuses with a counter of their own: what Nova and we give. Others are counted by their class. */
    static const unsigned short ct_statuses[] = {
        200, 404, 503, 204, 206, 301, 302, 304, 400, 401, 403, 405, 408, 409, 413, 414, 416, 429, 431, 500, 501, 502,
        504,
    };
    _Static_assert(sizeof ct_statuses / sizeof *ct_statuses == 23, "CT_STATUSES");
    """
    const unsigned short ct_statuses[23]

cdef enum:
    CT_STATUSES = 23
    CT_CLASSES = 4             # 2xx to 5xx

cdef enum:
    CT_CONNECTIONS = 0
    CT_CONNECTIONS_OPEN = 1    # now
    CT_REQUESTS = 2
    CT_ABORTED = 3             # the guest went, or was cut off, before its answer was whole
    CT_IDENTITY_HITS = 4
    CT_IDENTITY_MISSES = 5
    CT_IDENTITIES = 6          # now
    CT_PARKED = 7              # now
    CT_PARKED_TOTAL = 8
    CT_GATHERED = 9            # bodies that are gathered or wait gathered, now
    CT_REVOKED = 10            # in flight
    CT_STALE_RETRIES = 11      # kept connections that Nova had closed
    CT_REPEATED = 12           # Nova took a request and closed; it was sent again
    CT_BYTES_UP = 13
    CT_BYTES_DOWN = 14
    CT_SOURCES = 15            # addresses that have a connection or are remembered for their rate, now
    CT_SECOND_TRIES = 16       # requests that were sent to a second server, the first being slow
    CT_SECOND_WON = 17         # and answered by that one first
    CT_SECRET_RETRIES = 18     # requests that were sent again, signed with the other secret
    CT_RECHECKS = 19           # questions about an identity that a 404 of Nova's led to
    CT_UPSTREAM_CONNECTS = 20
    CT_UPSTREAM_CONNECTIONS = 21   # now
    CT_UPSTREAM_IDLE = 22      # now
    CT_UPSTREAM_FAILURES = 23
    CT_EVENTS_LOST = 24
    CT_REFUSED = 25            # RF_N of them
    CT_ENDED = CT_REFUSED + RF_N   # CE_N
    CT_STATUS = CT_ENDED + CE_N    # CT_STATUSES, then CT_CLASSES for the others
    CT_TOTAL = CT_STATUS + CT_STATUSES + CT_CLASSES    # histograms: a whole request, head to answer
    CT_WAITED = CT_TOTAL + CT_BUCKETS      # parked
    CT_UPSTREAM = CT_WAITED + CT_BUCKETS   # Nova: from the request to its answer's head
    CT_N = CT_UPSTREAM + CT_BUCKETS


cdef struct Counters:
    uint64_t values[CT_N]


cdef inline void ct_count(Counters *loop, Counters *scope, int index, uint64_t n) noexcept nogil:
    at_count(&loop.values[index], n)
    at_count(&scope.values[index], n)


cdef inline void ct_uncount(Counters *loop, Counters *scope, int index) noexcept nogil:
    at_uncount(&loop.values[index], 1)
    at_uncount(&scope.values[index], 1)


cdef int ct_status(int status) noexcept nogil:
    """The counter of a status from 200 to 599."""
    cdef int i
    for i in range(<int> CT_STATUSES):
        if ct_statuses[i] == status:
            return CT_STATUS + i
    return CT_STATUS + CT_STATUSES + status // 100 - 2


cdef inline int ct_bucket(uint64_t time_us) noexcept nogil:
    """The bucket of a histogram that a time belongs to."""
    cdef int bits = by_bits(time_us | 1) - 5
    if bits < 0:
        return 0
    if bits >= CT_BUCKETS:
        bits = CT_BUCKETS - 1
    return bits


cdef int rf_status(int reason) noexcept nogil:
    """The one table from reasons to what a guest sees."""
    if reason == RF_MALFORMED or reason == RF_BODY_MALFORMED or reason == RF_PROXY:
        return 400
    if reason == RF_ABSENT:
        return 404
    if reason == RF_HEAD_SLOW or reason == RF_BODY_SLOW:
        return 408
    if reason == RF_BODY_LARGE:
        return 413
    if reason == RF_TARGET_LONG:
        return 414
    if reason == RF_RATE:
        return 429
    if reason == RF_HEAD_LARGE:
        return 431
    if reason == RF_CODING or reason == RF_METHOD:
        return 501
    if reason == RF_NONSENSE or reason == RF_SILENT:
        return 502
    if reason == RF_NO_PLACE or reason == RF_NO_ANSWER:
        return 504
    return 503


cdef int rf_of_head(int status) noexcept nogil:
    """The reason for which the parser refuses a head with this status."""
    if status == 414:
        return RF_TARGET_LONG
    if status == 431:
        return RF_HEAD_LARGE
    if status == 501:
        return RF_CODING
    return RF_MALFORMED
