/* What floor, stub and load share: argument and socket helpers, and the body that stub sends and load checks. */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 256 };

__attribute__((noreturn)) static inline void die(const char *what)
{
    perror(what);
    exit(1);
}

static inline uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* A whole number from least to most, or the end of the program. */
static inline long number(const char *name, const char *text, long least, long most)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno || end == text || *end || value < least || value > most) {
        fprintf(stderr, "%s: a number from %ld to %ld is wanted, not \"%s\"\n", name, least, most, text);
        exit(2);
    }
    return value;
}

static inline struct sockaddr_in loopback(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static inline void set_option(int fd, int level, int option, int value)
{
    if (setsockopt(fd, level, option, &value, sizeof value) < 0)
        die("setsockopt");
}

/* Where an upstream is: a TCP port of this machine, or the path of a unix socket. */
struct place {
    union {
        struct sockaddr any;
        struct sockaddr_in tcp;
        struct sockaddr_un local;
    } address;
    socklen_t length;
};

static inline struct place place_of(const char *name, const char *text)
{
    struct place place = {.length = sizeof place.address.tcp};
    if (text[0] != '/') {
        place.address.tcp = loopback((uint16_t)number(name, text, 1, 65535));
        return place;
    }
    place.address.local.sun_family = AF_UNIX;
    place.length = sizeof place.address.local;
    if (strlen(text) >= sizeof place.address.local.sun_path) {
        fprintf(stderr, "%s: the path is too long\n", name);
        exit(2);
    }
    strcpy(place.address.local.sun_path, text);
    return place;
}

/* A blocking connection. */
static inline int connect_to(const struct place *place)
{
    int fd = socket(place->address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("socket");
    if (place->address.any.sa_family == AF_INET)
        set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (connect(fd, &place->address.any, place->length) == 0)
        return fd;
    close(fd);
    return -1;
}

/* Accepted sockets inherit TCP_NODELAY, so that accepting needs no further system call. */
static inline int listen_at(const struct place *place)
{
    int fd = socket(place->address.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("socket");
    if (place->address.any.sa_family == AF_INET) {
        set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
        set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    }
    if (bind(fd, &place->address.any, place->length) < 0)
        die("bind");
    if (listen(fd, 4096) < 0)
        die("listen");
    return fd;
}

static inline void epoll_add(int epoll, int fd, void *data)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = data};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        die("epoll_ctl");
}

/* The byte at place i of every body. It repeats only every 8,836 bytes, so that a piece that is missing, doubled or out of
 * place shows. */
static inline char body_byte(size_t i)
{
    return (char)('!' + (i * 7 + i / 94) % 94);
}

#endif
