/* The system calls of the kernel of our own, as the core calls them: see kernel.h. */
#ifndef FUZZ_CALLS_H
#define FUZZ_CALLS_H

#include "kernel.h"

static int kernel_accept4(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
    hook_call();
    struct descriptor *listener = fd_get(fd, K_LISTENER, "accept4()");
    if (flags != (SOCK_NONBLOCK | SOCK_CLOEXEC))
        complain("accept4() without SOCK_NONBLOCK | SOCK_CLOEXEC");
    if (listener->queue_n == 0) {
        errno = EAGAIN;
        return -1;
    }
    if (fault(CALL_ACCEPT)) {
        if (errno == ECONNABORTED || errno == EPROTO) {
            /* accept(2): the error was that connection's, which is gone. */
            struct wire *wire = listener->queue[0];
            listener->queue_n--;
            memmove(listener->queue, listener->queue + 1, listener->queue_n * sizeof *listener->queue);
            wire_end(wire, true);
            errno = ECONNABORTED;
            kernel.progress++;
        }
        return -1;
    }
    int new = fd_take(K_STREAM);
    if (new < 0)
        return -1;
    struct wire *wire = listener->queue[0];
    listener->queue_n--;
    memmove(listener->queue, listener->queue + 1, listener->queue_n * sizeof *listener->queue);
    wire->fd = new;
    wire->listener = -1;
    kernel.fds[new - FD_FIRST].wire = wire;
    if (*length < wire->peer_length)
        complain("accept4() with %u bytes for an address of %u", *length, wire->peer_length);
    memcpy(address, &wire->peer, wire->peer_length);
    *length = wire->peer_length;
    kernel.accepted++;
    kernel.guests_open++;
    return new;
}

static ssize_t kernel_recv(int fd, void *data, size_t length, int flags)
{
    hook_call();
    struct wire *wire = fd_get(fd, K_STREAM, "recv()")->wire;
    size_t there = bytes_length(&wire->in);
    if (length == 0)
        complain("recv() into no room at all");
    if (wire->connecting) {
        errno = EAGAIN;
        return -1;
    }
    if (fault(CALL_RECV)) {
        if (errno != EINTR) {
            wire->down = true;         /* ETIMEDOUT, ECONNRESET: tcp(7) */
            bytes_clear(&wire->in);
        }
        return -1;
    }
    if (there) {
        if (length > there)
            length = there;
        memcpy(data, wire->in.data + wire->in.start, length);
        if (!(flags & MSG_PEEK)) {
            wire->in.start += length;
            kernel.progress++;
        }
        return (ssize_t)length;
    }
    if (wire->error) {
        errno = wire->error;
        if (!(flags & MSG_PEEK))
            wire->error = 0;
        kernel.progress++;
        return -1;
    }
    if (wire->in_ended || wire->down)
        return 0;
    errno = EAGAIN;
    return -1;
}

static ssize_t kernel_send(int fd, const void *data, size_t length, int flags)
{
    hook_call();
    struct wire *wire = fd_get(fd, K_STREAM, "send()")->wire;
    if (!(flags & MSG_NOSIGNAL))
        complain("send() without MSG_NOSIGNAL");
    if (length == 0)
        complain("send() of nothing");
    if (wire->out_ended)
        complain("send() after shutdown()");
    hook_send(wire);
    if (wire->connecting) {
        errno = EAGAIN;
        return -1;
    }
    if (fault(CALL_SEND)) {
        if (errno != EINTR && errno != EAGAIN)
            wire->down = true;
        return -1;
    }
    if (wire->error) {
        errno = wire->error;
        wire->error = 0;
        kernel.progress++;
        return -1;
    }
    if (wire->down) {
        errno = EPIPE;
        return -1;
    }
    size_t room = wire->window == SIZE_MAX ? SIZE_MAX : wire->window - (wire->out < wire->window ? wire->out : wire->window);
    if (room == 0) {
        errno = EAGAIN;
        return -1;
    }
    if (length > room)
        length = room;
    if (kernel.send_most_n) {
        kernel.send_most_n--;
        length = length < kernel.send_most ? length : kernel.send_most;
    }
    if (wire->window != SIZE_MAX)
        wire->out += length;
    if (wire->to_nova)
        kernel.bytes_up += length;
    kernel.progress++;
    if (wire->far_closed) {
        far_reset(wire);
        return (ssize_t)length;
    }
    hook_sent(wire, data, length);
    return (ssize_t)length;
}

static int kernel_socket(int domain, int kind, int protocol)
{
    hook_call();
    (void)protocol;
    if ((domain != AF_INET && domain != AF_INET6) || kind != (SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC))
        complain("socket() of an unexpected kind");
    if (fault(CALL_SOCKET))
        return -1;
    return fd_take(K_STREAM);
}

static int kernel_connect(int fd, const struct sockaddr *address, socklen_t length)
{
    hook_call();
    struct descriptor *d = fd_get(fd, K_STREAM, "connect()");
    if (d->wire)
        complain("connect() twice");
    if (length != (address->sa_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6)))
        complain("connect() with an address of %u bytes", length);
    struct wire *wire = wire_take(true);
    kernel.connects++;
    if (!wire) {
        errno = ENOBUFS;
        return -1;
    }
    wire->fd = fd;
    memcpy(&wire->peer, address, length);
    wire->peer_length = length;
    d->wire = wire;
    kernel.novas_open++;
    kernel.progress++;
    int error = fault(CALL_CONNECT) ? errno : hook_connect(wire);
    if (error == EINPROGRESS)
        wire->connecting = true;
    else if (error)
        wire->down = true;
    if (!error)
        return 0;
    errno = error;
    return -1;
}

static int kernel_close(int fd)
{
    hook_call();
    struct descriptor *d = fd_get(fd, K_FREE, "close()");
    if (d->watched && (d->kind == K_STREAM || d->kind == K_LISTENER))
        complain("close() of a socket that epoll still watches: see st_unwatch");
    enum kind kind = d->kind;
    d->kind = K_FREE;
    kernel.progress++;
    if (d->wire) {
        struct wire *wire = d->wire;
        d->wire = NULL;
        if (wire->to_nova)
            kernel.novas_open--;
        else
            kernel.guests_open--;
        wire_end(wire, wire->no_linger || bytes_length(&wire->in) > 0);
    }
    while (d->queue_n)
        wire_end(d->queue[--d->queue_n], true);
    if (kind == K_LISTENER)
        hook_listener_closed(fd);
    return 0;
}

static int kernel_shutdown(int fd, int how)
{
    hook_call();
    struct wire *wire = fd_get(fd, K_STREAM, "shutdown()")->wire;
    if (how != SHUT_WR)
        complain("shutdown(%d)", how);
    if (wire->down) {
        errno = ENOTCONN;
        return -1;
    }
    wire->out_ended = true;
    kernel.progress++;
    hook_shut(wire);
    return 0;
}

static int kernel_setsockopt(int fd, int level, int name, const void *value, socklen_t length)
{
    hook_call();
    struct wire *wire = fd_get(fd, K_STREAM, "setsockopt()")->wire; /* NULL: not connected yet */
    if (level == SOL_SOCKET && name == SO_LINGER && wire) {
        const struct linger *linger = value;
        if (length != sizeof *linger)
            complain("SO_LINGER of %u bytes", length);
        wire->no_linger = linger->l_onoff && linger->l_linger == 0;
    }
    return 0;
}

static int kernel_getsockopt(int fd, int level, int name, void *value, socklen_t *length)
{
    hook_call();
    struct wire *wire = fd_get(fd, K_STREAM, "getsockopt()")->wire;
    if (level != SOL_SOCKET || name != SO_ERROR || *length < sizeof(int))
        complain("getsockopt() of something else than SO_ERROR");
    memcpy(value, &wire->error, sizeof(int));
    *length = sizeof(int);
    if (wire->error)
        kernel.progress++;
    wire->error = 0;
    return 0;
}

static int kernel_epoll_create1(int flags)
{
    if (flags != EPOLL_CLOEXEC)
        complain("epoll_create1() without EPOLL_CLOEXEC");
    return fault(CALL_START) ? -1 : fd_take(K_EPOLL);
}

static int kernel_eventfd(unsigned start, int flags)
{
    /* Without EFD_NONBLOCK: a descriptor that is only kept, and never read. */
    if (flags != (EFD_CLOEXEC | EFD_NONBLOCK) && flags != EFD_CLOEXEC)
        complain("eventfd() with other flags");
    int fd = fault(CALL_START) ? -1 : fd_take(K_EVENT);
    if (fd >= 0)
        kernel.fds[fd - FD_FIRST].count = start;
    return fd;
}

static int kernel_timerfd_create(int clock, int flags)
{
    if (clock != CLOCK_MONOTONIC || flags != (TFD_CLOEXEC | TFD_NONBLOCK))
        complain("timerfd_create() with other flags");
    return fault(CALL_START) ? -1 : fd_take(K_TIMER);
}

static int kernel_timerfd_settime(int fd, int flags, const struct itimerspec *value, struct itimerspec *old)
{
    hook_call();
    struct descriptor *timer = fd_get(fd, K_TIMER, "timerfd_settime()");
    if (flags != TFD_TIMER_ABSTIME || old || value->it_interval.tv_sec || value->it_interval.tv_nsec)
        complain("timerfd_settime() of an unexpected kind");
    if (value->it_value.tv_nsec < 0 || value->it_value.tv_nsec > 999999999 || value->it_value.tv_sec < 0)
        complain("timerfd_settime() with a time that is none");
    uint64_t due_us = (uint64_t)value->it_value.tv_sec * 1000000 + ((uint64_t)value->it_value.tv_nsec + 999) / 1000;
    if (timer->due_us != due_us)
        kernel.progress++;
    timer->due_us = due_us;
    return 0;
}

static int kernel_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
{
    hook_call();
    fd_get(epoll, K_EPOLL, "epoll_ctl()");
    struct descriptor *d = fd_get(fd, K_FREE, "epoll_ctl()");
    if (operation == EPOLL_CTL_DEL) {
        if (!d->watched)
            complain("EPOLL_CTL_DEL of a descriptor that is not watched");
        d->watched = false;
        kernel.progress++;
        return 0;
    }
    if ((operation == EPOLL_CTL_ADD) == d->watched)
        complain("EPOLL_CTL_%s of a descriptor that is%s watched", operation == EPOLL_CTL_ADD ? "ADD" : "MOD",
                 d->watched ? "" : " not");
    if (fault(CALL_WATCH))
        return -1;
    d->watched = true;
    d->interest = event->events;
    d->data = event->data.ptr;
    kernel.progress++;
    return 0;
}

static int report(struct epoll_event *events, int most)
{
    int n = 0;
    for (unsigned i = 0; i < kernel.fd_most && n < most; i++) {
        unsigned at = (i + kernel.rotation) % kernel.fd_most;
        struct descriptor *d = &kernel.fds[at];
        if (d->kind == K_FREE || !d->watched)
            continue;
        uint32_t found = fd_state(d) & (d->interest | EPOLLERR | EPOLLHUP);
        if (found) {
            events[n].events = found;
            events[n++].data.ptr = d->data;
        }
    }
    return n;
}

static int kernel_epoll_wait(int epoll, struct epoll_event *events, int most, int timeout)
{
    fd_get(epoll, K_EPOLL, "epoll_wait()");
    if (timeout != 0 && timeout != -1)
        complain("epoll_wait() with a timeout of %d", timeout);
    if (++kernel.turns > TURNS)
        complain("more than %d turns", TURNS);
    /* The loop must not turn for ever while nothing changes; nothing can change here but by what it does. */
    if (kernel.progress != kernel.progress_seen)
        kernel.spins = 0;
    else if (++kernel.spins > SPINS)
        complain("the loop spins: %d turns without anything done", SPINS);
    kernel.progress_seen = kernel.progress;
    kernel.in_turn = false;
    hook_wait(timeout != 0);
    int n = -1;
    if (!fault(CALL_WAIT)) {
        n = report(events, most);
        while (n == 0 && timeout != 0 && hook_still_waits())
            n = report(events, most);
    }
    int error = errno;
    if (n >= 0)
        kernel.good_turn = kernel.turns;
    for (unsigned i = 0; i < kernel.wire_most; i++) {
        struct wire *wire = &kernel.wires[i];
        wire->unclean = wire->used && (wire->in_ended || wire->error || wire->down || bytes_length(&wire->in));
    }
    hook_asked();
    kernel.in_turn = true;
    trace("-- turn %lu: %d events, %lu us", (unsigned long)kernel.turns, n, (unsigned long)kernel.now_us);
    errno = error;
    return n;
}

static ssize_t kernel_read(int fd, void *data, size_t length)
{
    hook_call();
    struct descriptor *d = fd_get(fd, K_EVENT, "read()");
    if (length != 8)
        complain("read() of an eventfd, %zu bytes", length);
    if (d->count == 0) {
        errno = EAGAIN;
        return -1;
    }
    memcpy(data, &d->count, 8);
    d->count = 0;
    kernel.progress++;
    return 8;
}

/* By the loop for Python, and by Python for the loop. */
static ssize_t kernel_write(int fd, const void *data, size_t length)
{
    struct descriptor *d = fd_get(fd, K_EVENT, "write()");
    uint64_t value;
    if (length != 8)
        complain("write() of an eventfd, %zu bytes", length);
    memcpy(&value, data, 8);
    d->count += value;
    return 8;
}

static ssize_t kernel_getrandom(void *data, size_t length, unsigned flags)
{
    (void)flags;
    if (fault(CALL_START))
        return -1;
    for (size_t i = 0; i < length; i++) {
        kernel.seed = kernel.seed * 6364136223846793005u + 1442695040888963407u;
        ((uint8_t *)data)[i] = (uint8_t)(kernel.seed >> 56);
    }
    return (ssize_t)length;
}

static int kernel_clock_gettime(int clock, struct timespec *value)
{
    if (clock != CLOCK_MONOTONIC)
        complain("clock_gettime() of another clock");
    value->tv_sec = (time_t)(kernel.now_us / 1000000);
    value->tv_nsec = (long)(kernel.now_us % 1000000 * 1000);
    return 0;
}

static time_t kernel_time(time_t *value)
{
    if (value)
        complain("time() with a place to write to");
    return (time_t)(1700000000 + kernel.now_us / 1000000);
}

/* A connection of a guest, in the queue of a listener; NULL when that is full. */
static struct wire *kernel_arrive(int listener_fd)
{
    struct descriptor *listener = fd_get(listener_fd, K_LISTENER, "connecting");
    struct wire *wire = listener->queue_n < QUEUE ? wire_take(false) : NULL;
    if (wire) {
        wire->listener = listener_fd;
        listener->queue[listener->queue_n++] = wire;
    }
    return wire;
}

static int kernel_listener(void)
{
    return fd_take(K_LISTENER);
}

#endif
