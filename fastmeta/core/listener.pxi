# Listeners: accepting connections, and ending. Prefix ln_. A listener owns its descriptor; its guests are in .guests.

cdef enum:
    LN_DRAIN_MS = 2000             # rule 9: what we decide ourselves ends what is in flight, so long at most
    LN_DRAIN_ACCEPTS = 65536       # of the accept queue
    LN_PAUSE_MS = 100              # without descriptors


cdef void ln_pause(LoopState *loop, Listener *listener) noexcept nogil:
    """Leaves new connections in the kernel's queue for a while, instead of spinning on them."""
    if not listener.paused:
        st_unwatch(loop, &listener.socket)     # hang-ups too: somebody may have shut it down
        listener.paused = True
        tm_set(loop, &loop.accept, loop, loop.now_ms + LN_PAUSE_MS)


cdef void ln_resume(LoopState *loop) noexcept nogil:
    """Accepts again everywhere, and lets those who wait for a place at Nova try again."""
    cdef Link *at = loop.scopes.next
    cdef Link *inner
    cdef Scope *scope
    cdef Listener *listener
    if loop.starved:
        loop.starved = False
        loop.pump_wanted = True
    while at != &loop.scopes:
        scope = <Scope *> at.owner
        at = at.next
        inner = scope.listeners.next
        while inner != &scope.listeners:
            listener = <Listener *> inner.owner
            inner = inner.next
            if listener.paused and st_watch(loop, &listener.socket, EPOLLIN) == 0:
                listener.paused = False
            elif listener.paused:
                tm_set(loop, &loop.accept, loop, loop.now_ms + LN_PAUSE_MS)


cdef void ln_turn_away(LoopState *loop, Scope *scope, int fd, int reason) noexcept nogil:
    """A bound on connections is reached and all of them work: 503 at once (rule 6)."""
    cdef uint8_t answer[HD_MAX_ANSWER]
    cdef Out out
    out.data = answer
    out.length = 0
    out.capacity = HD_MAX_ANSWER
    out.overflow = False
    hd_answer(&out, rf_status(reason), 1 + st_random(loop, 3), False, True, False)
    # The request is read so that the close does not become a reset, which could overtake the answer.
    recv(fd, loop.scratch, SCRATCH, 0)
    send(fd, out.data, out.length, MSG_NOSIGNAL)
    st_count(loop, scope, CT_REQUESTS, 1)
    st_count(loop, scope, CT_REFUSED + reason, 1)
    st_count(loop, scope, ct_status(rf_status(reason)), 1)
    st_count(loop, scope, CT_TOTAL, 1)
    ln_gone(loop, scope, fd, CE_TURNED_AWAY)


cdef void ln_gone(LoopState *loop, Scope *scope, int fd, int how) noexcept nogil:
    """Closes a connection that never became a guest's."""
    close(fd)
    st_count(loop, scope, CT_ENDED + how, 1)


cdef inline int ln_full_of(LoopState *loop, Scope *scope, Listener *listener, Source *source) noexcept nogil:
    """Makes room for a connection of this source where a bound of its scope or its own is reached: the one that has had
    no request in progress for longest goes. RF_NONE, or the bound under which none could."""
    cdef const Settings *settings = &loop.settings
    if source.connection_n >= settings.max_connections_per_address:
        if ls_is_empty(&source.idle):
            rg_problem_of(loop, PR_ADDRESS_CONNECTIONS, 0, scope.number, listener.number, source.address)
            return RF_CONNECTIONS_ADDRESS
        gs_close(loop, <Guest *> source.idle.next.owner, CE_EVICTED, False)
    if at_read(&scope.counters.values[CT_CONNECTIONS_OPEN]) >= settings.max_connections_per_scope:
        if ls_is_empty(&scope.idle):
            rg_problem(loop, PR_SCOPE_CONNECTIONS, 0, scope.number, listener.number)
            return RF_CONNECTIONS_SCOPE
        gs_close(loop, <Guest *> scope.idle.next.owner, CE_EVICTED, False)
    return RF_NONE


cdef int ln_full(LoopState *loop, Listener *listener, Source *source) noexcept nogil:
    """The same, and for all connections together. Whose one of the relay's is shows later."""
    cdef const Settings *settings = &loop.settings
    cdef Scope *scope = listener.scope
    cdef int reason = RF_NONE
    if by_likely(not listener.relays):
        reason = ln_full_of(loop, scope, listener, source)
    if by_unlikely(reason != RF_NONE):
        return reason
    if at_read(&loop.counters.values[CT_CONNECTIONS_OPEN]) >= settings.max_connections:
        if ls_is_empty(&loop.idle_guests):
            rg_problem(loop, PR_CONNECTIONS_FULL, 0, scope.number, listener.number)
            return RF_CONNECTIONS
        gs_close(loop, <Guest *> loop.idle_guests.next.owner, CE_EVICTED, False)
    return RF_NONE


cdef void ln_failed(LoopState *loop, Listener *listener, int error) noexcept nogil:
    """accept(2) gave no connection."""
    if error == EAGAIN:
        return
    if error == EMFILE or error == ENFILE or error == ENOBUFS or error == ENOMEM:
        rg_problem(loop, PR_DESCRIPTORS, error, listener.scope.number, listener.number)
        if not up_make_room(loop):
            ln_pause(loop, listener)
        return
    # Errors of the connection itself are reported here too, and mean only that one.
    if error != EINTR and error != ECONNABORTED and error != EPROTO:
        rg_problem(loop, PR_ACCEPT, error, listener.scope.number, listener.number)
        ln_pause(loop, listener)


cdef bint ln_accept(LoopState *loop, Listener *listener, const Handed *handed) noexcept nogil:
    """Takes one connection. It is read at once: with TCP_DEFER_ACCEPT its request is here already. False when there
    was none. handed: NULL, or one of the relay's that another loop has read already."""
    cdef sockaddr_storage peer
    cdef socklen_t length = sizeof(peer)
    cdef uint8_t address[16]
    cdef uint32_t interface
    cdef Source *source
    cdef Guest *guest
    cdef int reason
    cdef int fd
    if by_unlikely(listener.relays):
        interface = 0
        memset(address, 0, 16)
        fd = handed.fd if handed is not NULL else ry_accept(loop, listener)
        if fd < 0:
            return fd == RY_TURNED_AWAY
    else:
        if listener.socket.fd < 0:
            return False                   # drained, and closed, earlier in this batch
        fd = accept4(listener.socket.fd, <sockaddr *> &peer, &length, SOCK_NONBLOCK | SOCK_CLOEXEC)
        if fd < 0:
            ln_failed(loop, listener, errno)
            return False
        interface = gs_address(&peer, address)
    st_count(loop, listener.scope, CT_CONNECTIONS, 1)
    source = so_get(loop, listener.scope, address, interface)
    reason = RF_RESOURCES if source is NULL else ln_full(loop, listener, source)
    if by_likely(reason == RF_NONE) or ry_may_stay(loop, listener, reason):
        guest = gs_new(loop, listener, source, fd)
        if by_likely(guest is not NULL):
            if by_unlikely(listener.relays):
                guest.relayed = True
                guest.relay_reason = <uint8_t> reason
                if handed is not NULL:
                    ry_go_on(loop, guest, handed)
                    return True
            gs_read(loop, guest)
            return True
        reason = RF_RESOURCES
    if reason == RF_RESOURCES:
        rg_problem(loop, PR_MEMORY, ENOMEM, listener.scope.number, listener.number)
        ln_gone(loop, listener.scope, fd, CE_RESOURCES)
    else:
        ln_turn_away(loop, listener.scope, fd, reason)
    if source is not NULL:
        so_settle(loop, source)
    return True


cdef void ln_add(LoopState *loop, const Message *message) noexcept nogil:
    cdef Scope *scope = sc_find(loop, message.scope)
    cdef Listener *listener = NULL
    if scope is not NULL:
        listener = <Listener *> calloc(1, sizeof(Listener))
    if listener is NULL:
        rg_problem(loop, PR_MEMORY, ENOMEM, message.scope, message.listener)
        close(message.fd)
        ln_tell_closed(loop, message.listener)
        return
    ln_begin(loop, listener, scope, message)


cdef void ln_begin(LoopState *loop, Listener *listener, Scope *scope, const Message *message) noexcept nogil:
    """Fills a new record, and accepts from now on, if it has a socket."""
    listener.socket.fd = message.fd
    listener.socket.kind = ST_LISTENER
    listener.number = message.listener
    listener.scope = scope
    ls_init(&listener.guests)
    tm_init(&listener.timer, ST_LISTENER)
    ls_insert(&scope.listeners, &listener.link, listener)
    loop.listener_n += 1
    if message.fd >= 0 and st_watch(loop, &listener.socket, EPOLLIN) < 0:
        rg_problem(loop, PR_ACCEPT, errno, message.scope, message.listener)
        ln_abort(loop, listener)


cdef void ln_end(LoopState *loop, Listener *listener) noexcept nogil:
    """Nothing of it is left: says so, and leaves its memory to the end of the batch."""
    if listener.socket.dead:
        return
    listener.socket.dead = True
    listener.draining = False
    tm_cancel(&listener.timer)
    ls_remove(&listener.link)
    ls_insert(&loop.dead_listeners, &listener.link, listener)
    loop.listener_n -= 1
    if loop.relay == listener:
        loop.relay = NULL
    ln_tell_closed(loop, listener.number)


cdef void ln_tell_closed(LoopState *loop, uint32_t number) noexcept nogil:
    cdef Event event
    memset(&event, 0, sizeof(Event))
    event.kind = EV_LISTENER_CLOSED
    event.listener = number
    rg_event(loop, &event)


cdef void ln_abort(LoopState *loop, Listener *listener) noexcept nogil:
    """Rule 9: the namespace is gone. Listener and connections close now; nothing lingers."""
    listener.draining = False
    if listener.socket.fd >= 0:
        st_unwatch(loop, &listener.socket)
        close(listener.socket.fd)
        listener.socket.fd = -1
    while not ls_is_empty(&listener.guests):
        gs_close(loop, <Guest *> listener.guests.next.owner, CE_LISTENER, True)
    ln_end(loop, listener)


cdef void ln_drain(LoopState *loop, Listener *listener, uint64_t wait_ms) noexcept nogil:
    """Our own decision: takes what is queued, closes, and lets requests in progress end."""
    cdef Link looked_at
    cdef Guest *guest
    cdef uint32_t n = 0
    if listener.draining or listener.socket.dead:
        return
    if listener.relays:
        listener.paused = False            # Python may just not have taken enough: nothing more goes to it now
    while n < LN_DRAIN_ACCEPTS and not listener.paused and ln_accept(loop, listener, NULL):
        n += 1
    st_unwatch(loop, &listener.socket)
    if listener.socket.fd >= 0:            # only one loop's relay has one
        close(listener.socket.fd)
    listener.socket.fd = -1
    listener.paused = False
    if listener.guest_n == 0:
        ln_end(loop, listener)
        return
    # The last guest that goes ends it from now on.
    listener.draining = True
    tm_set(loop, &listener.timer, listener, loop.now_ms + wait_ms)
    # A connection between requests gets one more look: its next request may be here already. That may close others,
    # to make room for a connection to Nova: so each is taken from the front, as long as there are any.
    ls_init(&looked_at)
    while not ls_is_empty(&listener.guests):
        guest = <Guest *> listener.guests.next.owner
        ls_remove(&guest.link)
        ls_insert(&looked_at, &guest.link, guest)
        guest.keep_alive = False
        if guest.phase == GS_IDLE:
            gs_read(loop, guest)
            if not guest.socket.dead and guest.phase == GS_IDLE:
                gs_close(loop, guest, CE_LISTENER, False)
    while not ls_is_empty(&looked_at):
        guest = <Guest *> looked_at.next.owner
        ls_remove(&guest.link)
        ls_insert(&listener.guests, &guest.link, guest)


cdef Listener *ln_to_drain(Scope *scope) noexcept nogil:
    """A listener of a scope that is not draining yet, or NULL."""
    cdef Link *at = scope.listeners.next
    while at != &scope.listeners:
        if not (<Listener *> at.owner).draining:
            return <Listener *> at.owner
        at = at.next
    return NULL


cdef Listener *ln_find(LoopState *loop, uint32_t number) noexcept nogil:
    cdef Link *at = loop.scopes.next
    cdef Link *inner
    cdef Scope *scope
    while at != &loop.scopes:
        scope = <Scope *> at.owner
        inner = scope.listeners.next
        while inner != &scope.listeners:
            if (<Listener *> inner.owner).number == number:
                return <Listener *> inner.owner
            inner = inner.next
        at = at.next
    return NULL
