# A finished request: counted, and recorded for the access log. Prefix ex_, shared with exchange.pxi.

cdef void ex_count(LoopState *loop, const Guest *guest, bint whole) noexcept nogil:
    """A request is over. whole: with an answer, which is in the histograms too. Times are as exact as a turn is
    short."""
    cdef Scope *scope = guest.scope
    st_count(loop, scope, CT_BYTES_DOWN, guest.answer_bytes)
    if not whole:
        st_count(loop, scope, CT_ABORTED, 1)
        return
    st_count(loop, scope, ct_status(guest.status), 1)
    st_count(loop, scope, CT_TOTAL + ct_bucket(loop.now_us - guest.arrived_us), 1)
    if by_unlikely(guest.was_parked):
        st_count(loop, scope, CT_WAITED + ct_bucket(guest.parked_us), 1)
    if guest.upstream_status:
        st_count(loop, scope, CT_UPSTREAM + ct_bucket(guest.upstream_us), 1)


cdef void ex_record(LoopState *loop, const Guest *guest, bint whole) noexcept nogil:
    """A record of the finished request for the access log, when there is one. whole: its answer was."""
    cdef RequestRecord *record
    cdef const Buffer *buffer = guest.received
    cdef const Head *head
    if by_likely(not loop.settings.access_log):
        return
    if rg_is_full(&loop.requests):
        at_count(&loop.counters.values[CT_EVENTS_LOST], 1)
        return
    record = &(<RequestRecord *> loop.requests.slots)[loop.requests.written % RG_REQUESTS]
    memset(record, 0, sizeof(RequestRecord))
    record.scope = guest.scope.number
    record.interface = guest.interface
    memcpy(record.address, guest.address, 16)
    record.status = guest.status
    record.whole = whole
    record.upstream_status = guest.upstream_status
    record.content_bytes = guest.answer_bytes
    record.total_us = loop.now_us - guest.arrived_us
    record.parked_us = guest.parked_us
    record.upstream_us = guest.upstream_us
    record.instance_length = guest.instance_length
    memcpy(record.instance, guest.instance, guest.instance_length)
    if buffer is not NULL and guest.consumed:
        head = &buffer.head
        record.method_length = <uint8_t> head.method_length
        memcpy(record.method, buffer.data + buffer.start + head.method_at, head.method_length)
        record.target_length = min(head.target_length, <uint16_t> RG_TARGET)
        memcpy(record.target, buffer.data + buffer.start + head.target_at, record.target_length)
    at_store(&loop.requests.written, loop.requests.written + 1)
    loop.notify_wanted = True
