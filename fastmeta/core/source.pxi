# Sources: the addresses that have connections, what each may hold, and how fast it may ask. Prefixes so_ (the table)
# and rl_ (rate limits). The table owns its records; a record lives as long as one of a guest points to it, and longer,
# within bounds, when its rate has to be remembered.

cdef enum:
    SO_FIRST_BUCKETS = 64
    SO_KEPT_PER_SCOPE = 10000      # remembered without connections: as many as a proxy of Neutron's remembers
    SO_KEPT = 65536                # in all


cdef uint64_t so_hash(const LoopState *loop, const Scope *scope, const uint8_t *address,
                      uint32_t interface) noexcept nogil:
    return id_hash(loop, address, interface) ^ <uint64_t> scope.number * <uint64_t> 0x9e3779b97f4a7c15


cdef void so_grow(LoopState *loop) noexcept nogil:
    """Doubles the buckets; without memory the lists just get longer."""
    cdef uint32_t n = SO_FIRST_BUCKETS
    cdef Source **buckets
    cdef Source *source
    cdef Source *following
    cdef uint32_t i
    if loop.source_bucket_n:
        n = loop.source_bucket_n * 2
    buckets = <Source **> calloc(n, sizeof(Source *))
    if buckets is NULL:
        return
    for i in range(loop.source_bucket_n):
        source = loop.sources[i]
        while source is not NULL:
            following = source.next
            source.next = buckets[source.hash & (n - 1)]
            buckets[source.hash & (n - 1)] = source
            source = following
    free(loop.sources)
    loop.sources = buckets
    loop.source_bucket_n = n


cdef inline Source *so_get(LoopState *loop, Scope *scope, const uint8_t *address, uint32_t interface) noexcept nogil:
    """The record of an address in a scope, made when there is none; NULL without memory."""
    cdef uint64_t hashed = so_hash(loop, scope, address, interface)
    cdef Source *source
    if by_unlikely(loop.source_n >= loop.source_bucket_n):
        so_grow(loop)
        if loop.source_bucket_n == 0:
            return NULL
    source = loop.sources[hashed & (loop.source_bucket_n - 1)]
    while source is not NULL:
        if source.hash == hashed and source.scope == scope and source.interface == interface and (
                memcmp(source.address, address, 16) == 0):
            return source
        source = source.next
    source = <Source *> st_new(&loop.spare_sources)
    if source is NULL:
        return NULL
    source.hash = hashed
    source.scope = scope
    memcpy(source.address, address, 16)
    source.interface = interface
    ls_init(&source.idle)
    ls_init(&source.places)
    ls_insert(&scope.sources, &source.link, source)
    source.next = loop.sources[hashed & (loop.source_bucket_n - 1)]
    loop.sources[hashed & (loop.source_bucket_n - 1)] = source
    loop.source_n += 1
    st_count(loop, scope, CT_SOURCES, 1)
    return source


cdef void so_drop(LoopState *loop, Source *source) noexcept nogil:
    """Frees a record that no guest points to."""
    cdef Source **place = &loop.sources[source.hash & (loop.source_bucket_n - 1)]
    while place[0] != source:
        place = &place[0].next
    place[0] = source.next
    loop.source_n -= 1
    if source.scope is not NULL:
        so_awake(loop, source)
        st_uncount(loop, source.scope, CT_SOURCES)
        ls_remove(&source.link)
        ls_remove(&source.round)
    st_give(&loop.spare_sources, source)


cdef void so_awake(LoopState *loop, Source *source) noexcept nogil:
    """It is not remembered for its rate alone (any more)."""
    if source.quiet.next is not NULL:
        ls_remove(&source.quiet)
        source.scope.quiet_n -= 1
        loop.quiet_n -= 1


cdef void so_join(LoopState *loop, Source *source) noexcept nogil:
    """A guest's record points to it from now on, and its connection is open."""
    so_awake(loop, source)
    source.guest_n += 1
    source.connection_n += 1


cdef void so_leave(LoopState *loop, Source *source) noexcept nogil:
    """A guest's record that pointed to it is gone."""
    source.guest_n -= 1
    so_settle(loop, source)


cdef void so_settle(LoopState *loop, Source *source) noexcept nogil:
    """If no guest points to it, it is forgotten, or remembered for its rate."""
    cdef Scope *scope = source.scope
    if source.guest_n or source.quiet.next is not NULL:
        return
    if scope is NULL or rl_is_over(loop, source):
        so_drop(loop, source)
        return
    ls_insert(&scope.quiet, &source.quiet, source)
    scope.quiet_n += 1
    loop.quiet_n += 1
    id_want_sweep(loop)
    if scope.quiet_n > SO_KEPT_PER_SCOPE or loop.quiet_n > SO_KEPT:
        so_drop(loop, <Source *> scope.quiet.next.owner)


cdef void so_sweep(LoopState *loop, Scope *scope) noexcept nogil:
    """Forgets those whose rate has run out; who has been quiet longest comes first."""
    cdef Source *source
    while not ls_is_empty(&scope.quiet):
        source = <Source *> scope.quiet.next.owner
        if not rl_is_over(loop, source):
            return
        so_drop(loop, source)


cdef void so_forget(LoopState *loop, Scope *scope) noexcept nogil:
    """The scope is being removed: records go, those of dead guests as soon as these are freed."""
    cdef Source *source
    while not ls_is_empty(&scope.sources):
        source = <Source *> scope.sources.next.owner
        so_awake(loop, source)
        st_uncount(loop, scope, CT_SOURCES)
        ls_remove(&source.link)
        ls_remove(&source.round)
        source.scope = NULL
        if source.guest_n == 0:
            so_drop(loop, source)


cdef Rates rl_limits(const LoopState *loop, const Scope *scope) noexcept nogil:
    """The limits that hold in a scope."""
    cdef const Settings *settings = &loop.settings
    cdef Rates rates
    if scope.rates.versions & RL_OWN:
        return scope.rates
    rates.versions = <uint32_t> settings.rate_versions & 3
    rates.base_window_ms = settings.base_window_ms
    rates.base_limit = <uint32_t> min(settings.base_limit, <uint64_t> RL_MOST)
    rates.burst_window_ms = settings.burst_window_ms
    rates.burst_limit = <uint32_t> min(settings.burst_limit, <uint64_t> RL_MOST)
    return rates


cdef uint64_t rl_rate(Window *window, uint64_t now_ms, uint64_t window_ms) noexcept nogil:
    """Counts a request; returns the rate with it: requests of this period, and of the one before as far as a window
    that ends now reaches into it. So do haproxy's http_req_rate, and with it the proxies that Neutron starts."""
    cdef uint64_t elapsed_ms = now_ms - window.start_ms
    if elapsed_ms >= window_ms:
        window.before = window.count if elapsed_ms < 2 * window_ms else 0
        window.count = 0
        window.start_ms = window.start_ms + window_ms if elapsed_ms < 2 * window_ms else now_ms
    window.count += 1
    return window.count + window.before * (window.start_ms + window_ms - now_ms) // window_ms


cdef uint64_t rl_wait_ms(const Window *window, uint64_t now_ms, uint64_t window_ms, uint64_t limit) noexcept nogil:
    """How long until one request more is within the limit, when none comes until then."""
    cdef uint64_t left_ms = window.start_ms + window_ms - now_ms
    if window.count < limit:
        # before * left <= (limit - count) * window, by then: see rl_rate. One request of `limit` is the next one.
        return left_ms - min(left_ms, (limit - window.count) * window_ms // max(window.before, <uint64_t> 1))
    # In the next period this one is what reaches in: count * (window - t) / window + 1 <= limit.
    return left_ms + window_ms - min(window_ms, limit * window_ms // max(window.count, <uint64_t> 1))


cdef uint32_t rl_denied_s(LoopState *loop, Source *source) noexcept nogil:
    """Counts a request of this address. 0: it is within the limits; else the seconds until the next may be. Either of
    two windows denies, and denied requests count: as with Neutron's [metadata_rate_limiting]."""
    cdef Rates rates = rl_limits(loop, source.scope)
    cdef uint64_t wait_ms = 0
    cdef bint base
    cdef bint burst
    if not rates.versions & <uint32_t> (1 if hd_is_mapped(source.address) else 2):
        return 0
    base = rl_rate(&source.base, loop.now_ms, rates.base_window_ms) > rates.base_limit
    burst = rl_rate(&source.burst, loop.now_ms, rates.burst_window_ms) > rates.burst_limit
    if not base and not burst:
        return 0
    if base:
        wait_ms = rl_wait_ms(&source.base, loop.now_ms, rates.base_window_ms, rates.base_limit)
    if burst:
        wait_ms = max(wait_ms,
                      rl_wait_ms(&source.burst, loop.now_ms, rates.burst_window_ms, rates.burst_limit))
    return <uint32_t> ((wait_ms + 1000) // 1000)    # up, and past the very moment


cdef inline bint rl_is_over(const LoopState *loop, const Source *source) noexcept nogil:
    """Whether nothing of its rate reaches into the present any more."""
    return loop.settings.rate_versions == 0 or rl_has_run_out(loop, source)


cdef bint rl_has_run_out(const LoopState *loop, const Source *source) noexcept nogil:
    """The same, where there are limits."""
    cdef Rates rates = rl_limits(loop, source.scope)
    return (rates.versions & 3) == 0 or (
        loop.now_ms - source.base.start_ms >= 2 * rates.base_window_ms
        and loop.now_ms - source.burst.start_ms >= 2 * rates.burst_window_ms)
