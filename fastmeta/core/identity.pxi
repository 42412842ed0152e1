# The identity table: (scope, address, interface) to identity. Prefix id_. Owns its entries and their identities; guests
# that wait in an entry belong to their listeners, and leave the entry before they are closed.

cdef enum:
    ID_FIRST_BUCKETS = 8
    ID_ASK_AGAIN_US = 1000000      # while new requests for an address come, Python is told again this often
    ID_SWEEP_MS = 1000
    ID_SWEEP_SCOPES = 256          # at most so many in one go
    ID_MAX_ENTRIES = 65536         # addresses of a scope that are known, known to be nobody's, or asked for
    ID_MISS_SHARE = 4              # one scope may fill one part in so many of the ring to Python


cdef inline uint64_t id_hash(const LoopState *loop, const uint8_t *address, uint32_t interface) noexcept nogil:
    """Seeded, so that nobody who chooses addresses can choose buckets."""
    cdef uint64_t high
    cdef uint64_t low
    memcpy(&high, address, 8)
    memcpy(&low, address + 8, 8)
    low ^= loop.hash_seed
    high ^= (low >> 29) ^ interface
    low = (low ^ (low >> 30)) * <uint64_t> 0xbf58476d1ce4e5b9
    high = (high ^ (high >> 27)) * <uint64_t> 0x94d049bb133111eb
    low ^= high ^ (low >> 31)
    return low ^ (low >> 32)


cdef Entry *id_find(LoopState *loop, Scope *scope, const uint8_t *address, uint32_t interface) noexcept nogil:
    cdef Entry *entry
    if scope.bucket_n == 0:
        return NULL
    entry = scope.buckets[id_hash(loop, address, interface) & (scope.bucket_n - 1)]
    while entry is not NULL:
        if entry.interface == interface and memcmp(entry.address, address, 16) == 0:
            return entry
        entry = entry.next
    return NULL


cdef void id_grow(LoopState *loop, Scope *scope) noexcept nogil:
    """Doubles the buckets; without memory the lists just get longer."""
    cdef uint32_t n = ID_FIRST_BUCKETS
    cdef Entry **buckets
    cdef Entry *entry
    cdef Entry *following
    cdef uint32_t i
    cdef uint64_t at
    if scope.bucket_n:
        n = scope.bucket_n * 2
    buckets = <Entry **> calloc(n, sizeof(Entry *))
    if buckets is NULL:
        return
    for i in range(scope.bucket_n):
        entry = scope.buckets[i]
        while entry is not NULL:
            following = entry.next
            at = id_hash(loop, entry.address, entry.interface) & (n - 1)
            entry.next = buckets[at]
            buckets[at] = entry
            entry = following
    free(scope.buckets)
    scope.buckets = buckets
    scope.bucket_n = n


cdef Entry *id_make(LoopState *loop, Scope *scope, const uint8_t *address, uint32_t interface) noexcept nogil:
    """The entry of an address, made (pending) when there is none; NULL without memory, or when there are too many."""
    cdef Entry *entry = id_find(loop, scope, address, interface)
    cdef uint64_t at
    if entry is not NULL or scope.entry_n >= ID_MAX_ENTRIES:
        return entry
    if scope.entry_n >= scope.bucket_n:
        id_grow(loop, scope)
    entry = <Entry *> calloc(1, sizeof(Entry))
    if entry is NULL or scope.bucket_n == 0:
        free(entry)
        return NULL
    memcpy(entry.address, address, 16)
    entry.interface = interface
    entry.state = EN_PENDING
    ls_init(&entry.waiters)
    at = id_hash(loop, address, interface) & (scope.bucket_n - 1)
    entry.next = scope.buckets[at]
    scope.buckets[at] = entry
    scope.entry_n += 1
    st_count(loop, scope, CT_IDENTITIES, 1)
    id_want_sweep(loop)
    return entry


cdef void id_want_sweep(LoopState *loop) noexcept nogil:
    if loop.sweep.link.next is NULL:
        tm_set(loop, &loop.sweep, loop, loop.now_ms + ID_SWEEP_MS)


cdef void id_clear(Scope *scope, Entry *entry) noexcept nogil:
    """Back to pending: nothing is known of the address any more."""
    if entry.state == EN_ABSENT:
        scope.absent_n -= 1
    if entry.identity is not NULL:
        free(entry.identity)
        entry.identity = NULL
    entry.state = EN_PENDING
    entry.asked_us = 0


cdef inline void id_not_rechecked(Entry *entry) noexcept nogil:
    """The next 404 of Nova's may lead to a question, whatever earlier ones led to."""
    entry.rechecked_us = 0
    entry.rechecking = False


cdef void id_drop(LoopState *loop, Scope *scope, Entry *entry) noexcept nogil:
    """Takes an entry that nobody waits in out of the table and frees it."""
    cdef Entry **place = &scope.buckets[id_hash(loop, entry.address, entry.interface) & (scope.bucket_n - 1)]
    while place[0] != entry:
        place = &place[0].next
    place[0] = entry.next
    id_clear(scope, entry)
    free(entry)
    scope.entry_n -= 1
    st_uncount(loop, scope, CT_IDENTITIES)


cdef inline bint id_is_good(const LoopState *loop, const Entry *entry) noexcept nogil:
    """Whether requests may go out under this entry now: confirmed within its time to live, and not revoked since."""
    return entry is not NULL and entry.state == EN_VALID and loop.now_us < entry.ends_us


cdef bint id_ask(LoopState *loop, Scope *scope, Entry *entry) noexcept nogil:
    """Tells Python that somebody waits for this address; False when the ring, or this scope's share of it, is full."""
    cdef Event event
    if entry.asked_us and loop.now_us - entry.asked_us < ID_ASK_AGAIN_US:
        return True
    if rg_is_empty(&loop.events):
        loop.miss_turn += 1
    if scope.miss_turn != loop.miss_turn:
        scope.miss_turn = loop.miss_turn
        scope.miss_n = 0
    if scope.miss_n >= RG_EVENTS // ID_MISS_SHARE:
        # Addresses cost a guest nothing: it must not keep other scopes' misses from Python.
        rg_problem(loop, PR_SCOPE_MISSES, 0, scope.number, 0)
        return False
    memset(&event, 0, sizeof(Event))
    event.kind = EV_MISS
    event.scope = scope.number
    memcpy(event.address, entry.address, 16)
    event.interface = entry.interface
    if not rg_event(loop, &event):
        rg_problem(loop, PR_EVENTS_LOST, 0, scope.number, 0)
        return False
    scope.miss_n += 1
    entry.asked_us = loop.now_us
    return True


cdef void id_answer(LoopState *loop, Scope *scope, const Message *message, Identity *identity) noexcept nogil:
    """Python's answer about one address (takes over identity): valid, absent or refused. Whoever waited goes on."""
    cdef Entry *entry = id_find(loop, scope, message.address, message.interface)
    cdef bint keep = False
    cdef bint changed
    if message.generation != scope.generation:
        # The question was sent before a revocation: its answer counts for nothing. Ask anew for those who wait.
        free(identity)
        if entry is not NULL:
            entry.asked_us = 0
            if ls_is_empty(&entry.waiters):
                id_not_rechecked(entry)
            else:
                id_ask(loop, scope, entry)
        return
    if entry is NULL and message.kind != MS_REFUSED:
        entry = id_make(loop, scope, message.address, message.interface)
    if entry is NULL:
        free(identity)
        return
    changed = entry.state == EN_VALID and (identity is NULL or not hd_is_same(entry.identity, identity))
    if entry.state != EN_VALID or changed:
        loop.namings += 1
        entry.naming = loop.namings
    id_clear(scope, entry)
    entry.rechecking = False
    if message.kind == MS_IDENTITY:
        entry.state = EN_VALID
        entry.identity = identity
        entry.ends_us = message.ends_us
        entry.confirmed_us = message.asked_us
        entry.used = False
    else:
        keep = message.kind == MS_ABSENT and scope.absent_n < loop.settings.max_absent
        if keep:
            entry.state = EN_ABSENT
            entry.ends_us = message.ends_us
            scope.absent_n += 1
    if by_unlikely(changed):
        id_not_rechecked(entry)
        # Whoever gives answers should have revoked it first. Nothing of the former instance goes out all the same.
        scope.revision += 1
        up_revoke(loop, scope, message.address, message.interface)
    if message.kind == MS_IDENTITY:
        gs_resume_waiters(loop, &entry.waiters, RF_NONE)
        return
    gs_resume_waiters(loop, &entry.waiters, RF_ABSENT if message.kind == MS_ABSENT else RF_LOOKUP)
    if not keep and ls_is_empty(&entry.waiters):
        id_drop(loop, scope, entry)


cdef void id_revoke_entry(LoopState *loop, Scope *scope, Entry *entry) noexcept nogil:
    """Ends what is known of an address; those who wait are asked for anew."""
    id_clear(scope, entry)
    if ls_is_empty(&entry.waiters):
        id_drop(loop, scope, entry)
    else:
        id_not_rechecked(entry)            # what was asked then was asked about another identity
        id_ask(loop, scope, entry)


cdef void id_revoke(LoopState *loop, Scope *scope, const Message *message) noexcept nogil:
    """Rule 1: ends one identity or all of a scope, and aborts what is in flight under them."""
    cdef Entry *entry
    cdef Entry *following
    cdef uint32_t i
    scope.generation = message.generation
    scope.revision += 1
    if message.kind == MS_REVOKE:
        entry = id_find(loop, scope, message.address, message.interface)
        if entry is not NULL:
            id_revoke_entry(loop, scope, entry)
        up_revoke(loop, scope, message.address, message.interface)
    else:
        for i in range(scope.bucket_n):
            entry = scope.buckets[i]
            while entry is not NULL:
                following = entry.next
                id_revoke_entry(loop, scope, entry)
                entry = following
        up_revoke(loop, scope, NULL, 0)


cdef void id_renew(LoopState *loop, Scope *scope, uint64_t before_us) noexcept nogil:
    """Asks Python for those that end before this time and were used since they were confirmed. More than may be told at
    once just end, and are asked for when somebody needs them."""
    cdef Entry *entry
    cdef uint32_t i
    for i in range(scope.bucket_n):
        entry = scope.buckets[i]
        while entry is not NULL:
            if id_is_good(loop, entry) and entry.used and entry.ends_us < before_us and not id_ask(loop, scope, entry):
                return
            entry = entry.next


cdef void id_shorten(LoopState *loop, Scope *scope, uint64_t ttl_us) noexcept nogil:
    """What is known of a scope is believed for this time at most, counted from the question."""
    cdef Entry *entry
    cdef uint32_t i
    for i in range(scope.bucket_n):
        entry = scope.buckets[i]
        while entry is not NULL:
            if entry.state == EN_VALID:
                entry.ends_us = min(entry.ends_us, entry.confirmed_us + ttl_us)
            entry = entry.next


cdef void id_sweep_scope(LoopState *loop, Scope *scope) noexcept nogil:
    cdef Entry *entry
    cdef Entry *following
    cdef uint32_t i
    for i in range(scope.bucket_n):
        entry = scope.buckets[i]
        while entry is not NULL:
            following = entry.next
            if ls_is_empty(&entry.waiters) and (entry.state == EN_PENDING or entry.ends_us <= loop.now_us):
                id_drop(loop, scope, entry)
            entry = following
    so_sweep(loop, scope)


cdef void id_sweep(LoopState *loop) noexcept nogil:
    """Forgets what has ended, some scopes at a time; goes on only while there is anything to forget."""
    cdef uint32_t n = 0
    cdef Link *at = loop.sweep_at
    while n < ID_SWEEP_SCOPES and not ls_is_empty(&loop.scopes):
        n += 1
        if at is NULL or at == &loop.scopes:
            at = loop.scopes.next
        id_sweep_scope(loop, <Scope *> at.owner)
        at = at.next
        if at == &loop.scopes:
            break
    loop.sweep_at = at
    if at_read(&loop.counters.values[CT_IDENTITIES]) or loop.quiet_n:
        tm_set(loop, &loop.sweep, loop, loop.now_ms + ID_SWEEP_MS)
