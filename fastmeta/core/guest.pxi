# A guest's connection: reading requests, sending answers, closing. Prefix gs_. What happens to a request between head
# and answer is in exchange.pxi.
#
# Rule for all functions that take a guest: they may close it. Who calls one looks at guest.socket.dead afterwards, or
# returns. A dead guest's memory stays until the end of the batch.

cdef inline void gs_deadline(LoopState *loop, Guest *guest, uint64_t wait_ms) noexcept nogil:
    tm_set(loop, &guest.timer, guest, loop.now_ms + wait_ms)


cdef void gs_idle(LoopState *loop, Guest *guest) noexcept nogil:
    """Waits for the first byte of a request."""
    guest.phase = GS_IDLE
    ls_insert(&loop.idle_guests, &guest.wait, guest)
    gs_deadline(loop, guest, loop.settings.keepalive_timeout_ms)


cdef Guest *gs_new(LoopState *loop, Listener *listener, int fd, const sockaddr_storage *peer) noexcept nogil:
    """A connection that was just accepted (takes over fd); NULL without memory (fd is closed then)."""
    cdef Guest *guest = <Guest *> malloc(sizeof(Guest))
    cdef const sockaddr_in *peer4
    cdef const sockaddr_in6 *peer6
    if guest is NULL:
        close(fd)
        rg_problem(loop, PR_MEMORY, ENOMEM, listener.scope.number, listener.number)
        return NULL
    memset(guest, 0, sizeof(Guest))
    guest.socket.fd = fd
    guest.socket.kind = ST_GUEST
    guest.listener = listener
    guest.scope = listener.scope
    tm_init(&guest.timer, ST_GUEST)
    if peer.ss_family == AF_INET:
        peer4 = <const sockaddr_in *> peer
        guest.address[10] = 255
        guest.address[11] = 255
        memcpy(guest.address + 12, &peer4.sin_addr, 4)
    else:
        peer6 = <const sockaddr_in6 *> peer
        memcpy(guest.address, &peer6.sin6_addr, 16)
        # A link-local address says nothing without its link: RFC 4007.
        if guest.address[0] == 0xfe and guest.address[1] & 0xc0 == 0x80:
            guest.interface = peer6.sin6_scope_id
    ls_insert(&listener.guests, &guest.link, guest)
    listener.guest_n += 1
    at_count(&loop.counters.connections, 1)
    at_count(&loop.counters.connections_open, 1)
    gs_idle(loop, guest)
    return guest


cdef void gs_close(LoopState *loop, Guest *guest, bint reset) noexcept nogil:
    """Ends a connection and whatever it was in. reset: nothing of it may linger in the kernel (rule 9)."""
    cdef linger at_once
    cdef Listener *listener = guest.listener
    if guest.socket.dead:
        return
    guest.socket.dead = True
    gs_unpark(loop, guest)
    if guest.request_open:
        at_count(&loop.counters.aborted, 1)
        ex_record(loop, guest)
    ls_remove(&guest.wait)
    ls_remove(&guest.link)
    tm_cancel(&guest.timer)
    if guest.up is not NULL:
        up_close(loop, guest.up)
    bf_give(loop, &guest.received)
    bf_give(loop, &guest.body)
    bf_give(loop, &guest.out)
    if reset:
        at_once.l_onoff = 1
        at_once.l_linger = 0
        setsockopt(guest.socket.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once))
    st_unwatch(loop, &guest.socket)
    close(guest.socket.fd)                 # the descriptor is gone whatever close says
    guest.socket.fd = -1
    ls_insert(&loop.dead_guests, &guest.link, guest)
    at_uncount(&loop.counters.connections_open, 1)
    listener.guest_n -= 1
    if listener.draining and listener.guest_n == 0:
        ln_end(loop, listener)


cdef void gs_leave(LoopState *loop, Guest *guest) noexcept nogil:
    """Ends a connection after its last answer. With bytes of the guest unread a plain close would send a reset, which
    may destroy the answer on its way: RFC 9112 section 9.6 closes in two steps."""
    cdef bint unread = guest.body_missing or (
        guest.received is not NULL and guest.received.end > guest.received.start)
    if guest.cut or not unread:
        gs_close(loop, guest, False)
        return
    bf_give(loop, &guest.received)
    bf_give(loop, &guest.body)
    shutdown(guest.socket.fd, SHUT_WR)     # fails only if the guest is gone: the next read says so
    guest.phase = GS_LINGER
    gs_deadline(loop, guest, loop.settings.linger_timeout_ms)
    if st_watch(loop, &guest.socket, EPOLLIN) < 0:
        gs_close(loop, guest, False)


cdef bint gs_park(LoopState *loop, Guest *guest, bint counts) noexcept nogil:
    """Rule 6: the request waits. counts: for something that is away (uses up park_timeout), not just busy. False when
    it may not: it has been answered with 503 then."""
    if at_read(&loop.counters.parked) >= loop.settings.max_parked:
        rg_problem(loop, PR_PARKED_FULL, 0, guest.scope.number, 0)
        ex_refuse(loop, guest, 503)
        return False
    if counts and guest.park_left_ms == 0:
        ex_refuse(loop, guest, 503)
        return False
    guest.parked = True
    guest.park_counts = counts
    guest.parked_at_us = loop.now_us
    at_count(&loop.counters.parked, 1)
    at_count(&loop.counters.parked_total, 1)
    gs_park_deadline(loop, guest)
    # A connection that came straight from accept is not known to epoll yet: a reset should end the wait.
    if guest.socket.interest == 0 and st_watch(loop, &guest.socket, 0) < 0:
        gs_close(loop, guest, False)
        return False
    return True


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
    guest.parked = True
    guest.park_counts = counts
    guest.parked_at_us = loop.now_us
    at_count(&loop.counters.parked, 1)
    gs_park_deadline(loop, guest)


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
    at_uncount(&loop.counters.parked, 1)


cdef void gs_resume_waiters(LoopState *loop, Link *waiters, int status) noexcept nogil:
    """All who wait in an entry go on: refused with status, or, if 0, with the identity that the entry has now."""
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
        if status:
            ex_refuse(loop, guest, status)
        else:
            ex_resolve(loop, guest)


cdef bint gs_send(LoopState *loop, Guest *guest, const uint8_t *data, size_t length) noexcept nogil:
    """Sends bytes to the guest; what the kernel does not take is kept in guest.out, of which there must be none before.
    False when the connection failed (it is closed then)."""
    cdef ssize_t n = send(guest.socket.fd, data, length, MSG_NOSIGNAL)
    if n < 0:
        if errno != EAGAIN and errno != EINTR:
            gs_close(loop, guest, False)
            return False
        n = 0
    if n > 0:
        guest.begun = True
    if by_likely(<size_t> n == length):
        return True
    guest.out = bf_copy(loop, data + n, length - <size_t> n)
    if guest.out is NULL:
        gs_close(loop, guest, True)
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
            gs_close(loop, guest, False)
            return False
        n = 0
    guest.begun = True
    buffer.start += <uint32_t> n
    if by_likely(buffer.start == buffer.end):
        return True
    guest.out = buffer
    place[0] = NULL
    return gs_wait_writable(loop, guest)


cdef bint gs_wait_writable(LoopState *loop, Guest *guest) noexcept nogil:
    gs_deadline(loop, guest, loop.settings.write_timeout_ms)
    if st_watch(loop, &guest.socket, EPOLLOUT) < 0:
        gs_close(loop, guest, True)
        return False
    return True


cdef void gs_flush(LoopState *loop, Guest *guest) noexcept nogil:
    """The kernel takes bytes again."""
    cdef Buffer *buffer = guest.out
    cdef ssize_t n
    if buffer is NULL:
        return
    n = send(guest.socket.fd, buffer.data + buffer.start, buffer.end - buffer.start, MSG_NOSIGNAL)
    if n < 0:
        if errno != EAGAIN and errno != EINTR:
            gs_close(loop, guest, False)
        return
    buffer.start += <uint32_t> n
    gs_deadline(loop, guest, loop.settings.write_timeout_ms)
    if buffer.start < buffer.end:
        return
    bf_give(loop, &guest.out)
    if st_watch(loop, &guest.socket, 0) < 0:
        gs_close(loop, guest, True)
    elif guest.phase == GS_RELAY and guest.up is not NULL:
        gs_deadline(loop, guest, loop.settings.upstream_timeout_ms)
        up_resume(loop, guest.up)
    elif guest.phase == GS_FLUSH:
        ex_done(loop, guest)


cdef void gs_want_input(LoopState *loop, Guest *guest) noexcept nogil:
    if st_watch(loop, &guest.socket, EPOLLIN) < 0:
        gs_close(loop, guest, False)


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
            gs_close(loop, guest, False)
        return
    if guest.phase != GS_IDLE and guest.phase != GS_HEAD:
        # It sends ahead while its request is worked on. Level-triggered: look away until we are ready for it.
        if st_watch(loop, &guest.socket, 0) < 0:
            gs_close(loop, guest, False)
        return
    if guest.received is NULL:
        guest.received = bf_take(loop, False)
        if guest.received is NULL:
            rg_problem(loop, PR_MEMORY, ENOMEM, guest.scope.number, 0)
            gs_close(loop, guest, False)
            return
    buffer = guest.received
    n = recv(guest.socket.fd, buffer.data + buffer.end, buffer.capacity - buffer.end, 0)
    if by_unlikely(n <= 0):
        if n < 0 and (errno == EAGAIN or errno == EINTR):
            if guest.phase == GS_IDLE:
                bf_give(loop, &guest.received)
            gs_want_input(loop, guest)
        else:
            gs_close(loop, guest, False)
        return
    buffer.end += <uint32_t> n
    gs_process(loop, guest)


cdef void gs_process(LoopState *loop, Guest *guest) noexcept nogil:
    """Works on the bytes in guest.received: one request after the other, as long as they are answered at once."""
    cdef Buffer *buffer
    cdef int length
    guest.busy = True
    while True:
        buffer = guest.received
        if guest.phase == GS_IDLE:
            ls_remove(&guest.wait)
            guest.phase = GS_HEAD
            guest.arrived_us = loop.now_us
            gs_deadline(loop, guest, loop.settings.head_timeout_ms)
        length = h1_parse_request(&buffer.head, buffer.data + buffer.start, buffer.end - buffer.start,
                                  <size_t> loop.settings.max_head)
        if length == 0:
            bf_to_front(buffer)
            gs_want_input(loop, guest)
            break
        ex_begin(loop, guest, length)
        if guest.socket.dead or guest.phase != GS_IDLE or guest.received is NULL:
            break
    guest.busy = False


cdef void gs_event(LoopState *loop, Guest *guest, uint32_t events) noexcept nogil:
    if events & (EPOLLERR | EPOLLHUP):
        gs_close(loop, guest, False)
        return
    if events & EPOLLOUT:
        gs_flush(loop, guest)
        if guest.socket.dead:
            return
    if events & EPOLLIN:
        gs_read(loop, guest)


cdef void gs_timeout(LoopState *loop, Guest *guest) noexcept nogil:
    """Its time in the present state is over."""
    cdef uint8_t phase = guest.phase
    if guest.out is not NULL:
        gs_close(loop, guest, True)        # it does not read
    elif phase == GS_IDLE or phase == GS_LINGER:
        gs_close(loop, guest, False)
    elif phase == GS_HEAD:
        ex_begin(loop, guest, -408)
    elif phase == GS_GATHER:
        ex_refuse(loop, guest, 408)
    elif phase == GS_PAUSE and guest.park_left_ms * 1000 > loop.now_us - guest.parked_at_us:
        gs_unpark(loop, guest)
        ex_resolve(loop, guest)
    elif phase == GS_RESOLVE or phase == GS_PAUSE:
        ex_refuse(loop, guest, 503)
    elif phase == GS_PLACE:
        ex_refuse(loop, guest, 503 if guest.park_counts else 504)
    elif phase == GS_SEND and guest.body_left > 0 and guest.up.unsent is NULL:
        ex_refuse(loop, guest, 408)
    else:
        rg_problem(loop, PR_UPSTREAM_TIMEOUT, ETIMEDOUT, guest.scope.number, 0)
        if guest.begun:
            ex_cut(loop, guest)
        else:
            ex_refuse(loop, guest, 504)
