/* What the holder does all its life. */

#ifndef HOLD_H
#define HOLD_H

#include <sys/types.h>

enum {
    /* Descriptors that it begins with. */
    HOLD_LISTENER = 3,   /* its own unix socket, which agents connect to */
    HOLD_CONNECTION = 4, /* to the agent that has taken the sockets; closed if there is none */
    HOLD_SOCKETS = 5,    /* and those that follow */
    HOLD_MAX_SOCKETS = 4,
};

/* By which the program is told the rest: "<owner> <socket_n> <connected> <message>". */
#define HOLD_VARIABLE "FASTMETA_HOLDER="

struct held {
    const char *message;
    size_t length;
    uid_t owner; /* of the control folder: besides root's, his agents get the sockets */
    int socket_n;
    int connection; /* HOLD_CONNECTION, or -1 */
};

/* Until it is killed, or an agent says that it is to end. */
void hold(const struct held *held) __attribute__((noreturn));

#endif
