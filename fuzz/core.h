/* The core itself: the C that Cython made of it, with the kernel of kernel.h under it, and short names for what the harness
 * uses of it. No Python runs: libpython is there for the linker only. */
#ifndef FUZZ_CORE_H
#define FUZZ_CORE_H

#include "calls.h"
#include <Python.h>
#include <arpa/inet.h>
#include <math.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pythread.h>
#include <structmember.h>
#include <sys/un.h>

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
typedef TYPE(ServerSpec) ServerSpec;
typedef TYPE(UpstreamsMessage) UpstreamsMessage;
typedef TYPE(Event) Event;
typedef TYPE(RequestRecord) RequestRecord;
typedef TYPE(Link) Link;
typedef TYPE(Settings) Settings;
typedef TYPE(Counters) Counters;
typedef TYPE(Rates) Rates;
typedef TYPE(HeadLimits) HeadLimits;
typedef TYPE(Scope) Scope;
typedef TYPE(Source) Source;
typedef TYPE(Listener) Listener;
typedef TYPE(Guest) Guest;
typedef TYPE(Server) Server;
typedef TYPE(Upstream) Upstream;

static int core_parse_request(Head *head, const uint8_t *data, size_t length, const HeadLimits *limits)
{
    return CORE(h1_parse_request)(head, data, length, limits);
}

static int core_parse_response(Head *head, const uint8_t *data, size_t length, bool to_head_request)
{
    return CORE(h1_parse_response)(head, data, length, VALUE(LARGEST_HEAD), to_head_request);
}

/* As new_identity() in _core.pyx; NULL: refused. The message, then the loop owns it. next_secret: "" for none. */
static Identity *core_identity(const uint8_t *address, const char *instance, size_t instance_length, const char *project,
                               size_t project_length, const char *secret, const char *next_secret)
{
    Identity *identity = take_block(sizeof(Identity), __func__, __LINE__);
    if (CORE(hd_identity)(identity, address, (const uint8_t *)instance, instance_length, (const uint8_t *)project,
                          project_length, (const uint8_t *)secret, strlen(secret), (const uint8_t *)next_secret, strlen(next_secret)) < 0) {
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

#endif
