/* Gives the sockets to the agent: a message of lines, with the descriptors beside it (SCM_RIGHTS), on a socket that keeps
 * messages apart (SOCK_SEQPACKET). docs/stand-in.md describes it; fastmeta/stand_in/message.py reads it. */

#include "stand_in.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

enum { PATIENCE = 10 }; /* seconds that the agent has for each step */

#define SOCKET "stand-ins"

static bool add(struct hand_over *over, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool add(struct hand_over *over, const char *format, ...)
{
    size_t room = sizeof(over->message) - over->length;
    va_list arguments;
    int length;
    va_start(arguments, format);
    length = vsnprintf(over->message + over->length, room, format, arguments);
    va_end(arguments);
    if (length < 0 || (size_t)length >= room)
        return false;
    over->length += (size_t)length;
    return true;
}

/* Of a socket that listens: what it is bound to, which is what the agent compares. */
static bool add_socket(struct hand_over *over, int fd)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof(address);
    const struct sockaddr_in *four = (const struct sockaddr_in *)&address;
    const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)&address;
    char text[INET6_ADDRSTRLEN];
    if (getsockname(fd, (struct sockaddr *)&address, &length) < 0)
        return false;
    if (address.ss_family == AF_INET)
        return inet_ntop(AF_INET, &four->sin_addr, text, sizeof(text)) != NULL &&
               add(over, "socket %s %u 0\n", text, ntohs(four->sin_port));
    return inet_ntop(AF_INET6, &six->sin6_addr, text, sizeof(text)) != NULL &&
           add(over, "socket %s %u %u\n", text, ntohs(six->sin6_port), six->sin6_scope_id);
}

static bool add_rates(struct hand_over *over, const struct proxy *proxy)
{
    return proxy->rate_version == 0 || add(over, "rate %u %u %u %u %u\n", proxy->rate_version, proxy->base.seconds,
                                           proxy->base.limit, proxy->burst.seconds, proxy->burst.limit);
}

bool hand_over_prepare(struct hand_over *over, const struct proxy *proxy, char said[MAX_SAID])
{
    struct stat namespace;
    uint64_t random;
    over->length = 0;
    if (stat("/proc/self/ns/net", &namespace) < 0) {
        say(said, "/proc/self/ns/net: %s", strerror(errno));
        return false;
    }
    if (getrandom(&random, sizeof(random), 0) != sizeof(random)) {
        say(said, "getrandom: %s", strerror(errno));
        return false;
    }
    snprintf(over->holder, sizeof(over->holder), "%s.%016llx", proxy->uuid, (unsigned long long)random);
    if (add(over, "hand-over 1\nholder %s\nscope %s %s\nnamespace %llu %llu\n", over->holder,
            proxy->kind == KIND_ROUTER ? "router" : "network", proxy->uuid, (unsigned long long)namespace.st_dev,
            (unsigned long long)namespace.st_ino) &&
        add_rates(over, proxy) &&
        add(over, "timeouts %u %u %u %u %u\n", proxy->timeout_http_request, proxy->timeout_connect, proxy->timeout_client,
            proxy->timeout_server, proxy->timeout_http_keep_alive)) {
        size_t i = 0;
        while (i < over->socket_n && add_socket(over, over->sockets[i]))
            i++;
        if (i == over->socket_n)
            return true;
    }
    say(said, "a hand-over cannot be written: %s", strerror(errno));
    return false;
}

bool hand_over_send(const struct hand_over *over, int connection)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int) * MAX_BINDS)];
    } control;
    struct iovec content = {.iov_base = (void *)(uintptr_t)over->message, .iov_len = over->length};
    struct msghdr message = {.msg_iov = &content, .msg_iovlen = 1, .msg_control = control.room};
    size_t length = sizeof(int) * over->socket_n;
    ssize_t sent;
    memset(&control, 0, sizeof(control));
    message.msg_controllen = CMSG_SPACE(length);
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(length);
    memcpy(CMSG_DATA(&control.header), over->sockets, length);
    do
        sent = sendmsg(connection, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent == (ssize_t)over->length;
}

bool hand_over_trusts(int connection, uid_t owner)
{
    struct ucred peer;
    socklen_t length = sizeof(peer);
    return getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && (peer.uid == 0 || peer.uid == owner);
}

/* Of the working folder, which must be closed to others. */
static bool folder_owner(uid_t *owner, char said[MAX_SAID])
{
    struct stat status;
    if (stat(".", &status) < 0 || (status.st_mode & (S_IRWXG | S_IRWXO))) {
        say(said, "the control folder is open to others than its owner: chmod 0700 it");
        return false;
    }
    *owner = status.st_uid;
    return true;
}

static enum taken lost(int connection, enum taken how, char said[MAX_SAID])
{
    say(said, "fastmeta does not take the sockets: %s", strerror(errno));
    close(connection);
    return how;
}

enum taken hand_over_to_agent(const struct hand_over *over, int *connection, char said[MAX_SAID])
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = SOCKET};
    struct timeval patience = {.tv_sec = PATIENCE};
    char answer[MAX_SAID];
    ssize_t length;
    uid_t owner;
    int fd;
    if (!folder_owner(&owner, said))
        return TAKEN_NOT;
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return lost(fd, TAKEN_NOT, said);
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0)
        return lost(fd, TAKEN_NOT, said);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return lost(fd, errno == ENOENT || errno == ECONNREFUSED ? TAKEN_AWAY : TAKEN_NOT, said);
    if (!hand_over_trusts(fd, owner)) {
        errno = EPERM;
        return lost(fd, TAKEN_NOT, said);
    }
    if (!hand_over_send(over, fd))
        return lost(fd, errno == EPIPE || errno == ECONNRESET ? TAKEN_AWAY : TAKEN_NOT, said);
    do
        length = recv(fd, answer, sizeof(answer) - 1, 0);
    while (length < 0 && errno == EINTR);
    if (length == 0)
        errno = ECONNRESET;
    if (length <= 0)
        return lost(fd, errno == ECONNRESET ? TAKEN_AWAY : TAKEN_NOT, said);
    answer[length] = 0;
    if (strcmp(answer, "taken") != 0) {
        say(said, "fastmeta does not take the sockets: %.400s", answer);
        close(fd);
        return TAKEN_NOT;
    }
    *connection = fd;
    return TAKEN;
}
