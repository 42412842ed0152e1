/* Prints what config.c makes of the configuration on standard input. Built with the compiler's sanitizers; the input lies in
 * memory of exactly its size, and one byte for the 0 that is put behind it. */

#include "stand_in.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char scratch[MAX_FILE + 4096];

static void print_place(const struct place *place)
{
    char text[INET6_ADDRSTRLEN];
    const struct sockaddr_in *four = (const struct sockaddr_in *)&place->address;
    const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)&place->address;
    const void *address = place->address.ss_family == AF_INET ? (const void *)&four->sin_addr : &six->sin6_addr;
    in_port_t port = place->address.ss_family == AF_INET ? four->sin_port : six->sin6_port;
    inet_ntop(place->address.ss_family, address, text, sizeof(text));
    printf("bind %s %u %s\n", text, ntohs(port), place->interface[0] ? place->interface : "-");
}

int main(void)
{
    static struct proxy proxy;
    char said[MAX_SAID] = "";
    size_t length = fread(scratch, 1, sizeof(scratch), stdin);
    char *text = malloc(length + 1);
    enum reading reading;
    memcpy(text, scratch, length);
    reading = config_read(text, length, &proxy, said);
    free(text);
    printf("%s\n", reading == READ_PROXY ? "proxy" : reading == READ_UNKNOWN ? "unknown" : "foreign");
    if (reading == READ_UNKNOWN)
        printf("%s\n", said);
    if (reading != READ_PROXY)
        return 0;
    printf("%s %s\npidfile %s\n", proxy.kind == KIND_ROUTER ? "router" : "network", proxy.uuid, proxy.pid_file);
    for (size_t i = 0; i < proxy.place_n; i++)
        print_place(&proxy.places[i]);
    printf("rate %u %u %u %u %u\n", proxy.rate_version, proxy.base.seconds, proxy.base.limit, proxy.burst.seconds,
           proxy.burst.limit);
    printf("timeouts %u %u %u %u %u\n", proxy.timeout_http_request, proxy.timeout_connect, proxy.timeout_client,
           proxy.timeout_server, proxy.timeout_http_keep_alive);
    return 0;
}
