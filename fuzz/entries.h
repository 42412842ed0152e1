/* The loop's identity table, beside the model. Read between two turns, or while a guest is sent something. */
#ifndef FUZZ_ENTRIES_H
#define FUZZ_ENTRIES_H

#include "python.h"

typedef TYPE(Entry) Entry;

/* Rule 7. An identity that was confirmed so shortly ago is not doubted; for so long after a question for a 404 no other such
 * question is asked; so long after it answers are held; and none is held longer, when the wheel of timers is late too. */
enum { YOUNG_US = 2000000, RECHECKED_US = 10000000, WAITED_US = 2990000, HELD_US = 3200000, ASKED_US = 1000000 };

static const Scope *core_scope(int scope)
{
    const LoopState *loop = python.loop;
    for (const Link *at = loop->scopes.next; at != &loop->scopes; at = at->next) {
        const Scope *found = at->owner;
        if ((int)found->number - 1 == scope)
            return found;
    }
    return NULL;
}

static const Entry *entry_of(int key)
{
    const Scope *scope = core_scope(key_scope(key));
    const typeof(addresses[0]) *address = &addresses[key_address(key)];
    for (unsigned i = 0; scope && i < scope->bucket_n; i++) {
        for (const Entry *entry = scope->buckets[i]; entry; entry = entry->next) {
            if (entry->interface == address->interface && memcmp(entry->address, address->bytes, 16) == 0)
                return entry;
        }
    }
    return NULL;
}

static const Guest *core_guest(int fd)
{
    const LoopState *loop = python.loop;
    for (const Link *scope = loop->scopes.next; scope != &loop->scopes; scope = scope->next) {
        const Link *listeners = &((const Scope *)scope->owner)->listeners;
        for (const Link *listener = listeners->next; listener != listeners; listener = listener->next) {
            const Link *guests = &((const Listener *)listener->owner)->guests;
            for (const Link *at = guests->next; at != guests; at = at->next) {
                if (((const Guest *)at->owner)->socket.fd == fd)
                    return at->owner;
            }
        }
    }
    return NULL;
}

/* Whether the source was asked because of Nova's 404, and has not said anything since. */
static bool is_rechecked(const Entry *entry, int key)
{
    uint64_t at = python.rechecked[key].us == entry->rechecked_us ? python.rechecked[key].at : python.done;
    return entry->rechecked_us && python.said_at[key] <= at;
}

/* What an entry says is what the messages said. */
static void entry_check(const Entry *entry, int key)
{
    char instance[32];
    int number = python.current[key];
    if (number == NOBODY)
        complain("key %d has an identity, and should have none", key);
    const struct put *put = &python.puts[number];
    int length = snprintf(instance, sizeof instance, "instance-%d", number);
    if (entry->identity->instance_length != length ||
        memcmp(entry->identity->data + entry->identity->instance_at, instance, (size_t)length) != 0)
        complain("key %d has another identity than %d", key, number);
    if (entry->confirmed_us != put->asked_us || entry->ends_us != put->ends_us)
        complain("identity %d was confirmed at %lu and ends at %lu; it should be %lu and %lu", number,
                 (unsigned long)entry->confirmed_us, (unsigned long)entry->ends_us, (unsigned long)put->asked_us,
                 (unsigned long)put->ends_us);
    if (put->used && !entry->used)
        complain("identity %d was used since it was confirmed, and the loop does not know it", number);
    if (entry->used && put->hits == scope_hits(key_scope(key)))
        complain("identity %d counts as used, and nobody used it since it was confirmed", number);
}

/* The loop was told to renew what ends before a time, and nothing else since: who is used and ends before it is asked for,
 * and nobody else. */
static void renewal_check(const Entry *entry, int key)
{
    const LoopState *loop = python.loop;
    const struct put *put = &python.puts[python.current[key]];
    bool soon = put->ends_us < python.renewals.before_us;
    bool asked = entry->asked_us && loop->now_us - entry->asked_us < ASKED_US;
    if (loop->now_us >= put->ends_us)
        return;
    if (put->used && put->used_turn + 1 < kernel.turns && soon && !asked && !loop->counters.values[VALUE(CT_EVENTS_LOST)])
        complain("identity %d ends, is used, and is not asked for", python.current[key]);
    if ((!soon || put->hits == scope_hits(key_scope(key))) && asked && entry->asked_us == loop->now_us &&
        entry->rechecked_us != loop->now_us && python.asked_us[key] != loop->now_us)
        complain("identity %d is asked for, and need not be", python.current[key]);
}

static void entries_check(void)
{
    const typeof(python.renewals) *all = &python.renewals;
    bool renewed = all->n && !all->others && all->at == python.done && !kernel.faults_given;
    for (int scope = 0; scope < SCOPES; scope++) {
        const Scope *core = core_scope(scope);
        for (unsigned i = 0; core && i < core->bucket_n; i++) {
            for (const Entry *entry = core->buckets[i]; entry; entry = entry->next) {
                int key = key_of_address(scope, entry->address, entry->interface);
                if (entry->state == VALUE(EN_VALID)) {
                    entry_check(entry, key);
                    if (renewed && all->scope == scope)
                        renewal_check(entry, key);
                }
                /* Time may stand still from turn to turn: what was asked for in an earlier one, nobody renewed now. */
                python.asked_us[key] = entry->asked_us;
                if (python.rechecked[key].us != entry->rechecked_us) {
                    python.rechecked[key].us = entry->rechecked_us;
                    python.rechecked[key].at = python.done;
                }
            }
        }
    }
    memset(&python.renewals, 0, sizeof python.renewals);
}

#endif
