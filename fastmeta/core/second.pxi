# Second tries: a server that is frozen cannot be told from a slow one. So a request that may be repeated, was sent
# whole and has no answer after second_try_after is sent to another server as well; who answers first wins, the other
# connection is closed. Prefix se_. A guest's connections are .up and .second while there are two.

cdef enum:
    SE_PART = 10               # one part in so many of the requests in flight may have two connections, but always one
    SE_AGAIN_MS = 50           # a request that may not have one yet looks again after this time, to twice that


cdef inline void se_begin(LoopState *loop, Guest *guest) noexcept nogil:
    """A request was sent."""
    if by_unlikely(loop.server_n > 1) and guest.repeatable and loop.settings.second_try_after_ms:
        tm_set(loop, &guest.up.timer, guest.up, loop.now_ms + loop.settings.second_try_after_ms)


cdef void se_put_off(LoopState *loop, Guest *guest) noexcept nogil:
    """There is one connection only: another one may be tried a little later."""
    if guest.up is not NULL and guest.up.phase == UP_BUSY:
        tm_set(loop, &guest.up.timer, guest.up, loop.now_ms + SE_AGAIN_MS + st_random(loop, SE_AGAIN_MS))


cdef bint se_is_known(LoopState *loop, const Guest *guest) noexcept nogil:
    """Whether it is known who asks. What was known when the request was sent may have ended since: then it is asked
    for, as nobody else may do it, and the request, which is with Nova already, does not wait for it."""
    cdef Entry *entry = id_find(loop, guest.scope, guest.address, guest.interface)
    if by_likely(id_is_good(loop, entry)):
        return True
    if entry is not NULL and entry.state == EN_ABSENT and loop.now_us < entry.ends_us:
        return False
    entry = id_make(loop, guest.scope, guest.address, guest.interface)
    if entry is not NULL:
        if entry.state != EN_PENDING:
            id_clear(guest.scope, entry)   # what was known has ended
        id_ask(loop, guest.scope, entry)
    return False


cdef void se_late(LoopState *loop, Upstream *up) noexcept nogil:
    """The timer of a connection that is busy; it may have been set when it was idle still."""
    cdef Guest *guest = up.guest
    cdef Server *other = NULL
    cdef uint64_t due_ms
    if (guest is NULL or guest.up != up or guest.second is not NULL or guest.phase != GS_ANSWER or up.has_head
            or not guest.repeatable or loop.server_n < 2 or loop.settings.second_try_after_ms == 0):
        return
    due_ms = guest.sent_us // 1000 + loop.settings.second_try_after_ms
    if loop.now_ms < due_ms:
        tm_set(loop, &up.timer, up, due_ms)
        return
    if loop.second_n == 0 or (loop.second_n + 1) * SE_PART <= loop.busy_n:
        other = sv_pick_other(loop, up.server)
    if other is not NULL and gs_has_gone(loop, guest):
        return                             # nobody waits for it most likely: one server that works on it is enough
    if other is NULL or not se_is_known(loop, guest):
        se_put_off(loop, guest)
        return
    if by_unlikely(other.suspect):
        sv_put_off_try(loop, other)
    st_count(loop, guest.scope, CT_SECOND_TRIES, 1)
    if by_unlikely(loop.batch_full):
        up_check_idle(loop, other)
    if ls_is_empty(&other.idle):
        up_open(loop, guest, other, True)
        return
    up = <Upstream *> other.idle.next.owner
    up_engage(loop, up, guest, True)
    se_send(loop, up)


cdef void se_send(LoopState *loop, Upstream *up) noexcept nogil:
    """Sends the request on the second connection, whole or not at all."""
    cdef Guest *guest = up.guest
    cdef size_t length = ex_build(loop, guest, up)
    cdef ssize_t n = 0
    up.second_us = loop.now_us
    if length:
        n = up_send(up, loop.scratch, length)
    if n > 0:
        st_count(loop, guest.scope, CT_BYTES_UP, <uint64_t> n)
    if n <= 0 or <size_t> n < length:
        up_close(loop, up)
        se_put_off(loop, guest)


cdef void se_won(LoopState *loop, Upstream *up) noexcept nogil:
    """One of two connections has an answer: it is the guest's."""
    cdef Guest *guest = up.guest
    cdef Upstream *other = guest.up
    if other == up:
        other = guest.second
    else:
        st_count(loop, guest.scope, CT_SECOND_WON, 1)
        sv_answered(loop, up.server, loop.now_us - up.second_us)
        sv_suspect(loop, other.server)
        rg_of_server(loop, other.server, PR_UPSTREAM_SLOW, 0, guest.scope.number)
    up_close(loop, other)
