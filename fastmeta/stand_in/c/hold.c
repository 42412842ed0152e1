/* The holder's loop: it gives the sockets to every agent that connects, and keeps the connection of the last one. There is
 * no timer: it never wakes by itself. Compiled twice, into the holder's own program and into the stand-in, which is its own
 * holder where that program is not there. */

#include "hold.h"

#include "raw.h"

#include <poll.h>
#include <stdbool.h>
#include <sys/socket.h>

static long address_of(const void *memory)
{
    return (long)(unsigned long)memory;
}

static bool trusts(int connection, uid_t owner)
{
    struct ucred peer;
    socklen_t length = sizeof(peer);
    return raw(SYS_getsockopt, connection, SOL_SOCKET, SO_PEERCRED, address_of(&peer), address_of(&length)) == 0 &&
           (peer.uid == 0 || peer.uid == owner);
}

static bool give(const struct held *held, int connection)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int) * HOLD_MAX_SOCKETS)];
    } control;
    struct iovec content;
    struct msghdr message;
    int *sockets = (int *)(void *)CMSG_DATA(&control.header);
    content.iov_base = (void *)(unsigned long)held->message;
    content.iov_len = held->length;
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(sizeof(int) * (size_t)held->socket_n);
    for (int i = 0; i < held->socket_n; i++)
        sockets[i] = HOLD_SOCKETS + i;
    message.msg_name = 0;
    message.msg_namelen = 0;
    message.msg_iov = &content;
    message.msg_iovlen = 1;
    message.msg_control = &control;
    message.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)held->socket_n);
    message.msg_flags = 0;
    return raw(SYS_sendmsg, connection, address_of(&message), MSG_NOSIGNAL | MSG_DONTWAIT, 0, 0) == (long)held->length;
}

/* The connection from now on. */
static int meet(const struct held *held, int before)
{
    int fd = (int)raw(SYS_accept4, HOLD_LISTENER, 0, 0, SOCK_CLOEXEC, 0);
    if (fd < 0)
        return before;
    if (!trusts(fd, held->owner) || !give(held, fd)) {
        raw(SYS_close, fd, 0, 0, 0, 0);
        return before;
    }
    if (before >= 0)
        raw(SYS_close, before, 0, 0, 0, 0);
    return fd;
}

/* The agent says "end", or is gone: -1. */
static int listen_to(int connection)
{
    char order[8];
    long length = raw(SYS_recvfrom, connection, address_of(order), sizeof(order), MSG_DONTWAIT, 0);
    if (length == 3 && order[0] == 'e' && order[1] == 'n' && order[2] == 'd')
        raw(SYS_exit_group, 0, 0, 0, 0, 0);
    if (length > 0)
        return connection;
    raw(SYS_close, connection, 0, 0, 0, 0);
    return -1;
}

void hold(const struct held *held)
{
    int connection = held->connection;
    for (;;) {
        struct pollfd watched[2];
        watched[0].fd = HOLD_LISTENER;
        watched[0].events = POLLIN;
        watched[0].revents = 0;
        watched[1].fd = connection;
        watched[1].events = POLLIN;
        watched[1].revents = 0;
        if (raw(SYS_ppoll, address_of(watched), 2, 0, 0, 0) <= 0)
            continue;
        if (watched[1].revents)
            connection = listen_to(connection);
        if (watched[0].revents)
            connection = meet(held, connection);
    }
}
