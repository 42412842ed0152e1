# What the loop puts into its rings. Prefix rg_. The types are in messages.pxi.

cdef inline bint rg_is_full(const Ring *ring) noexcept nogil:
    return ring.written - at_load(&ring.taken) >= ring.capacity


cdef inline bint rg_is_empty(const Ring *ring) noexcept nogil:
    """Whether Python has read everything."""
    return ring.written == at_load(&ring.taken)


cdef bint rg_event(LoopState *loop, const Event *event) noexcept nogil:
    """Puts an event into the ring; False when there is no room."""
    if rg_is_full(&loop.events):
        at_count(&loop.counters.values[CT_EVENTS_LOST], 1)
        return False
    (<Event *> loop.events.slots)[loop.events.written % RG_EVENTS] = event[0]
    at_store(&loop.events.written, loop.events.written + 1)
    loop.notify_wanted = True
    return True


cdef void rg_problem(LoopState *loop, uint8_t code, int error, uint32_t scope, uint32_t listener) noexcept nogil:
    """Reports a problem, each code at most once a second."""
    rg_problem_of(loop, code, error, scope, listener, NULL)


cdef void rg_problem_of(LoopState *loop, uint8_t code, int error, uint32_t scope, uint32_t listener,
                        const uint8_t *address) noexcept nogil:
    """The same, of one address (16 bytes; NULL: of none)."""
    cdef Event event
    if loop.problem_at_ms[code] and loop.now_ms - loop.problem_at_ms[code] < 1000:
        return
    loop.problem_at_ms[code] = loop.now_ms
    memset(&event, 0, sizeof(Event))
    event.kind = EV_PROBLEM
    event.code = code
    event.error = error
    event.scope = scope
    event.listener = listener
    if address is not NULL:
        event.has_address = True
        memcpy(event.address, address, 16)
    rg_event(loop, &event)
