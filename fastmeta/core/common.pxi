# What all parts use: lists, buffers, epoll, clock, jitter. Prefixes ls_ (list), bf_ (buffer), st_ (the loop's state).

cdef inline void ls_init(Link *head) noexcept nogil:
    """An empty list."""
    head.previous = head
    head.next = head
    head.owner = NULL


cdef inline bint ls_is_empty(const Link *head) noexcept nogil:
    return head.next == head


cdef inline void ls_insert(Link *before, Link *link, void *owner) noexcept nogil:
    """Puts link in front of before; with the list's head as before: at the end."""
    link.owner = owner
    link.previous = before.previous
    link.next = before
    before.previous.next = link
    before.previous = link


cdef inline void ls_remove(Link *link) noexcept nogil:
    """Takes link out of whatever list it is in; none is fine too."""
    if link.next is not NULL:
        link.previous.next = link.next
        link.next.previous = link.previous
        link.next = NULL
        link.previous = NULL


cdef inline void bf_init_data(Buffer *buffer) noexcept nogil:
    buffer.data = <uint8_t *> buffer + sizeof(Buffer)


cdef Buffer *bf_take(LoopState *loop, bint large) noexcept nogil:
    """An empty buffer, or NULL. Its head is cleared, but for the array of headers."""
    cdef Buffer *buffer
    cdef size_t size = <size_t> (BF_LARGE if large else BF_SMALL)
    if large and loop.large is not NULL:
        buffer = loop.large
        loop.large = buffer.next
        loop.large_n -= 1
    elif not large and loop.small is not NULL:
        buffer = loop.small
        loop.small = buffer.next
        loop.small_n -= 1
    else:
        buffer = <Buffer *> malloc(sizeof(Buffer) + size)
        if buffer is NULL:
            return NULL
        bf_init_data(buffer)
        buffer.capacity = <uint32_t> size
    buffer.next = NULL
    buffer.start = 0
    buffer.end = 0
    bf_clear_head(buffer)
    return buffer


cdef Buffer *bf_copy(LoopState *loop, const uint8_t *data, size_t length) noexcept nogil:
    """A buffer, of any capacity, that holds these bytes; NULL without memory."""
    cdef Buffer *buffer
    if length <= BF_LARGE:
        buffer = bf_take(loop, length > BF_SMALL)
    else:
        buffer = <Buffer *> malloc(sizeof(Buffer) + length)
        if buffer is not NULL:
            memset(buffer, 0, sizeof(Buffer))
            bf_init_data(buffer)
            buffer.capacity = <uint32_t> length
    if buffer is not NULL:
        memcpy(buffer.data, data, length)
        buffer.end = <uint32_t> length
    return buffer


cdef void bf_to_front(Buffer *buffer) noexcept nogil:
    """Moves what the buffer holds to its front: all of its room is behind it then."""
    if buffer.start > 0:
        memmove(buffer.data, buffer.data + buffer.start, buffer.end - buffer.start)
        buffer.end -= buffer.start
        buffer.start = 0


cdef inline void bf_clear_head(Buffer *buffer) noexcept nogil:
    memset(&buffer.head, 0, <size_t> (<uint8_t *> &buffer.head.headers[0] - <uint8_t *> &buffer.head))


cdef void bf_give(LoopState *loop, Buffer **place) noexcept nogil:
    """Gives the buffer at place back, if there is one, and clears the place."""
    cdef Buffer *buffer = place[0]
    if buffer is NULL:
        return
    place[0] = NULL
    if buffer.capacity == BF_SMALL and loop.small_n < BF_KEEP:
        buffer.next = loop.small
        loop.small = buffer
        loop.small_n += 1
    elif buffer.capacity == BF_LARGE and loop.large_n < BF_KEEP // 4:
        buffer.next = loop.large
        loop.large = buffer
        loop.large_n += 1
    else:
        free(buffer)


cdef inline void *st_new(Spares *spares) noexcept nogil:
    """A record, all zero; NULL without memory."""
    cdef Spare *spare = spares.first
    if by_unlikely(spare is NULL):
        return calloc(1, spares.size)
    spares.first = spare.next
    spares.n -= 1
    memset(spare, 0, spares.size)
    return spare


cdef inline void st_give(Spares *spares, void *record) noexcept nogil:
    """Keeps a record of st_new, or frees it."""
    if by_unlikely(spares.n >= ST_KEEP):
        free(record)
        return
    (<Spare *> record).next = spares.first
    spares.first = <Spare *> record
    spares.n += 1


cdef void st_free_spares(Spares *spares) noexcept nogil:
    cdef Spare *spare
    while spares.first is not NULL:
        spare = spares.first
        spares.first = spare.next
        free(spare)
    spares.n = 0


cdef inline void st_count(LoopState *loop, Scope *scope, int index, uint64_t n) noexcept nogil:
    """Counts something of a scope."""
    ct_count(&loop.counters, scope.counters, index, n)


cdef inline void st_uncount(LoopState *loop, Scope *scope, int index) noexcept nogil:
    ct_uncount(&loop.counters, scope.counters, index)


cdef uint32_t st_random(LoopState *loop, uint32_t below) noexcept nogil:
    """For jitter only (xorshift64)."""
    loop.random ^= loop.random << 13
    loop.random ^= loop.random >> 7
    loop.random ^= loop.random << 17
    return <uint32_t> (loop.random % below)


cdef int st_watch(LoopState *loop, Socket *socket, uint32_t interest) noexcept nogil:
    """Makes epoll report interest (0: only errors and hang-ups). Returns 0 or -1."""
    cdef epoll_event event
    cdef int operation = EPOLL_CTL_MOD if socket.interest else EPOLL_CTL_ADD
    # EPOLLERR is always reported; here it marks a socket as registered.
    interest |= EPOLLERR
    if socket.interest == interest:
        return 0
    event.events = interest
    event.data.ptr = socket
    if epoll_ctl(loop.epoll, operation, socket.fd, &event) < 0:
        return -1
    socket.interest = interest
    return 0


cdef void st_unwatch(LoopState *loop, Socket *socket) noexcept nogil:
    """Makes epoll report nothing at all, hang-ups neither. Whoever closes a socket calls it first: epoll forgets a
    closed descriptor only when nobody shares what it stands for. A forked process does, and who gave us a
    listener."""
    cdef epoll_event event                 # Linux before 2.6.9 wanted one; the type still does
    if socket.interest:
        epoll_ctl(loop.epoll, EPOLL_CTL_DEL, socket.fd, &event)
        socket.interest = 0


cdef void st_signal(int fd) noexcept nogil:
    """Makes an eventfd readable."""
    cdef uint64_t one = 1
    if write(fd, &one, sizeof(one)) < 0:
        return                             # full (2^64 - 2): it is readable anyway


cdef void st_clear_signal(int fd) noexcept nogil:
    """Whatever is signalled after this makes the eventfd readable again."""
    cdef uint64_t signals
    if read(fd, &signals, sizeof(signals)) < 0:
        return                             # it was not readable


cdef void st_read_clock(LoopState *loop) noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    loop.now_us = <uint64_t> now.tv_sec * 1000000 + <uint64_t> now.tv_nsec // 1000
    loop.now_ms = loop.now_us // 1000
