/* Python's part: it puts messages into the mailbox as _core.pyx does, reads the events, answers misses. And the model: what
 * the loop may believe at any moment, made of the messages that it has taken. */
#ifndef FUZZ_PYTHON_H
#define FUZZ_PYTHON_H

#include "core.h"

static void books_check_last(const Counters *counters);

enum { SCOPES = 2, FEW = 5, ADDRESSES = 80, KEYS = SCOPES * ADDRESSES, PUTS = 1024, LISTENERS = 64, QUESTIONS = 64, LENT = 64,
       NOBODY = -1 };

/* Both scopes have all of these addresses: only the listener tells their guests apart. The first FEW are those of most
 * guests, the others (see addresses_start) are for crowds. */
static struct {
    uint8_t bytes[16];
    uint32_t interface;
    int family; /* of the socket that it comes from */
    char text[16];
} addresses[ADDRESSES] = {
    {{[10] = 255, [11] = 255, [12] = 10, [15] = 5}, 0, AF_INET, "10.0.0.5"},
    {{[10] = 255, [11] = 255, [12] = 10, [15] = 6}, 0, AF_INET6, "10.0.0.6"},
    {{0xfe, 0x80, [15] = 9}, 7, AF_INET6, "fe80::9"},
    {{0xfe, 0x80, [15] = 9}, 8, AF_INET6, "fe80::9"},
    {{0x20, 0x01, 0x0d, 0xb8, [15] = 9}, 0, AF_INET6, "2001:db8::9"},
};

static void addresses_start(void)
{
    for (unsigned i = FEW; i < ADDRESSES; i++) {
        uint8_t *bytes = addresses[i].bytes;
        bytes[10] = bytes[11] = 255;
        bytes[12] = 10;
        bytes[14] = 1;
        bytes[15] = (uint8_t)i;
        addresses[i].family = AF_INET;
        snprintf(addresses[i].text, sizeof addresses[i].text, "10.0.1.%u", i);
    }
}

/* One identity as it was put: instance-<number> and project-<number> of a key, good for messages [since, until). */
struct put {
    int key;
    uint64_t ends_us;
    uint64_t since, until;
    uint64_t revoked_at;
    char signature[65], next_signature[65]; /* the latter empty: there was one secret */
};

/* Which servers there are is one number: how many, and of what kind all of them are. The first of them are the same in
 * sets of the same kind. */
enum { SET_MOST = 16, SET_N = 31, SET_IPV6 = 32, SET_OTHER_HOST = 64 };
static const char *const hosts[] = {"nova:8775", "other-nova:8775"};

enum policy { P_KNOWN, P_LATE, P_ABSENT, P_REFUSED, P_SILENT, P_SHORT, P_EXPIRED, P_STALE, POLICIES };

static struct {
    LoopState *loop;
    /* What Python thinks. */
    struct {
        bool added;
        uint64_t generation;
    } scopes[SCOPES];
    struct {
        int scope; /* NOBODY: not in use */
        int fd;
        bool open; /* as far as the kernel knows */
        bool removed;
        unsigned closed; /* how often the loop said so */
    } listeners[LISTENERS];
    unsigned listener_n;
    enum policy policies[KEYS];
    struct {
        int key;
        uint64_t generation, asked_us;
    } questions[QUESTIONS]; /* that have no answer yet */
    unsigned question_n;
    struct put puts[PUTS];
    unsigned put_n;
    bool stopped;
    unsigned upstream_n;
    bool two_secrets; /* identities are signed twice */
    bool reads; /* events, whenever there are any */
    uint64_t events_read, requests_read, problems[32];
    /* Blocks of counters that are lent to the loop, and the sum of those that it gave back. */
    struct {
        Counters *counters;
        int scope;
        uint64_t turn; /* when it was lent */
    } blocks[LENT];
    unsigned block_n;
    Counters given_back;
    /* The model. */
    uint64_t done; /* messages that it has taken up */
    struct {
        uint8_t kind;
        int scope, key, put;
        uint64_t generation;
    } posted[1024];
    struct {
        bool there;
        uint64_t generation;
    } model[SCOPES];
    int current[KEYS]; /* put, or NOBODY */
    bool ever_absent[KEYS];
    unsigned upstreams; /* messages that named servers */
    int set;            /* what the last of them named */
    bool revoked;       /* any identity, ever */
} python;

static int key_of(int scope, int address)
{
    return scope * ADDRESSES + address;
}

static int key_scope(int key)
{
    return key / ADDRESSES;
}

static int key_address(int key)
{
    return key % ADDRESSES;
}

static void model_forget(int key, uint64_t at)
{
    if (python.current[key] != NOBODY)
        python.puts[python.current[key]].until = at;
    python.current[key] = NOBODY;
}

/* key NOBODY: all of the scope. */
static void model_revoke(int scope, int key, uint64_t at)
{
    for (int a = 0; a < ADDRESSES; a++) {
        if (key == NOBODY || key == key_of(scope, a))
            model_forget(key_of(scope, a), at);
    }
    for (unsigned i = 0; i < python.put_n; i++) {
        bool meant = key == NOBODY ? key_scope(python.puts[i].key) == scope : python.puts[i].key == key;
        if (meant && python.puts[i].since < at && python.puts[i].revoked_at > at)
            python.puts[i].revoked_at = at;
    }
}

/* Takes up what the loop has taken. A message counts from the moment when the loop has taken it. */
static void model_follow(void)
{
    uint64_t taken = core_taken(python.loop);
    while (python.done < taken) {
        uint64_t at = ++python.done;
        const typeof(python.posted[0]) *message = &python.posted[(at - 1) % 1024];
        int scope = message->scope, key = message->key;
        bool fresh = scope != NOBODY && python.model[scope].there && message->generation == python.model[scope].generation;
        switch (message->kind) {
        case VALUE(MS_ADD_SCOPE):
            if (!python.model[scope].there)
                python.model[scope].generation = 0;
            python.model[scope].there = true;
            break;
        case VALUE(MS_REMOVE_SCOPE):
            python.model[scope].there = false;
            model_revoke(scope, NOBODY, at);
            break;
        case VALUE(MS_IDENTITY):
            if (fresh) {
                python.revoked |= python.current[key] != NOBODY; /* by another one */
                model_forget(key, at);
                python.current[key] = message->put;
                python.puts[message->put].since = at;
                python.puts[message->put].until = UINT64_MAX;
            }
            break;
        case VALUE(MS_ABSENT):
        case VALUE(MS_REFUSED):
            if (fresh) {
                model_forget(key, at);
                python.ever_absent[key] |= message->kind == VALUE(MS_ABSENT);
            }
            break;
        case VALUE(MS_REVOKE):
            python.revoked = true;
            if (python.model[scope].there) {
                model_revoke(scope, key, at);
                python.model[scope].generation = message->generation;
            }
            break;
        case VALUE(MS_REVOKE_ALL):
            python.revoked = true;
            if (python.model[scope].there) {
                model_revoke(scope, NOBODY, at);
                python.model[scope].generation = message->generation;
            }
            break;
        case VALUE(MS_UPSTREAMS):
            python.upstreams++;
            python.set = message->put;
            break;
        default:
            break;
        }
    }
}

static bool python_post(const Message *message, int scope, int key, int put)
{
    uint64_t at = python.loop->mailbox.written;
    model_follow();
    if (!core_post(python.loop, message))
        return false;
    python.posted[at % 1024] = (typeof(python.posted[0])){message->kind, scope, key, put, message->generation};
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

static void python_put(int key, uint64_t generation, uint64_t asked_us, uint64_t ttl_ms)
{
    char instance[32], project[32];
    Message message = {.kind = VALUE(MS_IDENTITY), .generation = generation, .asked_us = asked_us,
                       .ends_us = asked_us + ttl_ms * 1000};
    if (python.put_n == PUTS)
        return;
    unsigned number = python.put_n++;
    int instance_length = snprintf(instance, sizeof instance, "instance-%u", number);
    int project_length = snprintf(project, sizeof project, "project-%u", number);
    fill_key(&message, key);
    Identity *identity = core_identity(message.address, instance, (size_t)instance_length, project, (size_t)project_length, "secret",
                                       python.two_secrets ? "next" : "");
    struct put *put = &python.puts[number];
    *put = (struct put){.key = key, .ends_us = message.ends_us, .since = UINT64_MAX, .revoked_at = UINT64_MAX};
    memcpy(put->signature, identity->data + identity->length - 66, 64);
    if (python.two_secrets)
        memcpy(put->next_signature, identity->next_signature, 64);
    message.payload = identity;
    if (!python_post(&message, key_scope(key), key, (int)number))
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
        python_put(key, generation, asked_us, 50);
        break;
    case P_EXPIRED:
        python_put(key, generation, asked_us, 0);
        break;
    case P_STALE:
        python_put(key, generation + 1, asked_us, 10000);
        break;
    default:
        python_put(key, generation, asked_us, 10000);
    }
}

static void python_miss(const Event *event)
{
    int scope = (int)event->scope - 1, key = NOBODY;
    if (scope < 0 || scope >= SCOPES)
        complain("a miss in scope %u, which never was", event->scope);
    for (int a = 0; a < ADDRESSES; a++) {
        if (memcmp(addresses[a].bytes, event->address, 16) == 0 && addresses[a].interface == event->interface)
            key = key_of(scope, a);
    }
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
    memset(&python.given_back, 0, sizeof python.given_back);
    python.block_n = 0;
    python.listener_n = python.question_n = python.put_n = python.upstream_n = python.upstreams = 0;
    python.set = 0;
    python.two_secrets = python.revoked = false;
    python.stopped = false;
    python.reads = true;
    python.events_read = python.requests_read = python.done = 0;
    for (int key = 0; key < KEYS; key++)
        python.current[key] = NOBODY;
}

#endif
