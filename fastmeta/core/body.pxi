# A request's body: gathered, when it is chunked or small enough, so that a slow guest holds no connection to Nova; else
# streamed, with back-pressure. Prefix bd_. As in guest.pxi: every function that takes a guest may close it.

cdef enum:
    BD_SCOPE_PART = 4              # a scope may gather one in so many of all bodies that are gathered at once
    BD_ADDRESS_PART = 32


cdef void bd_gather(LoopState *loop, Guest *guest) noexcept nogil:
    """Starts to gather the body: what came with the head first."""
    cdef Buffer *buffer = guest.received
    if not bd_may_gather(loop, guest):
        rg_problem_of(loop, PR_BODIES_FULL, 0, guest.scope.number, 0, guest.address)
        ex_refuse(loop, guest, RF_BODIES)
        return
    guest.phase = GS_GATHER
    bf_to_front(buffer)                    # requests before this one may have left no room behind its head
    guest.body = bf_take(loop, True)
    if guest.body is NULL:
        rg_problem(loop, PR_MEMORY, ENOMEM, guest.scope.number, 0)
        ex_refuse(loop, guest, RF_RESOURCES)
        return
    guest.source.gathered_n += 1
    st_count(loop, guest.scope, CT_GATHERED, 1)
    guest.consumed -= guest.body_here
    guest.body_here = 0
    gs_deadline(loop, guest, loop.settings.body_timeout_ms)
    if buffer.end - buffer.start > guest.consumed and not bd_gather_bytes(loop, guest):
        return
    if guest.body_missing:
        bd_continue(loop, guest)
        if not guest.socket.dead:
            gs_want_input(loop, guest)


cdef bint bd_may_gather(const LoopState *loop, const Guest *guest) noexcept nogil:
    """Each gathered body has a buffer of 64 KiB, so their number is bounded; of an address to at least one."""
    cdef uint64_t most = loop.settings.max_gathered
    return (
        at_read(&loop.counters.values[CT_GATHERED]) < most
        and at_read(&guest.scope.counters.values[CT_GATHERED]) < max(most // BD_SCOPE_PART, <uint64_t> 1)
        and guest.source.gathered_n < max(most // BD_ADDRESS_PART, <uint64_t> 1))


cdef void bd_continue(LoopState *loop, Guest *guest) noexcept nogil:
    """RFC 9110 section 10.1.1: the guest waits for this before it sends its body."""
    if guest.continue_wanted:
        guest.continue_wanted = False
        if gs_send(loop, guest, <const uint8_t *> b"HTTP/1.1 100 Continue\r\n\r\n", 25):
            guest.begun = False            # not yet the answer
            if guest.out is not NULL:
                gs_close(loop, guest, CE_SLOW_READER, True)    # 25 bytes into an empty send buffer


cdef bint bd_gather_bytes(LoopState *loop, Guest *guest) noexcept nogil:
    """Takes body bytes out of guest.received behind `consumed`. When that was all of it the request goes on (and False
    is returned, as when it was refused)."""
    cdef Buffer *buffer = guest.received
    cdef uint8_t *data = buffer.data + buffer.start + guest.consumed
    cdef size_t length = buffer.end - buffer.start - guest.consumed
    cdef size_t content = length
    cdef size_t used = length
    cdef int state = CK_MORE
    if buffer.head.framing == H1_FRAMING_CHUNKED:
        state = ck_decode(&guest.chunked, data, length, &content, &used)
        if state < 0:
            ex_refuse(loop, guest, RF_BODY_MALFORMED)
            return False
    elif length >= guest.body_left:
        content = <size_t> guest.body_left
        used = content
        state = CK_DONE
    if content > guest.body.capacity - guest.body.end or guest.body.end + content > loop.settings.max_body:
        ex_refuse(loop, guest, RF_BODY_LARGE)
        return False
    memcpy(guest.body.data + guest.body.end, data, content)
    guest.body.end += <uint32_t> content
    if buffer.head.framing == H1_FRAMING_LENGTH:
        guest.body_left -= content
    # The head must stay, for the upstream; what follows it has been used.
    memmove(data, data + used, length - used)
    buffer.end -= <uint32_t> used
    if state == CK_MORE:
        return True
    guest.body_missing = False
    guest.body_left = 0
    guest.body_length = <int64_t> guest.body.end
    ex_resolve(loop, guest)                # gathering took time: the identity may have ended
    return False


cdef void bd_gather_read(LoopState *loop, Guest *guest) noexcept nogil:
    cdef Buffer *buffer = guest.received
    cdef ssize_t n = recv(guest.socket.fd, buffer.data + buffer.end, buffer.capacity - buffer.end, 0)
    if n <= 0:
        if n == 0 or (errno != EAGAIN and errno != EINTR):
            gs_close(loop, guest, CE_GUEST, False)
        return
    buffer.end += <uint32_t> n
    bd_gather_bytes(loop, guest)


cdef void bd_stream_read(LoopState *loop, Guest *guest) noexcept nogil:
    """The next part of a body that is too large to be gathered, from the guest to Nova."""
    cdef Upstream *up = guest.up
    cdef size_t wanted = SCRATCH
    cdef ssize_t n
    cdef ssize_t sent
    if up.unsent is not NULL:
        if st_watch(loop, &guest.socket, 0) < 0:
            gs_close(loop, guest, CE_RESOURCES, False)
        return
    if guest.body_left < wanted:
        wanted = <size_t> guest.body_left
    n = recv(guest.socket.fd, loop.scratch, wanted, 0)
    if n <= 0:
        if n == 0 or (errno != EAGAIN and errno != EINTR):
            gs_close(loop, guest, CE_GUEST, False)
        return
    guest.body_left -= <uint64_t> n
    guest.body_missing = guest.body_left > 0
    sent = up_send(up, loop.scratch, <size_t> n)
    if sent < 0:
        if errno != EAGAIN and errno != EINTR:
            # It may have answered before it closed: look for that first. The request did not get there whole.
            guest.body_left += <uint64_t> n
            guest.body_missing = True
            up_read(loop, up)
            return
        sent = 0
    st_count(loop, guest.scope, CT_BYTES_UP, <uint64_t> sent)
    if sent < n:
        up.unsent = bf_copy(loop, loop.scratch + sent, <size_t> (n - sent))
        if up.unsent is NULL or st_watch(loop, &up.socket, EPOLLIN | EPOLLOUT) < 0:
            ex_refuse(loop, guest, RF_RESOURCES)
            return
    ex_sent(loop, guest)
