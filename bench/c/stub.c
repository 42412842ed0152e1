/* stub: an upstream that answers every request at once, so that what is measured is the proxy before it.
 *
 *     stub PORT HEAD_BYTES BODY_BYTES [VALUE...]
 *
 * PORT may be the path of a unix socket. The answer is a head of HEAD_BYTES and a body of BODY_BYTES (see body_byte). A request may have a body with a
 * Content-Length. "Connection: close" is obeyed; pipelined requests are answered in turn. A request whose head lacks one of
 * the VALUEs gets a 500 instead: so a proxy that forgets a header that it has to set is found out. */
#define _GNU_SOURCE
#include "common.h"
#include <strings.h>

enum { HEAD_MOST = 16384, VALUES_MOST = 8 };

struct conn {
    int fd; /* -1: closed in this batch */
    struct conn *next;
    size_t length;     /* bytes in data */
    uint64_t body;     /* bytes of a request's body that are still to come and are thrown away */
    bool closing;
    char *rest;        /* what a full socket buffer did not take of the answer, allocated; NULL as a rule */
    size_t rest_length;
    char data[HEAD_MOST];
};

static int epoll, listener;
static char *answer;
static size_t answer_length;
static const char refusal[] = "HTTP/1.1 500 A header is missing\r\nContent-Length: 0\r\n\r\n";
static const char *values[VALUES_MOST];
static int value_count;
static struct conn *dead, *unused;

static void bury(struct conn *c)
{
    close(c->fd);
    free(c->rest);
    c->rest = NULL;
    c->fd = -1;
    c->next = dead;
    dead = c;
}

/* Level-triggered EPOLLOUT for as long as there is a rest; reading pauses meanwhile. */
static bool wait_for(struct conn *c, uint32_t what)
{
    struct epoll_event event = {.events = what, .data.ptr = c};
    return epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event) == 0;
}

/* False when the connection is gone. */
static bool reply(struct conn *c, const char *data, size_t length)
{
    ssize_t n = send(c->fd, data, length, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN)
        return false;
    size_t sent = n < 0 ? 0 : (size_t)n;
    if (sent == length)
        return true;
    c->rest_length = length - sent;
    c->rest = malloc(c->rest_length);
    if (!c->rest)
        die("malloc");
    memcpy(c->rest, data + sent, c->rest_length);
    return wait_for(c, EPOLLOUT);
}

static bool has_all_values(const char *head, size_t length)
{
    for (int i = 0; i < value_count; i++)
        if (!memmem(head, length, values[i], strlen(values[i])))
            return false;
    return true;
}

/* Reads the two headers that matter to framing. */
static void read_headers(struct conn *c, const char *head, const char *end)
{
    for (const char *line = head; line < end;) {
        if (!strncasecmp(line, "Content-Length:", 15))
            c->body = strtoull(line + 15, NULL, 10);
        else if (!strncasecmp(line, "Connection: close", 17))
            c->closing = true;
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        line = newline ? newline + 1 : end;
    }
}

/* Answers what has come in whole. False when the connection is to be closed. */
static bool serve(struct conn *c)
{
    size_t used = 0;
    while (used < c->length && !c->rest) {
        size_t left = c->length - used;
        if (c->body) {
            size_t skip = c->body < left ? (size_t)c->body : left;
            c->body -= skip;
            used += skip;
            continue;
        }
        const char *head = c->data + used;
        const char *end = memmem(head, left, "\r\n\r\n", 4);
        if (!end)
            break;
        size_t length = (size_t)(end - head) + 4;
        read_headers(c, head, end);
        used += length;
        bool right = has_all_values(head, length);
        if (!reply(c, right ? answer : refusal, right ? answer_length : sizeof refusal - 1))
            return false;
        if (c->closing)
            return c->rest != NULL;
    }
    memmove(c->data, c->data + used, c->length - used);
    c->length -= used;
    return c->length < sizeof c->data;
}

static void readable(struct conn *c)
{
    ssize_t n = recv(c->fd, c->data + c->length, sizeof c->data - c->length, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0) {
        c->length += (size_t)n;
        if (serve(c))
            return;
    }
    bury(c);
}

static void writable(struct conn *c)
{
    ssize_t n = send(c->fd, c->rest, c->rest_length, MSG_NOSIGNAL);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n < 0) {
        bury(c);
        return;
    }
    c->rest_length -= (size_t)n;
    if (c->rest_length) {
        memmove(c->rest, c->rest + n, c->rest_length);
        return;
    }
    free(c->rest);
    c->rest = NULL;
    if (c->closing || !wait_for(c, EPOLLIN) || !serve(c))
        bury(c);
}

static void accept_all(void)
{
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct conn *c = unused;
        if (c)
            unused = c->next;
        else if (!(c = malloc(sizeof *c)))
            die("malloc");
        c->fd = fd;
        c->next = NULL;
        c->length = 0;
        c->body = 0;
        c->closing = false;
        c->rest = NULL;
        epoll_add(epoll, fd, c);
    }
}

static void make_answer(size_t head_length, size_t body_length)
{
    answer_length = head_length + body_length;
    answer = malloc(answer_length + 1);
    if (!answer)
        die("malloc");
    int n = snprintf(answer, head_length,
                     "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=UTF-8\r\nContent-Length: %zu\r\n"
                     "Date: Thu, 01 Jan 2026 00:00:00 GMT\r\nX-Padding: ",
                     body_length);
    if (n < 0 || (size_t)n + 5 > head_length) {
        fprintf(stderr, "HEAD_BYTES: %d at least\n", n + 5);
        exit(2);
    }
    memset(answer + n, 'x', head_length - (size_t)n - 4);
    memcpy(answer + head_length - 4, "\r\n\r\n", 4);
    for (size_t i = 0; i < body_length; i++)
        answer[head_length + i] = body_byte(i);
}

int main(int argc, char **argv)
{
    if (argc < 4 || argc > 4 + VALUES_MOST) {
        fprintf(stderr, "usage: stub PORT HEAD_BYTES BODY_BYTES [VALUE...] (at most %d)\n", VALUES_MOST);
        return 2;
    }
    struct place here = place_of("PORT", argv[1]);
    make_answer((size_t)number("HEAD_BYTES", argv[2], 64, 8192), (size_t)number("BODY_BYTES", argv[3], 0, 1L << 30));
    while (4 + value_count < argc) {
        values[value_count] = argv[4 + value_count];
        value_count++;
    }

    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        die("epoll_create1");
    listener = listen_at(&here);
    epoll_add(epoll, listener, &listener);

    static struct epoll_event events[BATCH];
    for (;;) {
        int n = epoll_wait(epoll, events, BATCH, -1);
        if (n < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == &listener) {
                accept_all();
                continue;
            }
            struct conn *c = events[i].data.ptr;
            if (c->fd < 0)
                continue;
            if (c->rest)
                writable(c);
            else
                readable(c);
        }
        while (dead) {
            struct conn *c = dead;
            dead = c->next;
            c->next = unused;
            unused = c;
        }
    }
}
