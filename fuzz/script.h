/* The input as a script: a setting, then one-byte operations with their parameters. The script runs while the loop waits in
 * epoll_wait, up to OP_TURN; after OP_INTERRUPT also in the middle of a turn, at a system call. When it is over everything
 * comes to an end by itself: time passes until nothing is left, and the loop is stopped. */
#ifndef FUZZ_SCRIPT_H
#define FUZZ_SCRIPT_H

#include "requests.h"

/* The order is part of the input's format (seeds.py reads it from here): new ones go to the end. */
enum operation {
    OP_TURN,            /* rotation */
    OP_CONNECT,         /* listener, address */
    OP_ASK,             /* guest, request, number */
    OP_QUEUE,           /* the same, but nothing is sent yet */
    OP_DELIVER,         /* guest, number */
    OP_BODY,            /* guest, number */
    OP_RAW,             /* guest, length, bytes */
    OP_GUEST_ENDS,      /* guest, how */
    OP_GUEST_READS,     /* guest, number */
    OP_GUEST_WINDOW,    /* guest, number */
    OP_ANSWER,          /* server, answer, number */
    OP_ANSWER_QUEUE,    /* the same, but nothing is sent yet */
    OP_SERVER_DELIVERS, /* server, number */
    OP_SERVER_RAW,      /* server, length, bytes */
    OP_SERVER_ENDS,     /* server, how */
    OP_SERVER_READS,    /* server, number */
    OP_SERVER_WINDOW,   /* server, number */
    OP_CONNECTED,       /* server, how */
    OP_NOVA,            /* how it accepts and answers from now on; which answer; number */
    OP_POLICY,          /* key, policy */
    OP_PUT,             /* key, policy */
    OP_LATE,            /* question, policy */
    OP_REVOKE,          /* key */
    OP_ADD_LISTENER,    /* scope */
    OP_REMOVE_LISTENER, /* listener, drain */
    OP_SCOPE,           /* scope, add or remove */
    OP_UPSTREAM,        /* how many servers, and of what kind */
    OP_STOP,            /* time */
    OP_EVENTS,          /* whether Python reads them */
    OP_TIME,            /* time */
    OP_FAULT,           /* call, skip, times, error */
    OP_INTERRUPT,       /* number of the system call */
    OP_CROWD,           /* listener, how many */
    OP_LIMITS,          /* descriptors, bytes of one send */
    OP_TURNS,           /* how many, and one more */
    OP_ALL_ASK,         /* every guest asks; request */
    OP_SERVER,          /* place of a server; how that one accepts and answers from now on: see how_of */
    OP_SECRETS,         /* whether identities are signed with two from now on */
    OP_RENEW,           /* scope, time */
    OP_SHORTEN,         /* scope, time */
    OP_RATES,           /* scope; versions, and limit */
    OPERATIONS,
    OPERATIONS_ROOM = 48 /* inputs keep their meaning as long as there is room */
};

enum { SETTING_BYTES = 40, CROWD_MOST = 300, QUIET_MS = 4 * 3600 * 1000 };

enum ending { E_RUNS, E_SETTLES, E_QUIET, E_STOPS };

static struct {
    struct input *input;
    bool running; /* not again from within */
    unsigned interrupt;
    unsigned turns; /* that pass before the next operation */
    unsigned connecting; /* how Nova accepts: see hook_connect */
    unsigned connects;
    unsigned server_n; /* that there are at the start */
    bool answers; /* Nova answers by itself */
    enum answer answer;
    size_t answer_number;
    struct {
        bool differs; /* from what holds for all */
        uint8_t how;
    } servers[SET_MOST];
    enum ending ending;
    bool quiet_first, settles, opens_windows;
    uint64_t drain_ms;
    uint64_t since_us; /* of the present ending */
    bool removals;     /* listeners or scopes were removed, or it was stopped */
} script;

/* How a server accepts (bits 0 to 2), whether it is silent (bit 3), and which secret it has: 16 the present one, 32 the next
 * one; else it does not look. */
static unsigned how_of(const struct server *server)
{
    if (script.servers[server->place].differs)
        return script.servers[server->place].how;
    return script.connecting | (script.answers ? 0 : 8);
}

static uint64_t next_time_ms(struct input *input)
{
    static const uint32_t times[] = {0,    1,    5,    16,   17,    50,    100,   150,   200,   300,  500,
                                     1000, 1500, 2000, 2500, 3000,  4000,  5000,  8000,  9000,  10000, 12000,
                                     20000, 30000, 31000, 60000, 61000, 70000, 120000, 600000, 3600000, 10};
    return times[next_byte(input) & 31];
}

static struct guest *pick_guest(uint8_t which)
{
    unsigned n = 0;
    for (unsigned i = 0; i < people.guest_most; i++)
        n += people.guests[i].used && people.guests[i].wire;
    if (n == 0)
        return NULL;
    which %= n;
    for (unsigned i = 0;; i++) {
        if (people.guests[i].used && people.guests[i].wire && which-- == 0)
            return &people.guests[i];
    }
}

static struct server *pick_server(uint8_t which)
{
    unsigned n = 0;
    for (unsigned i = 0; i < people.server_most; i++)
        n += people.servers[i].used && people.servers[i].wire;
    if (n == 0)
        return NULL;
    which %= n;
    for (unsigned i = 0;; i++) {
        if (people.servers[i].used && people.servers[i].wire && which-- == 0)
            return &people.servers[i];
    }
}

static int pick_listener(uint8_t which)
{
    unsigned n = 0;
    for (unsigned i = 0; i < python.listener_n; i++)
        n += python.listeners[i].open;
    if (n == 0)
        return NOBODY;
    which %= n;
    for (unsigned i = 0;; i++) {
        if (python.listeners[i].open && which-- == 0)
            return (int)i;
    }
}

/* One of the few keys mostly, of the many sometimes. */
static int pick_key(uint8_t which)
{
    if (which < 220)
        return key_of(which % (SCOPES * FEW) / FEW, which % FEW);
    return key_of(which & 1, FEW + which % (ADDRESSES - FEW));
}

static void pass_time(uint64_t ms)
{
    kernel.now_us += ms * 1000;
    kernel.progress++;
    trace("    time: %lu ms", (unsigned long)ms);
}

/* To the moment at which the loop's timer is due; false when it is not armed. */
static bool pass_to_timer(void)
{
    uint64_t due_us = kernel.fds[python.loop->clock.fd - FD_FIRST].due_us;
    if (due_us == 0)
        return false;
    if (due_us > kernel.now_us) {
        trace("    time: %lu us, to the timer", (unsigned long)(due_us - kernel.now_us));
        kernel.now_us = due_us;
        kernel.progress++;
    }
    return true;
}

static void wire_ends(struct wire *wire, unsigned how)
{
    switch (how % 4) {
    case 0:
        far_end(wire);
        break;
    case 1:
        far_reset(wire);
        break;
    default:
        far_end(wire);
        wire->far_closed = true;
    }
    kernel.progress++;
}

static void connected(struct server *server, unsigned how)
{
    struct wire *wire = server->wire;
    if (!wire->connecting)
        return;
    kernel.progress++;
    if (how % 4 == 1) {
        far_reset(wire);
    } else if (how % 4 == 2) {
        far_reset(wire);
        wire->error = ETIMEDOUT;
    } else {
        wire->connecting = false;
    }
    trace("    server %u: %s", server->serial, wire->connecting ? "still connecting" : wire->down ? "refused" : "connected");
}

static void give_fault(struct input *input)
{
    static const int errors[CALLS][8] = {
        [CALL_ACCEPT] = {EMFILE, ENFILE, ENOBUFS, ENOMEM, ECONNABORTED, EPROTO, EINTR, EPERM},
        [CALL_RECV] = {EINTR, ECONNRESET, ETIMEDOUT, EINTR, EHOSTUNREACH, ECONNRESET, ENOMEM, EINTR},
        [CALL_SEND] = {EINTR, ECONNRESET, EAGAIN, EPIPE, ETIMEDOUT, ENOBUFS, ENOMEM, EAGAIN},
        [CALL_SOCKET] = {EMFILE, ENFILE, ENOBUFS, ENOMEM, EMFILE, EAFNOSUPPORT, EACCES, EMFILE},
        [CALL_CONNECT] = {ECONNREFUSED, ENETUNREACH, EHOSTUNREACH, EADDRNOTAVAIL, EAGAIN, ETIMEDOUT, EACCES, EPERM},
        [CALL_WATCH] = {ENOMEM, ENOSPC, ENOMEM, ENOSPC, ENOMEM, ENOSPC, ENOMEM, ENOSPC},
        [CALL_WAIT] = {EINTR, EINTR, EINTR, EINTR, EINTR, EINTR, EINTR, EBADF},
        [CALL_MEMORY] = {ENOMEM, ENOMEM, ENOMEM, ENOMEM, ENOMEM, ENOMEM, ENOMEM, ENOMEM},
        [CALL_START] = {EMFILE, ENFILE, ENOMEM, ENODEV, EMFILE, ENFILE, ENOMEM, EMFILE},
    };
    unsigned call = next_byte(input) % CALLS;
    uint8_t skip = next_byte(input), times = next_byte(input), error = next_byte(input);
    kernel.faults[call].skip = skip;
    kernel.faults[call].times = times % 8 + 1;
    kernel.faults[call].error = errors[call][error & 7];
    trace("    fault: call %u, after %u, %u times", call, skip, times % 8 + 1);
}

static void connect_guest(int listener, unsigned address)
{
    int of_many = FEW + (int)address % (ADDRESSES - FEW), of_few = (int)address % FEW;
    guest_new(key_of(python.listeners[listener].scope, address < 220 ? of_few : of_many), python.listeners[listener].fd);
}

static void crowd(int listener, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct guest *guest = guest_new(key_of(python.listeners[listener].scope, (int)(i % (n < 16 ? FEW : ADDRESSES))),
                                        python.listeners[listener].fd);
        if (!guest)
            return;
        guest_asks(guest, ASK_GET, 0);
        guest_delivers(guest, SIZE_MAX);
    }
}

/* One operation; false after OP_TURN. */
static bool operate(struct input *input)
{
    unsigned operation = next_byte(input) % OPERATIONS_ROOM;
    uint8_t first = next_byte(input);
    struct guest *guest = pick_guest(first);
    struct server *server = pick_server(first);
    kernel.progress++;
    switch (operation) {
    case OP_TURN:
        kernel.rotation = first;
        return false;
    case OP_CONNECT: {
        uint8_t address = next_byte(input);
        int listener = pick_listener(first);
        if (listener != NOBODY)
            connect_guest(listener, address);
        break;
    }
    case OP_ASK:
    case OP_QUEUE: {
        enum ask ask = next_byte(input) % ASKS;
        size_t number = next_amount(input);
        if (guest) {
            guest_asks(guest, ask, number);
            if (operation == OP_ASK)
                guest_delivers(guest, SIZE_MAX);
        }
        break;
    }
    case OP_DELIVER: {
        size_t number = next_amount(input);
        if (guest)
            guest_delivers(guest, number);
        break;
    }
    case OP_BODY: {
        size_t number = next_amount(input);
        if (guest) {
            guest_goes_on(guest, number);
            guest_delivers(guest, SIZE_MAX);
        }
        break;
    }
    case OP_RAW:
    case OP_SERVER_RAW: {
        size_t length = next_byte(input);
        if (length > input->length - input->at)
            length = input->length - input->at;
        if (operation == OP_RAW && guest) {
            guest_says(guest, input->data + input->at, length);
            guest_delivers(guest, SIZE_MAX);
        } else if (operation == OP_SERVER_RAW && server) {
            server_says(server, input->data + input->at, length);
            server_delivers(server, SIZE_MAX);
        }
        input->at += length;
        break;
    }
    case OP_GUEST_ENDS: {
        uint8_t how = next_byte(input);
        if (guest) {
            trace("    guest %u: ends, %u", guest->serial, how % 4);
            wire_ends(guest->wire, how);
        }
        break;
    }
    case OP_GUEST_READS: {
        size_t number = next_amount(input);
        if (guest)
            far_read(guest->wire, number);
        break;
    }
    case OP_GUEST_WINDOW: {
        size_t number = next_amount(input);
        if (guest)
            guest->wire->window = number == 200000 ? SIZE_MAX : number;
        break;
    }
    case OP_ANSWER:
    case OP_ANSWER_QUEUE: {
        enum answer answer = next_byte(input) % ANSWERS;
        size_t number = next_amount(input);
        if (server) {
            server_answers(server, answer, number);
            if (operation == OP_ANSWER)
                server_delivers(server, SIZE_MAX);
        }
        break;
    }
    case OP_SERVER_DELIVERS: {
        size_t number = next_amount(input);
        if (server)
            server_delivers(server, number);
        break;
    }
    case OP_SERVER_ENDS: {
        uint8_t how = next_byte(input);
        if (server) {
            trace("    server %u: ends, %u", server->serial, how % 4);
            if (how % 4 != 1 && !server->wire->in_ended && !server->wire->down)
                server_ends(server);
            wire_ends(server->wire, how);
        }
        break;
    }
    case OP_SERVER_READS: {
        size_t number = next_amount(input);
        if (server)
            far_read(server->wire, number);
        break;
    }
    case OP_SERVER_WINDOW: {
        size_t number = next_amount(input);
        if (server)
            server->wire->window = number == 200000 ? SIZE_MAX : number;
        break;
    }
    case OP_CONNECTED: {
        uint8_t how = next_byte(input);
        if (server)
            connected(server, how);
        break;
    }
    case OP_NOVA:
        script.connecting = first & 7;
        script.answers = !(first & 8);
        script.answer = next_byte(input) % ANSWERS;
        script.answer_number = next_amount(input);
        break;
    case OP_POLICY:
        python.policies[pick_key(first)] = next_byte(input) % POLICIES;
        break;
    case OP_PUT: {
        int key = pick_key(first);
        enum policy policy = next_byte(input) % POLICIES;
        python_answer(key, python.scopes[key_scope(key)].generation, kernel.now_us, policy);
        break;
    }
    case OP_LATE:
        python_answer_late(first, next_byte(input) % POLICIES);
        break;
    case OP_REVOKE: {
        int which = first % (SCOPES * FEW + SCOPES), key = pick_key(first < 220 ? (uint8_t)which : first);
        if (which < SCOPES * FEW || first >= 220)
            python_revoke(key_scope(key), key);
        else
            python_revoke(which - SCOPES * FEW, NOBODY);
        break;
    }
    case OP_ADD_LISTENER:
        python_add_listener(first % SCOPES);
        break;
    case OP_REMOVE_LISTENER: {
        bool drain = next_byte(input) & 1;
        if (python.listener_n) {
            script.removals = true;
            python_remove_listener(first % python.listener_n, drain);
        }
        break;
    }
    case OP_SCOPE:
        if (next_byte(input) & 1) {
            python_add_scope(first % SCOPES);
        } else {
            script.removals = true;
            python_remove_scope(first % SCOPES);
        }
        break;
    case OP_UPSTREAM:
        python_set_upstreams((first & 64 ? 0 : 1 + first % SET_MOST) | (first & 16 ? SET_IPV6 : 0) |
                             (first & 32 ? SET_OTHER_HOST : 0));
        break;
    case OP_STOP:
        input->at--;
        script.drain_ms = next_time_ms(input);
        script.removals = true;
        python_stop(script.drain_ms);
        break;
    case OP_EVENTS:
        python.reads = first & 1;
        break;
    case OP_TIME:
        if (first & 128) {
            pass_to_timer();
        } else {
            input->at--;
            pass_time(next_time_ms(input));
        }
        break;
    case OP_FAULT:
        input->at--;
        give_fault(input);
        break;
    case OP_INTERRUPT:
        script.interrupt = first + 1u;
        return false;
    case OP_CROWD: {
        /* Mostly a few; rarely more than one epoll_wait reports. */
        unsigned n = next_byte(input);
        n = n < 250 ? n % 16 : CROWD_MOST;
        int listener = pick_listener(first);
        if (listener != NOBODY)
            crowd(listener, n);
        break;
    }
    case OP_LIMITS: {
        uint8_t most = next_byte(input);
        kernel.fd_limit = first ? first : FDS;
        kernel.send_most = most;
        kernel.send_most_n = most ? 100 : 0;
        break;
    }
    case OP_TURNS:
        script.turns = first < 240 ? first % 16 : first; /* mostly a few, as with OP_CROWD */
        return false;
    case OP_SERVER: {
        uint8_t how = next_byte(input);
        script.servers[first % SET_MOST].differs = !(how & 128);
        script.servers[first % SET_MOST].how = how;
        break;
    }
    case OP_SECRETS:
        python.two_secrets = first & 1;
        break;
    case OP_RENEW:
        python_renew(first % SCOPES, next_time_ms(input));
        break;
    case OP_SHORTEN:
        python_shorten(first % SCOPES, next_time_ms(input));
        break;
    case OP_RATES: {
        uint8_t limits = next_byte(input);
        python_rates(first % SCOPES, limits & 3, 1 + (limits >> 2 & 7));
        break;
    }
    case OP_ALL_ASK:
        for (unsigned i = 0; i < people.guest_most; i++) {
            if (people.guests[i].used && people.guests[i].wire) {
                guest_asks(&people.guests[i], first % ASKS, 0);
                guest_delivers(&people.guests[i], SIZE_MAX);
            }
        }
        break;
    }
    return true;
}

static void run_script(void)
{
    if (script.running || script.ending != E_RUNS)
        return;
    if (script.turns) {
        script.turns--;
        kernel.progress++;
        return;
    }
    script.running = true;
    while (!is_over(script.input) && operate(script.input))
        continue;
    script.running = false;
}

#endif
