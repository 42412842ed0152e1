/* Target conversation: a whole loop of the core between guests and Nova, from lp_init to lp_free. See docs/testing.md for the
 * rules that are checked. */
#ifndef FUZZ_CONVERSATION_H
#define FUZZ_CONVERSATION_H

#include "ending.h"

/* The settings of a loop, eight values for each; the first is the default of _core.pyx. The order is part of the input's
 * format (operations.py reads it from here): new ones go to the end, and there is room for SETTING_BYTES in all. */
static const struct {
    size_t place, length;
    uint64_t values[8];
} settings[] = {
#define PLACE(name) offsetof(LoopState, name), sizeof ((LoopState *)NULL)->name
#define SETTING(name, ...) {PLACE(settings.name), {__VA_ARGS__}}
#define LIMIT(name, ...) {PLACE(head_limits.name), {__VA_ARGS__}}
    SETTING(park_timeout_ms, 8000, 0, 1, 100, 1000, 3000, 20000, 60000),
    SETTING(upstream_timeout_ms, 60000, 10, 100, 1000, 5000, 8000, 20000, 30000),
    SETTING(connect_timeout_ms, 3000, 10, 100, 500, 1000, 5000, 10000, 60000),
    SETTING(head_timeout_ms, 10000, 10, 100, 1000, 2000, 5000, 20000, 60000),
    SETTING(body_timeout_ms, 30000, 10, 100, 1000, 2000, 5000, 20000, 60000),
    SETTING(write_timeout_ms, 30000, 10, 100, 1000, 2000, 5000, 20000, 60000),
    SETTING(keepalive_timeout_ms, 30000, 10, 100, 1000, 2000, 5000, 20000, 60000),
    SETTING(linger_timeout_ms, 2000, 10, 100, 500, 1000, 5000, 20000, 60000),
    SETTING(upstream_idle_timeout_ms, 4000, 10, 100, 500, 1000, 5000, 20000, 60000),
    SETTING(max_connections, 16384, 1, 2, 3, 4, 6, 10, 100),
    SETTING(max_parked, 8192, 0, 1, 2, 3, 4, 8, 16),
    SETTING(max_absent, 1024, 0, 1, 2, 3, 4, 5, 6),
    LIMIT(head, 8192, 256, 300, 512, 1000, 4000, 10000, 14000),
    SETTING(max_body, 1048576, 0, 1, 100, 1000, 30000, 65536, 100000),
    SETTING(max_upstream_connections, 256, 1, 2, 3, 4, 8, 16, 100),
    SETTING(answer_timeout_ms, 600000, 10, 100, 1000, 5000, 20000, 60000, 300000),
    SETTING(max_connections_per_scope, 4096, 1, 2, 3, 4, 6, 10, 100),
    SETTING(max_connections_per_address, 128, 1, 2, 3, 4, 6, 10, 50),
    SETTING(max_parked_per_scope, 2048, 0, 1, 2, 3, 4, 8, 16),
    SETTING(max_parked_per_address, 64, 0, 1, 2, 3, 4, 8, 16),
    SETTING(max_gathered, 512, 1, 2, 3, 4, 8, 16, 64),
    LIMIT(headers, VALUE(H1_MAX_HEADERS), 1, 2, 3, 5, 10, 20, 50),
    LIMIT(target, 4096, 16, 20, 50, 100, 300, 1000, 14000),
    SETTING(rate_versions, 0, 1, 2, 3, 0, 1, 2, 3),
    SETTING(base_window_ms, 10000, 1, 10, 100, 500, 1000, 5000, 30000),
    SETTING(base_limit, 10, 1, 2, 3, 5, 20, 50, 100),
    SETTING(burst_window_ms, 10000, 1, 10, 100, 500, 1000, 5000, 30000),
    SETTING(burst_limit, 10, 1, 2, 3, 5, 20, 50, 100),
    SETTING(second_try_after_ms, 3000, 0, 1, 10, 100, 500, 1000, 10000),
    SETTING(warm_connections, 0, 1, 2, 3, 0, 1, 2, 3),
#undef SETTING
#undef LIMIT
#undef PLACE
};

static void set_up(struct input *input, LoopState *loop)
{
    uint8_t flags = next_byte(input), more = next_byte(input);
    unsigned n = sizeof settings / sizeof *settings, from = input->at;
    loop->settings.access_log = flags & 1;
    script.quiet_first = !(flags & 2);
    script.settles = !(flags & 4);
    script.opens_windows = !(flags & 8);
    script.connecting = flags >> 5;
    script.answers = !(more & 1);
    script.drain_ms = more & 2 ? 2000 : 0;
    script.server_n = 1 + (more >> 3 & 3);
    kernel_start(next_byte(input), more & 4 ? 5000000 : 100000000000u);
    uint8_t start_fault = next_byte(input);
    if (start_fault) {
        enum call call = start_fault & 1 ? CALL_START : start_fault & 2 ? CALL_MEMORY : CALL_WATCH;
        kernel.faults[call].skip = start_fault >> 2 & 7;
        kernel.faults[call].times = 1;
        kernel.faults[call].error = call == CALL_START ? EMFILE : ENOMEM;
    }
    script.answer = next_byte(input) % ANSWERS;
    script.answer_number = next_amount(input);
    uint8_t policy = next_byte(input);
    for (unsigned i = 0; i < n; i++) {
        uint64_t value = settings[i].values[next_byte(input) & 7];
        memcpy((uint8_t *)loop + settings[i].place, &value, settings[i].length); /* little-endian */
    }
    input->at = from - 2 + SETTING_BYTES < input->length ? from - 2 + SETTING_BYTES : input->length;
    python_start(loop);
    python.two_secrets = more & 32;
    for (int key = 0; key < KEYS; key++)
        python.policies[key] = (policy >> (key_scope(key) * 4) & 15) % POLICIES;
}

static void target_conversation(struct input *input)
{
    memset(&script, 0, sizeof script);
    for (unsigned i = 0; i < people.guest_most; i++)
        people.guests[i].used = false;
    for (unsigned i = 0; i < people.server_most; i++)
        people.servers[i].used = false;
    people.guest_most = people.server_most = people.guest_serial = people.server_serial = 0;
    people.token_n = people.record_n = 0;
    people.raw_answers = false;
    memset(people.statuses, 0, sizeof people.statuses);
    people.requests_at_nova = people.answers_at_guests = people.requests_made = 0;
    script.input = input;
    LoopState *loop = take_block(sizeof(LoopState), __func__, __LINE__);
    memset(loop, 0, sizeof *loop);
    set_up(input, loop);
    people.turn_us = kernel.now_us;
    int error = CORE(lp_init)(loop);
    trace("lp_init: %d", error);
    if (error == 0) {
        /* As the agent does before it runs the loop. */
        python_set_upstreams((int)script.server_n);
        for (int scope = 0; scope < SCOPES; scope++) {
            python_add_scope(scope);
            python_add_listener(scope);
        }
        error = CORE(lp_run)(loop);
        kernel.in_turn = false;
        trace("lp_run: %d", error);
        model_follow();
        python_read_events();
        books_check_end(loop);
        trace("%lu second tries, %lu of them faster, %lu signed anew", (unsigned long)loop->counters.values[VALUE(CT_SECOND_TRIES)],
              (unsigned long)loop->counters.values[VALUE(CT_SECOND_WON)],
              (unsigned long)loop->counters.values[VALUE(CT_SECRET_RETRIES)]);
        for (unsigned i = 0; i < python.listener_n; i++) {
            if (python.listeners[i].open)
                complain("listener %u is still open", i + 1);
        }
        if (kernel.guests_open || kernel.novas_open)
            complain("%u connections of guests and %u to Nova are still open", kernel.guests_open, kernel.novas_open);
    }
    script.ending = E_STOPS;
    CORE(lp_free)(loop);
    python_end();
    kernel_end();
}

#endif
