/* What goes on around the script: what people do without being asked, how everything comes to an end when the script is
 * over, and the hooks by which the kernel asks. */
#ifndef FUZZ_ENDING_H
#define FUZZ_ENDING_H

#include "books.h"
#include "script.h"

/* What happens without being asked for, while the loop waits. */
static void do_the_usual(void)
{
    /* A crowd gets short answers: long ones for each would take seconds. */
    size_t number = kernel.guests_open > 40 && script.answer_number > 400 ? 400 : script.answer_number;
    for (unsigned i = 0; i < people.server_most; i++) {
        struct server *server = &people.servers[i];
        if (!server->used || !server->wire)
            continue;
        unsigned how = how_of(server), connecting = how & 7;
        bool refuses = (how & 48) == (server->signed_next ? 16 : 32);
        if (server->wire->connecting && connecting != 2)
            connected(server, connecting == 4 || (connecting == 7 && server->serial & 1));
        if (!(how & 8) && server->complete && server->answers == 0 && !server->end_wanted && !server->wire->down &&
            !server->wire->in_ended) {
            server_answers(server, refuses ? ANSWER_403 : script.answer, number);
            server_delivers(server, SIZE_MAX);
        }
    }
    if (python.reads)
        python_read_events();
}

static bool all_is_gone(void)
{
    return kernel.guests_open == 0 && kernel.novas_open == 0;
}

/* The script is over, and the loop waits for something to happen. */
static void go_on_ending(void)
{
    switch (script.ending) {
    case E_RUNS:
        script.ending = E_SETTLES;
        for (unsigned i = 0; i < people.guest_most && script.settles; i++) {
            if (people.guests[i].used)
                guest_delivers(&people.guests[i], SIZE_MAX);
        }
        for (unsigned i = 0; i < people.server_most && script.settles; i++) {
            if (people.servers[i].used)
                server_delivers(&people.servers[i], SIZE_MAX);
        }
        for (unsigned i = 0; i < kernel.wire_most && script.opens_windows; i++) {
            kernel.wires[i].window = SIZE_MAX;
            kernel.wires[i].out = 0;
        }
        if (script.opens_windows)
            kernel.fd_limit = FDS;
        kernel.progress++;
        break;
    case E_SETTLES:
        python.reads = true;
        kernel.fd_limit = FDS; /* a crowd that has its turns three by three takes hours */
        script.ending = script.quiet_first ? E_QUIET : E_STOPS;
        script.since_us = kernel.now_us;
        kernel.progress++;
        if (script.ending == E_STOPS && !python.stopped)
            python_stop(script.drain_ms);
        break;
    case E_QUIET:
        if (kernel.turns > TURNS / 2) {
            /* Dozens of requests, each with its minute at servers that are silent, and each looks for a second one all the
             * while: Nova answers now, or it takes too long. */
            script.answers = true;
            script.connecting = 0;
            memset(script.servers, 0, sizeof script.servers);
        }
        /* Rule 8: the time in each state is bounded. */
        if (!all_is_gone() && kernel.now_us - script.since_us > QUIET_MS * 1000ull)
            complain("%u connections of guests and %u to Nova are still there after %d hours", kernel.guests_open, kernel.novas_open,
                     QUIET_MS / 3600000);
        if (all_is_gone() || python.stopped || !pass_to_timer()) {
            if (!all_is_gone() && !python.stopped)
                complain("no timer is set, and %u connections of guests and %u to Nova are still there", kernel.guests_open,
                         kernel.novas_open);
            script.ending = E_STOPS;
            script.since_us = kernel.now_us;
            if (!python.stopped)
                python_stop(script.drain_ms);
        }
        break;
    case E_STOPS:
        if (kernel.now_us - script.since_us > (script.drain_ms + 1000) * 1000)
            complain("the loop has not ended a second after the time that it had for it");
        if (!pass_to_timer())
            complain("the loop was told to stop, and waits for ever");
        break;
    }
}

/* The hooks of kernel.h. */

static void hook_call(void)
{
    if (kernel.in_turn && script.interrupt && !script.running && --script.interrupt == 0) {
        trace("    in the middle of the turn:");
        run_script();
    }
}

/* Buffers that are kept for reuse get a mark that nobody made, so that a byte of theirs which reaches a guest is seen. */
static void spoil(TYPE(Buffer) *buffer)
{
    static const char mark[CELL + 1] = "\xf5" "ffffffff.......";
    for (unsigned n = 0; buffer && n < 4; buffer = buffer->next, n++) {
        if (memcmp(buffer->data, mark, CELL) == 0)
            continue;
        for (uint32_t at = 0; at + CELL <= buffer->capacity; at += CELL)
            memcpy(buffer->data + at, mark, CELL);
    }
}

static void hook_wait(bool blocks)
{
    (void)blocks;
    model_follow();
    books_check(python.loop, false);
    entries_check();
    spoil(python.loop->small);
    spoil(python.loop->large);
    run_script();
    do_the_usual();
}

static bool hook_still_waits(void)
{
    if (is_over(script.input))
        go_on_ending();
    else
        run_script();
    do_the_usual();
    return true;
}

static void hook_asked(void)
{
    people.turn_us = kernel.now_us;
}

static int hook_connect(struct wire *wire)
{
    struct server *server = server_new(wire);
    int error = EINPROGRESS;
    const struct sockaddr_in *four = (const struct sockaddr_in *)&wire->peer;
    const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)&wire->peer;
    server->place = (wire->peer.ss_family == AF_INET6 ? six->sin6_addr.s6_addr[15] : (int)(ntohl(four->sin_addr.s_addr) & 255)) - 1;
    script.connects++;
    switch (how_of(server) & 7) {
    case 1:
        error = 0;
        break;
    case 3:
        error = ECONNREFUSED;
        break;
    case 5:
        error = ENETUNREACH;
        break;
    case 6:
        error = script.connects & 1 ? 0 : ECONNREFUSED;
        break;
    default:
        break;
    }
    trace("    server %u: the core connects to place %d, %s", server->serial, server->place, error ? strerror(error) : "at once");
    return error;
}

static void hook_send(struct wire *wire)
{
    if (wire->to_nova)
        server_tried(wire->far);
}

static void hook_sent(struct wire *wire, const uint8_t *data, size_t length)
{
    if (wire->to_nova)
        server_reads(wire->far, data, length);
    else
        guest_reads(wire->far, data, length);
}

static void hook_shut(struct wire *wire)
{
    if (wire->to_nova)
        server_sees_end(wire->far);
    else
        guest_sees_end(wire->far, false);
}

/* Rule 6: a guest gets an answer, and never just the end of its connection. Not asked of guests that went, did not read, or
 * had not sent all of their request; nor when the kernel had failed us, or a listener was to end. */
static void judge_silence(const struct wire *wire, const struct guest *guest)
{
    if (guest->wild || kernel.faults_given || script.removals || script.ending == E_STOPS || wire->in_ended || wire->down ||
        wire->window != SIZE_MAX || wire->fd < 0 || bytes_length(&wire->in) || bytes_length(&guest->todo) ||
        guest->body_token != NOBODY || guest->waiting_n == 0)
        return;
    if (guest->reading == R_HEAD && bytes_length(&guest->head) == 0)
        complain("guest %u asked for token %d, and gets no answer but the end of its connection", guest->serial, guest->waiting[0]);
}

static void hook_closed(struct wire *wire, bool reset)
{
    if (!wire->far)
        return;
    if (wire->to_nova) {
        struct server *server = wire->far;
        trace("    server %u: the core closes", server->serial);
        server_was_read(server);
        server->wire = NULL;
        server->used = false;
    } else {
        struct guest *guest = wire->far;
        trace("    guest %u: the core closes%s", guest->serial, reset ? ", with a reset" : "");
        judge_silence(wire, guest);
        if (!wire->far_closed && !wire->down)
            guest_sees_end(guest, reset);
        guest->wire = NULL;
        guest->used = false;
    }
}

static void hook_listener_closed(int fd)
{
    for (unsigned i = 0; i < python.listener_n; i++) {
        if (python.listeners[i].open && python.listeners[i].fd == fd)
            python.listeners[i].open = false;
    }
}

#endif
