/* What starts in haproxy's place: its parts, and what they say to each other.
 *
 * main.c reads what it is asked to do; config.c reads the configurations that Neutron's agents write, words.c
 * their lines; listen.c opens the sockets; hand_over.c gives them to the agent; holder.c leaves a process behind that keeps
 * copies of them, hold.c is what it does; real.c executes the real haproxy; options.c reads what the operator wants.
 *
 * Nothing here allocates memory: the holder may be a fork of all this, and hundreds of it may run. */

#ifndef STAND_IN_H
#define STAND_IN_H

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

enum {
    MAX_BINDS = 4,
    MAX_MESSAGE = 2048, /* bytes of a hand-over; the agent takes no more */
    MAX_NAME = 64,      /* of a holder: UUID, a dot, 16 digits; with the 0 behind it */
    MAX_SAID = 512,     /* bytes of a text for people */
    MAX_PATH = 512,
    MAX_FILE = 65536,   /* bytes of a configuration, ours or Neutron's */
    UUID_LENGTH = 36,
};

enum kind { KIND_NONE, KIND_NETWORK, KIND_ROUTER };

/* Where files are read to, one after the other; whole pages, which the holder gives back. */
extern char scratch[MAX_FILE + 4096];

struct place {
    struct sockaddr_storage address;
    socklen_t length;
    char text[80];             /* as the configuration has it */
    char interface[IFNAMSIZ];  /* "": any */
};

struct window {
    uint32_t seconds;
    uint32_t limit; /* requests of an address in it */
};

/* A metadata proxy as a configuration describes it. */
struct proxy {
    enum kind kind;
    char uuid[UUID_LENGTH + 1];
    char pid_file[MAX_PATH];
    struct place places[MAX_BINDS];
    size_t place_n;
    uint32_t rate_version; /* of IP; 0: rates are not limited */
    struct window base;
    struct window burst;
    /* Seconds; 0: not said. */
    uint32_t timeout_http_request;
    uint32_t timeout_connect;
    uint32_t timeout_client;
    uint32_t timeout_server;
    uint32_t timeout_http_keep_alive;
};

enum reading {
    READ_FOREIGN,       /* not a metadata proxy of Neutron's: the real haproxy's business */
    READ_UNKNOWN,       /* one, but with something that we do not know */
    READ_PROXY,
};

/* text has length bytes and is changed. said: what was not understood, and in which line. */
enum reading config_read(char *text, size_t length, struct proxy *proxy, char said[MAX_SAID]);

enum away { AWAY_FAIL, AWAY_HAPROXY, AWAY_HOLD };

struct options {
    char control_dir[MAX_PATH];
    char haproxy[MAX_PATH]; /* "": it is looked for */
    enum away when_away;
};

/* From a file that the environment names, else from /etc/fastmeta/stand-in.conf, else defaults. False: something in it
 * cannot be used, and said says what; what could be used is there all the same. */
bool options_read(struct options *options, char said[MAX_SAID]);

/* A listening descriptor, or -1 and what was wrong in said. */
int listen_open(const struct place *place, char said[MAX_SAID]);

/* What is handed over: a text, and descriptors of listening sockets, in its order. */
struct hand_over {
    char message[MAX_MESSAGE];
    size_t length;
    char holder[MAX_NAME];
    int sockets[MAX_BINDS];
    size_t socket_n;
};

/* sockets are there already. False: said says why. */
bool hand_over_prepare(struct hand_over *over, const struct proxy *proxy, char said[MAX_SAID]);
bool hand_over_send(const struct hand_over *over, int connection);

enum taken {
    TAKEN,
    TAKEN_NOT,  /* refused, or it went wrong: said says why */
    TAKEN_AWAY, /* nobody is there */
};

/* To the agent whose control folder is the working folder. connection: it lasts as long as the holder does. */
enum taken hand_over_to_agent(const struct hand_over *over, int *connection, char said[MAX_SAID]);

/* Whether the process at the other end is root's, or of the user whom the folder belongs to. */
bool hand_over_trusts(int connection, uid_t owner);

/* Leaves a holder behind, ready to be asked; its process id, or -1. connection: to the agent, -1: there is none. It has our
 * arguments, in which Neutron looks for the UUID. */
pid_t holder_leave(const struct hand_over *over, const char *control_dir, int connection, char **arguments,
                   char said[MAX_SAID]);

/* Executes the real haproxy; comes back only when there is none that can be. */
void real_execute(const struct options *options, char **arguments);

/* Writes a text into a buffer, cut to it. */
void say(char said[MAX_SAID], const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
