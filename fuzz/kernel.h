/* A kernel of our own, deterministic, for the loop of the core: descriptors, TCP connections, epoll, time, memory.
 *
 * It does what Linux does as far as the loop can see (man pages named where it matters): level-triggered epoll, short
 * sends, resets, the states that tcp_poll() reports. What happens, and when, the script decides (script.h): the kernel
 * asks it by the hooks that are declared first.
 *
 * It complains about what no program may do: use of a descriptor that is not open, a close while epoll still watches,
 * a send without MSG_NOSIGNAL, memory that is never freed, a loop that turns without anything changing. */
#ifndef FUZZ_KERNEL_H
#define FUZZ_KERNEL_H

#include "common.h"
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sanitizer/asan_interface.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { FD_FIRST = 64, FDS = 1024, WIRES = 1024, QUEUE = 512, SPINS = 12, TURNS = 60000 };

enum kind { K_FREE, K_EPOLL, K_EVENT, K_TIMER, K_LISTENER, K_STREAM };

/* A TCP connection. One end is the core's, the other ("far") is ours: a guest or Nova. */
struct wire {
    bool used;
    bool to_nova;
    int fd;            /* the core's; -1: in the queue of the listener */
    int listener;      /* descriptor in whose queue it is; -1: none */
    struct bytes in;   /* on the way to the core, not read yet */
    size_t out;        /* bytes that the core sent and the far end has not read */
    size_t window;     /* what `out` may grow to; SIZE_MAX: the far end reads at once */
    bool in_ended;     /* the far end's FIN has arrived */
    bool out_ended;    /* the core's FIN has gone */
    bool far_closed;   /* nobody is there any more: what the core sends is answered with a reset */
    bool connecting;
    bool down;         /* reset, refused, timed out */
    bool unclean;      /* when epoll was last asked, there was something to read, an end or an error */
    int error;         /* SO_ERROR */
    bool no_linger;
    struct sockaddr_storage peer;
    socklen_t peer_length;
    void *far;         /* struct guest or struct server */
};

struct descriptor {
    enum kind kind;
    bool watched;
    uint32_t interest;
    void *data;
    uint64_t count;    /* eventfd */
    uint64_t due_us;   /* timerfd; 0: not armed */
    struct wire *wire;
    struct wire *queue[QUEUE];
    unsigned queue_n;
};

enum call {
    CALL_ACCEPT, CALL_RECV, CALL_SEND, CALL_SOCKET, CALL_CONNECT, CALL_WATCH, CALL_WAIT, CALL_MEMORY, CALL_START,
    CALLS
};

/* What the script does meanwhile. */
static void hook_call(void);                                          /* a system call begins */
static void hook_wait(bool blocks);                                   /* epoll_wait begins; blocks: until there is an event */
static bool hook_still_waits(void);                                   /* nothing is ready; false: give up (spurious end) */
static void hook_asked(void);                                         /* epoll_wait ends */
static int hook_connect(struct wire *wire);                           /* 0, EINPROGRESS or another error */
static void hook_send(struct wire *wire);                             /* the core tries to send, before it is known how much */
static void hook_sent(struct wire *wire, const uint8_t *data, size_t length);
static void hook_shut(struct wire *wire);                             /* the core's FIN */
static void hook_closed(struct wire *wire, bool reset);               /* the core closed; the wire is gone after this */
static void hook_listener_closed(int fd);

static struct {
    struct descriptor fds[FDS];
    unsigned fd_most;          /* highest that was used in this conversation, and one more */
    unsigned fd_limit;         /* RLIMIT_NOFILE, as it were */
    struct wire wires[WIRES];
    unsigned wire_most;
    uint64_t now_us;
    uint64_t progress;         /* counts everything that changes anything */
    uint64_t progress_seen;
    unsigned spins;
    uint64_t turns;
    unsigned rotation;         /* where epoll begins to report */
    bool in_turn;              /* the loop works; false: it waits in epoll_wait, or is not running */
    struct {
        uint16_t skip, times;
        int error;
    } faults[CALLS];
    uint64_t faults_given;
    uint64_t seed;
    unsigned accepted;         /* connections that the core has taken */
    unsigned guests_open, novas_open;
    size_t send_most;          /* of one call, for so many calls: */
    unsigned send_most_n;
} kernel;

/* Memory. The core's blocks are counted: at the end of a conversation none is left. */

enum { BLOCKS = 16384, LARGE = 65536 + 4096, SPARE = 8 };

static struct block {
    void *memory;
    size_t length;
    const char *function;
    int line;
} blocks[BLOCKS];
static unsigned block_n;

/* Large blocks are kept from one conversation to the next: mapping and unmapping them would cost most of the time. They
 * are poisoned meanwhile, so use after free is seen all the same. */
static struct {
    void *memory;
    size_t length;
} spare[SPARE];

static bool fault(enum call call)
{
    if (kernel.faults[call].times == 0)
        return false;
    if (kernel.faults[call].skip) {
        kernel.faults[call].skip--;
        return false;
    }
    kernel.faults[call].times--;
    kernel.faults_given++;
    errno = kernel.faults[call].error;
    trace("    fault: call %d fails with %s", call, strerror(errno));
    return true;
}

static void *take_block(size_t length, const char *function, int line)
{
    void *memory = NULL;
    for (unsigned i = 0; i < SPARE && !memory; i++) {
        if (spare[i].memory && spare[i].length == length) {
            memory = spare[i].memory;
            spare[i].memory = NULL;
            ASAN_UNPOISON_MEMORY_REGION(memory, length);
        }
    }
    if (!memory)
        memory = malloc(length);
    if (block_n == BLOCKS)
        complain("more than %d blocks of memory", BLOCKS);
    blocks[block_n++] = (struct block){memory, length, function, line};
    return memory;
}

static void *kernel_malloc(size_t length, const char *function, int line)
{
    if (fault(CALL_MEMORY))
        return NULL;
    return take_block(length, function, line);
}

static void *kernel_calloc(size_t n, size_t size, const char *function, int line)
{
    if (fault(CALL_MEMORY))
        return NULL;
    void *memory = take_block(n * size, function, line);
    memset(memory, 0, n * size);
    return memory;
}

static void kernel_free(void *memory)
{
    if (!memory)
        return;
    unsigned at = block_n;
    while (at && blocks[at - 1].memory != memory)
        at--;
    if (!at)
        complain("free() of memory that is not allocated");
    size_t length = blocks[at - 1].length;
    blocks[at - 1] = blocks[--block_n];
    if (length > LARGE) {
        for (unsigned i = 0; i < SPARE; i++) {
            if (!spare[i].memory) {
                spare[i].memory = memory;
                spare[i].length = length;
                ASAN_POISON_MEMORY_REGION(memory, length);
                return;
            }
        }
    }
    free(memory);
}

/* Descriptors: the lowest that is free, as open(2) says, so that numbers are used again at once. */

static int fd_take(enum kind kind)
{
    for (unsigned i = 0; i < FDS && i < kernel.fd_limit; i++) {
        struct descriptor *d = &kernel.fds[i];
        if (d->kind == K_FREE) {
            d->kind = kind;
            d->watched = false;
            d->count = d->due_us = 0;
            d->wire = NULL;
            d->queue_n = 0;
            if (kernel.fd_most <= i)
                kernel.fd_most = i + 1;
            kernel.progress++;
            return (int)i + FD_FIRST;
        }
    }
    errno = EMFILE;
    return -1;
}

static struct descriptor *fd_get(int fd, enum kind kind, const char *what)
{
    if (fd < FD_FIRST || fd >= FD_FIRST + FDS || kernel.fds[fd - FD_FIRST].kind == K_FREE)
        complain("%s of descriptor %d, which is not open", what, fd);
    if (kind != K_FREE && kernel.fds[fd - FD_FIRST].kind != kind)
        complain("%s of descriptor %d, which is of another kind", what, fd);
    return &kernel.fds[fd - FD_FIRST];
}

static struct wire *wire_take(bool to_nova)
{
    for (unsigned i = 0; i < WIRES; i++) {
        struct wire *wire = &kernel.wires[i];
        if (!wire->used) {
            struct bytes in = wire->in;
            *wire = (struct wire){.used = true, .to_nova = to_nova, .fd = -1, .listener = -1, .window = SIZE_MAX};
            wire->in = in;
            bytes_clear(&wire->in);
            if (kernel.wire_most <= i)
                kernel.wire_most = i + 1;
            return wire;
        }
    }
    return NULL;
}

/* What the far end does. */

static void far_bytes(struct wire *wire, const uint8_t *data, size_t length)
{
    if (wire->down || wire->in_ended || length == 0)
        return;
    bytes_append(&wire->in, data, length);
}

static void far_end(struct wire *wire)
{
    wire->in_ended = true;
}

/* As tcp_reset() does: what has arrived can still be read, then comes the error once, then the end. */
static void far_reset(struct wire *wire)
{
    if (wire->down)
        return;
    wire->error = wire->connecting ? ECONNREFUSED : wire->in_ended ? EPIPE : ECONNRESET;
    wire->down = true;
    wire->connecting = false;
}

static void far_read(struct wire *wire, size_t length)
{
    wire->out -= length < wire->out ? length : wire->out;
}

static void wire_end(struct wire *wire, bool reset)
{
    hook_closed(wire, reset);
    wire->used = false;
}

/* tcp_poll() */
static uint32_t wire_state(const struct wire *wire)
{
    bool no_reading = wire->in_ended || wire->down;
    bool no_sending = wire->out_ended || wire->down;
    uint32_t state = 0;
    if (wire->error)
        state |= EPOLLERR;
    if (no_reading && no_sending)
        state |= EPOLLHUP;
    if (wire->connecting)
        return state;
    if (no_reading)
        state |= EPOLLIN | EPOLLRDHUP;
    if (bytes_length(&wire->in))
        state |= EPOLLIN;
    if (no_sending || wire->out < wire->window)
        state |= EPOLLOUT;
    return state;
}

static uint32_t fd_state(const struct descriptor *d)
{
    switch (d->kind) {
    case K_EVENT:
        return (d->count ? EPOLLIN : 0) | EPOLLOUT;
    case K_TIMER:
        return d->due_us && d->due_us <= kernel.now_us ? EPOLLIN : 0;
    case K_LISTENER:
        return d->queue_n ? EPOLLIN : 0;
    case K_STREAM:
        return wire_state(d->wire);
    default:
        return 0;
    }
}

/* The system calls, as the core calls them. */

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
    struct wire *wire = fd_get(fd, K_STREAM, "setsockopt()")->wire;
    if (level == SOL_SOCKET && name == SO_LINGER) {
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
    if (flags != (EFD_CLOEXEC | EFD_NONBLOCK))
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

static void kernel_start(uint64_t seed, uint64_t now_us)
{
    for (unsigned i = 0; i < kernel.fd_most; i++) {
        kernel.fds[i].kind = K_FREE;
        kernel.fds[i].watched = false;
    }
    for (unsigned i = 0; i < kernel.wire_most; i++)
        kernel.wires[i].used = false;
    kernel.fd_most = 0;
    kernel.fd_limit = FDS;
    kernel.wire_most = 0;
    kernel.now_us = now_us;
    kernel.progress = 1;
    kernel.progress_seen = 0;
    kernel.spins = 0;
    kernel.turns = 0;
    kernel.rotation = 0;
    kernel.in_turn = false;
    memset(kernel.faults, 0, sizeof kernel.faults);
    kernel.faults_given = 0;
    kernel.seed = seed;
    kernel.accepted = kernel.guests_open = kernel.novas_open = 0;
    kernel.send_most_n = 0;
}

/* After the loop's end: nothing may be left. */
static void kernel_end(void)
{
    for (unsigned i = 0; i < kernel.fd_most; i++) {
        if (kernel.fds[i].kind != K_FREE)
            complain("descriptor %u of kind %d was never closed", i + FD_FIRST, kernel.fds[i].kind);
    }
    if (block_n)
        complain("%u blocks of memory were never freed; the first has %zu bytes, of %s, line %d", block_n,
                 blocks[0].length, blocks[0].function, blocks[0].line);
}

#endif
