# cython: freethreading_compatible=True
# cython: binding=False
# cython: embedsignature=True
# cython: embedsignature.format=clinic
"""The cache of a node is bounded: the least recently used record leaves first. Nothing expired is served (C8).

What is checked at a hit is one `deadline` in the entry, the earliest moment at which anything could be wrong with it;
only past it does recheck() look at which it was. Times are database times unless they say "node"; an end is compared
with the latest that it can be by the database's clock, so that what may be over is a miss, which the database answers.

What is known of an id is a record, or for a short while that there is no session (absences.pyx); never both. Whatever drops
the one drops the other.

No change of the structure is left half done while something is called that could call back (releasing a record may
run finalizers of decoded values): a change ends first, then what it took out is released, outside of the lock that
free-threaded builds have (locking.h).
"""

cimport cython

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF

from pgsession._core.arguments cimport checked_count
from pgsession._core.clock cimport exact, recent
from pgsession._core.key cimport key_bytes, parse, pgs_store_big
from pgsession._core.lock cimport pgs_lock, pgs_take_and_unlock, pgs_unlock
from pgsession._core.record cimport CURRENT, PREVIOUS, Span, owner_of, standing_of
from pgsession._core.reference cimport pgs_give

from secrets import randbits

from pgsession.codec import Codec

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *length) except NULL

cdef int64_t NEVER = 0x7FFF_FFFF_FFFF_FFFFLL
cdef double INFINITE = float("inf")
cdef uint32_t LARGEST = 0x7FFF_FFFF
cdef Py_ssize_t MOST_EVICTED_ACCESSES = 1 << 16      # some 30 MB


cdef void record_owner(void *record, int which, pgs_text *text) noexcept:
    cdef Span span = owner_of(<Record> record, which)
    text.data = span.data
    text.length = span.length


@cython.final
@cython.no_gc_clear                     # it can be part of a cycle by its codec, and is whole as long as it is used
cdef class Cache:
    """Holds records by session id, at most `capacity` of them.

    `access_interval`, `operation_timeout`, `lifetime` and `rotation_grace` are microseconds (`lifetime` 0: no bound).
    `in_sync_until` is the node time until which the cache is known to be in sync; 0: it is not.
    """

    def __cinit__(self, capacity, Clock clock not None, *, int64_t access_interval, int64_t lifetime,
                  int64_t max_attribute_length, int64_t operation_timeout=0, int64_t max_session_size=NEVER,
                  int64_t max_attributes=NEVER, int64_t rotation_grace=0, codec=None):
        self.capacity = <uint32_t> checked_count("capacity", capacity, 1, LARGEST)
        self.clock = clock
        self.evicted_accesses = EvictedAccesses(MOST_EVICTED_ACCESSES)
        self.absences = Absences()
        self.access_interval = access_interval
        self.operation_timeout = operation_timeout
        self.due = self.planned = NEVER
        self.lifetime = lifetime
        self.max_attribute_length = max_attribute_length
        self.max_session_size = max_session_size
        self.max_attributes = max_attributes
        self.rotation_grace = rotation_grace
        self.codec = codec
        self.has_codec = codec is not None
        self.seals = self.has_codec and type(codec).seal is not Codec.seal
        self.table.owner_of = record_owner
        if pgs_table_init(&self.table, randbits(64), randbits(64)):
            raise MemoryError

    def __dealloc__(self):
        cdef pgs_table table = self.table
        pgs_table_clear(&self.table)
        release_all(&table)

    def __len__(self):
        return self.table.count

    # ---- reading ----

    def get(self, session_id, bint touch=True):
        """Return the record of a session, or None where none may be served; with `touch` this is an access.

        Everything is checked but the proof of sync. This counts as neither a hit nor a miss: the read for which it is
        done was counted when memory was asked before the database.
        """
        cdef Key key
        cdef Answer answer = MISS
        cdef int64_t accessed = 0
        parse(session_id, &key)
        return held(self, key, touch, 0, False, &answer, &accessed, NULL)

    def version(self, session_id):
        """Return the version that is cached, expired or not; 0 for none. This is no access."""
        cdef Key key
        cdef uint32_t slot
        cdef int64_t version
        parse(session_id, &key)
        pgs_lock(&self.mutex)
        slot = pgs_find(&self.table, key.high, key.low)
        version = self.table.hot[slot].version if slot else 0
        pgs_unlock(&self.mutex)
        return version

    def versions(self):
        """Return everything that is cached, as the list of keys and the list of their versions."""
        cdef list keys = [], versions = []
        cdef uint32_t slot
        pgs_lock(&self.mutex)
        try:
            for slot in range(1, self.table.count + 1):
                keys.append(key_at(self, slot))
                versions.append(self.table.hot[slot].version)
        finally:
            pgs_unlock(&self.mutex)
        return keys, versions

    def identities(self):
        """Return everything that is cached, as the lists of the keys, of their versions and of their generations."""
        cdef list keys = [], versions = [], generations = []
        cdef uint32_t slot
        pgs_lock(&self.mutex)
        try:
            for slot in range(1, self.table.count + 1):
                keys.append(key_at(self, slot))
                versions.append(self.table.hot[slot].version)
                generations.append((<Record> self.table.hot[slot].record).generation)
        finally:
            pgs_unlock(&self.mutex)
        return keys, versions, generations

    def keys_by_use(self):
        """Return the keys of everything that is cached, 16 bytes each, the last used first."""
        cdef bytes keys
        cdef unsigned char *at
        cdef uint32_t slot
        pgs_lock(&self.mutex)
        try:
            keys = PyBytes_FromStringAndSize(NULL, <Py_ssize_t> self.table.count * 16)
            at = <unsigned char *> PyBytes_AS_STRING(keys)
            slot = self.table.hot[0].older
            while slot:
                pgs_store_big(at, self.table.hot[slot].high)
                pgs_store_big(at + 8, self.table.hot[slot].low)
                at += 16
                slot = self.table.hot[slot].older
        finally:
            pgs_unlock(&self.mutex)
        return keys

    def sample(self, most):
        """Return up to so many of the records that are cached, expired or not, at random. This is no access."""
        cdef int64_t wanted = checked_count("most", most, 0, LARGEST)
        cdef list records = []
        cdef uint32_t slot
        cdef uint64_t start = randbits(64)
        pgs_lock(&self.mutex)
        try:
            # One run of slots: which slot a record has is chance, for those that leave are filled by the last.
            for slot in range(<uint32_t> min(wanted, <int64_t> self.table.count)):
                records.append(<Record> self.table.hot[1 + (start + slot) % self.table.count].record)
        finally:
            pgs_unlock(&self.mutex)
        return records

    # ---- entering and leaving ----

    def put(self, Record record not None, bint behind=False):
        """Cache a record; with `behind` it is the first to leave, and only enters where nothing has to leave for it.

        Returns:
            False where the cache keeps something newer (it never goes back, C2), or where the record may have
            expired; then nothing is cached for it. With `behind` also where the session is cached, or there is no room.
        """
        cdef Entered entered = REFUSED
        cdef int64_t now = exact(self.clock) + self.clock.offset + self.clock.lag
        released = None
        pgs_lock(&self.mutex)
        try:
            released = enter(self, record, now, behind, &entered)
        finally:
            pgs_unlock(&self.mutex)
        if entered == NO_MEMORY:
            raise MemoryError
        return entered == ENTERED

    def put_absence(self, session_id, int64_t floor, int64_t until):
        """Remember, until this node time, that there is no session of an id, nor one that has reached version `floor`.

        Nothing is remembered while there is a record of it.
        """
        cdef Key key
        parse(session_id, &key)
        pgs_lock(&self.mutex)
        try:
            if pgs_find(&self.table, key.high, key.low) == 0:
                self.absences.add(key, floor, until, exact(self.clock))
        finally:
            pgs_unlock(&self.mutex)

    def is_absent(self, session_id, int64_t min_version=0):
        """Return True where memory may answer that no session of this id is there; that is a negative hit."""
        cdef Key key
        parse(session_id, &key)
        return is_absent(self, key, min_version)

    def clear_absences(self):
        """Forget of which ids there is no session."""
        pgs_lock(&self.mutex)
        self.absences.clear()
        pgs_unlock(&self.mutex)

    def discard(self, session_id):
        """Drop a session, or what is remembered of its absence; return True if it was there."""
        return discard_below(self, session_id, NEVER)

    def discard_older(self, session_id, int64_t version):
        """Drop a session if what is cached is older than `version`, as any absence is; return True if it was there."""
        return discard_below(self, session_id, version)

    def discard_user(self, str user_id not None):
        """Drop all sessions of a user; return how many there were."""
        return discard_members(self, PGS_USER, user_id)

    def discard_group(self, str group_id not None):
        """Drop all sessions of a group; return how many there were."""
        return discard_members(self, PGS_GROUP, group_id)

    def clear(self):
        """Drop everything; return how many sessions there were. Accesses still to be written are kept."""
        cdef pgs_table old
        cdef pgs_table fresh
        cdef uint32_t count
        pgs_table_clear(&fresh)
        fresh.owner_of = record_owner
        if pgs_table_init(&fresh, randbits(64), randbits(64)):
            pgs_table_free(&fresh)
            raise MemoryError
        old = fresh
        pgs_lock(&self.mutex)
        try:
            while self.table.cold[0].access.next:
                keep_access(self, self.table.cold[0].access.next)
            old = self.table
            self.table = fresh
            self.absences.clear()
            self.discards += old.count
        finally:
            pgs_unlock(&self.mutex)
            count = old.count
            release_all(&old)
        return count

    def expire(self, limit=1000):
        """Look at up to `limit` entries, from where the last call stopped; drop the expired ones, return how many."""
        cdef int64_t now = exact(self.clock) + self.clock.offset
        cdef int64_t most = limit
        cdef uint32_t look
        cdef list released = []
        pgs_lock(&self.mutex)
        try:
            look = <uint32_t> min(most, <int64_t> self.table.count)
            while look:
                look -= 1
                if self.sweeper == 0 or self.sweeper > self.table.count:
                    self.sweeper = self.table.count
                if self.sweeper == 0:
                    break
                if now >= self.table.hot[self.sweeper].deadline and is_over(self, self.sweeper, now):
                    collect(self, self.sweeper, released)   # the last slot moves here: already looked at
                    self.expirations += 1
                if self.sweeper:
                    self.sweeper -= 1
        finally:
            pgs_unlock(&self.mutex)
        return len(released)

    def _drop(self, session_id):
        """Remove an entry as a hit does that found it to be over, for tests of what comes in between."""
        cdef Key key
        parse(session_id, &key)
        drop(self, key)

    def set_floor(self, session_id, int64_t version):
        """Note that `min_version` up to this was checked against the database: it has nothing newer."""
        cdef Key key
        cdef uint32_t slot
        parse(session_id, &key)
        pgs_lock(&self.mutex)
        slot = pgs_find(&self.table, key.high, key.low)
        if slot and version > self.table.cold[slot].floor:
            self.table.cold[slot].floor = version
        pgs_unlock(&self.mutex)

    # ---- accesses ----

    def take_accesses(self, limit, bint due=False):
        """Take up to `limit` accesses to be written, as (key, microseconds); with `due` those that are asked for only.

        Of these it leaves what can wait longer. The caller goes on until there is nothing, and gives each to
        confirm_accesses() or restore_accesses().
        """
        cdef list taken
        cdef list keys = [], times = []                 # no tuples yet: a collection could change what is walked
        cdef Py_ssize_t most
        cdef uint32_t slot, following
        cdef int64_t now = exact(self.clock) + self.clock.offset
        cdef int64_t left = NEVER
        pgs_lock(&self.mutex)
        try:
            taken = self.evicted_accesses.take(limit)
            most = <Py_ssize_t> limit - len(taken)
            following = self.table.cold[0].access.next
            while following and most > 0:
                slot = following
                following = self.table.cold[slot].access.next
                if due and not self.table.hot[slot].flags & PGS_ASKED:
                    following = 0
                elif due and can_wait(self, slot, now):
                    left = min(left, latest(self, slot))
                else:
                    keys.append(key_at(self, slot))
                    times.append(self.table.hot[slot].accessed)
                    pgs_access_remove(&self.table, slot)
                    most -= 1
            if most > 0:
                self.due = left
        finally:
            pgs_unlock(&self.mutex)
        return taken + list(zip(keys, times))

    def due_in(self):
        """Return in how many seconds accesses that are asked for have to be taken; infinity: there are none.

        The caller looks again then, or is told earlier.
        """
        cdef int64_t due
        pgs_lock(&self.mutex)
        due = self.planned = self.due
        pgs_unlock(&self.mutex)
        if due == NEVER:
            return INFINITE
        return max(due - exact(self.clock) - self.clock.offset, 0) / 1_000_000

    def note_access(self, Record record not None, int64_t us):
        """Note an access to a session that was just read, cached or not; return True where the writer has to be told."""
        cdef uint32_t slot
        pgs_lock(&self.mutex)
        try:
            slot = pgs_find(&self.table, record.id.high, record.id.low)
            if slot:
                return accessed_at(self, slot, us)
            self.evicted_accesses.note(key_bytes(record.id), us, record.user_id)
            return plan(self, due_of(self, record, record.last_accessed, us))
        finally:
            pgs_unlock(&self.mutex)

    def confirm_accesses(self, accesses):
        """Note that these accesses are stored now."""
        cdef Key key
        cdef uint32_t slot
        cdef int64_t us
        for session_id, time in accesses:
            us = time
            parse(session_id, &key)
            pgs_lock(&self.mutex)
            slot = pgs_find(&self.table, key.high, key.low)
            if slot:
                stored(self, slot, us)
            pgs_unlock(&self.mutex)

    def restore_accesses(self, accesses):
        """Note that these accesses could not be written: they are still to be written, none moves back (C11)."""
        cdef Key key
        cdef uint32_t slot
        cdef int64_t us
        for session_id, time in accesses:
            us = time
            parse(session_id, &key)
            pgs_lock(&self.mutex)
            try:
                slot = pgs_find(&self.table, key.high, key.low)
                if slot == 0:
                    self.evicted_accesses.note(key_bytes(key), us, None)
                    plan(self, us)                      # nobody knows how long it can wait
                else:
                    accessed_at(self, slot, us)
            finally:
                pgs_unlock(&self.mutex)

    def accesses_of_user(self, str user_id not None):
        """Return the accesses of a user's sessions that the database may not have yet, as (key, microseconds)."""
        cdef list keys = [], times = []                 # no tuples yet: a collection could change what is walked
        cdef list left
        cdef uint32_t slot
        pgs_lock(&self.mutex)
        try:
            slot = first_member(self, PGS_USER, user_id)
            while slot:
                if self.table.hot[slot].accessed > self.table.cold[slot].stored:
                    keys.append(key_at(self, slot))
                    times.append(self.table.hot[slot].accessed)
                slot = self.table.cold[slot].member[PGS_USER].next
            left = self.evicted_accesses.of_user(user_id)
        finally:
            pgs_unlock(&self.mutex)
        return left + list(zip(keys, times))

    @property
    def many_evicted_accesses(self):
        """Return True while so many evicted accesses wait that they should be written soon."""
        return len(self.evicted_accesses) > self.evicted_accesses.limit // 2

    def stats(self):
        """Return the counters since the start, and `size`, `capacity`, `pending_accesses` as they are now."""
        pgs_lock(&self.mutex)
        try:
            return {
                "hits": self.hits, "misses": misses_of(self), "misses_out_of_sync": self.misses.out_of_sync,
                "misses_not_cached": self.misses.not_cached, "misses_over": self.misses.over,
                "misses_outdated": self.misses.outdated, "misses_refreshed": self.misses.refreshed,
                "misses_refused": self.misses.refused, "inserts": self.inserts,
                "evictions": self.evictions, "expirations": self.expirations, "discards": self.discards,
                "refused": self.refused, "negative_hits": self.negative_hits, "size": self.table.count, "capacity": self.capacity,
                "pending_accesses": self.table.access + len(self.evicted_accesses),
                "lost_accesses": self.evicted_accesses.given_up,
            }
        finally:
            pgs_unlock(&self.mutex)

    def __reduce__(self):
        raise TypeError("a cache is not pickled")


# ---- checking ----

cdef uint64_t misses_of(Cache cache) noexcept:
    cdef Misses *by = &cache.misses
    return by.out_of_sync + by.not_cached + by.over + by.outdated + by.refreshed + by.refused


cdef object held(Cache cache, Key key, bint touch, int64_t min_version, bint in_sync, Answer *answer,
                 int64_t *accessed, Claim *claim):
    """Return the record that look_up() finds, or None; this takes the lock.

    With `in_sync` nothing is served beyond the proof of sync (C6), and an access is asked for where it has to be. `claim`
    is null where no token is shown.
    """
    cdef pgs_hot *hot = NULL
    cdef Misses before
    pgs_lock(&cache.mutex)
    before = cache.misses
    if claim != NULL:
        answer[0] = look_up_by_token(cache, key, touch, min_version, claim, &hot)
    else:
        answer[0] = look_up(cache, key, touch, min_version, in_sync, &hot)
    if not in_sync:
        if answer[0] <= MISS:
            cache.misses = before
        else:
            cache.hits -= 1
    if answer[0] <= MISS:
        pgs_unlock(&cache.mutex)
        if answer[0] == OVER:
            drop(cache, key)
        return None
    if in_sync and answer[0] == HIT_LATE and not ask(cache, <uint32_t> (hot - cache.table.hot)):
        answer[0] = HIT
    accessed[0] = hot.accessed
    return pgs_take_and_unlock(hot.record, &cache.mutex)


cdef int64_t deadline_of(Cache cache, uint32_t slot) noexcept:
    """Return the earliest moment at which anything could be wrong with an entry."""
    cdef pgs_hot *hot = &cache.table.hot[slot]
    cdef pgs_cold *cold = &cache.table.cold[slot]
    cdef Record record = <Record> hot.record
    cdef int64_t deadline = record.expires_at
    if cache.lifetime > 0:
        deadline = min(deadline, cold.cached_at + cache.lifetime)
    if record.inactivity:
        deadline = min(deadline, hot.accessed + record.inactivity)
        if not hot.flags & PGS_ASKED:
            deadline = min(deadline, cold.stored + (0 if is_short(cache, record) else late_after(cache, record)))
    return deadline


cdef bint is_over(Cache cache, uint32_t slot, int64_t now) noexcept:
    """Return True once a record is expired, or cached for longer than it may be."""
    cdef Record record = <Record> cache.table.hot[slot].record
    if now >= record.expires_at:
        return True
    return cache.lifetime > 0 and now >= cache.table.cold[slot].cached_at + cache.lifetime


cdef bint is_inactive(Cache cache, uint32_t slot, int64_t now) noexcept:
    cdef pgs_hot *hot = &cache.table.hot[slot]
    cdef int64_t inactivity = (<Record> hot.record).inactivity
    return inactivity != 0 and now >= hot.accessed + inactivity


cdef Answer recheck(Cache cache, uint32_t slot, int64_t now, bint touch, int64_t min_version) noexcept:
    """Return the answer to a read of an entry that is past its deadline, or older than asked for.

    What looks inactive is read again (C8); what is over has to leave: the caller does that, who may release a record.
    """
    cdef pgs_hot *hot = &cache.table.hot[slot]
    cdef pgs_cold *cold = &cache.table.cold[slot]
    if hot.version < min_version and cold.floor < min_version:
        cache.misses.outdated += 1
        return MISS
    if now < hot.deadline:
        return HIT
    if is_over(cache, slot, now):
        cache.misses.over += 1
        return OVER
    if is_inactive(cache, slot, now):
        cache.misses.over += 1
        return MISS
    hot.deadline = deadline_of(cache, slot)
    if touch and now >= hot.deadline and not hot.flags & PGS_ASKED and now - cache.clock.lag > hot.accessed:
        return HIT_LATE
    return HIT


cdef Answer check_claim(Cache cache, uint32_t slot, int64_t now, int64_t min_version, Claim *claim) noexcept:
    """Return the answer to a read with a token of another generation than the record's.

    One that is newer than all that is known here may be of a rotation that was not heard of yet: read again.
    """
    cdef pgs_hot *hot = &cache.table.hot[slot]
    claim.standing = standing_of(<Record> hot.record, claim.generation, now - cache.clock.lag, cache.rotation_grace)
    if claim.standing == PREVIOUS:
        return HIT
    if hot.version < min_version and cache.table.cold[slot].floor < min_version:
        cache.misses.outdated += 1
        claim.standing = CURRENT
        return MISS
    cache.misses.refused += 1
    return DENIED


# ---- accesses that are asked for ----
#
# Another node calls a session inactive when the access that the database has is too old. So each access is written within
# the interval of its session, which is at most a quarter of the idle timeout, and at once where even that could be too
# late. The writer comes round in the usual interval; where that is not soon enough it is asked, by the first access since the
# last writing, which a hit meets as a deadline that is over.

cdef int64_t interval_of(Cache cache, Record record) noexcept:
    return min(cache.access_interval, record.inactivity // 4)


cdef bint is_short(Cache cache, Record record) noexcept:
    """Return True where accesses have to be written sooner than the writer comes round."""
    return interval_of(cache, record) < cache.access_interval


cdef int64_t late_after(Cache cache, Record record) noexcept:
    """Return how long after the access that the database has the next one is so late that it is written at once."""
    cdef int64_t after = record.inactivity - interval_of(cache, record)
    return after - cache.operation_timeout if after >= cache.operation_timeout else after


cdef int64_t due_of(Cache cache, Record record, int64_t stored, int64_t now) noexcept:
    """Return by when an access of now has to be written; NEVER: the writer comes round in time."""
    cdef int64_t interval = interval_of(cache, record)
    if record.inactivity == 0:
        return NEVER
    if now - stored >= late_after(cache, record):
        return now
    # The second where there was no time to allow for a slow write: some is left for a quick one.
    return min(now + interval, stored + record.inactivity - interval // 2) if is_short(cache, record) else NEVER


cdef bint plan(Cache cache, int64_t due) noexcept:
    """Note when something has to be written; return True where the writer would look later."""
    cache.due = min(cache.due, due)
    return cache.due < cache.planned


cdef bint ask(Cache cache, uint32_t slot) noexcept:
    """Ask for the access of an entry to be written, if it has to be; return True where the writer has to be told."""
    cdef pgs_hot *hot = &cache.table.hot[slot]
    cdef int64_t now = exact(cache.clock) + cache.clock.offset
    cdef int64_t due = due_of(cache, <Record> hot.record, cache.table.cold[slot].stored, now)
    if due == NEVER:
        return False
    hot.flags |= PGS_ASKED
    pgs_access_remove(&cache.table, slot)
    pgs_access_add_first(&cache.table, slot)
    hot.deadline = deadline_of(cache, slot)
    return plan(cache, due)


cdef bint can_wait(Cache cache, uint32_t slot, int64_t now) noexcept:
    """Return True for an access that is asked for, but not by now: what is written along with it saves a transaction."""
    cdef Record record = <Record> cache.table.hot[slot].record
    cdef int64_t since = now - cache.table.cold[slot].stored
    return since < interval_of(cache, record) // 2 and since < late_after(cache, record)


cdef int64_t latest(Cache cache, uint32_t slot) noexcept:
    """Return by when an access that can wait has to be written: it came after the one that the database has."""
    cdef Record record = <Record> cache.table.hot[slot].record
    return cache.table.cold[slot].stored + min(interval_of(cache, record), late_after(cache, record))


# ---- changing ----

cdef bytes key_at(Cache cache, uint32_t slot):
    return key_bytes(Key(cache.table.hot[slot].high, cache.table.hot[slot].low))


cdef int keep_access(Cache cache, uint32_t slot) except -1:
    """Keep the access of an entry that is about to leave, if it is still to be written.

    This may run the garbage collector: the caller finds the slot again after it.
    """
    cdef pgs_hot *hot = &cache.table.hot[slot]
    cdef int64_t us = hot.accessed
    cdef Record record = <Record> hot.record
    if hot.flags & PGS_ACCESSED:
        pgs_access_remove(&cache.table, slot)
        cache.evicted_accesses.note(key_bytes(record.id), us, record.user_id)
    return 0


cdef object take_out(Cache cache, uint32_t slot):
    """Remove a slot; return its record, so that it is released when the caller is done."""
    cdef Record record = <Record> cache.table.hot[slot].record
    if cache.table.hot[slot].flags & PGS_ACCESSED:
        keep_access(cache, slot)
        slot = pgs_find(&cache.table, record.id.high, record.id.low)
        if slot == 0:
            return None
        record = <Record> cache.table.hot[slot].record
    pgs_remove(&cache.table, slot)
    Py_DECREF(record)           # the table's reference; ours is left
    return record


cdef int collect(Cache cache, uint32_t slot, list released) except -1:
    """Remove a slot and put its record into a list, which is released later.

    The list has room before the record is out of the table.
    """
    released.append(None)
    released[len(released) - 1] = take_out(cache, slot)
    return 0


cdef object discard_below(Cache cache, object session_id, int64_t version):
    cdef Key key
    cdef uint32_t slot
    cdef bint found = False
    released = None
    parse(session_id, &key)
    pgs_lock(&cache.mutex)
    try:
        cache.absences.remove(key)
        slot = pgs_find(&cache.table, key.high, key.low)
        if slot and cache.table.hot[slot].version < version:
            released = take_out(cache, slot)
            cache.discards += 1
            found = True
    finally:
        pgs_unlock(&cache.mutex)
    return found


cdef int drop(Cache cache, Key key) except -1:
    """Remove an entry that was found to be over, unless it has been replaced meanwhile."""
    cdef int64_t now = exact(cache.clock) + cache.clock.offset + cache.clock.lag
    cdef uint32_t slot
    released = None
    pgs_lock(&cache.mutex)
    try:
        slot = pgs_find(&cache.table, key.high, key.low)
        if slot and is_over(cache, slot, now):
            released = take_out(cache, slot)
            cache.expirations += 1
    finally:
        pgs_unlock(&cache.mutex)
    return 0


cdef void count_refresh(Cache cache) noexcept:
    """Count a read that is not looked up in the table, for it asks for what the database says."""
    pgs_lock(&cache.mutex)
    cache.misses.refreshed += 1
    pgs_unlock(&cache.mutex)


cdef void count_bad_token(Cache cache) noexcept:
    """Count a read that is not looked up in the table, for its token names nothing."""
    pgs_lock(&cache.mutex)
    cache.misses.refused += 1
    pgs_unlock(&cache.mutex)


cdef bint is_absent(Cache cache, Key key, int64_t min_version) noexcept:
    """Return True where memory may answer that no session of this id is there: no longer than records may be served (C6)."""
    cdef int64_t now = recent(cache.clock) + cache.clock.slack
    cdef bint absent
    pgs_lock(&cache.mutex)
    absent = now < cache.in_sync_until and cache.absences.has(key, min_version, now)
    cache.negative_hits += absent
    pgs_unlock(&cache.mutex)
    return absent


cdef enum Entered:
    REFUSED, ENTERED, NO_MEMORY


cdef object enter(Cache cache, Record record, int64_t now, bint behind, Entered *entered):
    """Put a record in, as put() says; return what left the table for it. The caller has the lock.

    Once something has left, nothing raises.
    """
    cdef int64_t accessed = 0
    cdef uint32_t slot = pgs_find(&cache.table, record.id.high, record.id.low)
    released = None
    if slot and cache.table.hot[slot].version > record.version:
        cache.refused += 1
        return None
    if record.expires_at <= now:
        return take_out(cache, slot) if slot else None
    if behind and (slot or cache.table.count >= cache.capacity):
        return None
    if slot == 0:
        accessed = cache.evicted_accesses.pop(key_bytes(record.id))
        while cache.table.count >= cache.capacity:
            released = take_out(cache, cache.table.hot[0].newer)
            cache.evictions += 1
    if pgs_reserve(&cache.table, cache.capacity):
        entered[0] = NO_MEMORY
        return released
    entered[0] = ENTERED
    replaced = place(cache, record, accessed)
    if behind:
        pgs_use_last(&cache.table, pgs_find(&cache.table, record.id.high, record.id.low))
    return released if replaced is None else replaced


cdef object place(Cache cache, Record record, int64_t accessed):
    """Put a record in where there is room; return the record that was there. This runs no other code."""
    cdef uint32_t slot = pgs_find(&cache.table, record.id.high, record.id.low)
    released = None
    cache.absences.remove(record.id)
    Py_INCREF(record)
    if slot:
        released = <Record> <PyObject *> pgs_replace(&cache.table, slot, <void *> record)
        Py_DECREF(released)     # the table's reference; ours is left
        pgs_use(&cache.table, slot)
    else:
        slot = pgs_insert(&cache.table, record.id.high, record.id.low, <void *> record)
    cache.inserts += 1
    refresh(cache, slot, record, accessed)
    return released


cdef void refresh(Cache cache, uint32_t slot, Record record, int64_t accessed) noexcept:
    cdef pgs_hot *hot = &cache.table.hot[slot]
    cdef pgs_cold *cold = &cache.table.cold[slot]
    hot.version = record.version
    cold.cached_at = exact(cache.clock) + cache.clock.offset
    hot.accessed = max(hot.accessed, record.last_accessed)
    stored(cache, slot, record.last_accessed)
    accessed_at(cache, slot, accessed)


cdef void stored(Cache cache, uint32_t slot, int64_t us) noexcept:
    """Note that the database has this access."""
    cdef pgs_hot *hot = &cache.table.hot[slot]
    cdef pgs_cold *cold = &cache.table.cold[slot]
    if us > cold.stored:
        cold.stored = us
    hot.flags &= ~<uint32_t> PGS_ASKED
    if hot.accessed <= cold.stored:
        pgs_access_remove(&cache.table, slot)
        hot.accessed = cold.stored
    elif hot.flags & PGS_ACCESSED:      # a newer one came meanwhile
        pgs_access_remove(&cache.table, slot)
        pgs_access_add(&cache.table, slot)
        ask(cache, slot)
    hot.deadline = deadline_of(cache, slot)


cdef bint accessed_at(Cache cache, uint32_t slot, int64_t us) noexcept:
    """Note an access, to be written unless the database has it; return True where the writer has to be told."""
    cdef pgs_hot *hot = &cache.table.hot[slot]
    cdef bint told = False
    if us > hot.accessed:
        hot.accessed = us
    if us > cache.table.cold[slot].stored:
        pgs_access_add(&cache.table, slot)
        told = ask(cache, slot)
    hot.deadline = deadline_of(cache, slot)
    return told


cdef uint32_t first_member(Cache cache, int which, str owner) except? 0xFFFFFFFF:
    cdef pgs_text text
    cdef Py_ssize_t length
    text.data = PyUnicode_AsUTF8AndSize(owner, &length)
    if length > 0xFFFF:
        return 0
    text.length = <uint32_t> length
    return pgs_members(&cache.table, which, text, pgs_text_tag(&cache.table, text))


cdef object discard_members(Cache cache, int which, str owner):
    """Drop all sessions of a user or a group; return how many there were.

    Each removal is complete before the next head is looked for; all records are released at the end.
    """
    cdef list released = []
    cdef uint32_t slot
    pgs_lock(&cache.mutex)
    try:
        while True:
            slot = first_member(cache, which, owner)
            if slot == 0:
                break
            collect(cache, slot, released)
            cache.discards += 1
    finally:
        pgs_unlock(&cache.mutex)
    return len(released)


cdef void release_all(pgs_table *table) noexcept:
    """Release a table that no cache uses any more."""
    cdef uint32_t slot
    for slot in range(1, table.count + 1):
        Py_DECREF(<Record> table.hot[slot].record)
    pgs_table_free(table)
