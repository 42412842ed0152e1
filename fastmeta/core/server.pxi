# Nova's servers: which one gets a request, their health, and what Python says of them. Prefix sv_ (and rg_, for what
# is reported of one). Health is passive: nobody asks a server how it is, requests and connections show it.
#
#   away      it took no connection. It rests, longer each time; then one connection tries it, made for nobody as long
#             as there are others, else for a request that waits.
#   suspect   it closed new connections without an answer, or another one was faster by far. It may just be slow: so it
#             is used when nobody else has room, and for a request now and then.

cdef enum:
    SV_FIRST_PAUSE_MS = 50
    SV_LONGEST_PAUSE_MS = 1500     # and half as much again: who waits for park_timeout sees more than one try
    SV_SUSPECT_MS = 2000           # to twice that


cdef void rg_of_server(LoopState *loop, Server *server, uint8_t code, int error, uint32_t scope) noexcept nogil:
    """Reports a problem of a server, each code at most once a second."""
    cdef Event event
    if server.problem_at_ms[code] and loop.now_ms - server.problem_at_ms[code] < 1000:
        return
    server.problem_at_ms[code] = loop.now_ms
    memset(&event, 0, sizeof(Event))
    event.kind = EV_PROBLEM
    event.code = code
    event.error = error
    event.scope = scope
    event.upstream = server.spec.number
    rg_event(loop, &event)


cdef void sv_count_usable(LoopState *loop) noexcept nogil:
    """A server came, went, or went away: those who wait may have other deadlines now, and other places."""
    cdef Link *at = loop.servers.next
    cdef bint away
    loop.server_n = 0
    loop.usable_n = 0
    while at != &loop.servers:
        loop.server_n += 1
        if not (<Server *> at.owner).away:
            loop.usable_n += 1
        at = at.next
    away = loop.usable_n == 0
    loop.pump_wanted = True
    if away == loop.away:
        return
    loop.away = away
    if away and loop.server_n:
        loop.away_told = True
        loop.problem_at_ms[PR_UPSTREAM_ALL_AWAY] = 0
        rg_problem(loop, PR_UPSTREAM_ALL_AWAY, 0, 0, 0)
    elif loop.away_told:
        loop.away_told = False
        loop.problem_at_ms[PR_UPSTREAM_SOME_BACK] = 0
        rg_problem(loop, PR_UPSTREAM_SOME_BACK, 0, 0, 0)
    pl_tell_waiting(loop)


cdef bint sv_is_better(const Server *one, const Server *other) noexcept nogil:
    """Which of two to use: first of all who is not suspect, then the one with fewer requests in flight, then one that
    has a kept connection."""
    if one.suspect != other.suspect:
        return other.suspect
    if one.busy_n != other.busy_n:
        return one.busy_n < other.busy_n
    return ls_is_empty(&other.idle) and not ls_is_empty(&one.idle)


cdef inline bint sv_rests(const Server *server) noexcept nogil:
    """Whether a server that is away is not to be tried now."""
    return server.probing or server.retry.link.next is not NULL


cdef Server *sv_due(LoopState *loop) noexcept nogil:
    """A server that is away and may be tried, or NULL."""
    cdef Link *at = loop.servers.next
    cdef Server *server
    while at != &loop.servers:
        server = <Server *> at.owner
        at = at.next
        if server.away and not sv_rests(server):
            return server
    return NULL


cdef Server *sv_pick(LoopState *loop, bint repeatable) noexcept nogil:
    """The server for a request; NULL when none has room (while all are away: when none is to be tried)."""
    cdef Link *at = loop.servers.next
    cdef Server *server
    cdef Server *best = NULL
    if by_unlikely(loop.away):
        return sv_due(loop)
    while at != &loop.servers:
        server = <Server *> at.owner
        at = at.next
        if by_unlikely(server.away):
            if not sv_rests(server):
                up_warm(loop, server)
            continue
        if by_unlikely(server.busy_n + server.released_n >= loop.settings.max_upstream_connections):
            continue
        if by_unlikely(server.suspect) and repeatable and loop.now_ms >= server.try_at_ms:
            sv_put_off_try(loop, server)
            return server
        if best is NULL or sv_is_better(server, best):
            best = server
    return best


cdef Server *sv_pick_other(LoopState *loop, const Server *first) noexcept nogil:
    """The server for a second try of a request that `first` is slow with, or NULL. A suspect one if there is no other
    and it is to be tried: when all requests are at frozen servers there may be no new one that would do it."""
    cdef Link *at = loop.servers.next
    cdef Server *server
    cdef Server *best = NULL
    cdef Server *suspect = NULL
    while at != &loop.servers:
        server = <Server *> at.owner
        at = at.next
        if server == first or server.away or (
                server.busy_n + server.released_n >= loop.settings.max_upstream_connections):
            continue
        if server.suspect:
            if loop.now_ms >= server.try_at_ms:
                suspect = server
        elif best is NULL or sv_is_better(server, best):
            best = server
    return suspect if best is NULL else best


cdef void sv_put_off_try(LoopState *loop, Server *server) noexcept nogil:
    server.try_at_ms = loop.now_ms + SV_SUSPECT_MS + st_random(loop, SV_SUSPECT_MS)


cdef void sv_suspect(LoopState *loop, Server *server) noexcept nogil:
    """It was silent or slow."""
    server.suspect = True
    sv_put_off_try(loop, server)


cdef void sv_failed(LoopState *loop, Server *server, int error, bint probe) noexcept nogil:
    """It takes no connections: it rests. probe: this was the one try."""
    cdef uint32_t pause_ms = SV_FIRST_PAUSE_MS
    cdef uint32_t n
    at_count(&loop.counters.values[CT_UPSTREAM_FAILURES], 1)
    rg_of_server(loop, server, PR_UPSTREAM_AWAY, error, 0)
    if server.removed or (server.away and not probe):
        return                             # one of several that were on their way when the first failed
    server.probing = False
    server.failures += 1
    n = server.failures
    while n > 1 and pause_ms < SV_LONGEST_PAUSE_MS:
        n -= 1
        pause_ms *= 2
    if pause_ms > SV_LONGEST_PAUSE_MS:
        pause_ms = SV_LONGEST_PAUSE_MS
    tm_cancel(&server.retry)
    tm_set(loop, &server.retry, server, loop.now_ms + pause_ms // 2 + st_random(loop, pause_ms))
    if not server.away:
        server.away = True
        sv_count_usable(loop)


cdef void sv_rested(LoopState *loop, Server *server) noexcept nogil:
    """A server that is away may be tried again. While all are away somebody who waits does it. Else it is not left to
    the next request: all guests may be with servers that are slow or frozen, or wait for a place there, and then there
    is none. Without anything to do at Nova nobody is asked."""
    loop.pump_wanted = True
    if loop.busy_n and (not loop.away or ls_is_empty(&loop.round)):
        up_warm(loop, server)


cdef void sv_connected(LoopState *loop, Server *server) noexcept nogil:
    """It takes connections (again)."""
    if by_likely(not server.away):
        return
    server.probing = False
    server.away = False
    server.try_at_ms = loop.now_ms         # if it is suspect, too: it may be another process by now
    tm_cancel(&server.retry)
    server.problem_at_ms[PR_UPSTREAM_AWAY] = 0
    server.problem_at_ms[PR_UPSTREAM_BACK] = 0
    rg_of_server(loop, server, PR_UPSTREAM_BACK, 0, 0)
    if not server.removed:
        sv_count_usable(loop)


cdef inline void sv_answered(LoopState *loop, Server *server, uint64_t took_us) noexcept nogil:
    server.failures = 0
    if by_unlikely(server.suspect) and (
            loop.settings.second_try_after_ms == 0 or took_us < loop.settings.second_try_after_ms * 1000):
        server.suspect = False


cdef void sv_drop_pool(LoopState *loop, Server *server) noexcept nogil:
    """Closes its connections that nobody uses."""
    up_merge(loop)
    while not ls_is_empty(&server.idle):
        up_close(loop, <Upstream *> server.idle.next.owner)
    while not ls_is_empty(&server.warming):
        up_close(loop, <Upstream *> server.warming.next.owner)


cdef Server *sv_find(LoopState *loop, const ServerSpec *spec) noexcept nogil:
    """The server that is the same address of the same upstream, or NULL."""
    cdef Link *at = loop.servers.next
    cdef Server *server
    while at != &loop.servers:
        server = <Server *> at.owner
        at = at.next
        if (server.spec.target.length == spec.target.length
                and memcmp(&server.spec.target.address, &spec.target.address, spec.target.length) == 0
                and server.spec.host_length == spec.host_length
                and memcmp(server.spec.host, spec.host, spec.host_length) == 0
                and memcmp(server.spec.name, spec.name, MAX_HOST + 1) == 0):
            return server
    return NULL


cdef Server *sv_new(LoopState *loop) noexcept nogil:
    cdef Server *server = <Server *> calloc(1, sizeof(Server))
    if server is NULL:
        rg_problem(loop, PR_MEMORY, ENOMEM, 0, 0)
        return NULL
    ls_init(&server.idle)
    ls_init(&server.warming)
    tm_init(&server.retry, TM_RETRY)
    return server


cdef void sv_take(LoopState *loop, ServerSpec *spec) noexcept nogil:
    """A server that Python names: a new one, or one that is there. Takes over spec.tls."""
    cdef Server *server = sv_find(loop, spec)
    cdef uint64_t i
    if server is NULL:
        server = sv_new(loop)
        if server is NULL:
            SSL_CTX_free(spec.tls)
            return
        server.spec = spec[0]
        ls_insert(&loop.servers, &server.link, server)
        server.wanted = True
        for i in range(loop.settings.warm_connections):
            up_warm(loop, server)
        return
    if server.spec.tls != spec.tls:
        sv_drop_pool(loop, server)
        server.version += 1                # connections with a request end after it
        SSL_SESSION_free(server.session)
        server.session = NULL
    SSL_CTX_free(server.spec.tls)
    server.spec.tls = spec.tls
    server.spec.number = spec.number
    server.wanted = True
    server.failures = 0
    tm_cancel(&server.retry)               # if it rests: try it now


cdef void sv_remove(LoopState *loop, Server *server) noexcept nogil:
    """Connections with a request end after it; those that are not there yet are left to sv_replace."""
    server.removed = True
    sv_drop_pool(loop, server)
    tm_cancel(&server.retry)
    ls_remove(&server.link)
    ls_insert(&loop.removed_servers, &server.link, server)


cdef void sv_replace(LoopState *loop, UpstreamsMessage *message) noexcept nogil:
    """All servers from now on. Those that stay keep their health and their pool. Takes over the references."""
    cdef Link *at = loop.servers.next
    cdef Server *server
    cdef uint32_t i
    cdef uint32_t turns
    cdef bint first = loop.server_n == 0
    while at != &loop.servers:
        (<Server *> at.owner).wanted = False
        at = at.next
    for i in range(message.server_n):
        sv_take(loop, &message.servers[i])
        message.servers[i].tls = NULL
    at = loop.servers.next
    while at != &loop.servers:
        server = <Server *> at.owner
        at = at.next
        if not server.wanted:
            sv_remove(loop, server)
    sv_count_usable(loop)
    if first and loop.server_n > 1:
        # Else the first request of each of a thousand hosts would go to the same one.
        turns = st_random(loop, loop.server_n)
        while turns:
            turns -= 1
            server = <Server *> loop.servers.next.owner
            ls_remove(&server.link)
            ls_insert(&loop.servers, &server.link, server)
    up_leave_removed(loop)


cdef void sv_discard(UpstreamsMessage *message) noexcept nogil:
    """Gives back what a message holds that nobody took."""
    cdef uint32_t i
    for i in range(message.server_n):
        SSL_CTX_free(message.servers[i].tls)


cdef void sv_bury(LoopState *loop) noexcept nogil:
    """Frees removed servers that have no connections any more."""
    cdef Link *at = loop.removed_servers.next
    cdef Server *server
    while at != &loop.removed_servers:
        server = <Server *> at.owner
        at = at.next
        if server.connection_n == 0:
            ls_remove(&server.link)
            SSL_SESSION_free(server.session)
            SSL_CTX_free(server.spec.tls)
            free(server)
