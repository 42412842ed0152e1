# Rule 7: Nova's 404 usually means that there is no such path. It may also mean that the instance is gone, that its
# address belongs to another one by now, and that nobody has said so. So the source is asked again, and the 404 is held
# until it has answered. Prefix rc_. The guest waits in its entry, with the answer in its connection to Nova.

cdef enum:
    RC_YOUNG_US = 2000000      # an identity that was confirmed so shortly ago is not doubted
    RC_AGAIN_US = 10000000     # for so long after a 404 further ones lead to no question about the same address
    RC_WAIT_MS = 3000          # the answer is not held longer: the source may be away


cdef bint rc_hold(LoopState *loop, Upstream *up, uint32_t head_length) noexcept nogil:
    """A 404 has come; its head has so many bytes. True when it does not go down now."""
    cdef Guest *guest = up.guest
    cdef Scope *scope = guest.scope
    cdef Entry *entry = id_make(loop, scope, guest.address, guest.interface)
    cdef uint64_t wait_ms
    if (entry is NULL or entry.state == EN_ABSENT
            or (entry.state == EN_VALID and loop.now_us - entry.confirmed_us < RC_YOUNG_US)
            or (entry.rechecked_us and loop.now_us - entry.rechecked_us < RC_AGAIN_US)
            or not id_ask(loop, scope, entry)):
        return False
    entry.rechecked_us = loop.now_us
    st_count(loop, scope, CT_RECHECKS, 1)
    if not guest.repeatable:
        return False                       # it could not be sent to anybody else: only later ones gain from the answer
    # What it was sent as. When nothing is known of that any more it counts as another one.
    guest.instance_length = 0
    if entry.state == EN_VALID:
        guest.instance_length = <uint8_t> entry.identity.instance_length
        memcpy(guest.instance, entry.identity.data + entry.identity.instance_at, guest.instance_length)
    st_unwatch(loop, &up.socket)
    up.has_head = True
    up.head_length = head_length
    guest.phase = GS_RECHECK
    guest.parked_at_us = loop.now_us
    ls_insert(&entry.waiters, &guest.wait, guest)
    wait_ms = loop.now_ms + RC_WAIT_MS
    tm_set(loop, &guest.timer, guest, min(wait_ms, guest.upstream_by_ms))
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
    if (entry is not NULL and entry.state == EN_VALID and guest.instance_length == entry.identity.instance_length
            and memcmp(guest.instance, entry.identity.data + entry.identity.instance_at, guest.instance_length) == 0):
        rc_pass(loop, guest)
        return
    rc_leave(loop, guest)
    up_drop(loop, guest)
    ex_resolve(loop, guest)
