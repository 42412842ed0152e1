# A guest's connection: reading requests, sending answers, closing. Prefix gs_, shared with parking.pxi. What happens
# to a request between head and answer is in exchange.pxi.
#
# Rule for all functions that take a guest: they may close it. Who calls one looks at guest.socket.dead afterwards, or
# returns. A dead guest's memory stays until the end of the batch.

cdef enum:
    GS_AT_ONCE = 32                # requests of one connection that are answered in one go


cdef inline void gs_deadline(LoopState *loop, Guest *guest, uint64_t wait_ms) noexcept nogil:
    tm_set(loop, &guest.timer, guest, loop.now_ms + wait_ms)


cdef inline void gs_answer_deadline(LoopState *loop, Guest *guest, uint64_t wait_ms) noexcept nogil:
    """The same while an answer goes out: small progress does not put off the end of the whole (answer_timeout)."""
    if guest.answer_by_ms == 0:
        guest.answer_by_ms = loop.now_ms + loop.settings.answer_timeout_ms
    tm_set(loop, &guest.timer, guest, min(loop.now_ms + wait_ms, guest.answer_by_ms))


cdef inline void gs_rest(LoopState *loop, Guest *guest) noexcept nogil:
    """It has no request in progress: it may be closed to make room, who has been so longest first."""
    ls_insert(&loop.idle_guests, &guest.idle, guest)
    ls_insert(&guest.scope.idle, &guest.scope_idle, guest)
    ls_insert(&guest.source.idle, &guest.source_idle, guest)


cdef inline void gs_rouse(Guest *guest) noexcept nogil:
    ls_remove(&guest.idle)
    ls_remove(&guest.scope_idle)
    ls_remove(&guest.source_idle)


cdef void gs_idle(LoopState *loop, Guest *guest) noexcept nogil:
    """Waits for the first byte of a request."""
    guest.phase = GS_IDLE
    gs_rest(loop, guest)
    gs_deadline(loop, guest, loop.settings.keepalive_timeout_ms)


cdef uint32_t gs_address(const sockaddr_storage *peer, uint8_t *address) noexcept nogil:
    """Writes the peer's 16 bytes to address; returns the index of its interface for a link-local one, else 0."""
    cdef const sockaddr_in *peer4
    cdef const sockaddr_in6 *peer6
    if peer.ss_family == AF_INET:
        peer4 = <const sockaddr_in *> peer
        memset(address, 0, 10)
        address[10] = 255
        address[11] = 255
        memcpy(address + 12, &peer4.sin_addr, 4)
        return 0
    peer6 = <const sockaddr_in6 *> peer
    memcpy(address, &peer6.sin6_addr, 16)
    # A link-local address says nothing without its link: RFC 4007.
    return peer6.sin6_scope_id if address[0] == 0xfe and address[1] & 0xc0 == 0x80 else 0


cdef Guest *gs_new(LoopState *loop, Listener *listener, Source *source, int fd) noexcept nogil:
    """A connection that was just accepted (takes over fd); NULL without memory (fd is the caller's then)."""
    cdef Guest *guest = <Guest *> st_new(&loop.spare_guests)
    if guest is NULL:
        return NULL
    guest.socket.fd = fd
    guest.socket.kind = ST_GUEST
    guest.listener = listener
    guest.scope = listener.scope
    guest.source = source
    memcpy(guest.address, source.address, 16)
    guest.interface = source.interface
    tm_init(&guest.timer, ST_GUEST)
    ls_insert(&listener.guests, &guest.link, guest)
    listener.guest_n += 1
    so_join(loop, source)
    st_count(loop, guest.scope, CT_CONNECTIONS_OPEN, 1)
    gs_idle(loop, guest)
    # Who only connects is no better than who sends its head slowly.
    gs_deadline(loop, guest, min(loop.settings.keepalive_timeout_ms, loop.settings.head_timeout_ms))
    return guest


cdef void gs_close(LoopState *loop, Guest *guest, int how, bint reset) noexcept nogil:
    """Ends a connection and whatever it was in. how: one of CE_*; the guest's own going in the middle of a request is
    CE_ABORTED by itself. reset: nothing of it may linger in the kernel (rule 9)."""
    cdef linger at_once
    cdef Listener *listener = guest.listener
    if guest.socket.dead:
        return
    guest.socket.dead = True
    gs_unpark(loop, guest)
    if guest.request_open:
        ex_count(loop, guest, False)
        ex_record(loop, guest, False)
    if how == CE_GUEST:
        if guest.request_open or guest.phase == GS_HEAD:
            how = CE_ABORTED
        elif guest.phase == GS_LINGER:
            how = gs_end(guest)
    st_count(loop, guest.scope, CT_ENDED + how, 1)
    gs_rouse(guest)
    ls_remove(&guest.wait)
    ls_remove(&guest.link)
    tm_cancel(&guest.timer)
    while guest.up is not NULL:
        up_abandon(loop, guest.up)
    bf_give(loop, &guest.received)
    gs_drop_body(loop, guest)
    bf_give(loop, &guest.out)
    if reset:
        at_once.l_onoff = 1
        at_once.l_linger = 0
        setsockopt(guest.socket.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once))
    st_unwatch(loop, &guest.socket)
    close(guest.socket.fd)                 # the descriptor is gone whatever close says; -1 was handed on: ry_hand_on
    guest.socket.fd = -1
    ls_insert(&loop.dead_guests, &guest.link, guest)
    st_uncount(loop, guest.scope, CT_CONNECTIONS_OPEN)
    guest.source.connection_n -= 1
    listener.guest_n -= 1
    if listener.draining and listener.guest_n == 0:
        ln_end(loop, listener)


cdef void gs_drop_body(LoopState *loop, Guest *guest) noexcept nogil:
    """Gives a gathered body back, if there is one."""
    if guest.body is not NULL:
        bf_give(loop, &guest.body)
        guest.source.gathered_n -= 1
        st_uncount(loop, guest.scope, CT_GATHERED)


cdef void gs_leave(LoopState *loop, Guest *guest) noexcept nogil:
    """Ends a connection after its last answer. With bytes of the guest unread a plain close would send a reset, which
    may destroy the answer on its way: RFC 9112 section 9.6 closes in two steps."""
    cdef bint unread = guest.body_missing or (
        guest.received is not NULL and guest.received.end > guest.received.start)
    if guest.cut or not unread:
        gs_close(loop, guest, gs_end(guest), False)
        return
    bf_give(loop, &guest.received)
    gs_drop_body(loop, guest)
    shutdown(guest.socket.fd, SHUT_WR)     # fails only if the guest is gone: the next read says so
    guest.phase = GS_LINGER
    gs_deadline(loop, guest, loop.settings.linger_timeout_ms)
    if st_watch(loop, &guest.socket, EPOLLIN) < 0:
        gs_close(loop, guest, gs_end(guest), False)


cdef inline int gs_end(const Guest *guest) noexcept nogil:
    """How a connection ends that we close after its answer."""
    if guest.cut:
        return CE_CUT
    return CE_REFUSED if guest.reason else CE_ANSWERED


cdef bint gs_send(LoopState *loop, Guest *guest, const uint8_t *data, size_t length) noexcept nogil:
    """Sends bytes to the guest; what the kernel does not take is kept in guest.out, of which there must be none before.
    False when the connection failed (it is closed then)."""
    cdef ssize_t n = send(guest.socket.fd, data, length, MSG_NOSIGNAL)
    if n < 0:
        if errno != EAGAIN and errno != EINTR:
            gs_close(loop, guest, CE_GUEST, False)
            return False
        n = 0
    if n > 0:
        guest.begun = True
    if by_likely(<size_t> n == length):
        return True
    guest.out = bf_copy(loop, data + n, length - <size_t> n)
    if guest.out is NULL:
        gs_close(loop, guest, CE_RESOURCES, True)
        return False
    return gs_wait_writable(loop, guest)


cdef bint gs_send_buffer(LoopState *loop, Guest *guest, Buffer **place) noexcept nogil:
    """As gs_send, for a buffer; when the kernel does not take all of it the buffer itself becomes guest.out."""
    cdef Buffer *buffer = place[0]
    cdef ssize_t n
    if buffer.start == buffer.end:
        return True
    n = send(guest.socket.fd, buffer.data + buffer.start, buffer.end - buffer.start, MSG_NOSIGNAL)
    if n < 0:
        if errno != EAGAIN and errno != EINTR:
            gs_close(loop, guest, CE_GUEST, False)
            return False
        n = 0
    if by_unlikely(n == 0 and not guest.begun):
        guest.held = True
    guest.begun = True
    buffer.start += <uint32_t> n
    if by_likely(buffer.start == buffer.end):
        return True
    guest.out = buffer
    place[0] = NULL
    return gs_wait_writable(loop, guest)


cdef bint gs_wait_writable(LoopState *loop, Guest *guest) noexcept nogil:
    gs_answer_deadline(loop, guest, loop.settings.write_timeout_ms)
    if st_watch(loop, &guest.socket, EPOLLOUT) < 0:
        gs_close(loop, guest, CE_RESOURCES, True)
        return False
    return True


cdef bint gs_is_anothers(LoopState *loop, const Guest *guest) noexcept nogil:
    """Whether its answer is an instance's whose identity had ended, and its address has been named anew since."""
    cdef const Entry *entry = id_find(loop, guest.scope, guest.address, guest.interface)
    return entry is not NULL and entry.state != EN_PENDING and entry.naming != guest.naming


cdef void gs_flush(LoopState *loop, Guest *guest) noexcept nogil:
    """The kernel takes bytes again."""
    cdef Buffer *buffer = guest.out
    cdef ssize_t n
    if buffer is NULL:
        return
    if by_unlikely(guest.held and (guest.revision != guest.scope.revision or gs_is_anothers(loop, guest))):
        gs_ask_anew(loop, guest)
        return
    n = send(guest.socket.fd, buffer.data + buffer.start, buffer.end - buffer.start, MSG_NOSIGNAL)
    if n < 0:
        if errno != EAGAIN and errno != EINTR:
            gs_close(loop, guest, CE_GUEST, False)
        return
    guest.held = False
    buffer.start += <uint32_t> n
    gs_answer_deadline(loop, guest, loop.settings.write_timeout_ms)
    if buffer.start < buffer.end:
        return
    bf_give(loop, &guest.out)
    if st_watch(loop, &guest.socket, 0) < 0:
        gs_close(loop, guest, CE_RESOURCES, True)
    elif guest.phase == GS_RELAY and guest.up is not NULL:
        gs_answer_deadline(loop, guest, loop.settings.upstream_timeout_ms)
        up_resume(loop, guest.up)
    elif guest.phase == GS_FLUSH:
        ex_done(loop, guest)


cdef void gs_ask_anew(LoopState *loop, Guest *guest) noexcept nogil:
    """Rule 1: identities of the scope were revoked before the first byte of a held answer could go, so it does not go.
    Whether this guest's was among them is not looked at: an answer is held only for who does not read."""
    bf_give(loop, &guest.out)
    guest.held = False
    guest.begun = False
    guest.answer_bytes = 0
    guest.answer_by_ms = 0
    up_drop(loop, guest)
    st_count(loop, guest.scope, CT_REVOKED, 1)
    if guest.cut:
        gs_close(loop, guest, CE_CUT, True)
    elif st_watch(loop, &guest.socket, 0) < 0:
        gs_close(loop, guest, CE_RESOURCES, True)
    elif guest.repeatable:
        ex_resolve(loop, guest)
    else:
        ex_refuse(loop, guest, RF_REVOKED)


cdef void gs_want_input(LoopState *loop, Guest *guest) noexcept nogil:
    if st_watch(loop, &guest.socket, EPOLLIN) < 0:
        gs_close(loop, guest, CE_RESOURCES, False)


cdef void gs_read(LoopState *loop, Guest *guest) noexcept nogil:
    """Reads what the guest sent, once, and acts on it."""
    cdef Buffer *buffer
    cdef ssize_t n
    if guest.phase == GS_GATHER:
        bd_gather_read(loop, guest)
        return
    if guest.phase == GS_SEND:
        bd_stream_read(loop, guest)
        return
    if guest.phase == GS_LINGER:
        n = recv(guest.socket.fd, loop.scratch, SCRATCH, 0)
        if n == 0 or (n < 0 and errno != EAGAIN and errno != EINTR):
            gs_close(loop, guest, CE_GUEST, False)
        return
    if guest.phase != GS_IDLE and guest.phase != GS_HEAD:
        # It sends ahead while its request is worked on. Level-triggered: look away until we are ready for it.
        if st_watch(loop, &guest.socket, 0) < 0:
            gs_close(loop, guest, CE_RESOURCES, False)
        return
    if guest.received is NULL:
        guest.received = bf_take(loop, False)
        if guest.received is NULL:
            rg_problem(loop, PR_MEMORY, ENOMEM, guest.scope.number, 0)
            gs_close(loop, guest, CE_RESOURCES, False)
            return
    buffer = guest.received
    n = recv(guest.socket.fd, buffer.data + buffer.end, buffer.capacity - buffer.end, 0)
    if by_unlikely(n <= 0):
        if n < 0 and (errno == EAGAIN or errno == EINTR):
            if guest.phase == GS_IDLE:
                bf_give(loop, &guest.received)
            gs_want_input(loop, guest)
        else:
            gs_close(loop, guest, CE_GUEST, False)
        return
    buffer.end += <uint32_t> n
    gs_process(loop, guest)


cdef void gs_process(LoopState *loop, Guest *guest) noexcept nogil:
    """Works on the bytes in guest.received: one request after the other, as long as they are answered at once, but only
    so many in one go."""
    cdef Buffer *buffer
    cdef int length
    cdef uint32_t n = 0
    guest.busy = True
    while True:
        buffer = guest.received
        if guest.phase == GS_IDLE:
            guest.arrived_us = loop.now_us
        length = h1_parse_request(&buffer.head, buffer.data + buffer.start, buffer.end - buffer.start,
                                  &loop.head_limits)
        if length == 0:
            gs_wait_for_head(loop, guest)
            break
        gs_rouse(guest)
        guest.phase = GS_HEAD
        if by_likely(not guest.relayed) or ry_enter(loop, guest, length):
            ex_begin(loop, guest, length)
        if guest.socket.dead or guest.phase != GS_IDLE or guest.received is NULL:
            break
        n += 1
        if by_unlikely(n == GS_AT_ONCE):
            # Others' turn. Epoll reports this one again at once, or when it has taken its answers.
            if st_watch(loop, &guest.socket, EPOLLOUT) < 0:
                gs_close(loop, guest, CE_RESOURCES, False)
            break
    guest.busy = False


cdef void gs_wait_for_head(LoopState *loop, Guest *guest) noexcept nogil:
    """Part of a head is here. It counts as idle still: who sends heads slowly makes room first."""
    bf_to_front(guest.received)
    if guest.phase == GS_IDLE:
        gs_rouse(guest)
        gs_rest(loop, guest)
        guest.phase = GS_HEAD
        gs_deadline(loop, guest, loop.settings.head_timeout_ms)
    gs_want_input(loop, guest)


cdef void gs_event(LoopState *loop, Guest *guest, uint32_t events) noexcept nogil:
    if events & (EPOLLERR | EPOLLHUP):
        gs_close(loop, guest, CE_GUEST, False)
        return
    if events & EPOLLOUT:
        gs_flush(loop, guest)
        if guest.socket.dead:
            return
        if guest.phase == GS_IDLE and guest.received is not NULL:
            # It had its turn, see gs_process; there is more.
            if st_watch(loop, &guest.socket, 0) < 0:
                gs_close(loop, guest, CE_RESOURCES, False)
            else:
                gs_process(loop, guest)
            return
    if events & EPOLLIN:
        gs_read(loop, guest)


cdef void gs_timeout(LoopState *loop, Guest *guest) noexcept nogil:
    """Its time in the present state is over."""
    cdef uint8_t phase = guest.phase
    if guest.out is not NULL:
        gs_close(loop, guest, CE_SLOW_READER, True)
    elif phase == GS_IDLE:
        gs_close(loop, guest, CE_IDLE, False)
    elif phase == GS_LINGER:
        gs_close(loop, guest, gs_end(guest), False)
    elif phase == GS_HEAD:
        gs_rouse(guest)
        guest.relay_reason = RF_NONE
        ex_begin(loop, guest, -408)
    elif phase == GS_GATHER:
        ex_refuse(loop, guest, RF_BODY_SLOW)
    elif phase == GS_PAUSE and guest.park_left_ms * 1000 > loop.now_us - guest.parked_at_us:
        gs_unpark(loop, guest)
        st_count(loop, guest.scope, CT_REPEATED, 1)
        ex_resolve(loop, guest)
    elif phase == GS_RECHECK:
        rc_pass(loop, guest)
    elif phase == GS_RESOLVE or phase == GS_PAUSE:
        ex_refuse(loop, guest, RF_PARKED_LONG)
    elif phase == GS_PLACE:
        ex_refuse(loop, guest, RF_PARKED_LONG if guest.park_counts else RF_NO_PLACE)
    elif phase == GS_SEND and guest.body_left > 0 and guest.up.unsent is NULL:
        ex_refuse(loop, guest, RF_BODY_SLOW)
    else:
        rg_problem(loop, PR_UPSTREAM_TIMEOUT, ETIMEDOUT, guest.scope.number, 0)
        if guest.begun:
            ex_cut(loop, guest)
        else:
            ex_refuse(loop, guest, RF_NO_ANSWER)
