# cython: freethreading_compatible=True
"""An arena is memory that the processes of a host share: arena.h has it, this is what Python and the cache do with it.

Whoever uses the memory is counted, a cache for as long as it shares the arena and a thread while it is inside; close() leaves
the unmapping to the last of them.

The lock of an arena is one for the host. Order: a caller's own locks, the arena's, then a cache's mutex; it is never waited
for with the GIL or under a mutex. A thread that has it may take it again: code that a finalizer runs in between does not wait
for itself, which would last a second and cost the host its arena.
"""

cimport cython
from libc.string cimport memcpy, memset

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.pythread cimport PyThread_get_thread_ident

from pgsession._core.arguments cimport checked_text
from pgsession._core.clock cimport pgs_clock_now
from pgsession._core.key cimport key_bytes
from pgsession._core.lock cimport pgs_lock, pgs_unlock
from pgsession._core.record cimport Span, owner_of
from pgsession._core.record_bytes cimport RECORD_ENCODING, decoded

import os
from secrets import token_bytes

cdef extern from "mapping.h" nogil:
    void *pgs_map(int file, uint64_t size)
    void pgs_unmap(void *base, uint64_t size)

cdef extern from "sharing.h" nogil:
    uint64_t pgs_arena_layout_of(uint64_t encoding)
    uint64_t pgs_arena_smallest()
    int pgs_arena_self_test()
    int pgs_arena_format(pgs_arena *arena, void *base, uint64_t size, uint64_t encoding, const uint64_t *random)
    int pgs_arena_bind(pgs_arena *arena, void *base, uint64_t size, uint64_t encoding)
    int pgs_arena_try(pgs_arena *arena)
    int pgs_arena_lock(pgs_arena *arena)
    void pgs_arena_unlock(pgs_arena *arena)
    int pgs_arena_poisoned(const pgs_arena *arena)
    void pgs_arena_poison(pgs_arena *arena)
    int pgs_arena_read(const pgs_arena *arena, uint64_t high, uint64_t low, void *out, uint32_t room, pgs_shared *what)
    int pgs_arena_insert(pgs_arena *arena, const pgs_shared *what, const void *blob, uint32_t length)
    uint32_t pgs_arena_expire(pgs_arena *arena, uint32_t *cursor, int64_t now, uint32_t limit)
    int pgs_arena_walk(const pgs_arena *arena, uint32_t *cursor, pgs_shared *what)
    uint64_t pgs_owner_hash(const pgs_arena *arena, int which, const char *text, uint32_t length)
    uint64_t pgs_arena_take_lead(pgs_arena *arena, uint64_t expected, uint32_t pid, int64_t now, int lost)
    int pgs_arena_beat(pgs_arena *arena, uint64_t number, int64_t now)
    int64_t pgs_arena_last_beat(const pgs_arena *arena)
    int64_t pgs_arena_proved_until(const pgs_arena *arena)
    int64_t pgs_arena_longest(const pgs_arena *arena)
    void pgs_arena_raise_longest(pgs_arena *arena, int64_t longest)
    uint32_t pgs_arena_nodes(const pgs_arena *arena)
    int64_t pgs_arena_registered(const pgs_arena *arena)
    uint64_t pgs_arena_leaving(const pgs_arena *arena)
    void pgs_arena_set_registered(pgs_arena *arena, int64_t us)
    int64_t pgs_arena_known(const pgs_arena *arena)
    void pgs_arena_set_known(pgs_arena *arena, int64_t us)
    void pgs_arena_set_leaving(pgs_arena *arena, uint64_t number)
    void pgs_arena_set_nodes(pgs_arena *arena, uint32_t nodes)
    const unsigned char *pgs_arena_id(const pgs_arena *arena)
    void pgs_arena_count(const pgs_arena *arena, pgs_arena_counters *counters)
    void pgs_arena_set_incarnation(pgs_arena *arena, const char *text)
    int pgs_arena_incarnation(const pgs_arena *arena, char *text)
    uint32_t pgs_arena_bell(const pgs_arena *arena)
    uint32_t pgs_arena_wait_bell(pgs_arena *arena, uint32_t seen, int64_t timeout_us)

cdef enum:
    WALKED = 4096               # records at a time, under the lock
    ON_THE_STACK = 4096         # bytes of a record that is copied

cdef tuple STATES = ("lost", "listening", "synced")
cdef dict REASONS = {
    PGS_ARENA_POISONED: "the arena is given up: a process was stopped inside it",
    PGS_ARENA_UNSUPPORTED: "an arena is not supported on this platform",
    PGS_ARENA_NOT_ONE: "the file is no arena",
    PGS_ARENA_LAYOUT: "the arena is of another version of this library, or of another build",
    PGS_ARENA_SIZE: "the arena is too small, or the file is not as long as it says",
    PGS_ARENA_MUTEX: "a lock that survives the death of its owner does not work here",
}


class ArenaError(Exception):
    """Raised where an arena cannot be made or used; `reason` says why, in one line."""

    def __init__(self, reason):
        super().__init__(reason)
        self.reason = reason


@cython.final
@cython.no_gc
cdef class Arena:
    """Is one process's view of an arena, from `create` or `attach`.

    Every method and property raises ArenaError once it is closed. Times are node times in microseconds, which all processes
    of a host count the same.
    """

    def __cinit__(self):
        self.size = 0

    def __init__(self):
        raise TypeError("an arena comes from create() or attach()")

    def __dealloc__(self):
        if self.base != NULL:
            pgs_unmap(self.base, self.size)

    @staticmethod
    def create(int fd, uint64_t size):
        """Make an arena of a file that is so long, all zeroes, and that nobody else has; return it.

        Raises:
            ArenaError: It could not be made.
        """
        cdef Arena arena = mapped(fd, size)
        cdef uint64_t seeds[4]
        cdef bytes chance = token_bytes(sizeof(seeds))
        memcpy(seeds, PyBytes_AS_STRING(chance), sizeof(seeds))
        check(pgs_arena_format(&arena.memory, arena.base, size, RECORD_ENCODING, seeds))
        return arena

    @staticmethod
    def attach(int fd):
        """Return the arena that is in a file.

        Raises:
            ArenaError: There is none, or not one for this build.
        """
        cdef uint64_t size = os.fstat(fd).st_size
        cdef Arena arena = mapped(fd, size)
        check(pgs_arena_bind(&arena.memory, arena.base, size, RECORD_ENCODING))
        return arena

    @staticmethod
    def layout():
        """Return a number of 64 bits that is the same for all who can share an arena."""
        return pgs_arena_layout_of(RECORD_ENCODING)

    @staticmethod
    def smallest():
        """Return the fewest bytes that an arena can have."""
        return pgs_arena_smallest()

    @staticmethod
    def self_test():
        """Return True where what an arena needs of this system works."""
        return pgs_arena_self_test() == PGS_ARENA_OK

    # ---- what it says ----

    @property
    def id(self):
        """Return the 16 random bytes that tell it from all others."""
        inside(self)
        try:
            return PyBytes_FromStringAndSize(<const char *> pgs_arena_id(&self.memory), 16)
        finally:
            self.leave()

    @property
    def closed(self):
        """Return True once it is closed."""
        return bool(self.is_closed)

    @property
    def poisoned(self):
        """Return True once it is given up, for all processes."""
        inside(self)
        try:
            return pgs_arena_poisoned(&self.memory) != 0
        finally:
            self.leave()

    @property
    def number(self):
        """Return the number of the leader, which is counted up by each; 0: there was none yet."""
        inside(self)
        try:
            return pgs_arena_number(&self.memory)
        finally:
            self.leave()

    @property
    def last_beat(self):
        """Return when the leader said last that it is there."""
        inside(self)
        try:
            return pgs_arena_last_beat(&self.memory)
        finally:
            self.leave()

    @property
    def state(self):
        """Return "lost" while nobody listens, "listening", or "synced" once there is a proof."""
        cdef uint32_t state
        inside(self)
        state = pgs_load_32(&self.memory.line.state)
        self.leave()
        return STATES[min(state, <uint32_t> PGS_SYNCED)]

    @property
    def epoch(self):
        """Return the number of the epoch: how often the leader had to start over."""
        inside(self)
        try:
            return pgs_load_32(&self.memory.line.epoch)
        finally:
            self.leave()

    @property
    def incarnation(self):
        """Return which database it holds records of; None while nobody has said it."""
        cdef char text[PGS_INCARNATION]
        cdef int known
        inside(self)
        known = pgs_arena_incarnation(&self.memory, text)
        self.leave()
        return (<bytes> text).decode("utf-8", "replace") if known else None

    @property
    def longest(self):
        """Return the longest staleness, in microseconds, that a process of the host has asked for."""
        inside(self)
        try:
            return pgs_arena_longest(&self.memory)
        finally:
            self.leave()

    @property
    def nodes(self):
        """Return how many nodes the leader last saw registered."""
        inside(self)
        try:
            return pgs_arena_nodes(&self.memory)
        finally:
            self.leave()

    @property
    def in_sync_until(self):
        """Return until when its records may be served; 0: not at all."""
        inside(self)
        try:
            return pgs_load_acquire(&self.memory.line.in_sync_until)
        finally:
            self.leave()

    @property
    def proved_until(self):
        """Return when the newest read was sent that is proved to be of all that was committed."""
        inside(self)
        try:
            return pgs_arena_proved_until(&self.memory)
        finally:
            self.leave()

    @property
    def sessions(self):
        """Return how many records it holds."""
        return self.counters()["sessions"]

    @property
    def bell(self):
        """Return how often the bell has rung, modulo 2**32."""
        inside(self)
        try:
            return pgs_arena_bell(&self.memory)
        finally:
            self.leave()

    def counters(self):
        """Return what was counted since it was made, by all processes, and `sessions` as they are now."""
        cdef pgs_arena_counters counters
        inside(self)
        pgs_arena_count(&self.memory, &counters)
        self.leave()
        return {"sessions": counters.sessions, "inserts": counters.inserts, "evictions": counters.evictions,
                "refused": counters.refused, "expirations": counters.expirations, "resets": counters.resets}

    # ---- what it is told ----

    def take(self, uint64_t expected, bint lost):
        """Make this process the leader after the one of number `expected`; return its number, 0 where another was faster.

        With `lost` the one before is not known to have told all it heard: the state is "lost" then.
        """
        cdef uint64_t number
        cdef uint32_t pid = <uint32_t> os.getpid()
        locked(self)
        try:
            number = pgs_arena_take_lead(&self.memory, expected, pid, pgs_clock_now(), lost)
        finally:
            self.release()
        return number

    def beat(self, uint64_t number, now=None):
        """Say that the leader of that number is there, at this node time; False: another one leads."""
        cdef int64_t us = pgs_clock_now() if now is None else now
        inside(self)
        try:
            return pgs_arena_beat(&self.memory, number, us) != 0
        finally:
            self.leave()

    def set_incarnation(self, uint64_t number, str text not None):
        """Say which database it holds records of, in up to 63 bytes; False: another one leads."""
        cdef char padded[PGS_INCARNATION]
        cdef bytes data = checked_text("incarnation", text, 1, PGS_INCARNATION - 1).encode()
        memset(padded, 0, sizeof(padded))
        memcpy(padded, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        locked(self)
        try:
            if pgs_arena_number(&self.memory) != number:
                return False
            pgs_arena_set_incarnation(&self.memory, padded)
            return True
        finally:
            self.release()

    def raise_longest(self, int64_t us):
        """Say that this process asks for this staleness; `longest` never falls."""
        inside(self)
        pgs_arena_raise_longest(&self.memory, us)
        self.leave()

    @property
    def registered(self):
        """Return the longest staleness, in microseconds, that the other nodes know this host by."""
        inside(self)
        try:
            return pgs_arena_registered(&self.memory)
        finally:
            self.leave()

    @property
    def known(self):
        """Return the longest staleness, in microseconds, of any node that the leader has heard of."""
        inside(self)
        try:
            return pgs_arena_known(&self.memory)
        finally:
            self.leave()

    def set_registered(self, int64_t us, int64_t known, uint32_t nodes):
        """Say by which staleness the other nodes know this host, the longest of all that there are, and how many they are."""
        inside(self)
        pgs_arena_set_registered(&self.memory, us)
        pgs_arena_set_known(&self.memory, max(known, pgs_arena_known(&self.memory)))
        pgs_arena_set_nodes(&self.memory, nodes)
        self.leave()

    @property
    def leaving(self):
        """Return True while the leader waits for another process to be ready."""
        inside(self)
        try:
            number = pgs_arena_number(&self.memory)
            return number != 0 and pgs_arena_leaving(&self.memory) == number
        finally:
            self.leave()

    def leave_lead(self, uint64_t number):
        """Say that the leader of this number goes, once another process is ready."""
        inside(self)
        pgs_arena_set_leaving(&self.memory, number)
        pgs_arena_ring_bell(&self.memory)
        self.leave()

    def set_nodes(self, uint32_t nodes):
        """Say how many nodes are registered."""
        inside(self)
        pgs_arena_set_nodes(&self.memory, nodes)
        self.leave()

    def wait_bell(self, uint32_t seen, double timeout_seconds):
        """Wait until the bell has rung since `bell` was `seen`, or for so long; return what it is then."""
        cdef int64_t timeout = <int64_t> (min(max(timeout_seconds, 0.0), 86400.0) * 1_000_000)
        cdef uint32_t count
        inside(self)
        try:
            with nogil:
                count = pgs_arena_wait_bell(&self.memory, seen, timeout)
        finally:
            self.leave()
        return count

    def ring_bell(self):
        """Wake all who wait for the bell."""
        inside(self)
        pgs_arena_ring_bell(&self.memory)
        self.leave()

    def poison(self):
        """Give it up, for all processes; their caches notice it with their next read."""
        inside(self)
        pgs_arena_poison(&self.memory)
        self.leave()

    def forked(self):
        """Start over in the child of a fork: whoever was inside, or had the lock, is the parent's."""
        memset(&self.mutex, 0, sizeof(self.mutex))
        self.inside = self.shares
        self.holder = 0
        self.depth = 0

    def close(self):
        """Use it no more. Whoever is still inside goes on, and the last one has it unmapped; a second call does nothing."""
        pgs_lock(&self.mutex)
        self.is_closed = True
        self.inside += 1
        pgs_unlock(&self.mutex)
        self.leave()

    def __reduce__(self):
        raise TypeError("an arena is not pickled")

    # ---- who uses it ----

    cdef bint enter(self) noexcept:
        """Count a user of the memory, who leaves it again; False: it is closed."""
        cdef bint entered
        pgs_lock(&self.mutex)
        entered = not self.is_closed
        self.inside += entered
        pgs_unlock(&self.mutex)
        return entered

    cdef void leave(self) noexcept:
        cdef void *base = NULL
        pgs_lock(&self.mutex)
        self.inside -= 1
        if self.is_closed and self.inside == 0:
            base = self.base
            self.base = NULL
        pgs_unlock(&self.mutex)
        if base != NULL:
            pgs_unmap(base, self.size)

    cdef bint holds(self) noexcept:
        """Return True where this thread has the arena's lock."""
        return self.depth != 0 and self.holder == <unsigned long> PyThread_get_thread_ident()

    cdef int hold(self, bint wait) noexcept:
        """Take the lock, PGS_HELD; PGS_BUSY: another one has it, and this was not to wait; PGS_ARENA_POISONED: it is no use.

        The caller is one of those that are counted. Who has taken it gives it back with release(), as often.
        """
        cdef int got
        if self.holds():
            self.depth += 1
            return PGS_HELD
        got = pgs_arena_try(&self.memory)
        if got == PGS_BUSY and wait:
            with nogil:
                got = pgs_arena_lock(&self.memory)
        if got == PGS_HELD_AFTER_RESET:
            got = PGS_HELD                  # the ring tells the rest, as an overrun
        if got == PGS_HELD:
            self.holder = <unsigned long> PyThread_get_thread_ident()
            self.depth = 1
        return got

    cdef void release(self) noexcept:
        """Undo one hold() and, of locked(), the counting."""
        self.depth -= 1
        if self.depth == 0:
            self.holder = 0
            pgs_arena_unlock(&self.memory)
        self.leave()


cdef int check(int said) except -1:
    if said != PGS_ARENA_OK:
        raise ArenaError(REASONS.get(said, f"error {said}"))
    return 0


cdef Arena mapped(int fd, uint64_t size):
    cdef Arena arena
    if not PGS_HAS_ARENA:
        check(PGS_ARENA_UNSUPPORTED)
    if size < pgs_arena_smallest():
        check(PGS_ARENA_SIZE)
    arena = Arena.__new__(Arena)
    arena.base = pgs_map(fd, size)
    if arena.base == NULL:
        raise ArenaError("the file could not be mapped into memory")
    arena.size = size
    return arena


cdef int inside(Arena arena) except -1:
    if not arena.enter():
        raise ArenaError("the arena is closed")
    return 0


cdef int locked(Arena arena) except -1:
    """Be inside and have the lock, until release()."""
    cdef int got
    inside(arena)
    got = arena.hold(True)
    if got != PGS_HELD:
        arena.leave()
        check(got)
    return 0


# ---- records; the caller is one of those that are counted ----

cdef Record copy_of(Arena arena, Key key, pgs_shared *what):
    """Return the record of a session, and what else is known of it; None: it is not there, or just being changed."""
    cdef char on_the_stack[ON_THE_STACK]
    cdef char *data = on_the_stack
    cdef char *more = NULL
    cdef Record record
    cdef int length = pgs_arena_read(&arena.memory, key.high, key.low, data, ON_THE_STACK, what)
    try:
        if length < 0:
            more = data = <char *> PyMem_Malloc(-length)
            if more == NULL:
                raise MemoryError
            length = pgs_arena_read(&arena.memory, key.high, key.low, data, -length, what)
        if length <= 0:
            return None
        record = decoded(data, length)
        return record if record.id.high == key.high and record.id.low == key.low else None
    except ValueError:
        return None                         # somebody wrote into it who should not: a miss is always right
    finally:
        PyMem_Free(more)


cdef bint insert(Arena arena, Record record, bytes blob, int64_t cached_at) except -1:
    """Put a record in; False where there is a newer one, or no room. The lock is held."""
    cdef pgs_shared what
    cdef Span user = owner_of(record, 0), group = owner_of(record, 1)
    what.high = record.id.high
    what.low = record.id.low
    what.version = record.version
    what.generation = record.generation
    what.expires_at = record.expires_at
    what.inactivity = record.inactivity
    what.last_accessed = record.last_accessed
    what.cached_at = cached_at
    what.user = pgs_owner_hash(&arena.memory, 0, user.data, user.length) if user.data != NULL else 0
    what.group = pgs_owner_hash(&arena.memory, 1, group.data, group.length) if group.data != NULL else 0
    return pgs_arena_insert(&arena.memory, &what, PyBytes_AS_STRING(blob), <uint32_t> PyBytes_GET_SIZE(blob)) > 0


cdef int64_t version_in(Arena arena, Key key) except? -1:
    """Return the version of a session that it holds; 0: of none."""
    cdef pgs_shared what
    cdef char nothing
    if not arena.enter():
        return 0
    what.version = 0
    if pgs_arena_read(&arena.memory, key.high, key.low, &nothing, 0, &what) == 0:
        what.version = 0
    arena.leave()
    return what.version


cdef tuple identities_in(Arena arena):
    """Return the lists of all keys, versions and generations. What enters meanwhile may be missing."""
    cdef list keys = [], versions = [], generations = []
    cdef pgs_shared what
    cdef uint32_t cursor = 0
    cdef int looked
    cdef bint more = True
    while more:
        locked(arena)
        try:
            for looked in range(WALKED):
                more = pgs_arena_walk(&arena.memory, &cursor, &what) > 0
                if not more:
                    break
                keys.append(key_bytes(Key(what.high, what.low)))
                versions.append(what.version)
                generations.append(what.generation)
        finally:
            arena.release()
    return keys, versions, generations


cdef int expire_in(Arena arena, int64_t now, uint32_t limit) except -1:
    """Drop what is expired, of up to so many records; nothing where somebody has the lock."""
    if not arena.enter():
        return 0
    if arena.hold(False) != PGS_HELD:
        arena.leave()
        return 0
    pgs_arena_expire(&arena.memory, &arena.expire_cursor, now, limit)
    arena.release()
    return 0
