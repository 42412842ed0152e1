# The relay: connections of proxies that Neutron's agents started, on the agent's unix socket. Prefix ry_, shared with
# claim.pxi.
#
# Who asks is said by the head of each request (claim.pxi). Between requests such a connection belongs to a scope of the
# relay's own; with a complete head it goes into the one that the head names, under the address that it names, and
# behaves like a guest's from then on; after the answer it goes back. Each of these counts as the end of a connection in
# one scope (CE_HANDED) and as a new one in the other, so that the sums hold in each.
#
# A scope that is not on this loop is on another one, or nowhere yet: the connection is given to Python, with all that
# was read (EV_HANDED), and Python to the loop of the scope (MS_HANDED), which it makes first if it has to. From the
# event on until Python has taken it, the ring owns the descriptor and the bytes; so does the mailbox after that.
#
# One loop's relay has the listening socket, the others' only hold what they are given.

cdef enum:
    RY_ON_THE_WAY = 512            # connections that Python has not taken yet; further ones get 503,
    RY_ENOUGH = 256                # and with so many no further ones are accepted for a moment
    RY_TIMES = 8                   # a scope that goes whenever it is asked for has no memory to be made
    RY_TURNED_AWAY = -2
    RY_OVER = 64                   # connections over max_connections, which get a 503 when their head is here


cdef bint ry_admits(LoopState *loop, Listener *listener, int fd) noexcept nogil:
    """Rule 10: whether this may be on the other end (SO_PEERCRED of unix(7): its effective ids when it connected)."""
    cdef const Peers *peers = &loop.peers
    cdef ucred peer
    cdef socklen_t length = sizeof(peer)
    cdef uint32_t i
    if getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0:
        return False
    for i in range(peers.uid_n):
        if peer.uid == peers.uids[i]:
            return True
    for i in range(peers.gid_n):
        if peer.gid == peers.gids[i]:
            return True
    rg_problem(loop, PR_STRANGER, <int> peer.uid, listener.scope.number, listener.number)
    return False


cdef int ry_accept(LoopState *loop, Listener *listener) noexcept nogil:
    """A new connection's descriptor; -1 when there is none, RY_TURNED_AWAY when it was a stranger's."""
    cdef int fd
    if listener.socket.fd < 0:
        return -1                          # drained, and closed, earlier in this batch
    if ry_on_the_way(loop) >= RY_ENOUGH and not loop.stopping:
        ln_pause(loop, listener)
        return -1
    fd = accept4(listener.socket.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
    if fd < 0:
        ln_failed(loop, listener, errno)
        return -1
    if ry_admits(loop, listener, fd):
        return fd
    st_count(loop, listener.scope, CT_CONNECTIONS, 1)
    ln_gone(loop, listener.scope, fd, CE_STRANGER)
    return RY_TURNED_AWAY


cdef inline uint64_t ry_on_the_way(LoopState *loop) noexcept nogil:
    return loop.handed_n - at_load(&loop.handed_taken)


cdef bint ry_may_stay(LoopState *loop, const Listener *listener, int reason) noexcept nogil:
    """Whether a connection that there is no room for waits for its 503 until it has sent its request. A proxy that is
    turned away before that finds a broken connection (EPIPE of send(2)), and its guest an error of the proxy's."""
    return listener.relays and reason == RF_CONNECTIONS and (
        at_read(&loop.counters.values[CT_CONNECTIONS_OPEN]) < loop.settings.max_connections + RY_OVER)


cdef void ry_move(LoopState *loop, Guest *guest, Scope *scope, const uint8_t *address) noexcept nogil:
    """It goes from one scope to another, under an address there. It is in no list of those that are idle. relay_reason
    says whether there is room for it."""
    cdef Source *source = so_get(loop, scope, address, 0)
    if source is NULL:
        rg_problem(loop, PR_MEMORY, ENOMEM, scope.number, guest.listener.number)
        guest.relay_reason = RF_RESOURCES
        return
    if scope != loop.relay_scope:
        guest.relay_reason = <uint8_t> ln_full_of(loop, scope, guest.listener, source)
    st_count(loop, guest.scope, CT_ENDED + CE_HANDED, 1)
    st_uncount(loop, guest.scope, CT_CONNECTIONS_OPEN)
    so_join(loop, source)
    guest.source.connection_n -= 1
    so_leave(loop, guest.source)
    guest.scope = scope
    guest.source = source
    memcpy(guest.address, source.address, 16)
    guest.interface = source.interface
    st_count(loop, scope, CT_CONNECTIONS, 1)
    st_count(loop, scope, CT_CONNECTIONS_OPEN, 1)


cdef bint ry_enter(LoopState *loop, Guest *guest, int length) noexcept nogil:
    """A head is complete, or refused (length as for ex_begin): puts the guest where it belongs, or says in relay_reason
    why the request is refused. False when it has gone to another loop: it is dead here."""
    cdef Buffer *buffer = guest.received
    cdef Claim claim
    cdef Scope *scope
    cdef uint8_t said = guest.relay_reason     # RF_CONNECTIONS: ry_may_stay; RF_SCOPES: Python says so, ry_go_on
    guest.relay_reason = RF_NONE
    if length < 0:
        return True
    guest.relay_reason = <uint8_t> ry_claim(&buffer.head, buffer.data + buffer.start, &claim)
    if guest.relay_reason == RF_NONE and said == RF_CONNECTIONS:
        guest.relay_reason = said
    if guest.relay_reason != RF_NONE:
        return True
    scope = sc_named(loop, claim.kind, claim.uuid)
    if scope is NULL:
        guest.relay_reason = said if said else <uint8_t> ry_hand_on(loop, guest, &claim)
        return guest.relay_reason != RF_NONE
    guest.handed = 0
    ry_move(loop, guest, scope, claim.address)
    return True


cdef bint ry_leave(LoopState *loop, Guest *guest) noexcept nogil:
    """The answer is whole, and the connection stays: it is nobody's again. False when it had to be closed."""
    cdef uint8_t address[16]
    guest.relay_reason = RF_NONE
    if guest.scope == loop.relay_scope:
        return True
    memset(address, 0, 16)
    ry_move(loop, guest, loop.relay_scope, address)
    if guest.relay_reason == RF_NONE:
        return True
    gs_close(loop, guest, CE_RESOURCES, False)
    return False


cdef int ry_hand_on(LoopState *loop, Guest *guest, const Claim *claim) noexcept nogil:
    """Gives the connection to Python, with what was read of it. RF_NONE, or why that cannot be. Who is ending makes no
    new scopes, and does not know who else has ended."""
    cdef Buffer *buffer = guest.received
    cdef Handed *handed
    cdef Event event
    cdef uint32_t length = buffer.end - buffer.start
    if loop.stopping or guest.listener.draining or guest.handed >= RY_TIMES or (
            ry_on_the_way(loop) >= RY_ON_THE_WAY):
        return RF_SCOPES
    handed = <Handed *> malloc(sizeof(Handed) + length)
    if handed is NULL:
        return RF_RESOURCES
    handed.arrived_us = guest.arrived_us
    handed.length = length
    handed.times = guest.handed + 1
    handed.refused = False
    memcpy(ry_bytes(handed), buffer.data + buffer.start, length)
    memset(&event, 0, sizeof(Event))
    event.kind = EV_HANDED
    handed.fd = guest.socket.fd
    event.handed = handed
    event.scope_kind = claim.kind
    memcpy(event.uuid, claim.uuid, 16)
    # Before Python can see it: another loop may have closed it by the time that this one looks again.
    st_unwatch(loop, &guest.socket)
    if not rg_event(loop, &event):
        free(handed)
        return RF_SCOPES
    loop.handed_n += 1
    guest.socket.fd = -1
    gs_close(loop, guest, CE_HANDED, False)
    return RF_NONE


cdef inline uint8_t *ry_bytes(const Handed *handed) noexcept nogil:
    return <uint8_t *> handed + sizeof(Handed)


cdef void ry_take(LoopState *loop, const Handed *handed) noexcept nogil:
    """A connection that another loop, or this one, has handed on (takes over its descriptor)."""
    if loop.relay_scope is NULL:
        close(handed.fd)                   # there never was one here
    elif loop.relay is not NULL:
        ln_accept(loop, loop.relay, handed)
    else:
        st_count(loop, loop.relay_scope, CT_CONNECTIONS, 1)
        ln_turn_away(loop, loop.relay_scope, handed.fd, RF_SCOPES)


cdef void ry_go_on(LoopState *loop, Guest *guest, const Handed *handed) noexcept nogil:
    """Goes on where the other loop had to stop: with a head that is complete."""
    guest.handed = handed.times
    if handed.refused:
        guest.relay_reason = RF_SCOPES
    guest.received = bf_copy(loop, ry_bytes(handed), handed.length)
    if guest.received is NULL:
        gs_close(loop, guest, CE_RESOURCES, False)
        return
    guest.phase = GS_HEAD
    guest.arrived_us = handed.arrived_us
    gs_process(loop, guest)


cdef void ry_add(LoopState *loop, const Message *message) noexcept nogil:
    """The relay of this loop: a scope, and a listener that has a socket (takes over message.fd) or none (-1)."""
    cdef Scope *scope
    cdef Listener *listener
    loop.peers = (<const Peers *> message.payload)[0]
    scope = sc_add(loop, message.scope, message.counters, SC_RELAY, message.uuid)
    listener = <Listener *> calloc(1, sizeof(Listener)) if scope is not NULL else NULL
    if listener is NULL:
        rg_problem(loop, PR_MEMORY, ENOMEM, message.scope, message.listener)
        if message.fd >= 0:
            close(message.fd)
        ln_tell_closed(loop, message.listener)
        return
    loop.relay_scope = scope
    loop.relay = listener
    listener.relays = True
    ln_begin(loop, listener, scope, message)


cdef void ry_forget(LoopState *loop, Scope *scope) noexcept nogil:
    """The scope is being removed: closes the relay's connections that are in it."""
    cdef Listener *relay = loop.relay
    cdef Link *at
    cdef Guest *guest
    if relay is NULL or scope.kind == SC_RELAY:
        return
    at = relay.guests.next
    while at != &relay.guests:
        guest = <Guest *> at.owner
        at = at.next
        if guest.scope == scope:
            gs_close(loop, guest, CE_LISTENER, False)


cdef void ry_drop(LoopState *loop, int fd) noexcept nogil:
    """A connection that comes when all is over here: its guest is told to come again."""
    cdef uint8_t answer[HD_MAX_ANSWER]
    cdef Out out
    out.data = answer
    out.length = 0
    out.capacity = HD_MAX_ANSWER
    out.overflow = False
    hd_answer(&out, 503, 1 + st_random(loop, 3), False, True, False)
    send(fd, out.data, out.length, MSG_NOSIGNAL)
    close(fd)


cdef void ry_drop_events(LoopState *loop) noexcept nogil:
    """Nobody will take the events any more: ends what they own."""
    cdef Event *event
    if loop.events.slots is NULL:
        return
    while loop.events.taken != loop.events.written:
        event = &(<Event *> loop.events.slots)[loop.events.taken % RG_EVENTS]
        if event.kind == EV_HANDED:
            ry_drop(loop, event.handed.fd)
            free(event.handed)
        loop.events.taken += 1
