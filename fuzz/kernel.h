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
    uint64_t good_turn;        /* the last in which waiting did not fail */
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
    unsigned connects;         /* to Nova, tried */
    uint64_t bytes_up;         /* that the core sent there */
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
    kernel.turns = kernel.good_turn = 0;
    kernel.rotation = 0;
    kernel.in_turn = false;
    memset(kernel.faults, 0, sizeof kernel.faults);
    kernel.faults_given = 0;
    kernel.seed = seed;
    kernel.accepted = kernel.guests_open = kernel.novas_open = 0;
    kernel.send_most_n = 0;
    kernel.connects = 0;
    kernel.bytes_up = 0;
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
