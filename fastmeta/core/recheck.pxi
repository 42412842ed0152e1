# Rule 7: Nova's 404 usually means that there is no such path. It may also mean that the instance is gone, that its
# address belongs to another one by now, and that nobody has said so. So the source is asked again, and the 404 is held
# until it has answered; further ones for the same address, too. Prefix rc_. The guest waits in its entry, with the
# answer in its connection to Nova.

cdef enum:
    RC_YOUNG_US = 2000000      # an identity that was confirmed so shortly ago is not doubted
    RC_AGAIN_US = 10000000     # for so long after a 404 further ones lead to no question about the same identity
    RC_WAIT_US = 3000000       # from the question on no answer is held longer: the source may be away


cdef void rc_other(LoopState *loop, Guest *guest) noexcept nogil:
    """The answer is another instance's, and does not go down: the request is for the one that it is now."""
    up_drop(loop, guest)
    if guest.repeatable:
        ex_resolve(loop, guest)
    else:
        ex_refuse(loop, guest, RF_REVOKED)


cdef bint rc_hold(LoopState *loop, Upstream *up, uint32_t head_length) noexcept nogil:
    """A 404 has come; its head has so many bytes. True when it does not go down now."""
    cdef Guest *guest = up.guest
    cdef Scope *scope = guest.scope
    cdef Entry *entry = id_make(loop, scope, guest.address, guest.interface)
    if by_unlikely(entry is not NULL and entry.state != EN_PENDING and entry.naming != up.naming):
        rc_other(loop, guest)              # what it was sent as had ended, and the address is another's since
        return True
    if (entry is NULL or entry.state == EN_ABSENT
            or (entry.state == EN_VALID and loop.now_us - entry.confirmed_us < RC_YOUNG_US)):
        return False
    if entry.rechecked_us == 0 or loop.now_us - entry.rechecked_us >= RC_AGAIN_US:
        if not id_ask(loop, scope, entry):
            return False
        entry.rechecked_us = loop.now_us
        entry.rechecking = True
        st_count(loop, scope, CT_RECHECKS, 1)
    if not entry.rechecking or loop.now_us - entry.rechecked_us >= RC_WAIT_US:
        return False                       # it was answered, or will not be
    if not guest.repeatable:
        return False                       # it could not be sent to anybody else: only later ones gain from the answer
    st_unwatch(loop, &up.socket)
    up.has_head = True
    up.head_length = head_length
    guest.phase = GS_RECHECK
    guest.parked_at_us = loop.now_us
    ls_insert(&entry.waiters, &guest.wait, guest)
    tm_set(loop, &guest.timer, guest,
           min(loop.now_ms + (entry.rechecked_us + RC_WAIT_US - loop.now_us) // 1000, guest.upstream_by_ms))
    # A reset should end the wait: see gs_park.
    if guest.socket.interest == 0 and st_watch(loop, &guest.socket, 0) < 0:
        gs_close(loop, guest, CE_RESOURCES, False)
    return True


cdef void rc_leave(LoopState *loop, Guest *guest) noexcept nogil:
    """The wait is over; no wait is fine too."""
    if guest.phase == GS_RECHECK:
        ls_remove(&guest.wait)
        guest.parked_us += loop.now_us - guest.parked_at_us


cdef void rc_pass(LoopState *loop, Guest *guest) noexcept nogil:
    """What was held goes down: it is the guest's, or nobody can say that it is not."""
    cdef Upstream *up = guest.up
    rc_leave(loop, guest)
    guest.phase = GS_ANSWER
    an_begin(loop, up, up.head_length)
    if not up.socket.dead and up.guest == guest and guest.phase == GS_RELAY and guest.out is NULL:
        up_resume(loop, up)                # more of it is to come


cdef void rc_answered(LoopState *loop, Guest *guest) noexcept nogil:
    """The source has named an instance: when it is another one, the request is for that one."""
    cdef Entry *entry = id_find(loop, guest.scope, guest.address, guest.interface)
    # When nothing is known any more of what it was sent as, that counts as another one.
    if entry is not NULL and entry.state == EN_VALID and entry.naming == guest.up.naming:
        rc_pass(loop, guest)
        return
    rc_leave(loop, guest)
    rc_other(loop, guest)
