/* What Python knows, and the model: what the loop may believe at any moment, made of the messages that it has taken. */
#ifndef FUZZ_MODEL_H
#define FUZZ_MODEL_H

#include "core.h"

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

/* One identity as it was put: instance-<number> and project-<number> of a key, good for messages [since, until) since it was
 * last named after another one, or after nothing. */
struct put {
    int key;
    uint64_t since, until;
    bool again;            /* there was such a time before */
    uint64_t asked_us, ends_us; /* of its last confirmation; a shorter time to live counts too */
    uint64_t confirmed_at; /* the message */
    uint64_t times_at;     /* the last message that changed these times */
    uint64_t lapsed_at;    /* the last that confirmed it when it had ended, or only for the past */
    uint64_t hits;         /* of its scope when it was last confirmed; UINT64_MAX: not known */
    bool used;             /* since then by a request that was made later */
    uint64_t used_turn;    /* the first such turn; the renewals of a turn come before its requests */
    char signature[65], next_signature[65]; /* the latter empty: there was one secret */
};

/* Which servers there are is one number: how many, and of what kind all of them are. The first of them are the same in
 * sets of the same kind. */
enum { SET_MOST = 16, SET_N = 31, SET_IPV6 = 32, SET_OTHER_HOST = 64 };
static const char *const hosts[] = {"nova:8775", "other-nova:8775"};

/* The order is part of the input's format: new ones go to the end. P_SAME: the instance that was named last, again; P_REVOKED:
 * another one, after a revocation; all others that name one name one that never was. */
enum policy { P_KNOWN, P_LATE, P_ABSENT, P_REFUSED, P_SILENT, P_SHORT, P_EXPIRED, P_STALE, P_SAME, P_REVOKED, POLICIES };

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
        uint64_t generation, asked_us, ends_us, hits;
    } posted[1024];
    struct {
        bool there;
        uint64_t generation;
        uint64_t rate_versions; /* that its own limits ever had */
    } model[SCOPES];
    int current[KEYS]; /* put, or NOBODY */
    int last[KEYS];    /* the last that Python said */
    int named[KEYS];   /* the last that counted, though it may have ended; NOBODY: none, or that the address is nobody's */
    uint64_t changed_at[KEYS];         /* the message that made it so */
    uint64_t said_at[KEYS];            /* the last message that said who it is, or that this is open */
    uint64_t revoked_at[KEYS];         /* the last message that ended what was in flight */
    uint64_t scope_revoked_at[SCOPES]; /* the last revocation in the scope, of whatever */
    struct {
        unsigned n;
        int scope;
        bool others; /* messages came between them, or they are of several scopes */
        uint64_t at, before_us;
    } renewals; /* in this turn */
    uint64_t asked_us[KEYS]; /* of its entry, when the last turn ended */
    struct {
        uint64_t us, at; /* of its entry, when the last turn ended; messages taken by the end of the turn in which it began */
    } rechecked[KEYS];
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

static int key_of_address(int scope, const uint8_t *address, uint32_t interface)
{
    for (int a = 0; a < ADDRESSES; a++) {
        if (memcmp(addresses[a].bytes, address, 16) == 0 && addresses[a].interface == interface)
            return key_of(scope, a);
    }
    return NOBODY;
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
        if (key == NOBODY || key == key_of(scope, a)) {
            model_forget(key_of(scope, a), at);
            python.revoked_at[key_of(scope, a)] = at;
            python.said_at[key_of(scope, a)] = at;
        }
    }
    python.scope_revoked_at[scope] = at;
}

/* The source says something else of a key than before: requests under what is known still are aborted, as by a revocation.
 * What has ended may be known or forgotten. */
static void model_changes(int key, uint64_t at)
{
    int was = python.current[key];
    if (was != NOBODY && python.puts[was].ends_us > kernel.now_us && !kernel.faults_given)
        python.revoked_at[key] = at;
    if (was != NOBODY)
        python.scope_revoked_at[key_scope(key)] = at; /* whatever of the scope is held may be asked for anew */
    model_forget(key, at);
}

static void model_names(int key, int number, uint64_t at)
{
    if (python.named[key] != number)
        python.changed_at[key] = at;
    python.named[key] = number;
}

static void model_confirms(const typeof(python.posted[0]) *message, uint64_t at)
{
    struct put *put = &python.puts[message->put];
    if (python.current[message->key] != message->put) {
        python.revoked |= python.current[message->key] != NOBODY; /* by another one */
        model_changes(message->key, at);
        python.current[message->key] = message->put;
        put->again = put->since != UINT64_MAX;
        put->since = at;
        put->until = UINT64_MAX;
    }
    model_names(message->key, message->put, at);
    if (message->ends_us <= kernel.now_us || put->ends_us <= kernel.now_us)
        put->lapsed_at = at;
    put->asked_us = message->asked_us;
    put->ends_us = message->ends_us;
    put->confirmed_at = put->times_at = at;
    put->hits = message->hits;
    put->used = false;
}

static void model_renews(int scope, uint64_t before_us, uint64_t at)
{
    typeof(python.renewals) *all = &python.renewals;
    all->others |= all->n && (all->scope != scope || all->at + 1 != at);
    all->before_us = all->n++ && all->before_us > before_us ? all->before_us : before_us;
    all->scope = scope;
    all->at = at;
}

static void model_shortens(int scope, uint64_t ttl_us, uint64_t at)
{
    for (int a = 0; a < ADDRESSES; a++) {
        int number = python.current[key_of(scope, a)];
        if (number == NOBODY || python.puts[number].ends_us <= python.puts[number].asked_us + ttl_us)
            continue;
        python.puts[number].ends_us = python.puts[number].asked_us + ttl_us;
        python.puts[number].times_at = at;
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
                model_confirms(message, at);
                python.said_at[key] = at;
            }
            break;
        case VALUE(MS_ABSENT):
        case VALUE(MS_REFUSED):
            if (fresh) {
                model_changes(key, at);
                python.said_at[key] = at;
                if (message->kind == VALUE(MS_ABSENT)) {
                    python.ever_absent[key] = true;
                    model_names(key, NOBODY, at);
                }
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
        case VALUE(MS_RENEW):
            model_renews(scope, message->ends_us, at);
            break;
        case VALUE(MS_SHORTEN):
            if (python.model[scope].there)
                model_shortens(scope, message->ends_us, at);
            break;
        case VALUE(MS_RATES):
            if (python.model[scope].there)
                python.model[scope].rate_versions |= message->ends_us;
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

#endif
