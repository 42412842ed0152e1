# Timers: a wheel of TM_SLOTS lists, and one timerfd for its earliest slot. Prefix tm_. Insert and remove are O(1).
#
# A record has one timer. Moving its deadline later only stores it: the wheel looks at the old time, sees that the
# deadline is still ahead, and moves the timer then. So a connection that is busy costs the wheel nothing.

cdef void tm_init(Timer *timer, uint8_t kind) noexcept nogil:
    memset(timer, 0, sizeof(Timer))
    timer.kind = kind


cdef void tm_insert(LoopState *loop, Timer *timer, void *owner) noexcept nogil:
    cdef uint64_t at = timer.deadline_ms // TM_SLOT_MS
    cdef uint64_t slot = at % TM_SLOTS
    timer.slot_ms = timer.deadline_ms
    if by_unlikely((at + 1) * TM_SLOT_MS < loop.due_ms):
        loop.due_ms = (at + 1) * TM_SLOT_MS
        loop.due_changed = True
    ls_insert(&loop.wheel[slot], &timer.link, owner)
    loop.wheel_bits[slot // 64] |= <uint64_t> 1 << (slot % 64)


cdef inline void tm_set(LoopState *loop, Timer *timer, void *owner, uint64_t deadline_ms) noexcept nogil:
    """Sets or moves the deadline; it fires at most a slot and a turn of the loop late, never early."""
    if deadline_ms < loop.now_ms:
        deadline_ms = loop.now_ms      # slots of the past are looked at only in the next round
    timer.deadline_ms = deadline_ms
    if timer.link.next is not NULL:
        if timer.slot_ms <= deadline_ms:
            return
        ls_remove(&timer.link)
    tm_insert(loop, timer, owner)


cdef inline void tm_cancel(Timer *timer) noexcept nogil:
    ls_remove(&timer.link)


cdef void tm_find_due(LoopState *loop) noexcept nogil:
    """Finds the earliest slot that is in use (a slot is due when it lies wholly in the past)."""
    cdef uint64_t at = loop.wheel_ms // TM_SLOT_MS
    cdef uint64_t slot = at % TM_SLOTS
    cdef uint64_t ahead = 0
    cdef uint64_t bits
    loop.due_ms = TM_NEVER
    loop.due_changed = True
    while ahead < TM_SLOTS + 64:
        bits = loop.wheel_bits[slot // 64] >> (slot % 64)
        if bits:
            loop.due_ms = (at + ahead + by_count_zeros(bits) + 1) * TM_SLOT_MS
            return
        ahead += 64 - slot % 64
        slot = (slot + 64 - slot % 64) % TM_SLOTS


cdef int tm_arm(LoopState *loop) noexcept nogil:
    """Tells the timerfd when the wheel is due. A timeout of epoll_wait would do the same, but costs the kernel a timer
    for each wait; this is called only when the earliest time changes, about once a second. Returns 0 or -1."""
    cdef itimerspec when
    loop.due_changed = False
    memset(&when, 0, sizeof(when))
    if loop.due_ms != TM_NEVER:
        when.it_value.tv_sec = <time_t> (loop.due_ms // 1000)
        when.it_value.tv_nsec = <long> (loop.due_ms % 1000 * 1000000)
    return timerfd_settime(loop.clock.fd, TFD_TIMER_ABSTIME, &when, NULL)


cdef void tm_turn(LoopState *loop) noexcept nogil:
    """Fires everything whose slot lies in the past."""
    cdef uint64_t to = loop.now_ms // TM_SLOT_MS
    cdef uint64_t at = loop.wheel_ms // TM_SLOT_MS
    cdef uint64_t slot
    cdef Link due
    cdef Timer *timer
    if to - at > TM_SLOTS:
        at = to - TM_SLOTS         # a long sleep: one whole turn sees every slot
    while at < to:
        slot = at % TM_SLOTS
        at += 1
        if not loop.wheel_bits[slot // 64] >> (slot % 64) & 1:
            continue
        # Move the list aside: what fires may insert into the same slot.
        ls_init(&due)
        while not ls_is_empty(&loop.wheel[slot]):
            timer = <Timer *> loop.wheel[slot].next
            ls_remove(&timer.link)
            ls_insert(&due, &timer.link, timer.link.owner)
        loop.wheel_bits[slot // 64] &= ~(<uint64_t> 1 << (slot % 64))
        while not ls_is_empty(&due):
            timer = <Timer *> due.next
            ls_remove(&timer.link)
            if timer.deadline_ms >= at * TM_SLOT_MS:
                tm_insert(loop, timer, timer.link.owner)
            else:
                lp_timer(loop, timer)
    loop.wheel_ms = to * TM_SLOT_MS
    tm_find_due(loop)
