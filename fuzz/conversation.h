/* Target conversation: a whole loop of the core between guests and Nova, from lp_init to lp_free. See docs/testing.md for the
 * rules that are checked. */
#ifndef FUZZ_CONVERSATION_H
#define FUZZ_CONVERSATION_H

#include "script.h"

/* The settings of a loop, eight values for each; the first is the default of _core.pyx. */
static const struct {
    size_t place;
    uint32_t values[8];
} settings[] = {
#define SETTING(name, ...) {offsetof(Settings, name), {__VA_ARGS__}}
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
    SETTING(max_parked, 4096, 0, 1, 2, 3, 4, 8, 16),
    SETTING(max_absent, 1024, 0, 1, 2, 3, 4, 5, 6),
    SETTING(max_head, 8192, 256, 300, 512, 1000, 4000, 10000, 14000),
    SETTING(max_body, 1048576, 0, 1, 100, 1000, 30000, 65536, 100000),
    SETTING(max_upstream_connections, 256, 1, 2, 3, 4, 8, 16, 100),
#undef SETTING
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
        memcpy((uint8_t *)&loop->settings + settings[i].place, &value, sizeof value);
    }
    input->at = from - 2 + SETTING_BYTES < input->length ? from - 2 + SETTING_BYTES : input->length;
    python_start(loop);
    for (int key = 0; key < KEYS; key++)
        python.policies[key] = (policy >> (key_scope(key) * 4) & 7) % POLICIES;
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
        python_set_upstream(2, false);
        for (int scope = 0; scope < SCOPES; scope++) {
            python_add_scope(scope);
            python_add_listener(scope);
        }
        error = CORE(lp_run)(loop);
        kernel.in_turn = false;
        trace("lp_run: %d", error);
        model_follow();
        python_read_events();
        core_check_end(loop, error, kernel.accepted);
        for (unsigned i = 0; i < python.listener_n; i++) {
            if (python.listeners[i].open)
                complain("listener %u is still open", i + 1);
        }
        if (kernel.guests_open || kernel.novas_open)
            complain("%u connections of guests and %u to Nova are still open", kernel.guests_open, kernel.novas_open);
    }
    script.ending = E_STOPS;
    CORE(lp_free)(loop);
    kernel_end();
}

#endif
