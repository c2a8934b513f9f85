from libc.stdint cimport int64_t, uint32_t, uint64_t

from cpython.object cimport PyObject

from pgsession._core.arena cimport Arena, pgs_hit_line, pgs_load_acquire, pgs_load_head
from pgsession._core.clock cimport Clock, recent
from pgsession._core.key cimport Key
from pgsession._core.lock cimport pgs_mutex
from pgsession._core.record cimport Record, Standing
from pgsession._core.absences cimport Absences
from pgsession._core.accesses cimport EvictedAccesses


cdef extern from "table.h" nogil:
    enum:
        PGS_USER, PGS_GROUP, PGS_ACCESSED, PGS_ASKED
    ctypedef struct pgs_text:
        const char *data
        uint32_t length
    ctypedef struct pgs_link:
        uint32_t prev, next
    ctypedef struct pgs_hot:
        uint64_t high, low
        void *record
        int64_t version, deadline, accessed
        uint32_t newer, older, tag, flags
    ctypedef struct pgs_cold:
        int64_t cached_at, stored, floor
        pgs_link access
        pgs_link member[2]
    ctypedef struct pgs_table:
        pgs_hot *hot
        pgs_cold *cold
        uint64_t seed[2]
        uint32_t count, room, access
        void (*owner_of)(void *record, int which, pgs_text *text) noexcept
    int pgs_table_init(pgs_table *t, uint64_t seed0, uint64_t seed1)
    void pgs_table_clear(pgs_table *t)
    void pgs_table_free(pgs_table *t)
    uint32_t pgs_key_tag(const pgs_table *t, uint64_t high, uint64_t low)
    uint32_t pgs_find_tag(const pgs_table *t, uint32_t tag, uint64_t high, uint64_t low)
    uint32_t pgs_find(const pgs_table *t, uint64_t high, uint64_t low)
    void pgs_use(pgs_table *t, uint32_t slot)
    void pgs_use_last(pgs_table *t, uint32_t slot)
    void pgs_access_add(pgs_table *t, uint32_t slot)
    void pgs_access_add_first(pgs_table *t, uint32_t slot)
    void pgs_access_remove(pgs_table *t, uint32_t slot)
    uint32_t pgs_text_tag(const pgs_table *t, pgs_text text)
    uint32_t pgs_members(const pgs_table *t, int which, pgs_text text, uint32_t tag)
    int pgs_reserve(pgs_table *t, uint32_t capacity)
    uint32_t pgs_insert(pgs_table *t, uint64_t high, uint64_t low, void *record)
    void *pgs_replace(pgs_table *t, uint32_t slot, void *record)
    void *pgs_remove(pgs_table *t, uint32_t slot)
    bint PGS_UNLIKELY(bint condition)


cdef enum Answer:
    BEHIND = -4                 # nothing yet: there is news of the host to be read first, see catch_up()
    NOT_CACHED = -3             # a miss that is not counted yet: the arena may have it, see held()
    DENIED = -2                 # the record says that the token is good no more
    OVER = -1                   # a miss: the entry is expired, see drop()
    MISS = 0
    HIT = 1
    HIT_LATE = 2                # a hit whose access is to be asked for, see ask()


cdef struct Misses:             # reads that memory did not answer, by what kept it from that
    uint64_t out_of_sync
    uint64_t not_cached
    uint64_t over               # the entry is expired, inactive or here for too long
    uint64_t outdated           # the entry is older than asked for
    uint64_t refreshed          # memory was not to be asked
    uint64_t refused            # the token is bad


cdef struct Claim:
    int64_t generation          # of a token
    Standing standing           # and what the record says of it


cdef class Cache:
    cdef pgs_table table
    cdef readonly Clock clock
    cdef EvictedAccesses evicted_accesses
    cdef Absences absences      # of sessions that are not in the table
    cdef readonly uint32_t capacity
    cdef readonly int64_t access_interval
    cdef readonly int64_t operation_timeout
    cdef readonly int64_t lifetime
    cdef readonly int64_t max_attribute_length
    cdef readonly int64_t max_session_size
    cdef readonly int64_t max_attributes
    cdef readonly int64_t rotation_grace
    cdef readonly object codec
    cdef bint has_codec
    cdef bint seals             # the codec encrypts
    # What a hit compares. A private cache has a line of its own, on which nothing changes but by its owner.
    cdef pgs_hit_line own
    cdef pgs_hit_line *line     # its own, or that of the arena
    cdef uint64_t tail          # what the ring says is read up to here
    cdef int64_t seen           # the line's `in_sync_until` when it was read last
    cdef int64_t served_until   # so long memory may answer: `seen`, or 0 while the cache is not tied to its arena
    cdef Arena arena            # None: the cache is private
    cdef Arena section          # whose lock is held by begin()
    cdef int64_t after          # a time in sync counts only if it ends later: see share()
    cdef bint tied_
    cdef uint64_t news_tail     # what news() has said
    cdef list lock_events
    cdef uint64_t shared_hits, ring_events, ring_overruns, marked
    cdef int64_t due            # when the first of the accesses that are asked for has to be written
    cdef int64_t planned        # and when the writer looks for it next
    cdef uint64_t hits, evictions, expirations, inserts, discards, refused, negative_hits
    cdef Misses misses
    cdef uint32_t sweeper
    cdef pgs_mutex mutex        # guards all that changes; locking.h says how it may be held


cdef Answer recheck(Cache cache, uint32_t slot, int64_t now, bint touch, int64_t min_version) noexcept
cdef Answer check_claim(Cache cache, uint32_t slot, int64_t now, int64_t min_version, Claim *claim) noexcept

cdef inline bint is_behind(Cache cache) noexcept:
    """Return True where the host has news that is not read yet (the ring, another `in_sync_until`, poison).

    `in_sync_until` is read before the ring's head, and the clock after both (S3): what was promised until then had been
    told before.
    """
    cdef pgs_hit_line *line = cache.line
    cdef int64_t until = pgs_load_acquire(&line.in_sync_until)
    return pgs_load_head(&line.head) != cache.tail or until != cache.seen


cdef inline uint32_t find(Cache cache, Key key, bint in_sync, int64_t *now, Answer *answer) noexcept:
    """Return the slot of a session, and the database time; 0 for a miss, which `answer` names. The caller has the lock.

    With `in_sync` nothing is served beyond the proof of sync (C6). That is counted here, a hit by use(), the others by held().
    """
    cdef PyObject *clock = <PyObject *> cache.clock     # borrowed, see reference.h
    cdef uint32_t slot
    if PGS_UNLIKELY(is_behind(cache)):
        answer[0] = BEHIND
        return 0
    slot = pgs_find(&cache.table, key.high, key.low)
    now[0] = recent(<Clock> clock)
    if in_sync and PGS_UNLIKELY(now[0] + cache.clock.slack >= cache.served_until):
        cache.misses.out_of_sync += 1
        answer[0] = MISS
        return 0
    if PGS_UNLIKELY(slot == 0):
        answer[0] = NOT_CACHED
        return 0
    now[0] += cache.clock.offset
    return slot


cdef inline Answer use(Cache cache, uint32_t slot, int64_t now, bint touch, int64_t min_version,
                       pgs_hot **found) noexcept:
    """Return the answer to a read of an entry, and the entry of a hit in `found`; the caller has the lock."""
    cdef pgs_table *table = &cache.table
    cdef pgs_hot *hot = &table.hot[slot]
    cdef Answer answer = HIT
    if PGS_UNLIKELY(now + cache.clock.lag >= hot.deadline or hot.version < min_version):
        answer = recheck(cache, slot, now + cache.clock.lag, touch, min_version)
        if answer <= MISS:
            return answer
    if touch and now > hot.accessed:
        hot.accessed = now
        if not hot.flags & PGS_ACCESSED:
            pgs_access_add(table, slot)
    pgs_use(table, slot)
    cache.hits += 1
    found[0] = hot
    return answer


cdef inline Answer look_up(Cache cache, Key key, bint touch, int64_t min_version, bint in_sync,
                           pgs_hot **found) noexcept:
    """Return the answer to a read, and the entry of a hit in `found`; the caller has the lock."""
    cdef int64_t now
    cdef Answer answer
    cdef uint32_t slot = find(cache, key, in_sync, &now, &answer)
    return use(cache, slot, now, touch, min_version, found) if slot else answer


cdef inline Answer look_up_by_token(Cache cache, Key key, bint touch, int64_t min_version, Claim *claim,
                                    pgs_hot **found) noexcept:
    """Do what look_up() does for a token, of which the record says whether it is good."""
    cdef int64_t now
    cdef Answer answer
    cdef uint32_t slot = find(cache, key, True, &now, &answer)
    cdef pgs_hot *hot
    if PGS_UNLIKELY(slot == 0):
        return answer
    hot = &cache.table.hot[slot]
    if PGS_UNLIKELY((<Record> hot.record).generation != claim.generation):
        answer = check_claim(cache, slot, now, min_version, claim)
        if answer <= MISS:
            return answer
    return use(cache, slot, now, touch, min_version, found)


cdef int64_t deadline_of(Cache cache, uint32_t slot) noexcept
cdef bint ask(Cache cache, uint32_t slot) noexcept
cdef object held(Cache cache, Key key, bint touch, int64_t min_version, bint in_sync, Answer *answer,
                 int64_t *accessed, Claim *claim)
cdef int drop(Cache cache, Key key) except -1
cdef void count_refresh(Cache cache) noexcept
cdef void count_bad_token(Cache cache) noexcept
cdef bint is_absent(Cache cache, Key key, int64_t min_version) noexcept

