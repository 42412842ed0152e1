# Scopes: finding, adding, removing. Prefix sc_. A scope owns its identities and sources; its counters are Python's,
# lent until EV_SCOPE_REMOVED gives them back.

cdef Scope *sc_find(LoopState *loop, uint32_t number) noexcept nogil:
    cdef Scope *scope = loop.scope_hash[number % SCOPE_BUCKETS]
    while scope is not NULL and scope.number != number:
        scope = scope.next
    return scope


cdef void sc_tell_removed(LoopState *loop, uint32_t number, Counters *counters) noexcept nogil:
    cdef Event event
    memset(&event, 0, sizeof(Event))
    event.kind = EV_SCOPE_REMOVED
    event.scope = number
    event.counters = counters
    rg_event(loop, &event)                 # if it is lost, Python keeps the block to its own end


cdef void sc_add(LoopState *loop, uint32_t number, Counters *counters) noexcept nogil:
    """number is not in use; counters is a block of zeros."""
    cdef Scope *scope = <Scope *> calloc(1, sizeof(Scope))
    if scope is NULL:
        rg_problem(loop, PR_MEMORY, ENOMEM, number, 0)
        sc_tell_removed(loop, number, counters)
        return
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


cdef void sc_remove(LoopState *loop, Scope *scope) noexcept nogil:
    """Closes its listeners, with their connections, and forgets its identities and sources."""
    cdef Scope **place = &loop.scope_hash[scope.number % SCOPE_BUCKETS]
    cdef Entry *entry
    cdef uint32_t i
    while not ls_is_empty(&scope.listeners):
        ln_abort(loop, <Listener *> scope.listeners.next.owner)
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
    if loop.sweep_at == &scope.link:
        loop.sweep_at = scope.link.next
    ls_remove(&scope.link)
    ls_remove(&scope.round)
    sc_tell_removed(loop, scope.number, scope.counters)
    free(scope)
