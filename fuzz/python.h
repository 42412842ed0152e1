/* Python's part: it puts messages into the mailbox as _core.pyx does, reads the events, answers misses. */
#ifndef FUZZ_PYTHON_H
#define FUZZ_PYTHON_H

#include "model.h"

static void books_check_last(const Counters *counters);

/* How many requests of a scope have found their identity; UINT64_MAX: there is no such scope. */
static uint64_t scope_hits(int scope)
{
    const LoopState *loop = python.loop;
    for (const Link *at = loop->scopes.next; at && at != &loop->scopes; at = at->next) {
        const Scope *found = at->owner;
        if ((int)found->number - 1 == scope)
            return found->counters->values[VALUE(CT_IDENTITY_HITS)];
    }
    return UINT64_MAX;
}

static bool python_post(const Message *message, int scope, int key, int put)
{
    uint64_t at = python.loop->mailbox.written;
    model_follow();
    if (!core_post(python.loop, message))
        return false;
    python.posted[at % 1024] =
        (typeof(python.posted[0])){message->kind,     scope, key, put, message->generation, message->asked_us, message->ends_us,
                                   scope_hits(scope)};
    trace("    python: message %lu of kind %d, scope %d, key %d, generation %lu, put %d", (unsigned long)at + 1, message->kind,
          scope, key, (unsigned long)message->generation, put);
    kernel.progress++;
    return true;
}

static void fill_key(Message *message, int key)
{
    message->scope = (uint32_t)key_scope(key) + 1;
    memcpy(message->address, addresses[key_address(key)].bytes, 16);
    message->interface = addresses[key_address(key)].interface;
}

/* An answer that names an instance: this one, or (NOBODY) one that never was. */
static void python_put(int key, int number, uint64_t generation, uint64_t asked_us, uint64_t ttl_ms)
{
    char instance[32], project[32];
    Message message = {.kind = VALUE(MS_IDENTITY), .generation = generation, .asked_us = asked_us,
                       .ends_us = asked_us + ttl_ms * 1000};
    bool new = number == NOBODY;
    if (new && python.put_n == PUTS)
        return;
    if (new)
        number = (int)python.put_n++;
    struct put *put = &python.puts[number];
    int instance_length = snprintf(instance, sizeof instance, "instance-%d", number);
    int project_length = snprintf(project, sizeof project, "project-%d", number);
    bool twice = new ? python.two_secrets : put->next_signature[0];
    fill_key(&message, key);
    Identity *identity = core_identity(message.address, instance, (size_t)instance_length, project, (size_t)project_length, "secret",
                                       twice ? "next" : "");
    if (new) {
        *put = (struct put){.key = key, .since = UINT64_MAX};
        memcpy(put->signature, identity->data + identity->length - 66, 64);
        if (twice)
            memcpy(put->next_signature, identity->next_signature, 64);
    }
    message.payload = identity;
    python.last[key] = number;
    if (!python_post(&message, key_scope(key), key, number))
        kernel_free(identity);
}

static void python_absent(int key, uint64_t generation, uint64_t asked_us, uint64_t ttl_ms)
{
    Message message = {.kind = VALUE(MS_ABSENT), .generation = generation, .ends_us = asked_us + ttl_ms * 1000};
    fill_key(&message, key);
    python_post(&message, key_scope(key), key, NOBODY);
}

static void python_refused(int key, uint64_t generation)
{
    Message message = {.kind = VALUE(MS_REFUSED), .generation = generation};
    fill_key(&message, key);
    python_post(&message, key_scope(key), key, NOBODY);
}

static void python_revoke(int scope, int key)
{
    Message message = {.kind = VALUE(MS_REVOKE_ALL), .scope = (uint32_t)scope + 1};
    if (key != NOBODY) {
        message.kind = VALUE(MS_REVOKE);
        fill_key(&message, key);
    }
    message.generation = python.scopes[scope].generation + 1;
    if (python_post(&message, scope, key, NOBODY))
        python.scopes[scope].generation++;
}

static void python_renew(int scope, uint64_t before_ms)
{
    Message message = {.kind = VALUE(MS_RENEW), .scope = (uint32_t)scope + 1, .ends_us = kernel.now_us + before_ms * 1000};
    python_post(&message, scope, NOBODY, NOBODY);
}

static void python_shorten(int scope, uint64_t ttl_ms)
{
    Message message = {.kind = VALUE(MS_SHORTEN), .scope = (uint32_t)scope + 1, .ends_us = ttl_ms * 1000};
    python_post(&message, scope, NOBODY, NOBODY);
}

/* Limits of one scope; 0: none there, whatever the settings say. For the model, ends_us has them too. */
static void python_rates(int scope, unsigned versions, uint32_t limit)
{
    Message message = {.kind = VALUE(MS_RATES), .scope = (uint32_t)scope + 1, .ends_us = versions};
    Rates *rates = take_block(sizeof(Rates), __func__, __LINE__);
    *rates = (Rates){.versions = versions, .base_limit = limit, .burst_limit = 2 * limit};
    rates->base_window_ms = rates->burst_window_ms = 1000;
    message.payload = rates;
    if (!python_post(&message, scope, NOBODY, NOBODY))
        kernel_free(rates);
}

static void python_add_scope(int scope)
{
    Message message = {.kind = VALUE(MS_ADD_SCOPE), .scope = (uint32_t)scope + 1};
    if (python.scopes[scope].added || python.block_n == LENT)
        return;
    message.counters = take_block(sizeof(Counters), __func__, __LINE__);
    memset(message.counters, 0, sizeof(Counters));
    if (!python_post(&message, scope, NOBODY, NOBODY)) {
        kernel_free(message.counters);
        return;
    }
    python.blocks[python.block_n].counters = message.counters;
    python.blocks[python.block_n].turn = kernel.turns;
    python.blocks[python.block_n++].scope = scope;
    python.scopes[scope].added = true;
    python.scopes[scope].generation = 0;
}

/* EV_SCOPE_REMOVED: the block is Python's again, and its figures are final. */
static void python_takes_back(const Event *event)
{
    for (unsigned i = 0; i < python.block_n; i++) {
        Counters *counters = python.blocks[i].counters;
        if (counters != event->counters)
            continue;
        if (python.blocks[i].scope != (int)event->scope - 1)
            complain("the counters of scope %d come back as those of %u", python.blocks[i].scope, event->scope);
        books_check_last(counters);
        for (unsigned k = 0; k < VALUE(CT_N); k++)
            python.given_back.values[k] += counters->values[k];
        kernel_free(counters);
        python.blocks[i] = python.blocks[--python.block_n];
        return;
    }
    complain("counters come back that were not lent");
}

static void python_remove_scope(int scope)
{
    Message message = {.kind = VALUE(MS_REMOVE_SCOPE), .scope = (uint32_t)scope + 1};
    if (!python.scopes[scope].added || !python_post(&message, scope, NOBODY, NOBODY))
        return;
    python.scopes[scope].added = false;
    unsigned kept = 0;
    for (unsigned i = 0; i < python.question_n; i++) {
        if (key_scope(python.questions[i].key) != scope)
            python.questions[kept++] = python.questions[i];
    }
    python.question_n = kept;
}

static void python_add_listener(int scope)
{
    Message message = {.kind = VALUE(MS_ADD_LISTENER), .scope = (uint32_t)scope + 1};
    if (python.listener_n == LISTENERS)
        return;
    message.fd = kernel_listener();
    if (message.fd < 0)
        return;
    message.listener = python.listener_n + 1;
    if (!python_post(&message, scope, NOBODY, NOBODY)) {
        kernel_close(message.fd);
        return;
    }
    unsigned number = python.listener_n++;
    python.listeners[number].scope = scope;
    python.listeners[number].fd = message.fd;
    python.listeners[number].open = true;
    python.listeners[number].removed = false;
    python.listeners[number].closed = 0;
}

static void python_remove_listener(unsigned number, bool drain)
{
    Message message = {.kind = VALUE(MS_REMOVE_LISTENER), .listener = number + 1, .drain = drain};
    if (python_post(&message, NOBODY, NOBODY, NOBODY))
        python.listeners[number].removed = true;
}

static void python_set_upstreams(int set)
{
    UpstreamsMessage *upstreams = take_block(sizeof *upstreams, __func__, __LINE__);
    Message message = {.kind = VALUE(MS_UPSTREAMS), .payload = upstreams};
    memset(upstreams, 0, sizeof *upstreams);
    upstreams->server_n = set & SET_N;
    for (unsigned i = 0; i < upstreams->server_n; i++) {
        ServerSpec *spec = &upstreams->servers[i];
        struct sockaddr_in *four = (struct sockaddr_in *)&spec->target.address;
        struct sockaddr_in6 *six = (struct sockaddr_in6 *)&spec->target.address;
        if (set & SET_IPV6) {
            *six = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(8775)};
            six->sin6_addr.s6_addr[15] = (uint8_t)(i + 1);
        } else {
            *four = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(8775)};
            four->sin_addr.s_addr = htonl(0xc0000200 + i + 1);
        }
        spec->target.length = set & SET_IPV6 ? sizeof *six : sizeof *four;
        spec->number = python.upstream_n * SET_MOST + i + 1; /* another one each time, as Python may */
        spec->host_length = (uint32_t)snprintf((char *)spec->host, sizeof spec->host, "%s", hosts[!!(set & SET_OTHER_HOST)]);
    }
    if (!python_post(&message, NOBODY, NOBODY, set))
        kernel_free(upstreams);
    else
        python.upstream_n++;
}

static void python_stop(uint64_t drain_ms)
{
    Message message = {.kind = VALUE(MS_STOP), .ends_us = drain_ms};
    if (python_post(&message, NOBODY, NOBODY, NOBODY))
        python.stopped = true;
}

/* The source's answer about a key. generation, asked_us: of the question. */
static void python_answer(int key, uint64_t generation, uint64_t asked_us, enum policy policy)
{
    switch (policy) {
    case P_ABSENT:
        python_absent(key, generation, asked_us, 2000);
        break;
    case P_REFUSED:
        python_refused(key, generation);
        break;
    case P_SHORT:
        python_put(key, NOBODY, generation, asked_us, 50);
        break;
    case P_EXPIRED:
        python_put(key, NOBODY, generation, asked_us, 0);
        break;
    case P_STALE:
        python_put(key, NOBODY, generation + 1, asked_us, 10000);
        break;
    case P_SAME:
        python_put(key, python.last[key], generation, asked_us, 10000);
        break;
    case P_REVOKED:
        /* Once: what waits is asked for anew after a revocation, and that must not lead to the next one. */
        if (python.policies[key] == P_REVOKED)
            python.policies[key] = P_SAME;
        python_revoke(key_scope(key), key);
        python_put(key, NOBODY, python.scopes[key_scope(key)].generation, asked_us, 10000);
        break;
    default:
        python_put(key, NOBODY, generation, asked_us, 10000);
    }
}

static void python_miss(const Event *event)
{
    int scope = (int)event->scope - 1, key;
    if (scope < 0 || scope >= SCOPES)
        complain("a miss in scope %u, which never was", event->scope);
    key = key_of_address(scope, event->address, event->interface);
    if (key == NOBODY)
        complain("a miss of an address that nobody has");
    trace("    python: a miss of key %d", key);
    if (!python.scopes[scope].added)
        return;
    if (python.policies[key] == P_SILENT)
        return;
    if (python.policies[key] == P_LATE) {
        if (python.question_n < QUESTIONS) {
            python.questions[python.question_n++] =
                (typeof(python.questions[0])){key, python.scopes[scope].generation, kernel.now_us};
        }
        return;
    }
    python_answer(key, python.scopes[scope].generation, kernel.now_us, python.policies[key]);
}

/* An answer to a question that waits, about which nobody knows how old it is. */
static void python_answer_late(unsigned which, enum policy policy)
{
    if (python.question_n == 0)
        return;
    which %= python.question_n;
    typeof(python.questions[0]) question = python.questions[which];
    python.questions[which] = python.questions[--python.question_n];
    python_answer(question.key, question.generation, question.asked_us, policy);
}

/* A problem is of a server that was named, or of none. */
static void python_problem(const Event *event)
{
    bool of_server = event->code == VALUE(PR_UPSTREAM_AWAY) || event->code == VALUE(PR_UPSTREAM_BACK) ||
                     event->code == VALUE(PR_UPSTREAM_NONSENSE) || event->code == VALUE(PR_UPSTREAM_REFUSES_SIGNATURE) ||
                     event->code == VALUE(PR_UPSTREAM_SILENT) || event->code == VALUE(PR_UPSTREAM_SLOW) ||
                     event->code == VALUE(PR_NEXT_SECRET);
    if (of_server != (event->upstream != 0) || event->upstream > python.upstream_n * SET_MOST)
        complain("problem %u is of server %u", event->code, event->upstream);
    if (event->code == VALUE(PR_UPSTREAM_CERTIFICATE) || event->code == VALUE(PR_UPSTREAM_TLS))
        complain("problem %u, and there is no TLS", event->code);
    python.problems[event->code]++;
}

/* Loop.events() of _core.pyx. */
static void python_read_events(void)
{
    LoopState *loop = python.loop;
    if (kernel.fds[loop->notify - FD_FIRST].count) {
        uint64_t signals;
        kernel.fds[loop->notify - FD_FIRST].count = 0;
        (void)signals;
    }
    uint64_t written = __atomic_load_n(&loop->events.written, __ATOMIC_ACQUIRE);
    while (loop->events.taken != written) {
        Event event = ((Event *)loop->events.slots)[loop->events.taken % VALUE(RG_EVENTS)];
        __atomic_store_n(&loop->events.taken, loop->events.taken + 1, __ATOMIC_RELEASE);
        python.events_read++;
        if (event.kind == VALUE(EV_MISS)) {
            python_miss(&event);
        } else if (event.kind == VALUE(EV_LISTENER_CLOSED)) {
            if (event.listener == 0 || event.listener > python.listener_n || python.listeners[event.listener - 1].closed++)
                complain("listener %u ended that never was, or twice", event.listener);
        } else if (event.kind == VALUE(EV_SCOPE_REMOVED)) {
            python_takes_back(&event);
        } else if (event.kind == VALUE(EV_PROBLEM)) {
            python_problem(&event);
        } else {
            complain("an event of unknown kind %d", event.kind);
        }
    }
    written = __atomic_load_n(&loop->requests.written, __ATOMIC_ACQUIRE);
    while (loop->requests.taken != written) {
        const RequestRecord *record = &((RequestRecord *)loop->requests.slots)[loop->requests.taken % VALUE(RG_REQUESTS)];
        if (record->scope == 0 || record->scope > SCOPES || record->method_length > 32 || record->target_length > VALUE(RG_TARGET))
            complain("a record that cannot be");
        __atomic_store_n(&loop->requests.taken, loop->requests.taken + 1, __ATOMIC_RELEASE);
        python.requests_read++;
    }
}

/* The loop is gone: what it did not give back is freed. */
static void python_end(void)
{
    while (python.block_n)
        kernel_free(python.blocks[--python.block_n].counters);
}

static void python_start(LoopState *loop)
{
    python.loop = loop;
    memset(python.scopes, 0, sizeof python.scopes);
    memset(python.model, 0, sizeof python.model);
    memset(python.policies, 0, sizeof python.policies);
    memset(python.ever_absent, 0, sizeof python.ever_absent);
    memset(python.problems, 0, sizeof python.problems);
    memset(python.changed_at, 0, sizeof python.changed_at);
    memset(python.said_at, 0, sizeof python.said_at);
    memset(python.rechecked, 0, sizeof python.rechecked);
    memset(python.revoked_at, 0, sizeof python.revoked_at);
    memset(python.scope_revoked_at, 0, sizeof python.scope_revoked_at);
    memset(&python.renewals, 0, sizeof python.renewals);
    memset(python.asked_us, 0, sizeof python.asked_us);
    memset(&python.given_back, 0, sizeof python.given_back);
    python.block_n = 0;
    python.listener_n = python.question_n = python.put_n = python.upstream_n = python.upstreams = 0;
    python.set = 0;
    python.two_secrets = python.revoked = false;
    python.stopped = false;
    python.reads = true;
    python.events_read = python.requests_read = python.done = 0;
    for (int key = 0; key < KEYS; key++)
        python.current[key] = python.last[key] = python.named[key] = NOBODY;
}

#endif
