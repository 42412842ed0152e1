# Scopes: finding, adding, removing. Prefix sc_. They are found by number, or, for the relay, by kind and UUID. A scope
# owns its identities and sources; its counters are Python's, lent until EV_SCOPE_REMOVED gives them back.

cdef Scope *sc_find(LoopState *loop, uint32_t number) noexcept nogil:
    cdef Scope *scope = loop.scope_hash[number % SCOPE_BUCKETS]
    while scope is not NULL and scope.number != number:
        scope = scope.next
    return scope


cdef inline Scope **sc_names(LoopState *loop, const uint8_t *uuid) noexcept nogil:
    """The list of those that may have this UUID. Only Python and proxies name any: nobody chooses buckets."""
    cdef uint32_t low
    memcpy(&low, uuid + 12, 4)
    return &loop.named[low % SCOPE_BUCKETS]


cdef Scope *sc_named(LoopState *loop, uint8_t kind, const uint8_t *uuid) noexcept nogil:
    cdef Scope *scope = sc_names(loop, uuid)[0]
    while scope is not NULL and (scope.kind != kind or memcmp(scope.uuid, uuid, 16) != 0):
        scope = scope.named
    return scope


cdef void sc_tell_removed(LoopState *loop, uint32_t number, Counters *counters, bint retired) noexcept nogil:
    """retired: this was the loop's own decision, Python did not know that it is gone."""
    cdef Event event
    memset(&event, 0, sizeof(Event))
    event.kind = EV_SCOPE_REMOVED
    event.scope = number
    event.counters = counters
    event.code = <uint8_t> (1 if retired else 0)
    rg_event(loop, &event)                 # if it is lost, Python keeps the block to its own end


cdef Scope *sc_add(LoopState *loop, uint32_t number, Counters *counters, uint8_t kind,
                   const uint8_t *uuid) noexcept nogil:
    """number is not in use; counters is a block of zeros. NULL without memory."""
    cdef Scope **names = sc_names(loop, uuid)
    cdef Scope *scope = <Scope *> calloc(1, sizeof(Scope))
    if scope is NULL:
        rg_problem(loop, PR_MEMORY, ENOMEM, number, 0)
        sc_tell_removed(loop, number, counters, True)
        return NULL
    scope.number = number
    scope.counters = counters
    ls_init(&scope.listeners)
    ls_init(&scope.sources)
    ls_init(&scope.idle)
    ls_init(&scope.waiting)
    ls_init(&scope.quiet)
    ls_insert(&loop.scopes, &scope.link, scope)
    scope.next = loop.scope_hash[number % SCOPE_BUCKETS]
    loop.scope_hash[number % SCOPE_BUCKETS] = scope
    scope.kind = kind
    memcpy(scope.uuid, uuid, 16)
    if kind == SC_NETWORK or kind == SC_ROUTER:
        scope.named = names[0]
        names[0] = scope
    return scope


cdef void sc_retire(LoopState *loop, Scope *scope) noexcept nogil:
    """Removes it if nobody is in it; else somebody came before this was said, and it stays. So it does when Python
    could not be told: Python would go on sending connections here, for nothing."""
    if (ls_is_empty(&scope.listeners) and at_read(&scope.counters.values[CT_CONNECTIONS_OPEN]) == 0
            and not rg_is_full(&loop.events)):
        sc_remove(loop, scope, True)


cdef void sc_limit(LoopState *loop, Scope *scope, const Rates *rates) noexcept nogil:
    """Gives a scope limits of its own."""
    scope.rates = rates[0]
    scope.rates.versions |= RL_OWN
    loop.settings.rate_versions |= RL_OWN


cdef void sc_remove(LoopState *loop, Scope *scope, bint retired) noexcept nogil:
    """Closes its listeners, with their connections, and forgets its identities and sources."""
    cdef Scope **place = &loop.scope_hash[scope.number % SCOPE_BUCKETS]
    cdef Scope **named = sc_names(loop, scope.uuid)
    cdef Entry *entry
    cdef uint32_t i
    while not ls_is_empty(&scope.listeners):
        ln_abort(loop, <Listener *> scope.listeners.next.owner)
    ry_forget(loop, scope)
    up_forget(loop, scope)
    for i in range(scope.bucket_n):
        while scope.buckets[i] is not NULL:
            entry = scope.buckets[i]
            id_drop(loop, scope, entry)
    free(scope.buckets)
    so_forget(loop, scope)
    while place[0] != scope:
        place = &place[0].next
    place[0] = scope.next
    while named[0] is not NULL and named[0] != scope:
        named = &named[0].named
    if named[0] == scope:
        named[0] = scope.named
    if loop.relay_scope == scope:
        loop.relay_scope = NULL
    if loop.sweep_at == &scope.link:
        loop.sweep_at = scope.link.next
    ls_remove(&scope.link)
    ls_remove(&scope.round)
    sc_tell_removed(loop, scope.number, scope.counters, retired)
    free(scope)
