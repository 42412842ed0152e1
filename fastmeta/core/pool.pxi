# Connections to Nova: whose they are, those that nobody uses (kept, warmed, checked), and descriptors for them. Prefix
# up_, shared with upstream.pxi.
#
# Rule 3: a connection gets here only from an_finish, when the request was sent whole, the answer ended where its
# framing says and nothing followed, or when it is new (up_warm). It is closed as soon as a byte comes on it.

cdef void up_engage(LoopState *loop, Upstream *up, Guest *guest, bint second) noexcept nogil:
    """A connection from the pool, or a new one, gets a guest. second: for a request that is on another one already."""
    cdef Server *server = up.server
    if up.phase == UP_IDLE:
        ls_remove(&up.link)
        server.idle_n -= 1
        at_uncount(&loop.counters.values[CT_UPSTREAM_IDLE], 1)
        up.phase = UP_BUSY
    ls_insert(&loop.busy, &up.link, up)
    loop.busy_n += 1
    server.busy_n += 1
    up.scope = guest.scope
    up.scope.busy_n += 1
    up.source = guest.source
    up.source.busy_n += 1
    up.guest = guest
    if by_unlikely(second):
        guest.second = up
        loop.second_n += 1
    else:
        guest.up = up
    if by_unlikely(guest.body_missing):
        up.streams = True
        up.scope.streams_n += 1
        up.source.streams_n += 1
        loop.streams_n += 1


cdef inline void up_disengage(LoopState *loop, Upstream *up) noexcept nogil:
    loop.busy_n -= 1
    up.server.busy_n -= 1
    up.scope.busy_n -= 1
    up.source.busy_n -= 1
    if by_unlikely(up.streams):
        up.streams = False
        up.scope.streams_n -= 1
        up.source.streams_n -= 1
        loop.streams_n -= 1


cdef inline void up_detach(LoopState *loop, Upstream *up) noexcept nogil:
    """Parts a connection from its guest, if it has one. Of a guest with two the other is `up` then."""
    cdef Guest *guest = up.guest
    if guest is NULL:
        return
    up.guest = NULL
    if by_unlikely(guest.second is not NULL):
        loop.second_n -= 1
        if guest.up == up:
            guest.up = guest.second
        guest.second = NULL
    else:
        guest.up = NULL


cdef void up_drop(LoopState *loop, Guest *guest) noexcept nogil:
    """Closes what connections a guest has."""
    while guest.up is not NULL:
        up_close(loop, guest.up)


cdef bint up_make_room(LoopState *loop) noexcept nogil:
    """Closes one connection that does nothing: the oldest idle guest's, else an unused one to Nova."""
    cdef Link *at = loop.servers.next
    cdef Server *server
    if not ls_is_empty(&loop.idle_guests):
        gs_close(loop, <Guest *> loop.idle_guests.next.owner, CE_EVICTED, False)
        return True
    while at != &loop.servers:
        server = <Server *> at.owner
        if not ls_is_empty(&server.idle):
            up_close(loop, <Upstream *> server.idle.previous.owner)
            return True
        at = at.next
    return False


cdef int up_socket(LoopState *loop, int family, bint urgent) noexcept nogil:
    """A socket for a connection to Nova, or -errno. Without descriptors, if it is urgent, a spare one goes for it, or
    who is idle."""
    cdef int tries = 0
    cdef int error
    cdef int fd
    while True:
        fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        if by_likely(fd >= 0):
            return fd
        error = errno
        if (error != EMFILE and error != ENFILE) or tries == UP_SOCKET_TRIES or not urgent:
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


cdef void up_release(LoopState *loop, Upstream *up) noexcept nogil:
    """Into the pool. Only for a connection on which nothing is under way, and that has no guest any more."""
    bf_give(loop, &up.received)
    if up.version != up.server.version or up.server.removed or loop.stopping:
        up_close(loop, up)
        return
    ls_remove(&up.link)
    up_disengage(loop, up)
    loop.starved = False
    up_rest(loop, up)


cdef void up_rest(LoopState *loop, Upstream *up) noexcept nogil:
    """It is nobody's, in no list, and counts nowhere: for the next who comes."""
    loop.released_n += 1
    up.server.released_n += 1
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
        ls_insert(up.server.idle.next, &up.link, up)   # last in, first out: the others may end by age
        up.phase = UP_IDLE
        loop.released_n -= 1
        up.server.released_n -= 1
        up.server.idle_n += 1
    if by_unlikely(not ls_is_empty(&loop.round)):
        loop.pump_wanted = True


cdef bint up_is_quiet(Upstream *up) noexcept nogil:
    """Whether an idle connection is open, and nothing came on it."""
    cdef uint8_t first
    if up.tls is not NULL:
        return tl_is_quiet(up)
    return recv(up.socket.fd, &first, 1, MSG_PEEK) < 0 and errno == EAGAIN


cdef void up_check_idle(LoopState *loop, Server *server) noexcept nogil:
    """Epoll may not have reported everything: looks itself whether the connection that is used next is quiet, and
    closes those that are not."""
    cdef Upstream *up
    while not ls_is_empty(&server.idle):
        up = <Upstream *> server.idle.next.owner
        if up_is_quiet(up):
            return
        up_close(loop, up)


cdef void up_warm(LoopState *loop, Server *server) noexcept nogil:
    """Makes a connection for the pool; if the server is away this is the one try whether it is back. Nobody's wait
    depends on it, so it takes no descriptor from anybody."""
    cdef int error = 0
    cdef Upstream *up
    if server.busy_n + server.released_n + server.idle_n + server.warming_n >= loop.settings.max_upstream_connections:
        return
    up = up_new(loop, server, False, &error)
    if up is NULL:
        if error != EMFILE and error != ENFILE and error != ENOMEM:
            sv_failed(loop, server, error, server.away)
        if server.away and not sv_rests(server):
            tm_set(loop, &server.retry, server, loop.now_ms + SV_FIRST_PAUSE_MS)
        return
    up.phase = UP_WARMING
    server.warming_n += 1
    ls_insert(&server.warming, &up.link, up)
    up_connecting(loop, up, error, loop.settings.connect_timeout_ms)


cdef void up_warmed(LoopState *loop, Upstream *up, int error) noexcept nogil:
    """A connection that was made for the pool is there, or will not be."""
    cdef Server *server = up.server
    cdef bint probe = up.probe
    up.probe = False
    if error:
        up_close(loop, up)
        sv_failed(loop, server, error, probe)
        return
    if by_unlikely(server.busy_n + server.released_n + server.idle_n >= loop.settings.max_upstream_connections):
        up_close(loop, up)                 # requests were faster, and have all the room
    else:
        ls_remove(&up.link)
        server.warming_n -= 1
        up_rest(loop, up)
    sv_connected(loop, server)
    loop.pump_wanted = True
