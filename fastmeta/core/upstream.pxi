# Connections to Nova: making, losing, closing, what epoll says of them. Prefix up_, shared with pool.pxi. An Upstream
# belongs to its guest or to the pool.
#
# Rule 3: a connection goes back to the pool only from an_finish, when the request was sent whole, the answer ended
# where its framing says and nothing followed. Whatever else happens to it, it is closed.

cdef enum:
    UP_MAX_INTERIM = 8             # 1xx answers before the real one
    UP_READS = 4                   # of one connection in a turn
    UP_SHORTEST_CONNECT_MS = 500
    UP_SOCKET_TRIES = 3            # without descriptors
    UP_RECEIVE_BUFFER = 131072     # the kernel makes it twice that; netns/sockets.py has the same towards guests


cdef inline ssize_t up_receive(Upstream *up, void *data, size_t length) noexcept nogil:
    """As recv(2)."""
    if by_unlikely(up.tls is not NULL):
        return tl_receive(up, data, length)
    return recv(up.socket.fd, data, length, 0)


cdef inline ssize_t up_send(Upstream *up, const void *data, size_t length) noexcept nogil:
    """As send(2)."""
    if by_unlikely(up.tls is not NULL):
        return tl_send(up, data, length)
    return send(up.socket.fd, data, length, MSG_NOSIGNAL)


cdef Upstream *up_new(LoopState *loop, Server *server, bint urgent, int *error) noexcept nogil:
    """A connection to server, begun; *error: EINPROGRESS, 0, or what is wrong. NULL, and *error, when there is none."""
    cdef Upstream *up
    cdef int on = 1
    cdef int room = UP_RECEIVE_BUFFER
    cdef int fd = up_socket(loop, server.spec.target.address.ss_family, urgent)
    if fd < 0:
        error[0] = -fd
        return NULL
    up = <Upstream *> calloc(1, sizeof(Upstream))
    if up is NULL:
        close(fd)
        rg_problem(loop, PR_MEMORY, ENOMEM, 0, 0)
        error[0] = ENOMEM
        return NULL
    up.socket.fd = fd
    up.socket.kind = ST_UPSTREAM
    up.server = server
    up.version = server.version
    up.phase = UP_CONNECTING
    up.made_us = loop.now_us
    up.probe = server.away
    server.probing = server.away
    server.connection_n += 1
    tm_init(&up.timer, ST_UPSTREAM)
    at_count(&loop.counters.values[CT_UPSTREAM_CONNECTS], 1)
    at_count(&loop.counters.values[CT_UPSTREAM_CONNECTIONS], 1)
    if by_likely(server.spec.target.address.ss_family != AF_UNIX):
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on))   # costs only time if it fails
    # Left to itself the kernel takes up to tcp_rmem[2], 32 MiB here and there, for a guest that does not read.
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room))
    error[0] = 0
    if connect(fd, <const sockaddr *> &server.spec.target.address, server.spec.target.length) < 0:
        error[0] = errno
    return up


cdef void up_open(LoopState *loop, Guest *guest, Server *server, bint second) noexcept nogil:
    """Opens a connection for guest; sends the request at once when the kernel connects at once."""
    cdef uint64_t wait_ms
    cdef int error = 0
    cdef bint probe = server.away
    cdef Upstream *up = up_new(loop, server, True, &error)
    if up is NULL:
        if error != EMFILE and error != ENFILE and error != ENOMEM:
            sv_failed(loop, server, error, probe)
        if second:
            se_put_off(loop, guest)
        elif error == EMFILE or error == ENFILE:
            up_starved(loop, guest)
        elif error == ENOMEM:
            ex_refuse(loop, guest, RF_RESOURCES)
        else:
            ex_place(loop, guest)
        return
    up_engage(loop, up, guest, second)
    wait_ms = loop.settings.connect_timeout_ms
    if by_likely(not second):
        guest.phase = GS_CONNECT
        # What is left of park_timeout bounds this too: a connection that takes long is an upstream that is away.
        wait_ms = min(wait_ms, max(guest.park_left_ms, <uint64_t> UP_SHORTEST_CONNECT_MS))
        tm_set(loop, &guest.timer, guest, guest.upstream_by_ms)
    up_connecting(loop, up, error, wait_ms)


cdef void up_connecting(LoopState *loop, Upstream *up, int error, uint64_t wait_ms) noexcept nogil:
    """A connection was begun; error is what connect(2) said."""
    if error == EINPROGRESS:
        if st_watch(loop, &up.socket, EPOLLOUT) < 0:
            up_ready(loop, up, errno)
            return
        tm_set(loop, &up.timer, up, loop.now_ms + wait_ms)
        return
    if by_unlikely(error == 0 and up.server.spec.tls is not NULL):
        tm_set(loop, &up.timer, up, loop.now_ms + wait_ms)
    up_connected(loop, up, error)


cdef void up_connected(LoopState *loop, Upstream *up, int error) noexcept nogil:
    """The connection is there, or (error) will not be. With TLS it is shaken hands on now."""
    if by_likely(error or up.server.spec.tls is NULL):
        up_ready(loop, up, error)
    elif tl_begin(up, up.server.spec.tls, up.server.spec.name, up.server.session) < 0:
        rg_problem(loop, PR_MEMORY, ENOMEM, 0, 0)
        up_ready(loop, up, ENOMEM)
    else:
        up_shake(loop, up)


cdef void up_shake(LoopState *loop, Upstream *up) noexcept nogil:
    """Goes on with the handshake. Until it is done nothing of any request has been sent."""
    cdef int state = tl_shake(up)
    cdef int certificate
    cdef uint32_t interest = EPOLLIN
    cdef int error = 0
    if state == TL_WANTS_READ or state == TL_WANTS_WRITE:
        if state == TL_WANTS_WRITE:
            interest = EPOLLOUT
        if st_watch(loop, &up.socket, interest) == 0:
            return
        error = errno
    elif state == TL_FAILED:
        error = EPROTO
        certificate = tl_certificate_error(up)
        if certificate:
            rg_of_server(loop, up.server, PR_UPSTREAM_CERTIFICATE, certificate, 0)
        else:
            rg_of_server(loop, up.server, PR_UPSTREAM_TLS, tl_error(), 0)
    up_ready(loop, up, error)


cdef void up_ready(LoopState *loop, Upstream *up, int error) noexcept nogil:
    """The connection can be used, or (error) will never be."""
    cdef Guest *guest = up.guest
    cdef Server *server = up.server
    cdef bint probe = up.probe
    cdef bint second
    tm_cancel(&up.timer)
    if error == 0 and st_watch(loop, &up.socket, EPOLLIN) < 0:
        error = errno
    if up.phase == UP_WARMING:
        up_warmed(loop, up, error)
        return
    second = guest.second == up
    if by_unlikely(error):
        up.probe = False
        up_close(loop, up)
        sv_failed(loop, server, error, probe)
        if guest.socket.dead:
            return
        if second or guest.up is not NULL:
            se_put_off(loop, guest)        # its other connection goes on
            return
        guest.park_left_ms -= min(guest.park_left_ms, (loop.now_us - up.made_us) // 1000)
        ex_place(loop, guest)              # nothing was sent: it waits, whatever its method
        return
    up.phase = UP_BUSY
    up.probe = False
    sv_connected(loop, server)
    if by_unlikely(up.guest is NULL):
        return                             # those who wait were told that Nova is back
    if by_unlikely(second):
        se_send(loop, up)
    else:
        ex_send(loop, guest)


cdef void up_close(LoopState *loop, Upstream *up) noexcept nogil:
    """Closes a connection, wherever it is. Its guest, if it has one, is left to the caller."""
    cdef Server *server = up.server
    if up.socket.dead:
        return
    up.socket.dead = True
    if up.phase == UP_IDLE or up.phase == UP_RELEASED:
        at_uncount(&loop.counters.values[CT_UPSTREAM_IDLE], 1)
        if up.phase == UP_IDLE:
            server.idle_n -= 1
        else:
            server.released_n -= 1
            loop.released_n -= 1
    elif up.phase == UP_WARMING:
        server.warming_n -= 1
    else:
        up_disengage(loop, up)
        loop.pump_wanted = True
        if by_unlikely(up.abandoned):
            up.abandoned = False
            so_leave(loop, up.source)
    if up.probe:
        # Nobody waited for the outcome: the next who waits tries.
        up.probe = False
        server.probing = False
        loop.pump_wanted = True
    up_detach(loop, up)
    ls_remove(&up.link)
    tm_cancel(&up.timer)
    bf_give(loop, &up.received)
    bf_give(loop, &up.unsent)
    st_unwatch(loop, &up.socket)
    tl_end(up, up.phase == UP_IDLE or up.phase == UP_RELEASED)
    close(up.socket.fd)
    up.socket.fd = -1
    loop.starved = False
    if by_unlikely(loop.spare_n < UP_SPARES):
        up_save_spares(loop)
    ls_insert(&loop.dead_upstreams, &up.link, up)
    at_uncount(&loop.counters.values[CT_UPSTREAM_CONNECTIONS], 1)


cdef void up_leave_removed(LoopState *loop) noexcept nogil:
    """Connections to servers that were removed, and that are not there yet, end with nothing sent on them: their
    requests are for those that there are now. Restarts after each, because what follows may close others."""
    cdef Link *at = loop.busy.next
    cdef Upstream *up
    cdef Guest *guest
    while at != &loop.busy:
        up = <Upstream *> at.owner
        at = at.next
        if up.phase == UP_CONNECTING and up.server.removed:
            guest = up.guest
            up_close(loop, up)
            if guest is not NULL and guest.up is NULL:
                ex_place(loop, guest)
            at = loop.busy.next


cdef void up_lost(LoopState *loop, Upstream *up) noexcept nogil:
    """The connection ended before a byte of the answer came."""
    cdef Guest *guest = up.guest
    cdef Server *server = up.server
    cdef bint reused = up.reused
    up_close(loop, up)
    if not reused:
        at_count(&loop.counters.values[CT_UPSTREAM_FAILURES], 1)
        sv_suspect(loop, server)
    if by_unlikely(guest.up is not NULL):
        se_put_off(loop, guest)            # its other connection goes on
    elif not guest.repeatable:
        rg_of_server(loop, server, PR_UPSTREAM_SILENT, 0, guest.scope.number)
        ex_refuse(loop, guest, RF_SILENT)  # Nova may have done what it asked for
    elif reused:
        # Nova had closed a kept connection, as it may at any time: RFC 9112 section 9.3.1.
        st_count(loop, guest.scope, CT_STALE_RETRIES, 1)
        guest.fresh_only = True
        ex_resolve(loop, guest)
    else:
        rg_of_server(loop, server, PR_UPSTREAM_SILENT, 0, guest.scope.number)
        ex_pause(loop, guest)


cdef void up_nonsense(LoopState *loop, Upstream *up) noexcept nogil:
    """The answer is none that may be passed on."""
    cdef Guest *guest = up.guest
    rg_of_server(loop, up.server, PR_UPSTREAM_NONSENSE, EPROTO, guest.scope.number)
    if by_unlikely(guest.second is not NULL):
        up_close(loop, up)
        se_put_off(loop, guest)            # its other connection goes on
    elif guest.begun:
        ex_cut(loop, guest)
    else:
        ex_refuse(loop, guest, RF_NONSENSE)


cdef void up_revoke(LoopState *loop, Scope *scope, const uint8_t *address, uint32_t interface) noexcept nogil:
    """Aborts what is in flight under identities that ended (address NULL: all of the scope), unless its answer has
    begun. What is sent again meanwhile, as who it is now, goes on."""
    cdef Link *at = loop.busy.next
    cdef Upstream *up
    cdef Guest *guest
    cdef Entry *entry
    while at != &loop.busy:
        up = <Upstream *> at.owner
        at = at.next
        guest = up.guest
        if guest is NULL or guest.scope != scope or guest.begun or up.phase != UP_BUSY:
            continue
        if address is not NULL and (guest.interface != interface or memcmp(guest.address, address, 16) != 0):
            continue
        entry = id_find(loop, scope, guest.address, guest.interface)
        if entry is not NULL and entry.state == EN_VALID and up.naming == entry.naming:
            continue
        st_count(loop, scope, CT_REVOKED, 1)
        rc_leave(loop, guest)
        up_drop(loop, guest)
        if guest.repeatable:
            ex_resolve(loop, guest)
        else:
            ex_refuse(loop, guest, RF_REVOKED)
        at = loop.busy.next                # what was next may be gone


cdef void up_flush(LoopState *loop, Upstream *up) noexcept nogil:
    """Nova's kernel takes bytes of the request again."""
    cdef Buffer *buffer = up.unsent
    cdef ssize_t n
    if buffer is NULL:
        return
    n = up_send(up, buffer.data + buffer.start, buffer.end - buffer.start)
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
    elif by_unlikely(tl_holds(up)):
        up_read(loop, up)


cdef void up_event(LoopState *loop, Upstream *up, uint32_t events) noexcept nogil:
    cdef int error = 0
    cdef socklen_t length = sizeof(error)
    if up.phase == UP_IDLE or up.phase == UP_RELEASED:
        if up.tls is NULL or not tl_is_quiet(up):
            up_close(loop, up)             # closed by Nova, or bytes that nobody asked for
        return
    if up.phase == UP_CONNECTING or up.phase == UP_WARMING:
        if up.tls is not NULL:
            up_shake(loop, up)
            return
        if getsockopt(up.socket.fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0:
            error = errno
        if error or events & EPOLLOUT:
            up_connected(loop, up, error)
        return
    if up.abandoned:
        if up.tls is NULL or not tl_is_quiet(up):
            up_close(loop, up)             # the answer, or the end
        return
    if events & EPOLLOUT:
        up_flush(loop, up)
        if up.socket.dead or up.phase != UP_BUSY:
            return
    if events & (EPOLLIN | EPOLLERR | EPOLLHUP):
        up_read(loop, up)


cdef void up_timeout(LoopState *loop, Upstream *up) noexcept nogil:
    if up.phase == UP_CONNECTING or up.phase == UP_WARMING:
        up_ready(loop, up, ETIMEDOUT)
    elif up.phase == UP_IDLE or up.phase == UP_RELEASED or up.abandoned:
        up_close(loop, up)
    else:
        se_late(loop, up)
