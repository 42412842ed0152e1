# Places at Nova, shared fairly: who may have one, who waits, whose turn it is. Prefix pl_ (and up_, for what gives them
# out, and keeps them). Requests that wait are in their source's list, in order; sources take turns within their scope,
# and scopes take turns. A source that nobody waits in any more leaves the round when its turn comes.
#
# How much one may hold depends on what is left: so a lone scope gets most of it, of several each gets as much as the
# others, and there is always something left for the next one. (Choudhury and Hahne described it for the memory of
# switches, as dynamic queue length thresholds.)

cdef enum:
    PL_SCOPE_TIMES = 3             # a scope may hold so many times what is free: alone, three quarters of all
    PL_ADDRESS_PART = 4            # an address one part in so many of what is free: alone, a fifth; or PL_ADDRESS_FEW
    PL_ADDRESS_FEW = 2
    PL_STARVED_MS = 100
    PL_STREAM_PART = 8             # of all places, for bodies that are still on their way in
    PL_STREAM_ADDRESS_PART = 8     # of those, for an address


cdef inline uint64_t pl_all(const LoopState *loop) noexcept nogil:
    """The places that there are at servers that are not away."""
    return loop.settings.max_upstream_connections * loop.usable_n


cdef inline bint pl_is_free(const LoopState *loop, const Source *source) noexcept nogil:
    """Whether a request of this source may take a place. Idle connections count as places (one of them is used, or
    closed for a fresh one), just released ones do not."""
    cdef uint64_t used = loop.busy_n + loop.released_n
    cdef uint64_t free = pl_all(loop)
    if by_unlikely(used >= free):
        return False
    free -= used
    return source.scope.busy_n < PL_SCOPE_TIMES * free and (
        source.busy_n < PL_ADDRESS_FEW or source.busy_n * PL_ADDRESS_PART < free)


cdef bint pl_may_stream(const LoopState *loop, const Source *source) noexcept nogil:
    """Whether a body that is still on its way may take a place: slow senders of large bodies must not take all of them.
    Nobody sends such bodies to a metadata service. Also one of them may be the try of a Nova that is away."""
    cdef uint64_t all_places = loop.settings.max_upstream_connections * max(loop.usable_n, <uint32_t> 1)
    cdef uint64_t most = (all_places + PL_STREAM_PART - 1) // PL_STREAM_PART
    return (
        loop.streams_n < most
        and source.scope.streams_n < PL_SCOPE_TIMES * (most - loop.streams_n)
        and source.streams_n < max(most // PL_STREAM_ADDRESS_PART, <uint64_t> 1))


cdef void pl_wait(LoopState *loop, Guest *guest) noexcept nogil:
    """Queues a request. It leaves with ls_remove(&guest.wait)."""
    cdef Source *source = guest.source
    ls_insert(&source.places, &guest.wait, guest)
    if source.round.next is NULL:
        ls_insert(&guest.scope.waiting, &source.round, source)
    if guest.scope.round.next is NULL:
        ls_insert(&loop.round, &guest.scope.round, guest.scope)
    loop.pump_wanted = True


cdef Guest *pl_first(LoopState *loop, Scope *scope, bint all_may) noexcept nogil:
    """The next request of a scope that may have a place (all_may: bounds aside), or NULL. Its source goes last."""
    cdef Link *at = scope.waiting.next
    cdef Source *source
    while at != &scope.waiting:
        source = <Source *> at.owner
        at = at.next
        if ls_is_empty(&source.places):
            ls_remove(&source.round)
        elif all_may or pl_is_free(loop, source):
            ls_remove(&source.round)
            ls_insert(&scope.waiting, &source.round, source)
            return <Guest *> source.places.next.owner
    return NULL


cdef Guest *pl_next(LoopState *loop, bint all_may) noexcept nogil:
    """The same, of all scopes."""
    cdef Link *at = loop.round.next
    cdef Scope *scope
    cdef Guest *guest
    while at != &loop.round:
        scope = <Scope *> at.owner
        at = at.next
        guest = pl_first(loop, scope, all_may)
        if guest is not NULL or ls_is_empty(&scope.waiting):
            ls_remove(&scope.round)
        if guest is not NULL:
            ls_insert(&loop.round, &scope.round, scope)
            return guest
    return NULL


cdef void pl_tell_waiting(LoopState *loop) noexcept nogil:
    """Those who wait for a place have other deadlines while Nova is away than while it is busy (rule 6)."""
    cdef Link *scope = loop.round.next
    cdef Link *source
    cdef Link *guest
    while scope != &loop.round:
        source = (<Scope *> scope.owner).waiting.next
        while source != &(<Scope *> scope.owner).waiting:
            guest = (<Source *> source.owner).places.next
            while guest != &(<Source *> source.owner).places:
                gs_park_turns(loop, <Guest *> guest.owner, loop.away)
                guest = guest.next
            source = source.next
        scope = scope.next


cdef void up_starved(LoopState *loop, Guest *guest) noexcept nogil:
    """No descriptor is left, which is not Nova's fault: the request waits, as for a place, until a connection to Nova
    ends, or a little."""
    if not loop.starved:
        loop.starved = True
        tm_set(loop, &loop.accept, loop, loop.now_ms + PL_STARVED_MS)
    guest.phase = GS_PLACE
    pl_wait(loop, guest)
    gs_park(loop, guest, loop.away)


cdef void up_abandon(LoopState *loop, Upstream *up) noexcept nogil:
    """Its guest goes. A server like Nova works on a request to the end, whether anybody waits for it or not: so the
    request keeps its place, and its scope's and address's share of them, until the answer begins. Else a guest that
    gives up requests as fast as it can would fill Nova's queue with them, and keep it from everybody."""
    cdef Guest *guest = up.guest
    if up.phase != UP_BUSY or up.has_head or st_watch(loop, &up.socket, EPOLLIN) < 0:
        up_close(loop, up)
        return
    if guest.body_left or up.unsent is not NULL:
        shutdown(up.socket.fd, SHUT_WR)    # no more of it comes; if this fails, so does the next read
    bf_give(loop, &up.received)
    bf_give(loop, &up.unsent)
    up_detach(loop, up)
    up.abandoned = True
    up.source.guest_n += 1
    tm_set(loop, &up.timer, up, guest.upstream_by_ms)


cdef void up_forget(LoopState *loop, Scope *scope) noexcept nogil:
    """Closes what guests of a scope have left at Nova."""
    cdef Link *at = loop.busy.next
    cdef Upstream *up
    while at != &loop.busy:
        up = <Upstream *> at.owner
        at = at.next
        if up.abandoned and up.scope == scope:
            up_close(loop, up)


cdef void up_pump(LoopState *loop) noexcept nogil:
    """Gives places to those who wait. While all of Nova is away they try, one at a time for each server, whether it is
    back."""
    cdef Guest *guest
    loop.pump_wanted = False
    while not ls_is_empty(&loop.round) and not loop.starved:
        if loop.away and sv_due(loop) is NULL:
            return
        if not loop.away and loop.busy_n + loop.released_n >= pl_all(loop):
            loop.pump_wanted = loop.released_n > 0     # usable as soon as epoll has been asked
            return
        guest = pl_next(loop, loop.away)
        if guest is NULL:
            loop.pump_wanted = loop.released_n > 0
            return
        ls_remove(&guest.wait)
        gs_unpark(loop, guest)
        if gs_has_gone(loop, guest):
            gs_close(loop, guest, CE_GUEST, False)
        elif id_is_good(loop, id_find(loop, guest.scope, guest.address, guest.interface)):
            ex_take(loop, guest)
        else:
            ex_resolve(loop, guest)
