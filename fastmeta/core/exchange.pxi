# One request, from its head to its answer: identity, place, sending, answering. Prefix ex_.
#
#   ex_begin ─▶ ex_resolve ─▶ ex_ready ─▶ ex_place ─▶ ex_take ─▶ ex_send ─▶ (up_read …) ─▶ ex_done
#                  │ miss        │ gather     │ none free           │ identity ended meanwhile: ex_resolve again
#                  ▼             ▼            ▼
#               GS_RESOLVE    GS_GATHER    GS_PLACE          any of them may end in ex_refuse
#
# As in guest.pxi: every function that takes a guest may close it.

cdef enum:
    EX_FIRST_PAUSE_MS = 100
    EX_LONGEST_PAUSE_MS = 1600


cdef void ex_begin(LoopState *loop, Guest *guest, int length) noexcept nogil:
    """A head is complete (length > 0: of the head), or refused (-(status))."""
    cdef Buffer *buffer = guest.received
    cdef Head *head = &buffer.head
    cdef const uint8_t *method = buffer.data + buffer.start + head.method_at
    cdef bint get
    cdef uint32_t wait_s = 0
    cdef int reason = RF_NONE
    guest.consumed = 0
    st_count(loop, guest.scope, CT_REQUESTS, 1)
    guest.request_open = True
    guest.http11 = True
    guest.keep_alive = False
    guest.park_left_ms = loop.settings.park_timeout_ms
    if by_unlikely(loop.settings.rate_versions | <uint64_t> guest.relayed):
        reason = ex_denied(loop, guest, &wait_s)
    if length < 0:
        guest.body_missing = True          # where this request ends is not known
        ex_refuse(loop, guest, RF_HEAD_SLOW if length == -408 else rf_of_head(-length))
        return
    guest.consumed = <uint32_t> length
    guest.http11 = head.http11
    guest.keep_alive = head.keep_alive and not guest.listener.draining
    get = head.method_length == 3 and memcmp(method, b"GET", 3) == 0
    guest.head_method = head.method_length == 4 and memcmp(method, b"HEAD", 4) == 0
    guest.repeatable = (get or guest.head_method) and head.framing == H1_FRAMING_NONE
    guest.continue_wanted = head.expects_continue
    guest.body_length = -1 if guest.repeatable else max(head.content_length, 0)
    if head.framing == H1_FRAMING_LENGTH:
        guest.body_left = <uint64_t> head.content_length
        guest.body_missing = buffer.end - buffer.start - guest.consumed < guest.body_left
        # What fits goes up in one piece: a slow body holds no connection to Nova.
        guest.gathers = guest.body_missing and guest.body_left <= BF_LARGE
        if guest.body_left > loop.settings.max_body:
            guest.body_missing = True
            ex_refuse(loop, guest, RF_BODY_LARGE)
            return
        guest.body_at = guest.consumed
        if guest.body_missing:
            guest.body_here = buffer.end - buffer.start - guest.consumed
        else:
            guest.body_here = <uint32_t> guest.body_left
        guest.consumed += guest.body_here
    elif head.framing == H1_FRAMING_CHUNKED:
        guest.body_missing = True
        guest.gathers = True
    if by_unlikely(reason == RF_RATE):
        rg_problem_of(loop, PR_RATE_LIMITED, 0, guest.scope.number, guest.listener.number, guest.address)
        ex_refuse_for(loop, guest, RF_RATE, wait_s)
    elif by_unlikely(reason):
        guest.keep_alive = False
        ex_refuse(loop, guest, reason)
    # It would show a guest the headers that we add, the signature among them: RFC 9110 section 9.3.8.
    elif by_unlikely(head.method_length == 5 and by_is(method, b"trace", 5)):
        ex_refuse(loop, guest, RF_METHOD)
    else:
        ex_resolve(loop, guest)


cdef int ex_denied(LoopState *loop, Guest *guest, uint32_t *wait_s) noexcept nogil:
    """RF_NONE, or why a request is refused whatever it asks for. RF_RATE: for so many seconds. What belongs to nobody
    has no rate."""
    if guest.relay_reason:
        return guest.relay_reason
    if guest.scope != loop.relay_scope:
        wait_s[0] = rl_denied_s(loop, guest.source)
    return RF_RATE if wait_s[0] else RF_NONE


cdef void ex_resolve(LoopState *loop, Guest *guest) noexcept nogil:
    """Finds out who asks, or waits for it."""
    cdef Scope *scope = guest.scope
    cdef Entry *entry = id_find(loop, scope, guest.address, guest.interface)
    if by_likely(id_is_good(loop, entry)):
        st_count(loop, scope, CT_IDENTITY_HITS, 1)
        entry.used = True
        ex_ready(loop, guest)
        return
    if entry is not NULL and entry.state == EN_ABSENT and loop.now_us < entry.ends_us:
        ex_refuse(loop, guest, RF_ABSENT)
        return
    st_count(loop, scope, CT_IDENTITY_MISSES, 1)
    entry = id_make(loop, scope, guest.address, guest.interface)
    if entry is NULL:
        if scope.entry_n < ID_MAX_ENTRIES:
            rg_problem(loop, PR_MEMORY, ENOMEM, scope.number, 0)
        ex_refuse(loop, guest, RF_RESOURCES if scope.entry_n < ID_MAX_ENTRIES else RF_MISSES)
        return
    if entry.state != EN_PENDING:
        id_clear(scope, entry)             # what was known has ended
    if not id_ask(loop, scope, entry):
        ex_refuse(loop, guest, RF_MISSES)
        return
    guest.phase = GS_RESOLVE
    ls_insert(&entry.waiters, &guest.wait, guest)
    gs_park(loop, guest, True)


cdef void ex_ready(LoopState *loop, Guest *guest) noexcept nogil:
    """The identity is good. A body that is to go up in one piece must be here first."""
    if guest.gathers and guest.body_missing:
        bd_gather(loop, guest)
    else:
        ex_place(loop, guest)


cdef void ex_place(LoopState *loop, Guest *guest) noexcept nogil:
    """Everything is here: a connection to Nova, or a place in the queue for one."""
    if guest.upstream_by_ms == 0:
        guest.upstream_by_ms = loop.now_ms + loop.settings.upstream_timeout_ms
    if by_likely(not loop.away and ls_is_empty(&loop.round) and pl_is_free(loop, guest.source)):
        ex_take(loop, guest)
        return
    guest.phase = GS_PLACE
    pl_wait(loop, guest)
    if not loop.away and not pl_is_free(loop, guest.source):
        rg_problem_of(loop, PR_UPSTREAM_FULL, 0, guest.scope.number, 0, guest.address)
    gs_park(loop, guest, loop.away)


cdef void ex_take(LoopState *loop, Guest *guest) noexcept nogil:
    """Takes a place: a connection to one of Nova's servers."""
    cdef Server *server
    if by_unlikely(guest.body_missing and not pl_may_stream(loop, guest.source)):
        rg_problem_of(loop, PR_BODIES_FULL, 0, guest.scope.number, 0, guest.address)
        ex_refuse(loop, guest, RF_BODIES)
        return
    server = sv_pick(loop, guest.repeatable)
    if by_unlikely(server is NULL):
        # The try of a server, just now, was the last that there was.
        guest.phase = GS_PLACE
        pl_wait(loop, guest)
        gs_park(loop, guest, loop.away)
        return
    ex_take_from(loop, guest, server)


cdef void ex_take_from(LoopState *loop, Guest *guest, Server *server) noexcept nogil:
    """Takes a kept connection (rule 3: only for what may be repeated), or opens one."""
    cdef Upstream *up
    if by_unlikely(loop.batch_full):
        up_check_idle(loop, server)
    if by_likely(guest.repeatable and not guest.fresh_only and not server.away and not ls_is_empty(&server.idle)):
        up = <Upstream *> server.idle.next.owner
        up_engage(loop, up, guest, False)
        ex_send(loop, guest)
        return
    if (server.busy_n + server.released_n + server.idle_n >= loop.settings.max_upstream_connections
            and not ls_is_empty(&server.idle)):
        up_close(loop, <Upstream *> server.idle.previous.owner)
    # The next of equals is another one.
    ls_remove(&server.link)
    ls_insert(&loop.servers, &server.link, server)
    up_open(loop, guest, server, False)


cdef size_t ex_build(LoopState *loop, Guest *guest, Upstream *up) noexcept nogil:
    """Writes head and body to loop.scratch and returns their length; 0 when the identity has ended: it is looked at
    again, because this is the moment that rule 1 means."""
    cdef Buffer *buffer = guest.received
    cdef const ServerSpec *spec = &up.server.spec
    cdef Entry *entry = id_find(loop, guest.scope, guest.address, guest.interface)
    cdef Out out
    if by_unlikely(not id_is_good(loop, entry)):
        return 0
    out.data = loop.scratch
    out.length = 0
    out.capacity = SCRATCH
    out.overflow = False
    up.naming = entry.naming
    up.signed_twice = entry.identity.signed_twice
    if by_unlikely(up.signed_twice):
        up.signed_next = up.server.prefers_next
        if guest.signature != SG_ANY and guest.signature_for == spec.number:
            up.signed_next = guest.signature == SG_NEXT
    elif by_unlikely(up.server.prefers_next):
        up.server.prefers_next = False     # that change of the secret is over: in another one the next is unknown there
    hd_request(&out, &buffer.head, buffer.data + buffer.start, entry.identity, up.signed_twice and up.signed_next,
               spec.host, spec.host_length, guest.body_length)
    if guest.body is not NULL:
        by_put(&out, guest.body.data, guest.body.end)
    elif guest.body_here:
        by_put(&out, buffer.data + buffer.start + guest.body_at, guest.body_here)
    if by_unlikely(loop.settings.access_log):
        guest.instance_length = <uint8_t> entry.identity.instance_length
        memcpy(guest.instance, entry.identity.data + entry.identity.instance_at, guest.instance_length)
    return out.length


cdef void ex_send(LoopState *loop, Guest *guest) noexcept nogil:
    """Sends head and body on guest.up, which is connected."""
    cdef Upstream *up = guest.up
    cdef size_t length = ex_build(loop, guest, up)
    cdef ssize_t n
    if by_unlikely(length == 0):
        up_detach(loop, up)
        up_release(loop, up)
        ex_resolve(loop, guest)
        return
    if guest.body is NULL:
        guest.body_left -= guest.body_here
    guest.sent_us = loop.now_us
    guest.revision = guest.scope.revision
    n = up_send(up, loop.scratch, length)
    if n < 0:
        if errno != EAGAIN and errno != EINTR:
            up_lost(loop, up)
            return
        n = 0
    st_count(loop, guest.scope, CT_BYTES_UP, <uint64_t> n)
    if by_unlikely(<size_t> n < length):
        up.unsent = bf_copy(loop, loop.scratch + n, length - <size_t> n)
        if up.unsent is NULL or st_watch(loop, &up.socket, EPOLLIN | EPOLLOUT) < 0:
            ex_refuse(loop, guest, RF_RESOURCES)
            return
    tm_set(loop, &guest.timer, guest, guest.upstream_by_ms)
    se_begin(loop, guest)
    ex_sent(loop, guest)


cdef void ex_sent(LoopState *loop, Guest *guest) noexcept nogil:
    """What there was has gone up, or waits in up.unsent; more of the body may have to come."""
    if by_likely(guest.body_left == 0 and guest.up.unsent is NULL):
        if by_likely(guest.phase != GS_RELAY):
            guest.phase = GS_ANSWER
            tm_set(loop, &guest.timer, guest, guest.upstream_by_ms)
        return
    if guest.phase == GS_RELAY:
        return
    if guest.phase != GS_SEND:
        guest.phase = GS_SEND
        gs_deadline(loop, guest, loop.settings.body_timeout_ms)
    if guest.up.unsent is NULL:
        bd_continue(loop, guest)
        if not guest.socket.dead:
            gs_want_input(loop, guest)
    elif st_watch(loop, &guest.socket, 0) < 0:
        gs_close(loop, guest, CE_RESOURCES, False)


cdef void ex_pause(LoopState *loop, Guest *guest) noexcept nogil:
    """Nova closed a fresh connection without an answer: a request that may be repeated waits a little, on its own, so
    that one request that makes Nova fail does not count against all."""
    if guest.park_left_ms == 0:
        ex_refuse(loop, guest, RF_PARKED_LONG)
        return
    guest.phase = GS_PAUSE
    guest.pause_ms *= 2
    if guest.pause_ms == 0:
        guest.pause_ms = EX_FIRST_PAUSE_MS
    elif guest.pause_ms > EX_LONGEST_PAUSE_MS:
        guest.pause_ms = EX_LONGEST_PAUSE_MS
    if not gs_park(loop, guest, True):
        return
    gs_deadline(loop, guest, min(<uint64_t> guest.pause_ms + st_random(loop, guest.pause_ms), guest.park_left_ms))


cdef void ex_refuse(LoopState *loop, Guest *guest, int reason) noexcept nogil:
    """Answers by ourselves, with the status of the reason (RF_*)."""
    cdef uint32_t retry_after_s = 0
    if rf_status(reason) == 503:
        retry_after_s = 1 + st_random(loop, 3)     # jittered, so that they do not all come again at once
    ex_refuse_for(loop, guest, reason, retry_after_s)


cdef void ex_refuse_for(LoopState *loop, Guest *guest, int reason, uint32_t retry_after_s) noexcept nogil:
    """The same, with a Retry-After unless it is 0. Whatever of the answer has gone out already cannot be taken back:
    then it is cut."""
    cdef Out out
    cdef uint8_t answer[HD_MAX_ANSWER]
    cdef int status = rf_status(reason)
    gs_unpark(loop, guest)
    ls_remove(&guest.wait)
    if guest.begun:
        ex_cut(loop, guest)
        return
    up_drop(loop, guest)
    st_count(loop, guest.scope, CT_REFUSED + reason, 1)
    if guest.body_missing or not (status == 404 or status == 429 or status >= 502):
        guest.keep_alive = False
    guest.reason = <uint8_t> reason
    guest.status = <uint16_t> status
    guest.answer_bytes = 0 if guest.head_method else strlen(hd_text(status))
    out.data = answer
    out.length = 0
    out.capacity = HD_MAX_ANSWER
    out.overflow = False
    hd_answer(&out, status, retry_after_s, guest.head_method, guest.http11, guest.keep_alive)
    guest.phase = GS_FLUSH
    if gs_send(loop, guest, out.data, out.length) and guest.out is NULL:
        ex_done(loop, guest)


cdef void ex_cut(LoopState *loop, Guest *guest) noexcept nogil:
    """The answer ends here although it is not whole: the guest must see that it is not."""
    cdef bint until_close = guest.up is not NULL and guest.up.framing_down == H1_FRAMING_CLOSE
    up_drop(loop, guest)
    guest.keep_alive = False
    guest.cut = True
    if until_close:
        gs_close(loop, guest, CE_CUT, True)    # only a reset tells it from a whole answer
    elif guest.out is NULL:
        gs_close(loop, guest, CE_CUT, False)
    else:
        guest.phase = GS_FLUSH             # what is on its way still goes


cdef void ex_done(LoopState *loop, Guest *guest) noexcept nogil:
    """The answer is with the guest's kernel. On to the next request, or to the end."""
    cdef Buffer *buffer = guest.received
    if guest.cut:
        gs_close(loop, guest, CE_CUT, False)
        return
    ex_count(loop, guest, True)
    ex_record(loop, guest, True)
    guest.request_open = False
    gs_drop_body(loop, guest)
    if buffer is not NULL:
        buffer.start += guest.consumed
        if buffer.start == buffer.end:
            bf_give(loop, &guest.received)
        else:
            bf_clear_head(buffer)
    if not guest.keep_alive or guest.listener.draining:
        gs_leave(loop, guest)
        return
    ex_reset(guest)
    if by_unlikely(guest.relayed) and not ry_leave(loop, guest):
        return
    gs_idle(loop, guest)
    if guest.received is NULL:
        gs_want_input(loop, guest)
    elif not guest.busy:
        gs_process(loop, guest)


cdef void ex_reset(Guest *guest) noexcept nogil:
    """Forgets the last request."""
    guest.begun = False
    guest.held = False
    guest.body_missing = False
    guest.gathers = False
    guest.fresh_only = False
    guest.continue_wanted = False
    guest.head_method = False
    guest.repeatable = False
    guest.was_parked = False
    guest.signature = SG_ANY
    guest.reason = RF_NONE
    guest.answer_by_ms = 0
    guest.consumed = 0
    guest.body_here = 0
    guest.pause_ms = 0
    guest.body_left = 0
    guest.parked_us = 0
    guest.upstream_by_ms = 0
    guest.sent_us = 0
    guest.upstream_us = 0
    guest.answer_bytes = 0
    guest.status = 0
    guest.upstream_status = 0
    guest.instance_length = 0
    memset(&guest.chunked, 0, sizeof(Chunked))
