/* uring: what floor does, on io_uring in place of epoll. A probe, not a peer: what would it give?
 *
 *     uring PORT UPSTREAM ANSWER_BYTES HEAD_FILE
 *
 * One io_uring_enter submits everything that is to do and waits for the next completion. Accepting is multishot; completions
 * are worked on by the thread itself (DEFER_TASKRUN), the cheapest mode that there is for one thread. Each connection has one
 * operation under way at a time, but that sending up and reading the answer are submitted together. */
#define _GNU_SOURCE
#include "common.h"
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#ifndef IORING_SETUP_NO_SQARRAY /* Linux 6.6; headers may be older */
#define IORING_SETUP_NO_SQARRAY (1u << 16)
#endif

enum { ENTRIES = 4096, ROOM = 4096 };
enum what { ACCEPT, GUEST_READ, GUEST_SENT, UPSTREAM_SENT, UPSTREAM_READ, CLOSED };

struct conn {
    int fd;
    bool closing;
    bool sent; /* upstream: the head has gone */
    struct conn *peer;
    struct conn *next;
    size_t count; /* bytes of the answer */
    char data[ROOM];
};

static int ring, listener;
static unsigned *sq_head, *sq_tail, sq_mask, *cq_head, *cq_tail, cq_mask, to_submit;
static struct io_uring_sqe *sqes;
static struct io_uring_cqe *cqes;
static struct place upstream;
static size_t answer_bytes, head_bytes;
static char head[4096];
static struct conn *pool, *unused;

static int enter(unsigned wait)
{
    int n = (int)syscall(SYS_io_uring_enter, ring, to_submit, wait, IORING_ENTER_GETEVENTS, NULL, 0);
    if (n < 0 && errno != EINTR)
        die("io_uring_enter");
    if (n > 0)
        to_submit -= (unsigned)n;
    return n;
}

static struct io_uring_sqe *operation(int code, int fd, enum what what, struct conn *c)
{
    unsigned tail = *sq_tail;
    while (tail - __atomic_load_n(sq_head, __ATOMIC_ACQUIRE) > sq_mask)
        enter(0);
    struct io_uring_sqe *sqe = &sqes[tail & sq_mask];
    memset(sqe, 0, sizeof *sqe);
    sqe->opcode = (uint8_t)code;
    sqe->fd = fd;
    sqe->user_data = (uint64_t)(uintptr_t)c | what;
    __atomic_store_n(sq_tail, tail + 1, __ATOMIC_RELEASE);
    to_submit++;
    return sqe;
}

static void transfer(int code, struct conn *c, enum what what, const void *data, size_t length)
{
    struct io_uring_sqe *sqe = operation(code, c->fd, what, c);
    sqe->addr = (uint64_t)(uintptr_t)data;
    sqe->len = (uint32_t)length;
    if (code == IORING_OP_SEND)
        sqe->msg_flags = MSG_NOSIGNAL | MSG_WAITALL;
}

static void accept_guests(void)
{
    struct io_uring_sqe *sqe = operation(IORING_OP_ACCEPT, listener, ACCEPT, NULL);
    sqe->ioprio = IORING_ACCEPT_MULTISHOT;
    sqe->accept_flags = SOCK_CLOEXEC;
}

static struct conn *new_conn(int fd)
{
    struct conn *c = unused;
    if (c)
        unused = c->next;
    else if (!(c = aligned_alloc(64, (sizeof *c + 63) / 64 * 64)))
        die("malloc");
    c->fd = fd;
    c->closing = c->sent = false;
    c->peer = c->next = NULL;
    c->count = 0;
    return c;
}

static void end(struct conn *c)
{
    operation(IORING_OP_CLOSE, c->fd, CLOSED, c);
}

static void read_guest(struct conn *c)
{
    transfer(IORING_OP_RECV, c, GUEST_READ, c->data, ROOM);
}

static void guest_read(struct conn *c, int n)
{
    /* A head that does not come in one piece is not for a probe. */
    if (n <= 0 || !memmem(c->data, (size_t)n, "\r\n\r\n", 4)) {
        end(c);
        return;
    }
    c->closing = memmem(c->data, (size_t)n, "Connection: close", 17) != NULL;
    struct conn *u = pool;
    if (u)
        pool = u->next;
    else {
        int fd = connect_to(&upstream);
        if (fd < 0)
            die("connect");
        u = new_conn(fd);
    }
    u->peer = c;
    u->count = 0;
    u->sent = false;
    transfer(IORING_OP_SEND, u, UPSTREAM_SENT, head, head_bytes);
    transfer(IORING_OP_RECV, u, UPSTREAM_READ, u->data, ROOM);
}

static void upstream_read(struct conn *u, int n)
{
    if (n <= 0 || u->count + (size_t)n > answer_bytes)
        die("upstream");
    u->count += (size_t)n;
    struct conn *c = u->peer;
    c->peer = u;
    transfer(IORING_OP_SEND, c, GUEST_SENT, u->data, (size_t)n);
}

static void guest_sent(struct conn *c, int n)
{
    struct conn *u = c->peer;
    if (n <= 0)
        die("guest");
    if (u->count < answer_bytes) {
        transfer(IORING_OP_RECV, u, UPSTREAM_READ, u->data, ROOM);
        return;
    }
    u->next = pool;
    pool = u;
    if (c->closing)
        end(c);
    else
        read_guest(c);
}

static void completed(const struct io_uring_cqe *cqe)
{
    struct conn *c = (struct conn *)(uintptr_t)(cqe->user_data & ~(uint64_t)7);
    switch ((enum what)(cqe->user_data & 7)) {
    case ACCEPT:
        if (cqe->res >= 0)
            read_guest(new_conn(cqe->res));
        if (!(cqe->flags & IORING_CQE_F_MORE))
            accept_guests();
        break;
    case GUEST_READ: guest_read(c, cqe->res); break;
    case GUEST_SENT: guest_sent(c, cqe->res); break;
    case UPSTREAM_READ: upstream_read(c, cqe->res); break;
    case UPSTREAM_SENT:
        if (cqe->res != (int)head_bytes)
            die("upstream");
        break;
    case CLOSED:
        c->next = unused;
        unused = c;
        break;
    }
}

static void *map(size_t size, off_t where)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, where);
    if (memory == MAP_FAILED)
        die("mmap");
    return memory;
}

static void make_ring(void)
{
    struct io_uring_params p = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE
                 | IORING_SETUP_NO_SQARRAY,
        .cq_entries = 4 * ENTRIES,
    };
    ring = (int)syscall(SYS_io_uring_setup, ENTRIES, &p);
    if (ring < 0)
        die("io_uring_setup");
    if (!(p.features & IORING_FEAT_SINGLE_MMAP))
        die("an old kernel");
    size_t size = p.cq_off.cqes + p.cq_entries * sizeof *cqes;
    char *rings = map(size, IORING_OFF_SQ_RING);
    sqes = map(p.sq_entries * sizeof *sqes, IORING_OFF_SQES);
    sq_head = (unsigned *)(rings + p.sq_off.head);
    sq_tail = (unsigned *)(rings + p.sq_off.tail);
    sq_mask = *(unsigned *)(rings + p.sq_off.ring_mask);
    cq_head = (unsigned *)(rings + p.cq_off.head);
    cq_tail = (unsigned *)(rings + p.cq_off.tail);
    cq_mask = *(unsigned *)(rings + p.cq_off.ring_mask);
    cqes = (struct io_uring_cqe *)(rings + p.cq_off.cqes);
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: uring PORT UPSTREAM ANSWER_BYTES HEAD_FILE\n");
        return 2;
    }
    struct place here = place_of("PORT", argv[1]);
    upstream = place_of("UPSTREAM", argv[2]);
    answer_bytes = (size_t)number("ANSWER_BYTES", argv[3], 1, ROOM);
    int file = open(argv[4], O_RDONLY | O_CLOEXEC);
    ssize_t size = file < 0 ? -1 : read(file, head, sizeof head);
    if (size <= 0)
        die(argv[4]);
    close(file);
    head_bytes = (size_t)size;

    make_ring();
    listener = listen_at(&here);
    set_option(listener, IPPROTO_TCP, TCP_DEFER_ACCEPT, 1);
    accept_guests();
    for (;;) {
        enter(1);
        unsigned at = *cq_head, tail = __atomic_load_n(cq_tail, __ATOMIC_ACQUIRE);
        for (; at != tail; at++)
            completed(&cqes[at & cq_mask]);
        __atomic_store_n(cq_head, at, __ATOMIC_RELEASE);
    }
}
