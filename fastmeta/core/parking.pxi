# Rule 6, guests wait rather than fail: parked requests, their bounds and deadlines. Prefix gs_, shared with guest.pxi:
# these functions may close the guest, too.

cdef bint gs_park(LoopState *loop, Guest *guest, bint counts) noexcept nogil:
    """Rule 6: the request waits. counts: for something that is away (uses up park_timeout), not just busy. False when
    it may not: it has been answered with 503 then."""
    cdef int reason = gs_park_refusal(loop, guest)
    if counts and guest.park_left_ms == 0:
        reason = RF_PARKED_LONG
    if reason:
        ex_refuse(loop, guest, reason)
        return False
    guest.was_parked = True
    gs_park_begins(loop, guest, counts)
    st_count(loop, guest.scope, CT_PARKED_TOTAL, 1)
    # A connection that came straight from accept is not known to epoll yet: a reset should end the wait.
    if guest.socket.interest == 0 and st_watch(loop, &guest.socket, 0) < 0:
        gs_close(loop, guest, CE_RESOURCES, False)
        return False
    return True


cdef int gs_park_refusal(LoopState *loop, Guest *guest) noexcept nogil:
    """RF_NONE, or which bound on parked requests is reached. The narrowest first: it names who is at it."""
    cdef const Settings *settings = &loop.settings
    cdef uint32_t scope = guest.scope.number
    if guest.source.parked_n >= settings.max_parked_per_address:
        rg_problem_of(loop, PR_ADDRESS_PARKED, 0, scope, 0, guest.address)
        return RF_PARKED_ADDRESS
    if at_read(&guest.scope.counters.values[CT_PARKED]) >= settings.max_parked_per_scope:
        rg_problem(loop, PR_SCOPE_PARKED, 0, scope, 0)
        return RF_PARKED_SCOPE
    if at_read(&loop.counters.values[CT_PARKED]) >= settings.max_parked:
        rg_problem(loop, PR_PARKED_FULL, 0, scope, 0)
        return RF_PARKED
    return RF_NONE


cdef void gs_park_begins(LoopState *loop, Guest *guest, bint counts) noexcept nogil:
    guest.parked = True
    guest.park_counts = counts
    guest.parked_at_us = loop.now_us
    guest.source.parked_n += 1
    st_count(loop, guest.scope, CT_PARKED, 1)
    gs_park_deadline(loop, guest)


cdef void gs_park_deadline(LoopState *loop, Guest *guest) noexcept nogil:
    cdef uint64_t deadline_ms = loop.now_ms + guest.park_left_ms
    if not guest.park_counts or (guest.upstream_by_ms and guest.upstream_by_ms < deadline_ms):
        deadline_ms = guest.upstream_by_ms
    tm_set(loop, &guest.timer, guest, deadline_ms)


cdef void gs_park_turns(LoopState *loop, Guest *guest, bint counts) noexcept nogil:
    """A parked request goes on waiting, but what it waits for is away now (counts), or is only busy."""
    if guest.park_counts == counts:
        return
    gs_unpark(loop, guest)
    gs_park_begins(loop, guest, counts)


cdef void gs_unpark(LoopState *loop, Guest *guest) noexcept nogil:
    """The wait is over, well or badly; no wait is fine too."""
    cdef uint64_t waited_us
    if not guest.parked:
        return
    waited_us = loop.now_us - guest.parked_at_us
    guest.parked_us += waited_us
    if guest.park_counts:
        guest.park_left_ms -= min(guest.park_left_ms, waited_us // 1000)
    guest.parked = False
    guest.source.parked_n -= 1
    st_uncount(loop, guest.scope, CT_PARKED)


cdef bint gs_has_gone(LoopState *loop, const Guest *guest) noexcept nogil:
    """Whether the guest of a request that had to wait has closed its side, and so most likely nobody waits for the
    answer: Nova shall not work for it. A client that has only shut down its sending side looks the same (RFC 9112
    section 9.6); proxies like nginx take it for gone too."""
    cdef uint8_t first
    return recv(guest.socket.fd, &first, 1, MSG_PEEK) == 0


cdef void gs_resume_waiters(LoopState *loop, Link *waiters, int reason) noexcept nogil:
    """All who wait in an entry go on: refused for this reason, or, if RF_NONE, with the identity that the entry has
    now."""
    cdef Link all_of_them
    cdef Guest *guest
    ls_init(&all_of_them)
    while not ls_is_empty(waiters):
        guest = <Guest *> waiters.next.owner
        ls_remove(&guest.wait)
        ls_insert(&all_of_them, &guest.wait, guest)
    while not ls_is_empty(&all_of_them):
        guest = <Guest *> all_of_them.next.owner
        ls_remove(&guest.wait)
        gs_unpark(loop, guest)
        if reason:
            rc_leave(loop, guest)
            ex_refuse(loop, guest, reason)
        elif guest.phase == GS_RECHECK:
            rc_answered(loop, guest)
        else:
            ex_resolve(loop, guest)
