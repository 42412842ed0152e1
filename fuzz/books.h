/* The books: what the loop counts, against what its records and the kernel say. Read between two turns, when everything
 * that died is buried. */
#ifndef FUZZ_BOOKS_H
#define FUZZ_BOOKS_H

#include "nova.h"

enum { SOURCES_MOST = SCOPES * ADDRESSES };

#define COUNT(name) (counters->values[VALUE(CT_##name)])

static uint64_t sum(const Counters *counters, unsigned from, unsigned n)
{
    uint64_t total = 0;
    for (unsigned i = 0; i < n; i++)
        total += counters->values[from + i];
    return total;
}

/* What holds for every block, the loop's and the scopes'. in_progress: requests that have begun and are not over. */
static void books_check_block(const Counters *counters, uint64_t in_progress, const char *whose)
{
    uint64_t ended = sum(counters, VALUE(CT_ENDED), VALUE(CE_N));
    uint64_t answered = sum(counters, VALUE(CT_STATUS), VALUE(CT_STATUSES) + VALUE(CT_CLASSES));
    uint64_t refused = sum(counters, VALUE(CT_REFUSED), VALUE(RF_N));
    uint64_t timed = sum(counters, VALUE(CT_TOTAL), VALUE(CT_BUCKETS));
    uint64_t waited = sum(counters, VALUE(CT_WAITED), VALUE(CT_BUCKETS));
    uint64_t by_nova = sum(counters, VALUE(CT_UPSTREAM), VALUE(CT_BUCKETS));
    for (unsigned i = 0; i < VALUE(CT_N); i++) {
        if (counters->values[i] >> 62)
            complain("counter %u of %s is negative", i, whose);
    }
    if (COUNT(CONNECTIONS) != COUNT(CONNECTIONS_OPEN) + ended)
        complain("%s: %lu connections, %lu open, %lu ended", whose, (unsigned long)COUNT(CONNECTIONS),
                 (unsigned long)COUNT(CONNECTIONS_OPEN), (unsigned long)ended);
    if (COUNT(REQUESTS) != COUNT(ABORTED) + answered + in_progress)
        complain("%s: %lu requests, %lu aborted, %lu answered, %lu in progress", whose, (unsigned long)COUNT(REQUESTS),
                 (unsigned long)COUNT(ABORTED), (unsigned long)answered, (unsigned long)in_progress);
    if (refused > COUNT(REQUESTS) || COUNT(REFUSED))
        complain("%s: %lu refused, %lu of them for no reason", whose, (unsigned long)refused, (unsigned long)COUNT(REFUSED));
    if (timed != answered || by_nova > answered || waited > answered || waited > COUNT(PARKED_TOTAL))
        complain("%s: of %lu answers %lu are in the histogram, %lu of Nova, %lu had waited", whose, (unsigned long)answered,
                 (unsigned long)timed, (unsigned long)by_nova, (unsigned long)waited);
}

/* A block that was given back, or that nobody can use any more. */
static void books_check_last(const Counters *counters)
{
    books_check_block(counters, 0, "a scope that is gone");
    if (COUNT(CONNECTIONS_OPEN) || COUNT(PARKED) || COUNT(GATHERED) || COUNT(IDENTITIES) || COUNT(SOURCES))
        complain("a scope is gone, and %lu connections are open, %lu parked, %lu bodies, %lu identities, %lu sources",
                 (unsigned long)COUNT(CONNECTIONS_OPEN), (unsigned long)COUNT(PARKED), (unsigned long)COUNT(GATHERED),
                 (unsigned long)COUNT(IDENTITIES), (unsigned long)COUNT(SOURCES));
}

/* What is found by looking at the records. */
struct tally {
    const Source *source;
    uint64_t connections, parked, gathered, open_requests, idle, places, busy, streams, abandoned, seconds;
};

static struct tally *tally_of(struct tally *tallies, unsigned *n, const Source *source)
{
    for (unsigned i = 0; i < *n; i++) {
        if (tallies[i].source == source)
            return &tallies[i];
    }
    if (*n == SOURCES_MOST)
        complain("more sources than addresses");
    tallies[*n] = (struct tally){.source = source};
    return &tallies[(*n)++];
}

static uint64_t list_length(const Link *list)
{
    uint64_t n = 0;
    for (const Link *at = list->next; at != list; at = at->next) {
        if (at->next->previous != at)
            complain("a list that is broken");
        n++;
    }
    return n;
}

/* Its answer is held: nobody looks at the connection that it is on, and it is not held long. */
static void tally_held(const Guest *guest)
{
    const LoopState *loop = python.loop;
    if (!guest->up || guest->second || !guest->up->has_head || guest->up->socket.interest || guest->begun || guest->out ||
        !guest->repeatable)
        complain("an answer is held, and should not be, or goes on");
    int key = key_of_address((int)guest->scope->number - 1, guest->address, guest->interface);
    const Entry *entry = entry_of(key);
    if (!entry || !is_rechecked(entry, key))
        complain("an answer to key %d is held, and nothing is asked about that", key);
    if (loop->now_us > entry->rechecked_us + HELD_US)
        complain("an answer is held for %lu us", (unsigned long)(loop->now_us - entry->rechecked_us));
}

static void tally_guest(struct tally *tally, const Guest *guest)
{
    bool rests = guest->phase == VALUE(GS_IDLE) || guest->phase == VALUE(GS_HEAD);
    tally->connections++;
    tally->parked += guest->parked;
    tally->gathered += guest->body != NULL;
    tally->open_requests += guest->request_open;
    tally->idle += guest->idle.next != NULL;
    tally->places += guest->phase == VALUE(GS_PLACE);
    tally->seconds += guest->second != NULL;
    if (guest->socket.dead || guest->socket.fd < 0)
        complain("a dead guest is among the living");
    if (rests != (guest->idle.next != NULL) || rests != (guest->scope_idle.next != NULL) ||
        rests != (guest->source_idle.next != NULL) || (rests && guest->request_open))
        complain("a guest in phase %d: idle list %d, the scope's %d, the source's %d, request open %d", guest->phase,
                 guest->idle.next != NULL, guest->scope_idle.next != NULL, guest->source_idle.next != NULL,
                 guest->request_open);
    if ((guest->phase == VALUE(GS_PLACE) || guest->phase == VALUE(GS_RESOLVE) || guest->phase == VALUE(GS_RECHECK)) !=
        (guest->wait.next != NULL))
        complain("a guest in phase %d %s", guest->phase, guest->wait.next ? "waits in a list" : "waits in no list");
    if (guest->phase == VALUE(GS_RECHECK))
        tally_held(guest);
    if (guest->timer.link.next == NULL)
        complain("a guest in phase %d has no deadline", guest->phase);
    if ((guest->up && guest->up->guest != guest) || (guest->second && guest->second->guest != guest))
        complain("a guest and its connection to Nova do not know each other");
    if (guest->second && (!guest->up || guest->up->server == guest->second->server || !guest->repeatable ||
                          guest->phase != VALUE(GS_ANSWER)))
        complain("a guest in phase %d has a second connection to Nova, and should not", guest->phase);
}

static void tally_upstreams(const LoopState *loop, struct tally *tallies, unsigned *n)
{
    uint64_t busy = 0, streams = 0;
    for (const Link *at = loop->busy.next; at != &loop->busy; at = at->next) {
        const Upstream *up = at->owner;
        struct tally *tally = tally_of(tallies, n, up->source);
        tally->busy++;
        busy++;
        tally->streams += up->streams;
        streams += up->streams;
        tally->abandoned += up->abandoned;
        if (up->abandoned) {
            /* Its guest has gone: it only keeps its place until Nova is done. */
            if (up->guest || up->received || up->unsent || up->timer.link.next == NULL || up->source->scope != up->scope)
                complain("an abandoned connection to Nova that still does something, or has no deadline");
            continue;
        }
        if (!up->guest || (up->guest->up != up && up->guest->second != up) || up->scope != up->guest->scope || up->source != up->guest->source)
            complain("a busy connection to Nova that is nobody's");
    }
    if (busy != loop->busy_n || streams != loop->streams_n || list_length(&loop->released) != loop->released_n)
        complain("connections to Nova: %u busy, %u stream, %u released; the lists say something else", loop->busy_n,
                 loop->streams_n, loop->released_n);
}

/* How many connections of a list are to a server; every one of them is in that phase, unless it is 255. */
static uint64_t list_of_server(const Link *list, const Server *server, uint8_t phase, unsigned *probes)
{
    uint64_t n = 0;
    for (const Link *at = list->next; at != list; at = at->next) {
        const Upstream *up = at->owner;
        if (up->server != server)
            continue;
        if (phase != 255 ? up->phase != phase : up->phase != VALUE(UP_BUSY) && up->phase != VALUE(UP_CONNECTING))
            complain("a connection to Nova in phase %d is in the list of others", up->phase);
        *probes += up->probe;
        n++;
    }
    return n;
}

/* What the servers of a list have in all. */
struct servers {
    uint64_t servers, usable, connections, busy, idle, released, warming;
};

static void books_check_servers(const LoopState *loop, const Link *list, bool removed, struct servers *all)
{
    const uint64_t most = loop->settings.max_upstream_connections;
    for (const Link *at = list->next; at != list; at = at->next) {
        const Server *server = at->owner;
        unsigned probes = 0;
        uint64_t busy = list_of_server(&loop->busy, server, 255, &probes);
        uint64_t idle = list_of_server(&server->idle, server, VALUE(UP_IDLE), &probes);
        uint64_t released = list_of_server(&loop->released, server, VALUE(UP_RELEASED), &probes);
        uint64_t warming = list_of_server(&server->warming, server, VALUE(UP_WARMING), &probes);
        if (list_length(&server->idle) != idle || list_length(&server->warming) != warming)
            complain("a server's pool has connections to another one");
        if (server->busy_n != busy || server->idle_n != idle || server->released_n != released ||
            server->warming_n != warming || server->connection_n != busy + idle + released + warming)
            complain("a server counts %u busy, %u idle, %u released, %u in all; there are %lu, %lu, %lu, and %lu on their way",
                     server->busy_n, server->idle_n, server->released_n, server->connection_n, (unsigned long)busy,
                     (unsigned long)idle, (unsigned long)released, (unsigned long)warming);
        if (server->removed != removed || (removed && (idle || released || warming || !busy || server->retry.link.next)))
            complain("a server that is%s removed has %lu idle, %lu released, %lu on their way, %lu busy", removed ? "" : " not",
                     (unsigned long)idle, (unsigned long)released, (unsigned long)warming, (unsigned long)busy);
        if (server->probing && (!server->away || !probes))
            complain("a server is tried, and %s", server->away ? "nobody tries it" : "is not away");
        if (!server->away && server->retry.link.next)
            complain("a server rests, and is not away");
        /* While it is away, a connection that tries whether it is back may come on top. */
        if (busy + idle + released > most + 1)
            complain("a server has %lu connections", (unsigned long)(busy + idle + released));
        if (server->session || server->spec.tls)
            complain("a server with TLS");
        all->servers++;
        all->usable += !server->away;
        all->connections += busy + idle + released + warming;
        all->busy += busy;
        all->idle += idle;
        all->released += released;
        all->warming += warming;
    }
}

static void books_check_scope(const LoopState *loop, const Scope *scope, struct tally *tallies, unsigned *n)
{
    const Counters *counters = scope->counters;
    const Settings *bounds = &loop->settings;
    struct tally all = {0};
    uint64_t entries = 0, absent = 0, quiet = 0, known = 0;
    for (const Link *listener = scope->listeners.next; listener != &scope->listeners; listener = listener->next) {
        const Listener *owner = listener->owner;
        if (list_length(&owner->guests) != owner->guest_n)
            complain("listener %u has %u guests, and its list others", owner->number, owner->guest_n);
        for (const Link *at = owner->guests.next; at != &owner->guests; at = at->next) {
            const Guest *guest = at->owner;
            if (guest->scope != scope || guest->source->scope != scope)
                complain("a guest in a scope that is not its own");
            tally_guest(tally_of(tallies, n, guest->source), guest);
        }
    }
    for (const Link *at = scope->sources.next; at != &scope->sources; at = at->next, known++) {
        const Source *source = at->owner;
        const struct tally *tally = tally_of(tallies, n, source);
        quiet += source->quiet.next != NULL;
        if (source->guest_n != tally->connections + tally->abandoned || source->connection_n != tally->connections ||
            source->parked_n != tally->parked || source->gathered_n != tally->gathered || source->busy_n != tally->busy)
            complain("a source counts %u guests, %u connections, %u parked, %u bodies, %u places; "
                     "there are %lu, %lu, %lu, %lu",
                     source->guest_n, source->connection_n, source->parked_n, source->gathered_n, source->busy_n,
                     (unsigned long)tally->connections, (unsigned long)tally->parked, (unsigned long)tally->gathered,
                     (unsigned long)tally->busy);
        if (list_length(&source->idle) != tally->idle || list_length(&source->places) != tally->places)
            complain("a source with other lists than its guests are in");
        if ((source->quiet.next != NULL) != (source->guest_n == 0))
            complain("a source with %u guests is %s", source->guest_n, source->quiet.next ? "quiet" : "not quiet");
        if (tally->places && (!source->round.next || !scope->round.next))
            complain("somebody waits for a place at Nova, and is not in the round");
        if (tally->connections > bounds->max_connections_per_address || tally->parked > bounds->max_parked_per_address)
            complain("an address has %lu connections, %lu parked", (unsigned long)tally->connections,
                     (unsigned long)tally->parked);
        all.connections += tally->connections;
        all.parked += tally->parked;
        all.gathered += tally->gathered;
        all.open_requests += tally->open_requests;
        all.idle += tally->idle;
        all.busy += tally->busy;
        all.streams += tally->streams;
    }
    for (unsigned i = 0; i < scope->bucket_n; i++) {
        for (const Entry *entry = scope->buckets[i]; entry; entry = entry->next, entries++) {
            absent += entry->state == VALUE(EN_ABSENT);
            if ((entry->state == VALUE(EN_VALID)) != (entry->identity != NULL))
                complain("an entry in state %d with%s identity", entry->state, entry->identity ? "" : "out");
        }
    }
    books_check_block(counters, all.open_requests, "a scope");
    if (COUNT(CONNECTIONS_OPEN) != all.connections || COUNT(PARKED) != all.parked || COUNT(GATHERED) != all.gathered ||
        COUNT(IDENTITIES) != entries || COUNT(SOURCES) != known)
        complain("a scope counts %lu connections, %lu parked, %lu bodies, %lu identities, %lu sources",
                 (unsigned long)COUNT(CONNECTIONS_OPEN), (unsigned long)COUNT(PARKED), (unsigned long)COUNT(GATHERED),
                 (unsigned long)COUNT(IDENTITIES), (unsigned long)COUNT(SOURCES));
    if (scope->busy_n != all.busy || scope->streams_n != all.streams || scope->entry_n != entries || scope->absent_n != absent ||
        scope->quiet_n != quiet || list_length(&scope->quiet) != quiet || list_length(&scope->idle) != all.idle)
        complain("a scope has %u places, %u streams, %u entries, %u of them absent, %u quiet sources; its lists say otherwise",
                 scope->busy_n, scope->streams_n, scope->entry_n, scope->absent_n, scope->quiet_n);
    if (all.connections > bounds->max_connections_per_scope || all.parked > bounds->max_parked_per_scope ||
        absent > bounds->max_absent)
        complain("a scope has %lu connections, %lu parked, %lu absent", (unsigned long)all.connections,
                 (unsigned long)all.parked, (unsigned long)absent);
}

/* Between two turns. */
static void books_check(const LoopState *loop, bool ended)
{
    const Counters *counters = &loop->counters;
    struct tally tallies[SOURCES_MOST];
    unsigned n = 0, scopes = 0;
    uint64_t open_requests = 0, idle = 0, quiet = 0, seconds = 0;
    Counters whole = python.given_back;
    tally_upstreams(loop, tallies, &n);
    for (const Link *at = loop->scopes.next; at != &loop->scopes; at = at->next, scopes++)
        books_check_scope(loop, at->owner, tallies, &n);
    for (unsigned i = 0; i < n; i++) {
        open_requests += tallies[i].open_requests;
        idle += tallies[i].idle;
        seconds += tallies[i].seconds;
        quiet += tallies[i].source->quiet.next != NULL;
    }
    books_check_block(counters, open_requests, "the loop");
    /* What is counted for scopes is counted for the loop, by the same amounts. */
    for (unsigned i = 0; i < python.block_n; i++) {
        for (unsigned k = 0; k < VALUE(CT_N); k++)
            whole.values[k] += python.blocks[i].counters->values[k];
    }
    for (unsigned k = 0; k < VALUE(CT_N); k++) {
        bool of_loop = k >= VALUE(CT_UPSTREAM_CONNECTS) && k < VALUE(CT_REFUSED);
        if (whole.values[k] != (of_loop ? 0 : counters->values[k]))
            complain("counter %u: the scopes have %lu, the loop %lu", k, (unsigned long)whole.values[k],
                     (unsigned long)counters->values[k]);
    }
    /* What the kernel knows. */
    if (COUNT(CONNECTIONS) != kernel.accepted || COUNT(CONNECTIONS_OPEN) != kernel.guests_open)
        complain("%lu connections, %lu open; there were %u, and are %u", (unsigned long)COUNT(CONNECTIONS),
                 (unsigned long)COUNT(CONNECTIONS_OPEN), kernel.accepted, kernel.guests_open);
    if (COUNT(UPSTREAM_CONNECTS) != kernel.connects || COUNT(UPSTREAM_CONNECTIONS) != kernel.novas_open)
        complain("%lu connections to Nova were made, %lu are there; it were %u, and are %u", (unsigned long)COUNT(UPSTREAM_CONNECTS),
                 (unsigned long)COUNT(UPSTREAM_CONNECTIONS), kernel.connects, kernel.novas_open);
    if (COUNT(BYTES_UP) != kernel.bytes_up)
        complain("%lu bytes went up, and %lu are counted", (unsigned long)kernel.bytes_up, (unsigned long)COUNT(BYTES_UP));
    struct servers all = {0};
    books_check_servers(loop, &loop->servers, false, &all);
    if (!ended && (all.servers != loop->server_n || all.usable != loop->usable_n || loop->away != (all.usable == 0)))
        complain("%u servers, %u usable, %s; there are %lu, of which %lu are", loop->server_n, loop->usable_n,
                 loop->away ? "away" : "not away", (unsigned long)all.servers, (unsigned long)all.usable);
    if (all.servers != (ended ? 0 : (unsigned)(python.set & SET_N)) && !kernel.faults_given)
        complain("%lu servers, and Python named %d", (unsigned long)all.servers, python.set & SET_N);
    books_check_servers(loop, &loop->removed_servers, true, &all);
    if (all.busy != loop->busy_n || all.released != loop->released_n || all.connections != kernel.novas_open ||
        COUNT(UPSTREAM_IDLE) != all.idle + all.released)
        complain("the servers have %lu connections, %lu busy, %lu idle, %lu released; counted are %u, %u, %lu, %u",
                 (unsigned long)all.connections, (unsigned long)all.busy, (unsigned long)all.idle, (unsigned long)all.released,
                 kernel.novas_open, loop->busy_n, (unsigned long)COUNT(UPSTREAM_IDLE), loop->released_n);
    if (COUNT(SECOND_WON) > COUNT(SECOND_TRIES) || loop->second_n != seconds)
        complain("%u guests have two connections to Nova, %lu were found; of %lu second tries %lu were faster", loop->second_n,
                 (unsigned long)seconds, (unsigned long)COUNT(SECOND_TRIES), (unsigned long)COUNT(SECOND_WON));
    /* Where the kernel refuses to watch a connection right after its last byte, that request counts as aborted. */
    for (unsigned status = 0; status < VALUE(CT_STATUSES) + VALUE(CT_CLASSES); status++) {
        if (people.statuses[status] >
            counters->values[VALUE(CT_STATUS) + status] + counters->values[VALUE(CT_ENDED) + VALUE(CE_RESOURCES)])
            complain("guests got %u answers that counter %u does not know: it is at %lu", people.statuses[status],
                     VALUE(CT_STATUS) + status, (unsigned long)counters->values[VALUE(CT_STATUS) + status]);
    }
    /* The bounds. */
    if (COUNT(CONNECTIONS_OPEN) > loop->settings.max_connections || COUNT(PARKED) > loop->settings.max_parked ||
        COUNT(GATHERED) > loop->settings.max_gathered)
        complain("%lu connections, %lu parked, %lu bodies", (unsigned long)COUNT(CONNECTIONS_OPEN), (unsigned long)COUNT(PARKED),
                 (unsigned long)COUNT(GATHERED));
    if (counters->values[VALUE(CT_REFUSED) + VALUE(RF_RATE)] && loop->settings.rate_versions == 0)
        complain("requests are refused for a rate that is not limited");
    if (list_length(&loop->idle_guests) != idle || loop->quiet_n != quiet || loop->source_n != n)
        complain("%u sources, %u quiet; %u, %lu were found", loop->source_n, loop->quiet_n, n, (unsigned long)quiet);
}

/* After lp_run, and when Python has read all events: everything is closed, and the sums are right. */
static void books_check_end(const LoopState *loop)
{
    const Counters *counters = &loop->counters;
    books_check(loop, true);
    books_check_last(counters);
    if (COUNT(UPSTREAM_IDLE) || loop->busy_n || loop->released_n || loop->second_n || loop->streams_n || loop->listener_n ||
        loop->small || loop->large || loop->sources || loop->source_n || loop->quiet_n)
        complain("something is left: %u %u %u %u %u", loop->busy_n, loop->released_n, loop->second_n, loop->streams_n,
                 loop->listener_n);
    const Link *lists[] = {&loop->scopes, &loop->idle_guests, &loop->round, &loop->servers, &loop->removed_servers,
                           &loop->released, &loop->busy,
                           &loop->dead_guests, &loop->dead_upstreams, &loop->dead_listeners};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        if (lists[i]->next != lists[i])
            complain("list %zu is not empty", i);
    }
    /* Only the loop's own timers may be left: what they belong to lives as long as the loop. */
    for (size_t i = 0; i < sizeof loop->wheel / sizeof *loop->wheel; i++) {
        for (const Link *at = loop->wheel[i].next; at != &loop->wheel[i]; at = at->next) {
            if (at->owner != loop)
                complain("a timer is left, of a connection that is gone");
        }
    }
    /* Every block came back, but for those that were lent too late for the last turn that looked, and when the event was
     * lost. */
    for (unsigned i = 0; i < python.block_n; i++) {
        books_check_last(python.blocks[i].counters);
        if (COUNT(EVENTS_LOST) == 0 && python.blocks[i].turn < kernel.good_turn)
            complain("the counters of scope %d were not given back", python.blocks[i].scope);
    }
}

#undef COUNT

#endif
