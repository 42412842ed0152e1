# Nova's answer, from the upstream connection to the guest. Prefix an_ (and up_read, where it begins).
#
# A received buffer is laid out so that what goes down is one piece: BF_FRONT bytes of room, the answer's head, content,
# BF_BACK bytes of room. Our head is built elsewhere and copied so that it ends where the content begins; a chunk's size
# is put right before its content, a chunk's end right behind. So one send passes head and content on.

cdef void up_read(LoopState *loop, Upstream *up) noexcept nogil:
    """Reads what came from Nova and passes it on, as far as the guest takes it."""
    cdef Guest *guest = up.guest
    cdef Buffer *buffer
    cdef ssize_t n
    cdef size_t room
    cdef int reads = 0
    cdef int on = 1
    while reads < UP_READS:
        reads += 1
        if guest.out is not NULL:
            # The guest is slower than Nova: look away, also from hang-ups, until it has taken what there is.
            st_unwatch(loop, &up.socket)
            return
        if up.received is NULL and not an_buffer(loop, up):
            return
        buffer = up.received
        room = buffer.capacity - BF_BACK - buffer.end
        n = up_receive(up, buffer.data + buffer.end, room)
        if by_unlikely(n <= 0):
            if n < 0 and (errno == EAGAIN or errno == EINTR):
                if buffer.start == buffer.end:
                    bf_give(loop, &up.received)
            else:
                if by_unlikely(errno == EPROTO and n < 0):
                    rg_of_server(loop, up.server, PR_UPSTREAM_TLS, tl_error(), 0)
                an_end(loop, up, n == 0)
            return
        buffer.end += <uint32_t> n
        if up.has_head:
            gs_answer_deadline(loop, guest, loop.settings.upstream_timeout_ms)
            an_content(loop, up, buffer.start, 0)
        else:
            an_head(loop, up)
        if by_likely(up.socket.dead or up.guest is NULL or guest.phase == GS_RECHECK):
            return
        if by_unlikely(tl_holds(up)):
            reads = 0                      # epoll knows nothing of it; see tl_receive for why there is an end of it
        elif <size_t> n < room:
            # More of the answer is to come, but not at once. A server that writes its head and its content separately
            # (RFC 9293 section 3.7.4, Nagle) holds the rest back until we acknowledge: tcp(7) says how to do that now.
            if by_likely(up.server.spec.target.address.ss_family != AF_UNIX):
                setsockopt(up.socket.fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof(on))
            return


cdef bint an_buffer(LoopState *loop, Upstream *up) noexcept nogil:
    """A buffer to receive into; False when there is none (the answer is cut then)."""
    cdef bint large = up.has_head and (up.framing != H1_FRAMING_LENGTH or up.content_left > BF_SMALL)
    up.received = bf_take(loop, large)
    if up.received is NULL:
        rg_problem(loop, PR_MEMORY, ENOMEM, 0, 0)
        ex_refuse(loop, up.guest, RF_RESOURCES)
        return False
    up.received.start = BF_FRONT
    up.received.end = BF_FRONT
    return True


cdef void an_head(LoopState *loop, Upstream *up) noexcept nogil:
    """Bytes of a head have come. When it is complete the answer is looked at, and goes down."""
    cdef Guest *guest = up.guest
    cdef Buffer *buffer = up.received
    cdef Head *head = &buffer.head
    cdef int length
    while True:
        length = h1_parse_response(head, buffer.data + buffer.start, buffer.end - buffer.start, LARGEST_HEAD,
                                   guest.head_method)
        if length == 0 and buffer.end < buffer.capacity - BF_BACK:
            return
        if length <= 0 or (head.status < 200 and up.interim_n == UP_MAX_INTERIM):
            up_nonsense(loop, up)
            return
        if by_likely(head.status >= 200):
            break
        # RFC 9110 section 15.2: interim answers are not for the guest, which asked for none of them from Nova.
        up.interim_n += 1
        buffer.start += <uint32_t> length
        bf_clear_head(buffer)
        if buffer.start == buffer.end:
            buffer.start = BF_FRONT
            buffer.end = BF_FRONT
            return
    if by_unlikely(guest.second is not NULL):
        se_won(loop, up)
    sv_answered(loop, up.server, loop.now_us - guest.sent_us)
    if by_unlikely(up.signed_twice) and an_other_secret(loop, up, head.status):
        return
    guest.upstream_us += loop.now_us - guest.sent_us
    if by_unlikely(head.status == 404) and rc_hold(loop, up, <uint32_t> length):
        return
    an_begin(loop, up, <uint32_t> length)


cdef inline void an_begin(LoopState *loop, Upstream *up, uint32_t head_length) noexcept nogil:
    """The answer's head, which is here, goes down, with what there is of the content."""
    cdef Guest *guest = up.guest
    cdef Buffer *buffer = up.received
    cdef Head *head = &buffer.head
    cdef Out out
    cdef size_t content_at
    up.has_head = True
    guest.naming = up.naming
    up.framing = head.framing
    # uwsgi's router (http-auto-chunked) sends a last chunk after its answer to HEAD, a moment later: it would come
    # before the next guest's answer.
    up.reusable = head.keep_alive and not (guest.head_method and head.has_coding)
    up.content_left = <uint64_t> head.content_length if head.framing == H1_FRAMING_LENGTH else 0
    memset(&up.chunked, 0, sizeof(Chunked))
    guest.status = head.status
    guest.upstream_status = head.status
    if head.status == 403:
        rg_of_server(loop, up.server, PR_UPSTREAM_REFUSES_SIGNATURE, 0, guest.scope.number)
    if guest.body_left or up.unsent is not NULL:
        # It answers before it has the whole request: neither connection can be used again.
        up.reusable = False
        guest.keep_alive = False
    up.framing_down = head.framing
    if head.framing == H1_FRAMING_CHUNKED or head.framing == H1_FRAMING_CLOSE:
        # The length is not known beforehand: chunked, or, for HTTP/1.0, until the connection closes.
        up.framing_down = <uint8_t> (H1_FRAMING_CHUNKED if guest.http11 else H1_FRAMING_CLOSE)
        if not guest.http11:
            guest.keep_alive = False
    if guest.listener.draining:
        guest.keep_alive = False
    out.data = loop.scratch
    out.length = 0
    out.capacity = SCRATCH
    out.overflow = False
    hd_response(&out, head, buffer.data + buffer.start, up.framing_down, guest.http11, guest.keep_alive)
    content_at = buffer.start + <size_t> head_length
    if by_unlikely(content_at < out.length + AN_CHUNK_SIZE):
        up_nonsense(loop, up)              # cannot be: see HD_RESPONSE_GROWTH
        return
    guest.phase = GS_RELAY
    gs_answer_deadline(loop, guest, loop.settings.upstream_timeout_ms)
    an_content(loop, up, content_at, out.length)


cdef bint an_other_secret(LoopState *loop, Upstream *up, int status) noexcept nogil:
    """While the secret is being changed Nova's servers have one or the other. A request that may be repeated and got
    403 is sent once more, signed with the other one; what a server accepts it gets from then on. True when it was
    sent."""
    cdef Guest *guest = up.guest
    cdef Server *server = up.server
    cdef bint repeated = guest.signature != SG_ANY and guest.signature_for == server.spec.number
    if status != 403:
        if repeated and server.prefers_next != up.signed_next:
            server.prefers_next = up.signed_next
            if server.prefers_next:
                rg_of_server(loop, server, PR_NEXT_SECRET, 0, 0)
        return False
    if repeated or not guest.repeatable:
        return False
    guest.signature_for = server.spec.number
    guest.signature = <uint8_t> (SG_PRESENT if up.signed_next else SG_NEXT)
    st_count(loop, guest.scope, CT_SECRET_RETRIES, 1)
    guest.upstream_us += loop.now_us - guest.sent_us
    up_close(loop, up)                     # the rest of its answer is of no use
    if server.removed:
        ex_place(loop, guest)
    else:
        ex_take_from(loop, guest, server)  # not another one, which may have the first secret
    return True


cdef enum:
    AN_CHUNK_SIZE = 18                     # 16 digits and CRLF


cdef void an_content(LoopState *loop, Upstream *up, size_t at, size_t head_length) noexcept nogil:
    """Passes on the content that begins at `at` in the received buffer. head_length: of the head in loop.scratch that
    goes before it, 0 for none."""
    cdef Guest *guest = up.guest
    cdef Buffer *buffer = up.received
    cdef uint8_t size_text[AN_CHUNK_SIZE]
    cdef size_t length = buffer.end - at
    cdef size_t used = length
    cdef size_t n
    cdef int state = CK_MORE
    if up.framing == H1_FRAMING_LENGTH:
        if length >= up.content_left:
            length = <size_t> up.content_left
            used = length
            state = CK_DONE
        up.content_left -= length
    elif up.framing == H1_FRAMING_CHUNKED:
        n = length
        state = ck_decode(&up.chunked, buffer.data + at, n, &length, &used)
        if state < 0:
            up_nonsense(loop, up)
            return
    elif up.framing == H1_FRAMING_NONE:
        length = 0
        used = 0
        state = CK_DONE
    if at + used < buffer.end:
        up.reusable = False                # bytes after the end: nobody asked for them
    guest.answer_bytes += length
    buffer.start = <uint32_t> at
    buffer.end = <uint32_t> (at + length)
    if up.framing_down == H1_FRAMING_CHUNKED:
        if length:
            n = by_hex(size_text, length)
            size_text[n] = 13
            size_text[n + 1] = 10
            buffer.start -= <uint32_t> (n + 2)
            memcpy(buffer.data + buffer.start, size_text, n + 2)
            memcpy(buffer.data + buffer.end, b"\r\n", 2)
            buffer.end += 2
        if state == CK_DONE:
            memcpy(buffer.data + buffer.end, b"0\r\n\r\n", 5)
            buffer.end += 5
    if head_length:
        buffer.start -= <uint32_t> head_length
        memcpy(buffer.data + buffer.start, loop.scratch, head_length)
    if not gs_send_buffer(loop, guest, &up.received):
        return
    if state == CK_DONE:
        an_finish(loop, up)
    elif up.received is not NULL:
        buffer.start = BF_FRONT
        buffer.end = BF_FRONT
        if buffer.capacity == BF_SMALL:
            bf_give(loop, &up.received)    # more to come: perhaps in a larger one


cdef void an_finish(LoopState *loop, Upstream *up) noexcept nogil:
    """The answer ended as it should. The connection goes back to the pool, or not (rule 3)."""
    cdef Guest *guest = up.guest
    up_detach(loop, up)
    if by_unlikely(up.tls is not NULL and not up.session_kept):
        tl_keep_session(up, &up.server.session)
    if by_likely(up.reusable and guest.body_left == 0 and up.unsent is NULL and up.framing != H1_FRAMING_CLOSE
                 and not tl_holds(up)):
        if by_unlikely(up.socket.interest == 0):
            up.reusable = st_watch(loop, &up.socket, EPOLLIN) == 0
    else:
        up.reusable = False
    if up.reusable:
        up_release(loop, up)
    else:
        up_close(loop, up)
    guest.phase = GS_FLUSH
    if guest.out is NULL:
        ex_done(loop, guest)


cdef void an_end(LoopState *loop, Upstream *up, bint orderly) noexcept nogil:
    """Nova's side of the connection ended: closed (orderly) or reset."""
    cdef Guest *guest = up.guest
    cdef Buffer *buffer = up.received
    if not up.has_head:
        if buffer.start == buffer.end and up.interim_n == 0:
            up_lost(loop, up)
        else:
            up_nonsense(loop, up)
    elif up.framing == H1_FRAMING_CLOSE and orderly:
        if up.framing_down == H1_FRAMING_CHUNKED:
            memcpy(buffer.data + buffer.end, b"0\r\n\r\n", 5)
            buffer.end += 5
            if not gs_send_buffer(loop, guest, &up.received):
                return
        an_finish(loop, up)
    else:
        ex_cut(loop, guest)
