# The loop: messages from Python, timers, turns, its beginning and end. Prefix lp_.

cdef void lp_settings(LoopState *loop, const SettingsMessage *message) noexcept nogil:
    """Bounds and times hold for what comes next: nobody is thrown out because there are more than there may be now, and
    no timer that runs is set anew."""
    cdef uint64_t own_rates = loop.settings.rate_versions & RL_OWN
    loop.settings = message.settings
    loop.settings.rate_versions |= own_rates
    loop.head_limits = message.head_limits
    loop.pump_wanted = True                # there may be more places at Nova now


cdef void lp_stop(LoopState *loop, uint64_t drain_ms) noexcept nogil:
    cdef Link *at = loop.scopes.next
    cdef Listener *listener
    loop.stopping = True
    while at != &loop.scopes:
        # Draining one may end another that drains already: look for the next from the front each time.
        listener = ln_to_drain(<Scope *> at.owner)
        if listener is NULL:
            at = at.next
        else:
            ln_drain(loop, listener, drain_ms)
    tm_set(loop, &loop.stop, loop, loop.now_ms + drain_ms)


cdef void lp_message(LoopState *loop, Message *message) noexcept nogil:
    """Carries out one message; what it owns is used or freed here."""
    cdef Scope *scope = sc_find(loop, message.scope)
    cdef Listener *listener
    cdef uint8_t kind = message.kind
    if kind == MS_IDENTITY or kind == MS_ABSENT or kind == MS_REFUSED:
        if scope is not NULL:
            id_answer(loop, scope, message, <Identity *> message.payload)
        else:
            free(message.payload)
    elif kind == MS_REVOKE or kind == MS_REVOKE_ALL:
        if scope is not NULL:
            id_revoke(loop, scope, message)
    elif kind == MS_RENEW:
        if scope is not NULL:
            id_renew(loop, scope, message.ends_us)
    elif kind == MS_SHORTEN:
        if scope is not NULL:
            id_shorten(loop, scope, message.ends_us)
    elif kind == MS_ADD_SCOPE:
        sc_add(loop, message.scope, message.counters, message.scope_kind, message.uuid)
    elif kind == MS_RATES:
        if scope is not NULL:
            sc_limit(loop, scope, <const Rates *> message.payload)
        free(message.payload)
    elif kind == MS_REMOVE_SCOPE:
        if scope is not NULL:
            sc_remove(loop, scope, False)
    elif kind == MS_RETIRE_SCOPE:
        if scope is not NULL:
            sc_retire(loop, scope)
    elif kind == MS_ADD_RELAY:
        ry_add(loop, message)
        free(message.payload)
    elif kind == MS_HANDED:
        ry_take(loop, <Handed *> message.payload)
        free(message.payload)
    elif kind == MS_ADD_LISTENER:
        ln_add(loop, message)
    elif kind == MS_REMOVE_LISTENER:
        listener = ln_find(loop, message.listener)
        if listener is not NULL and message.drain:
            ln_drain(loop, listener, LN_DRAIN_MS)
        elif listener is not NULL:
            ln_abort(loop, listener)
    elif kind == MS_UPSTREAMS:
        sv_replace(loop, <UpstreamsMessage *> message.payload)
        free(message.payload)
    elif kind == MS_SETTINGS:
        lp_settings(loop, <SettingsMessage *> message.payload)
        free(message.payload)
    elif kind == MS_STOP:
        lp_stop(loop, message.ends_us)


cdef void lp_mailbox(LoopState *loop) noexcept nogil:
    """Carries out all messages that are there."""
    cdef uint64_t written = at_load(&loop.mailbox.written)
    cdef Message message
    while loop.mailbox.taken != written:
        message = loop.mailbox.slots[loop.mailbox.taken % RG_MAILBOX]
        at_store(&loop.mailbox.taken, loop.mailbox.taken + 1)
        lp_message(loop, &message)


cdef void lp_timer(LoopState *loop, Timer *timer) noexcept nogil:
    """A timer's time has come. It is in no list now."""
    cdef void *owner = timer.link.owner
    if timer.kind == ST_GUEST:
        gs_timeout(loop, <Guest *> owner)
    elif timer.kind == ST_UPSTREAM:
        up_timeout(loop, <Upstream *> owner)
    elif timer.kind == ST_LISTENER:
        ln_abort(loop, <Listener *> owner)
    elif timer.kind == TM_RETRY:
        sv_rested(loop, <Server *> owner)
    elif timer.kind == TM_SWEEP:
        id_sweep(loop)
    elif timer.kind == TM_ACCEPT:
        ln_resume(loop)
    elif timer.kind == TM_STOP:
        loop.out_of_time = True


cdef void lp_event(LoopState *loop, Socket *socket, uint32_t events) noexcept nogil:
    if by_unlikely(socket.dead):
        return                             # closed earlier in this batch
    if socket.kind == ST_GUEST:
        gs_event(loop, <Guest *> socket, events)
    elif socket.kind == ST_UPSTREAM:
        up_event(loop, <Upstream *> socket, events)
    elif socket.kind == ST_LISTENER:
        ln_accept(loop, <Listener *> socket, NULL)


cdef void lp_bury(LoopState *loop) noexcept nogil:
    """Frees what died in this batch."""
    cdef void *owner
    while not ls_is_empty(&loop.dead_guests):
        owner = loop.dead_guests.next.owner
        ls_remove(&(<Guest *> owner).link)
        so_leave(loop, (<Guest *> owner).source)
        st_give(&loop.spare_guests, owner)
    while not ls_is_empty(&loop.dead_upstreams):
        owner = loop.dead_upstreams.next.owner
        ls_remove(&(<Upstream *> owner).link)
        (<Upstream *> owner).server.connection_n -= 1
        free(owner)
    sv_bury(loop)
    while not ls_is_empty(&loop.dead_listeners):
        owner = loop.dead_listeners.next.owner
        ls_remove(&(<Listener *> owner).link)
        free(owner)


cdef void lp_turn(LoopState *loop) noexcept nogil:
    """One turn: wait, then first unused connections to Nova, then what Python says and what Nova answers, then what
    guests want, then time.

    In this order a revocation is in force before a request of the same turn goes out, and whatever came on an unused
    connection is seen before anything of this turn can use it."""
    cdef int n
    cdef int i
    cdef Socket *socket
    if by_unlikely(loop.due_changed) and tm_arm(loop) < 0:
        loop.failed = errno
        return
    n = epoll_wait(loop.epoll, loop.batch, MAX_EVENTS, 0 if loop.pump_wanted else -1)
    if n < 0:
        if errno != EINTR:
            loop.failed = errno
        return
    st_read_clock(loop)
    loop.batch_full = n == MAX_EVENTS
    up_merge(loop)
    for i in range(n):
        socket = <Socket *> loop.batch[i].data.ptr
        if socket.kind == ST_MAILBOX:
            st_clear_signal(socket.fd)
        elif socket.kind == ST_UPSTREAM and (<Upstream *> socket).phase == UP_IDLE:
            lp_event(loop, socket, loop.batch[i].events)
    lp_mailbox(loop)
    for i in range(n):
        socket = <Socket *> loop.batch[i].data.ptr
        if socket.kind == ST_UPSTREAM:
            lp_event(loop, socket, loop.batch[i].events)
    for i in range(n):
        socket = <Socket *> loop.batch[i].data.ptr
        if socket.kind == ST_GUEST or socket.kind == ST_LISTENER:
            lp_event(loop, socket, loop.batch[i].events)
    if loop.now_ms >= loop.due_ms:
        tm_turn(loop)
    if loop.pump_wanted:
        up_pump(loop)
    lp_bury(loop)
    if loop.notify_wanted:
        loop.notify_wanted = False
        st_signal(loop.notify)


cdef int lp_run(LoopState *loop) noexcept nogil:
    """Turns until it is told to stop and nothing is left to do. Returns 0, or the errno that ended it."""
    st_read_clock(loop)
    loop.wheel_ms = loop.now_ms // TM_SLOT_MS * TM_SLOT_MS
    while loop.failed == 0:
        lp_turn(loop)
        if loop.stopping and (loop.listener_n == 0 or loop.out_of_time):
            break
    lp_clear(loop)
    if loop.notify_wanted:
        st_signal(loop.notify)
    return loop.failed


cdef void lp_clear(LoopState *loop) noexcept nogil:
    """Closes and frees all that the loop's thread owns. After this only the rings are left."""
    cdef Buffer *buffer
    while not ls_is_empty(&loop.scopes):
        sc_remove(loop, <Scope *> loop.scopes.next.owner, False)
    while not ls_is_empty(&loop.servers):
        sv_remove(loop, <Server *> loop.servers.next.owner)
    lp_bury(loop)
    free(loop.sources)
    loop.sources = NULL
    loop.source_bucket_n = 0
    st_free_spares(&loop.spare_guests)
    st_free_spares(&loop.spare_sources)
    while loop.small is not NULL:
        buffer = loop.small
        loop.small = buffer.next
        free(buffer)
    while loop.large is not NULL:
        buffer = loop.large
        loop.large = buffer.next
        free(buffer)
    lp_drop_messages(loop)


cdef void lp_drop_messages(LoopState *loop) noexcept nogil:
    """What Python has said and nobody will carry out."""
    cdef Message *message
    while loop.mailbox.taken != at_load(&loop.mailbox.written):
        message = &loop.mailbox.slots[loop.mailbox.taken % RG_MAILBOX]
        if message.kind == MS_ADD_LISTENER or (message.kind == MS_ADD_RELAY and message.fd >= 0):
            close(message.fd)
        elif message.kind == MS_HANDED:
            ry_drop(loop, (<Handed *> message.payload).fd)
        elif message.kind == MS_UPSTREAMS:
            sv_discard(<UpstreamsMessage *> message.payload)
        free(message.payload)
        at_store(&loop.mailbox.taken, loop.mailbox.taken + 1)


cdef int lp_init(LoopState *loop) noexcept nogil:
    """Lists, timers, descriptors. Returns 0 or an errno; lp_free undoes all of it."""
    cdef uint32_t i
    loop.epoll = -1
    loop.notify = -1
    loop.mailbox_socket.fd = -1
    loop.clock.fd = -1
    loop.due_ms = TM_NEVER
    ls_init(&loop.scopes)
    ls_init(&loop.idle_guests)
    ls_init(&loop.round)
    ls_init(&loop.servers)
    ls_init(&loop.removed_servers)
    ls_init(&loop.released)
    ls_init(&loop.busy)
    ls_init(&loop.dead_guests)
    ls_init(&loop.dead_upstreams)
    ls_init(&loop.dead_listeners)
    for i in range(<uint32_t> TM_SLOTS):
        ls_init(&loop.wheel[i])
    loop.spare_guests.size = sizeof(Guest)
    loop.spare_sources.size = sizeof(Source)
    tm_init(&loop.sweep, TM_SWEEP)
    tm_init(&loop.accept, TM_ACCEPT)
    tm_init(&loop.stop, TM_STOP)
    if getrandom(&loop.random, sizeof(loop.random), 0) != sizeof(loop.random):
        return errno
    if getrandom(&loop.hash_seed, sizeof(loop.hash_seed), 0) != sizeof(loop.hash_seed):
        return errno
    loop.away = True                       # until there are servers
    loop.random |= 1                       # xorshift stays at zero
    loop.events.capacity = RG_EVENTS
    loop.events.slots = calloc(RG_EVENTS, sizeof(Event))
    loop.mailbox.slots = <Message *> calloc(RG_MAILBOX, sizeof(Message))
    if loop.events.slots is NULL or loop.mailbox.slots is NULL:
        return ENOMEM
    if loop.settings.access_log:
        loop.requests.capacity = RG_REQUESTS
        loop.requests.slots = calloc(RG_REQUESTS, sizeof(RequestRecord))
        if loop.requests.slots is NULL:
            return ENOMEM
    loop.epoll = epoll_create1(EPOLL_CLOEXEC)
    loop.notify = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
    loop.mailbox_socket.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
    loop.mailbox_socket.kind = ST_MAILBOX
    loop.clock.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)
    loop.clock.kind = ST_CLOCK
    if loop.epoll < 0 or loop.notify < 0 or loop.mailbox_socket.fd < 0 or loop.clock.fd < 0:
        return errno
    if st_watch(loop, &loop.mailbox_socket, EPOLLIN) < 0 or st_watch(loop, &loop.clock, EPOLLIN) < 0:
        return errno
    up_save_spares(loop)
    st_read_clock(loop)
    return 0


cdef void lp_free(LoopState *loop) noexcept nogil:
    """Everything that lp_init made; the loop does not run (any more)."""
    if loop.scopes.next is not NULL:
        lp_clear(loop)
    while loop.spare_n:
        loop.spare_n -= 1
        close(loop.spares[loop.spare_n])
    if loop.epoll >= 0:
        close(loop.epoll)
    if loop.notify >= 0:
        close(loop.notify)
    if loop.mailbox_socket.fd >= 0:
        close(loop.mailbox_socket.fd)
    if loop.clock.fd >= 0:
        close(loop.clock.fd)
    ry_drop_events(loop)
    free(loop.events.slots)
    free(loop.requests.slots)
    free(loop.mailbox.slots)
    free(loop)
