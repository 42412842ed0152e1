/* floor: the least that a relay on epoll can do, as a yardstick for the others.
 *
 *     floor PORT UPSTREAM ANSWER_BYTES HEAD_FILE
 *
 * UPSTREAM is a TCP port of this machine, or the path of a unix socket. It waits for the end of a request's head, sends the fixed head of HEAD_FILE on a kept-alive connection of its pool, and
 * relays ANSWER_BYTES of answer. It parses nothing: a guest's "Connection: close" is searched for as bytes, the answer is
 * known by its size alone, bodies and pipelining do not exist. Whatever is not as expected closes both connections.
 *
 * System calls: recv, send, recv, send for each request; accept4 and close for each connection; epoll_wait. A guest's
 * connection is registered only when it is kept open. TCP_DEFER_ACCEPT makes its first recv succeed at once. */
#define _GNU_SOURCE
#include "common.h"

enum kind { LISTENER, GUEST, UPSTREAM };

struct conn {
    enum kind kind;
    int fd;
    bool registered; /* in the epoll set */
    bool closing;    /* guest: close after the answer */
    bool dead;       /* closed in this batch: its later events are stale */
    struct conn *peer; /* the other side while a request is under way */
    struct conn *next; /* in the pool (upstream), on the dead list, or on the free list */
    size_t count;      /* upstream: bytes of the answer relayed; guest: bytes in part */
    char part[2048];   /* guest: a head that did not come in one piece */
};

static int epoll, listener;
static struct place upstream;
static size_t answer_bytes, head_bytes;
static char head[4096];
static char buffer[65536]; /* of whoever is being served: nothing stays in it between events */
static struct conn *pool, *dead, *unused;

static struct conn *new_conn(enum kind kind, int fd)
{
    struct conn *c = unused;
    if (c)
        unused = c->next;
    else if (!(c = malloc(sizeof *c)))
        die("malloc");
    c->kind = kind;
    c->fd = fd;
    c->registered = c->closing = c->dead = false;
    c->peer = c->next = NULL;
    c->count = 0;
    return c;
}

/* Closes now, frees after the batch: epoll may have further events of this connection in hand. */
static void bury(struct conn *c)
{
    close(c->fd);
    c->dead = true;
    c->next = dead;
    dead = c;
}

static void free_the_dead(void)
{
    while (dead) {
        struct conn *c = dead;
        dead = c->next;
        c->next = unused;
        unused = c;
    }
}

/* Something went wrong: an answer in progress can no longer be used, so both sides go. */
static void hang_up(struct conn *c)
{
    if (c->peer)
        bury(c->peer);
    else if (c->kind == UPSTREAM)
        for (struct conn **link = &pool; *link; link = &(*link)->next)
            if (*link == c) {
                *link = c->next;
                break;
            }
    bury(c);
}

static void watch(struct conn *c)
{
    if (c->registered)
        return;
    epoll_add(epoll, c->fd, c);
    c->registered = true;
}

static struct conn *take_upstream(void)
{
    struct conn *u = pool;
    if (u) {
        pool = u->next;
        u->next = NULL;
        return u;
    }
    /* Connecting may block: it happens only while the pool grows. */
    int fd = connect_to(&upstream);
    if (fd < 0)
        return NULL;
    if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
        die("fcntl");
    u = new_conn(UPSTREAM, fd);
    watch(u);
    return u;
}

static void guest_readable(struct conn *c)
{
    ssize_t n = recv(c->fd, buffer, sizeof buffer, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        watch(c);
        return;
    }
    if (n <= 0 || c->peer) { /* gone, or pipelining */
        hang_up(c);
        return;
    }
    const char *request = buffer;
    size_t length = (size_t)n;
    if (c->count) {
        if (c->count + length > sizeof c->part) {
            hang_up(c);
            return;
        }
        memcpy(c->part + c->count, buffer, length);
        request = c->part;
        length += c->count;
    }
    if (!memmem(request, length, "\r\n\r\n", 4)) {
        if (!c->count && length <= sizeof c->part)
            memcpy(c->part, buffer, length);
        c->count = length;
        watch(c);
        return;
    }
    c->count = 0;
    c->closing = memmem(request, length, "Connection: close", 17) != NULL;
    struct conn *u = take_upstream();
    if (!u) {
        hang_up(c);
        return;
    }
    c->peer = u;
    u->peer = c;
    if (send(u->fd, head, head_bytes, MSG_NOSIGNAL) != (ssize_t)head_bytes)
        hang_up(c);
}

static void upstream_readable(struct conn *u)
{
    ssize_t n = recv(u->fd, buffer, sizeof buffer, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    struct conn *c = u->peer;
    if (n <= 0 || !c) { /* closed, or bytes that nobody asked for */
        hang_up(u);
        return;
    }
    u->count += (size_t)n;
    if (u->count > answer_bytes || send(c->fd, buffer, (size_t)n, MSG_NOSIGNAL) != n) {
        hang_up(u);
        return;
    }
    if (u->count < answer_bytes)
        return;
    u->count = 0;
    u->peer = c->peer = NULL;
    u->next = pool;
    pool = u;
    if (c->closing)
        bury(c);
    else
        watch(c);
}

/* One connection for each event: asking for more would cost an accept4 that fails, and epoll tells of the next anyway. */
static void accept_guest(void)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0)
        guest_readable(new_conn(GUEST, fd));
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: floor PORT UPSTREAM ANSWER_BYTES HEAD_FILE\n");
        return 2;
    }
    struct place here = place_of("PORT", argv[1]);
    upstream = place_of("UPSTREAM", argv[2]);
    answer_bytes = (size_t)number("ANSWER_BYTES", argv[3], 1, 1L << 40);
    int file = open(argv[4], O_RDONLY | O_CLOEXEC);
    ssize_t size = file < 0 ? -1 : read(file, head, sizeof head);
    if (size <= 0)
        die(argv[4]);
    close(file);
    head_bytes = (size_t)size;

    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        die("epoll_create1");
    listener = listen_at(&here);
    set_option(listener, IPPROTO_TCP, TCP_DEFER_ACCEPT, 1);
    watch(new_conn(LISTENER, listener));

    static struct epoll_event events[BATCH];
    for (;;) {
        int n = epoll_wait(epoll, events, BATCH, -1);
        if (n < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < n; i++) {
            struct conn *c = events[i].data.ptr;
            if (c->dead)
                continue;
            if (c->kind == UPSTREAM)
                upstream_readable(c);
            else if (c->kind == GUEST)
                guest_readable(c);
            else
                accept_guest();
        }
        free_the_dead();
    }
}
