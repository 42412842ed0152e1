/* Opens the sockets of a proxy, in the namespace that we were started in; as fastmeta/netns/sockets.py does, with two
 * differences. SO_REUSEPORT, because a successor may be started before its predecessor has ended; the agent refuses who
 * would listen in another's place for another network or router. SO_BINDTODEVICE, because haproxy does so. */

#include "stand_in.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>

#ifndef IPV6_FREEBIND
#define IPV6_FREEBIND 78
#endif

enum {
    BACKLOG = 4096,
    SEND_BUFFER = 128 * 1024,
    DEFER_ACCEPT = 1, /* second */
};

static bool set(int fd, int level, int option, int value)
{
    return setsockopt(fd, level, option, &value, sizeof(value)) == 0;
}

static bool set_up(int fd, const struct place *place)
{
    const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)&place->address;
    if (!set(fd, SOL_SOCKET, SO_REUSEADDR, 1) || !set(fd, SOL_SOCKET, SO_REUSEPORT, 1) ||
        !set(fd, SOL_SOCKET, SO_SNDBUF, SEND_BUFFER) || !set(fd, IPPROTO_TCP, TCP_NODELAY, 1) ||
        !set(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, DEFER_ACCEPT))
        return false;
    if (place->address.ss_family == AF_INET)
        return set(fd, IPPROTO_IP, IP_FREEBIND, 1);
    return set(fd, IPPROTO_IPV6, IPV6_FREEBIND, 1) &&
           set(fd, IPPROTO_IPV6, IPV6_V6ONLY, IN6_IS_ADDR_UNSPECIFIED(&six->sin6_addr) ? 0 : 1);
}

static int failed(int fd, const struct place *place, const char *what, char said[MAX_SAID])
{
    int error = errno;
    say(said, "%s (%s) [%s%s%s]", what, strerror(error), place->text, place->interface[0] ? " interface " : "",
        place->interface);
    if (fd >= 0)
        close(fd);
    return -1;
}

int listen_open(const struct place *place, char said[MAX_SAID])
{
    struct sockaddr_storage address = place->address;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)&address;
    int fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
    if (fd < 0)
        return failed(fd, place, "cannot create listening socket", said);
    if (!set_up(fd, place))
        return failed(fd, place, "cannot set up listening socket", said);
    if (place->interface[0] != 0) {
        if (setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, place->interface, (socklen_t)strlen(place->interface)) < 0)
            return failed(fd, place, "cannot bind listener to device", said);
        if (address.ss_family == AF_INET6 && IN6_IS_ADDR_LINKLOCAL(&six->sin6_addr))
            six->sin6_scope_id = if_nametoindex(place->interface);
    }
    if (bind(fd, (struct sockaddr *)&address, place->length) < 0)
        return failed(fd, place, "cannot bind socket", said);
    if (listen(fd, BACKLOG) < 0)
        return failed(fd, place, "cannot listen to socket", said);
    return fd;
}
