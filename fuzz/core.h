/* The core itself: the C that Cython made of it, with the kernel of kernel.h under it, and short names for what the harness
 * uses of it. No Python runs: libpython is there for the linker only. */
#ifndef FUZZ_CORE_H
#define FUZZ_CORE_H

#include "kernel.h"
#include <Python.h>
#include <arpa/inet.h>
#include <math.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <pythread.h>
#include <structmember.h>

/* Everything that the generated file includes is included above, so these names change only its own calls. */
#define accept4(fd, address, length, flags) kernel_accept4(fd, address, length, flags)
#define recv(fd, data, length, flags) kernel_recv(fd, data, length, flags)
#define send(fd, data, length, flags) kernel_send(fd, data, length, flags)
#define socket(domain, kind, protocol) kernel_socket(domain, kind, protocol)
#define connect(fd, address, length) kernel_connect(fd, address, length)
#define close(fd) kernel_close(fd)
#define shutdown(fd, how) kernel_shutdown(fd, how)
#define setsockopt(fd, level, name, value, length) kernel_setsockopt(fd, level, name, value, length)
#define getsockopt(fd, level, name, value, length) kernel_getsockopt(fd, level, name, value, length)
#define epoll_create1(flags) kernel_epoll_create1(flags)
#define epoll_ctl(epoll, operation, fd, event) kernel_epoll_ctl(epoll, operation, fd, event)
#define epoll_wait(epoll, events, most, timeout) kernel_epoll_wait(epoll, events, most, timeout)
#define eventfd(start, flags) kernel_eventfd(start, flags)
#define timerfd_create(clock, flags) kernel_timerfd_create(clock, flags)
#define timerfd_settime(fd, flags, value, old) kernel_timerfd_settime(fd, flags, value, old)
#define read(fd, data, length) kernel_read(fd, data, length)
#define write(fd, data, length) kernel_write(fd, data, length)
#define getrandom(data, length, flags) kernel_getrandom(data, length, flags)
#define clock_gettime(clock, value) kernel_clock_gettime(clock, value)
#define time(value) kernel_time(value)
#define malloc(length) kernel_malloc(length, __func__, __LINE__)
#define calloc(n, size) kernel_calloc(n, size, __func__, __LINE__)
#define free(memory) kernel_free(memory)

#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wunused-function"
#include "_core.c"
#pragma clang diagnostic pop

#undef accept4
#undef recv
#undef send
#undef socket
#undef connect
#undef close
#undef shutdown
#undef setsockopt
#undef getsockopt
#undef epoll_create1
#undef epoll_ctl
#undef epoll_wait
#undef eventfd
#undef timerfd_create
#undef timerfd_settime
#undef read
#undef write
#undef getrandom
#undef clock_gettime
#undef time
#undef malloc
#undef calloc
#undef free

#define CORE(function) __pyx_f_8fastmeta_5_core_##function
#define TYPE(name) struct __pyx_t_8fastmeta_5_core_##name
#define VALUE(name) __pyx_e_8fastmeta_5_core_##name

typedef TYPE(Head) Head;
typedef TYPE(Out) Out;
typedef TYPE(Identity) Identity;
typedef TYPE(Chunked) Chunked;
typedef TYPE(LoopState) LoopState;
typedef TYPE(Message) Message;
typedef TYPE(UpstreamMessage) UpstreamMessage;
typedef TYPE(Event) Event;
typedef TYPE(RequestRecord) RequestRecord;
typedef TYPE(Link) Link;
typedef TYPE(Settings) Settings;
typedef TYPE(Counters) Counters;

static int core_parse_request(Head *head, const uint8_t *data, size_t length, size_t max_head)
{
    return CORE(h1_parse_request)(head, data, length, max_head);
}

static int core_parse_response(Head *head, const uint8_t *data, size_t length, bool to_head_request)
{
    return CORE(h1_parse_response)(head, data, length, VALUE(LARGEST_HEAD), to_head_request);
}

/* As new_identity() in _core.pyx; NULL: refused. The message, then the loop owns it. */
static Identity *core_identity(const uint8_t *address, const char *instance, size_t instance_length, const char *project,
                               size_t project_length, const char *secret)
{
    Identity *identity = take_block(sizeof(Identity), __func__, __LINE__);
    if (CORE(hd_identity)(identity, address, (const uint8_t *)instance, instance_length, (const uint8_t *)project,
                          project_length, (const uint8_t *)secret, strlen(secret)) < 0) {
        kernel_free(identity);
        return NULL;
    }
    return identity;
}

static uint64_t core_taken(const LoopState *loop)
{
    return __atomic_load_n(&loop->mailbox.taken, __ATOMIC_ACQUIRE);
}

/* Loop.post() of _core.pyx. False when the mailbox is full: Python would wait. */
static bool core_post(LoopState *loop, const Message *message)
{
    uint64_t one = 1;
    if (loop->mailbox.written - core_taken(loop) >= VALUE(RG_MAILBOX))
        return false;
    loop->mailbox.slots[loop->mailbox.written % VALUE(RG_MAILBOX)] = *message;
    __atomic_store_n(&loop->mailbox.written, loop->mailbox.written + 1, __ATOMIC_RELEASE);
    kernel_write(loop->mailbox_socket.fd, &one, 8);
    return true;
}

/* Between two turns: what the loop counts is what the kernel knows. */
static void core_check_turn(const LoopState *loop, unsigned guests_open, unsigned novas_open)
{
    const Counters *counters = &loop->counters;
    const uint64_t *values = (const uint64_t *)counters;
    for (size_t i = 0; i < sizeof *counters / sizeof *values; i++) {
        if (values[i] >> 62)
            complain("counter %zu is negative", i);
    }
    if (counters->connections_open != guests_open)
        complain("connections_open is %lu, open are %u", (unsigned long)counters->connections_open, guests_open);
    if (counters->upstream_connections != novas_open)
        complain("upstream_connections is %lu, open are %u", (unsigned long)counters->upstream_connections, novas_open);
    if (counters->upstream_idle + loop->busy_n != novas_open || counters->upstream_idle != loop->idle_n + loop->released_n)
        complain("%u connections to Nova are busy, %u idle, %u released; counted are %lu", loop->busy_n, loop->idle_n,
                 loop->released_n, (unsigned long)counters->upstream_idle);
}

/* After lp_run: everything is closed, and the sums are right. */
static void core_check_end(const LoopState *loop, int error, unsigned accepted)
{
    const Counters *counters = &loop->counters;
    core_check_turn(loop, 0, 0);
    if (counters->parked || counters->identities || counters->upstream_idle)
        complain("at the end %lu are parked, %lu identities known, %lu connections idle", (unsigned long)counters->parked,
                 (unsigned long)counters->identities, (unsigned long)counters->upstream_idle);
    uint64_t answers = counters->answers_2xx + counters->answers_3xx + counters->answers_4xx + counters->answers_5xx;
    if (counters->requests != answers + counters->aborted)
        complain("%lu requests, %lu answers, %lu aborted", (unsigned long)counters->requests, (unsigned long)answers,
                 (unsigned long)counters->aborted);
    if (counters->refused > counters->requests || counters->connections > accepted)
        complain("%lu refused, %lu connections", (unsigned long)counters->refused, (unsigned long)counters->connections);
    if (loop->busy_n || loop->idle_n || loop->released_n || loop->streams_n || loop->listener_n || loop->small || loop->large)
        complain("something is left: %u %u %u %u %u", loop->busy_n, loop->idle_n, loop->released_n, loop->streams_n,
                 loop->listener_n);
    const Link *lists[] = {&loop->scopes, &loop->idle_guests, &loop->places, &loop->idle, &loop->released, &loop->busy,
                           &loop->dead_guests, &loop->dead_upstreams, &loop->dead_listeners};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        if (lists[i]->next != lists[i])
            complain("list %zu is not empty", i);
    }
    /* Only the loop's own timers may be left: what they belong to lives as long as the loop. */
    for (size_t i = 0; i < sizeof loop->wheel / sizeof *loop->wheel; i++) {
        for (const Link *at = loop->wheel[i].next; at != &loop->wheel[i]; at = at->next) {
            if (at->owner != loop)
                complain("a timer is left, of a connection that is gone");
        }
    }
    (void)error;
}

#endif
