# Connections to Nova: opening, pool, answers. Prefix up_. An Upstream belongs to its guest or to the pool (loop.idle).
#
# Rule 3: a connection goes back to the pool only from an_finish, when the request was sent whole, the answer ended
# where its framing says and nothing followed. Whatever else happens to it, it is closed.

cdef enum:
    UP_MAX_INTERIM = 8             # 1xx answers before the real one
    UP_FIRST_PAUSE_MS = 50
    UP_LONGEST_PAUSE_MS = 2000     # below half of park_timeout: who waits sees more than one try
    UP_READS = 4                   # of one connection in a turn
    UP_SHORTEST_CONNECT_MS = 500
    UP_SOCKET_TRIES = 3            # without descriptors
    UP_RECEIVE_BUFFER = 131072     # the kernel makes it twice that; netns/sockets.py has the same towards guests


cdef void up_engage(LoopState *loop, Upstream *up, Guest *guest) noexcept nogil:
    """A connection from the pool, or a new one, gets a guest."""
    if up.phase == UP_IDLE:
        ls_remove(&up.link)
        loop.idle_n -= 1
        at_uncount(&loop.counters.values[CT_UPSTREAM_IDLE], 1)
        up.phase = UP_BUSY
    ls_insert(&loop.busy, &up.link, up)
    loop.busy_n += 1
    up.scope = guest.scope
    up.scope.busy_n += 1
    up.source = guest.source
    up.source.busy_n += 1
    up.guest = guest
    guest.up = up
    if by_unlikely(guest.body_missing):
        up.streams = True
        up.scope.streams_n += 1
        up.source.streams_n += 1
        loop.streams_n += 1


cdef inline void up_disengage(LoopState *loop, Upstream *up) noexcept nogil:
    loop.busy_n -= 1
    up.scope.busy_n -= 1
    up.source.busy_n -= 1
    if by_unlikely(up.streams):
        up.streams = False
        up.scope.streams_n -= 1
        up.source.streams_n -= 1
        loop.streams_n -= 1


cdef bint up_make_room(LoopState *loop) noexcept nogil:
    """Closes one connection that does nothing: the oldest idle guest's, else an unused one to Nova."""
    if not ls_is_empty(&loop.idle_guests):
        gs_close(loop, <Guest *> loop.idle_guests.next.owner, CE_EVICTED, False)
        return True
    if not ls_is_empty(&loop.idle):
        up_close(loop, <Upstream *> loop.idle.previous.owner)
        return True
    return False


cdef int up_socket(LoopState *loop, int family) noexcept nogil:
    """A socket for a connection to Nova, or -errno. Without descriptors a spare one goes for it, or who is idle."""
    cdef int tries = 0
    cdef int error
    cdef int fd
    while True:
        fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        if by_likely(fd >= 0):
            return fd
        error = errno
        if (error != EMFILE and error != ENFILE) or tries == UP_SOCKET_TRIES:
            return -error
        rg_problem(loop, PR_DESCRIPTORS, error, 0, 0)
        tries += 1
        if loop.spare_n:
            loop.spare_n -= 1
            close(loop.spares[loop.spare_n])
        elif not up_make_room(loop):
            return -error


cdef void up_save_spares(LoopState *loop) noexcept nogil:
    """Keeps descriptors for connections to Nova, as far as there are any."""
    cdef int fd
    while loop.spare_n < UP_SPARES:
        fd = eventfd(0, EFD_CLOEXEC)
        if fd < 0:
            return
        loop.spares[loop.spare_n] = fd
        loop.spare_n += 1


cdef void up_open(LoopState *loop, Guest *guest) noexcept nogil:
    """Opens a connection for guest; sends the request at once when the kernel connects at once."""
    cdef Upstream *up
    cdef Target *target = &loop.targets[loop.target_at]
    cdef uint64_t wait_ms
    cdef int on = 1
    cdef int room = UP_RECEIVE_BUFFER
    cdef int error = 0
    cdef int fd = -EAFNOSUPPORT
    if loop.target_n:
        fd = up_socket(loop, target.address.ss_family)
    if fd < 0:
        error = -fd
        if error == EMFILE or error == ENFILE:
            up_starved(loop, guest)
            return
        up_failed(loop, error, loop.probing)
        ex_place(loop, guest)
        return
    up = <Upstream *> calloc(1, sizeof(Upstream))
    if up is NULL:
        close(fd)
        rg_problem(loop, PR_MEMORY, ENOMEM, 0, 0)
        ex_refuse(loop, guest, RF_RESOURCES)
        return
    up.socket.fd = fd
    up.socket.kind = ST_UPSTREAM
    up.target = loop.target
    up.phase = UP_CONNECTING
    up.made_us = loop.now_us
    up.probe = loop.probing
    tm_init(&up.timer, ST_UPSTREAM)
    up_engage(loop, up, guest)
    at_count(&loop.counters.values[CT_UPSTREAM_CONNECTS], 1)
    at_count(&loop.counters.values[CT_UPSTREAM_CONNECTIONS], 1)
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on))   # costs only time if it fails
    # Left to itself the kernel takes up to tcp_rmem[2], 32 MiB here and there, for a guest that does not read.
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room))
    if connect(fd, <const sockaddr *> &target.address, target.length) < 0:
        error = errno
    guest.phase = GS_CONNECT
    if error == EINPROGRESS:
        if st_watch(loop, &up.socket, EPOLLOUT) < 0:
            ex_refuse(loop, guest, RF_RESOURCES)
            return
        # What is left of park_timeout bounds this too: a connection that takes long is an upstream that is away.
        wait_ms = max(guest.park_left_ms, <uint64_t> UP_SHORTEST_CONNECT_MS)
        tm_set(loop, &up.timer, up, loop.now_ms + min(loop.settings.connect_timeout_ms, wait_ms))
        tm_set(loop, &guest.timer, guest, guest.upstream_by_ms)
        return
    up_connected(loop, up, error)


cdef void up_connected(LoopState *loop, Upstream *up, int error) noexcept nogil:
    """The connection is there, or (error) will not be."""
    cdef Guest *guest = up.guest
    cdef bint probe = up.probe
    tm_cancel(&up.timer)
    if error == 0 and st_watch(loop, &up.socket, EPOLLIN) < 0:
        error = errno
    if error:
        guest.up = NULL
        up.guest = NULL
        up.probe = False
        up_close(loop, up)
        up_failed(loop, error, probe)
        guest.park_left_ms -= min(guest.park_left_ms, (loop.now_us - up.made_us) // 1000)
        ex_place(loop, guest)              # nothing was sent: it waits, whatever its method
        return
    up.phase = UP_BUSY
    up.probe = False
    up_back(loop)
    ex_send(loop, guest)


cdef void up_failed(LoopState *loop, int error, bint probe) noexcept nogil:
    """Nova takes no connections: it rests a little, whoever waits is parked. probe: this was the one try."""
    cdef uint32_t pause_ms = UP_FIRST_PAUSE_MS
    cdef uint32_t n
    at_count(&loop.counters.values[CT_UPSTREAM_FAILURES], 1)
    rg_problem(loop, PR_UPSTREAM_AWAY, error, 0, 0)
    if loop.away and not probe:
        return                             # one of several that were on their way when the first failed
    loop.probing = False
    loop.failures += 1
    if loop.target_n:
        loop.target_at = (loop.target_at + 1) % loop.target_n
    n = loop.failures // max(loop.target_n, <uint32_t> 1)     # rounds over all addresses
    while n > 1 and pause_ms < UP_LONGEST_PAUSE_MS:
        n -= 1
        pause_ms *= 2
    if pause_ms > UP_LONGEST_PAUSE_MS:
        pause_ms = UP_LONGEST_PAUSE_MS
    tm_cancel(&loop.retry)
    tm_set(loop, &loop.retry, loop, loop.now_ms + pause_ms // 2 + st_random(loop, pause_ms))
    if not loop.away:
        loop.away = True
        pl_tell_waiting(loop)


cdef void up_back(LoopState *loop) noexcept nogil:
    loop.probing = False
    if not loop.away:
        return
    loop.away = False
    pl_tell_waiting(loop)
    tm_cancel(&loop.retry)
    loop.problem_at_ms[PR_UPSTREAM_AWAY] = 0
    rg_problem(loop, PR_UPSTREAM_BACK, 0, 0, 0)
    loop.pump_wanted = True


cdef void up_close(LoopState *loop, Upstream *up) noexcept nogil:
    """Closes a connection, wherever it is. Its guest, if it has one, is left to the caller."""
    if up.socket.dead:
        return
    up.socket.dead = True
    if up.phase == UP_IDLE or up.phase == UP_RELEASED:
        at_uncount(&loop.counters.values[CT_UPSTREAM_IDLE], 1)
        if up.phase == UP_IDLE:
            loop.idle_n -= 1
        else:
            loop.released_n -= 1
    else:
        up_disengage(loop, up)
        loop.pump_wanted = True
        if by_unlikely(up.abandoned):
            up.abandoned = False
            so_leave(loop, up.source)
    if up.probe:
        # Nobody waited for the outcome: the next who waits tries.
        loop.probing = False
        loop.pump_wanted = True
    if up.guest is not NULL:
        up.guest.up = NULL
        up.guest = NULL
    ls_remove(&up.link)
    tm_cancel(&up.timer)
    bf_give(loop, &up.received)
    bf_give(loop, &up.unsent)
    st_unwatch(loop, &up.socket)
    close(up.socket.fd)
    up.socket.fd = -1
    loop.starved = False
    if by_unlikely(loop.spare_n < UP_SPARES):
        up_save_spares(loop)
    ls_insert(&loop.dead_upstreams, &up.link, up)
    at_uncount(&loop.counters.values[CT_UPSTREAM_CONNECTIONS], 1)


cdef void up_release(LoopState *loop, Upstream *up) noexcept nogil:
    """Into the pool. Only for a connection on which nothing is under way, and that has no guest any more."""
    bf_give(loop, &up.received)
    if up.target != loop.target or loop.stopping:
        up_close(loop, up)
        return
    ls_remove(&up.link)
    up_disengage(loop, up)
    loop.starved = False
    loop.released_n += 1
    at_count(&loop.counters.values[CT_UPSTREAM_IDLE], 1)
    up.phase = UP_RELEASED
    up.reused = True
    up.has_head = False
    up.interim_n = 0
    ls_insert(&loop.released, &up.link, up)
    tm_set(loop, &up.timer, up, loop.now_ms + loop.settings.upstream_idle_timeout_ms)


cdef void up_merge(LoopState *loop) noexcept nogil:
    """Makes released connections usable. Called when epoll has been asked since their release, and before its events
    are worked on: bytes that followed an answer close the connection before another guest can be given them."""
    cdef Upstream *up
    while not ls_is_empty(&loop.released):
        up = <Upstream *> loop.released.next.owner
        ls_remove(&up.link)
        ls_insert(loop.idle.next, &up.link, up)        # last in, first out: the others may end by age
        up.phase = UP_IDLE
        loop.released_n -= 1
        loop.idle_n += 1
    if by_unlikely(not ls_is_empty(&loop.round)):
        loop.pump_wanted = True


cdef void up_check_idle(LoopState *loop) noexcept nogil:
    """Epoll may not have reported everything: looks itself whether the connection that is used next is quiet, and
    closes those that are not."""
    cdef Upstream *up
    cdef uint8_t first
    while not ls_is_empty(&loop.idle):
        up = <Upstream *> loop.idle.next.owner
        if recv(up.socket.fd, &first, 1, MSG_PEEK) < 0 and errno == EAGAIN:
            return
        up_close(loop, up)


cdef void up_lost(LoopState *loop, Upstream *up) noexcept nogil:
    """The connection ended before a byte of the answer came."""
    cdef Guest *guest = up.guest
    cdef bint reused = up.reused
    up_close(loop, up)
    if not guest.repeatable:
        rg_problem(loop, PR_UPSTREAM_SILENT, 0, guest.scope.number, 0)
        ex_refuse(loop, guest, RF_SILENT)  # Nova may have done what it asked for
    elif reused:
        # Nova had closed a kept connection, as it may at any time: RFC 9112 section 9.3.1.
        st_count(loop, guest.scope, CT_STALE_RETRIES, 1)
        guest.fresh_only = True
        ex_resolve(loop, guest)
    else:
        at_count(&loop.counters.values[CT_UPSTREAM_FAILURES], 1)
        rg_problem(loop, PR_UPSTREAM_SILENT, 0, guest.scope.number, 0)
        ex_pause(loop, guest)


cdef void up_nonsense(LoopState *loop, Upstream *up) noexcept nogil:
    """The answer is none that may be passed on."""
    cdef Guest *guest = up.guest
    rg_problem(loop, PR_UPSTREAM_NONSENSE, EPROTO, guest.scope.number, 0)
    if guest.begun:
        ex_cut(loop, guest)
    else:
        ex_refuse(loop, guest, RF_NONSENSE)


cdef void up_revoke(LoopState *loop, Scope *scope, const uint8_t *address, uint32_t interface) noexcept nogil:
    """Aborts what is in flight under identities that ended (address NULL: all of the scope), unless its answer has
    begun."""
    cdef Link *at = loop.busy.next
    cdef Upstream *up
    cdef Guest *guest
    while at != &loop.busy:
        up = <Upstream *> at.owner
        at = at.next
        guest = up.guest
        if guest is NULL or guest.scope != scope or guest.begun or up.phase != UP_BUSY:
            continue
        if address is not NULL and (guest.interface != interface or memcmp(guest.address, address, 16) != 0):
            continue
        st_count(loop, scope, CT_REVOKED, 1)
        up_close(loop, up)
        if guest.repeatable:
            ex_resolve(loop, guest)
        else:
            ex_refuse(loop, guest, RF_REVOKED)


cdef void up_flush(LoopState *loop, Upstream *up) noexcept nogil:
    """Nova's kernel takes bytes of the request again."""
    cdef Buffer *buffer = up.unsent
    cdef ssize_t n
    if buffer is NULL:
        return
    n = send(up.socket.fd, buffer.data + buffer.start, buffer.end - buffer.start, MSG_NOSIGNAL)
    if n < 0:
        if errno != EAGAIN and errno != EINTR:
            up_read(loop, up)              # it may have answered before it closed
        return
    st_count(loop, up.scope, CT_BYTES_UP, <uint64_t> n)
    buffer.start += <uint32_t> n
    if buffer.start < buffer.end:
        return
    bf_give(loop, &up.unsent)
    if st_watch(loop, &up.socket, EPOLLIN) < 0:
        ex_refuse(loop, up.guest, RF_RESOURCES)
        return
    ex_sent(loop, up.guest)


cdef void up_resume(LoopState *loop, Upstream *up) noexcept nogil:
    """The guest takes bytes again: so do we."""
    if st_watch(loop, &up.socket, EPOLLIN) < 0:
        ex_cut(loop, up.guest)


cdef void up_event(LoopState *loop, Upstream *up, uint32_t events) noexcept nogil:
    cdef int error = 0
    cdef socklen_t length = sizeof(error)
    if up.phase == UP_IDLE or up.phase == UP_RELEASED:
        up_close(loop, up)                 # closed by Nova, or bytes that nobody asked for
        return
    if up.phase == UP_CONNECTING:
        if getsockopt(up.socket.fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0:
            error = errno
        if error or events & EPOLLOUT:
            up_connected(loop, up, error)
        return
    if up.abandoned:
        up_close(loop, up)                 # the answer, or the end
        return
    if events & EPOLLOUT:
        up_flush(loop, up)
        if up.socket.dead or up.phase != UP_BUSY:
            return
    if events & (EPOLLIN | EPOLLERR | EPOLLHUP):
        up_read(loop, up)


cdef void up_timeout(LoopState *loop, Upstream *up) noexcept nogil:
    if up.phase == UP_CONNECTING:
        up_connected(loop, up, ETIMEDOUT)
    elif up.phase == UP_IDLE or up.phase == UP_RELEASED or up.abandoned:
        up_close(loop, up)
