from libc.stdint cimport int64_t, uint32_t, uint64_t

from pgsession._core.key cimport Key
from pgsession._core.lock cimport pgs_mutex
from pgsession._core.record cimport Record


cdef extern from "sharing.h" nogil:
    enum:
        PGS_HAS_ARENA, PGS_INCARNATION
        PGS_LOST, PGS_LISTENING, PGS_SYNCED
        PGS_CHANGED, PGS_GONE, PGS_USER_CHANGED, PGS_GROUP_CHANGED, PGS_ALL_CHANGED, PGS_EPOCH
        PGS_LOCK_RELEASED, PGS_LOCK_ENDED, PGS_LOCKS_MISSED
        PGS_ARENA_OK, PGS_HELD, PGS_HELD_AFTER_RESET, PGS_BUSY
        PGS_ARENA_POISONED, PGS_ARENA_UNSUPPORTED, PGS_ARENA_NOT_ONE, PGS_ARENA_LAYOUT, PGS_ARENA_SIZE, PGS_ARENA_MUTEX
        PGS_OWNER_AT, PGS_LOCK_AT, PGS_LONGEST_OWNER, PGS_LONGEST_LOCK
    ctypedef struct pgs_hit_line:
        int64_t in_sync_until
        uint64_t head
        uint32_t state, epoch
    ctypedef struct pgs_event:
        uint32_t kind, length
        uint64_t high, low
        int64_t version
    ctypedef struct pgs_shared:
        uint64_t high, low
        int64_t version, generation, expires_at, inactivity, last_accessed, cached_at
        uint64_t user, group
    ctypedef struct pgs_arena_counters:
        uint64_t sessions, inserts, evictions, refused, expirations, resets
    ctypedef struct pgs_arena:
        pgs_hit_line *line
    int64_t pgs_load_acquire(const int64_t *at)
    uint64_t pgs_load_head "pgs_load_acquire"(const uint64_t *at)
    uint32_t pgs_load_32 "pgs_load_acquire"(const uint32_t *at)
    void pgs_event_text(pgs_event *event, uint32_t at, const char *text, uint32_t length)
    const char *pgs_text_in(const pgs_event *event, uint32_t at, uint32_t *length)
    int pgs_arena_next(const pgs_arena *arena, uint64_t *tail, pgs_event *event)
    int pgs_line_clock(const pgs_hit_line *line, int64_t *offset, int64_t *lag)
    int pgs_arena_discard_older(pgs_arena *arena, uint64_t high, uint64_t low, int64_t version)
    int pgs_arena_discard(pgs_arena *arena, uint64_t high, uint64_t low)
    int pgs_arena_discard_owner(pgs_arena *arena, int which, const char *text, uint32_t length)
    void pgs_arena_clear(pgs_arena *arena)
    int pgs_arena_append(pgs_arena *arena, const pgs_event *event)
    int pgs_arena_vouch(pgs_arena *arena, uint64_t number, int64_t until, int64_t proved_until, int64_t offset, int64_t lag)
    uint64_t pgs_arena_number(const pgs_arena *arena)
    void pgs_arena_set_state(pgs_arena *arena, uint32_t state)
    void pgs_arena_next_epoch(pgs_arena *arena)
    void pgs_arena_ring_bell(pgs_arena *arena)
    void pgs_arena_visit(pgs_arena *arena, uint64_t high, uint64_t low)


cdef class Arena:
    cdef pgs_arena memory
    cdef void *base             # NULL once nothing is mapped any more
    cdef readonly uint64_t size
    cdef pgs_mutex mutex        # guards the next three; a leaf, as all are (locking.h)
    cdef uint32_t inside        # caches that share it, and threads that are in it without one
    cdef uint32_t shares        # of these the caches
    cdef bint is_closed
    cdef unsigned long holder   # the thread that has the arena's lock, by depth; 0: none of this process
    cdef uint32_t depth
    cdef uint32_t expire_cursor

    cdef bint enter(self) noexcept
    cdef void leave(self) noexcept
    cdef int hold(self, bint wait) noexcept
    cdef bint holds(self) noexcept
    cdef void release(self) noexcept


cdef Record copy_of(Arena arena, Key key, pgs_shared *what)
cdef bint insert(Arena arena, Record record, bytes blob, int64_t cached_at) except -1
cdef int64_t version_in(Arena arena, Key key) except? -1
cdef tuple identities_in(Arena arena)
cdef int expire_in(Arena arena, int64_t now, uint32_t limit) except -1
