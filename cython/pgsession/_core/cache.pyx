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

from libc.string cimport memset

from pgsession._core.arena cimport (
    PGS_ALL_CHANGED, PGS_ARENA_OK, PGS_ARENA_POISONED, PGS_BUSY, PGS_CHANGED, PGS_EPOCH, PGS_GONE, PGS_GROUP_CHANGED, PGS_HELD,
    PGS_LISTENING, PGS_LOCK_AT, PGS_LOCK_ENDED, PGS_LOCK_RELEASED, PGS_LOCKS_MISSED, PGS_LONGEST_LOCK, PGS_LONGEST_OWNER, PGS_LOST,
    PGS_OWNER_AT, PGS_USER_CHANGED, copy_of, expire_in, identities_in, insert, pgs_arena_append, pgs_arena_clear, pgs_arena_discard,
    pgs_arena_discard_older, pgs_arena_discard_owner, pgs_arena_next, pgs_arena_next_epoch, pgs_arena_number, pgs_arena_ring_bell,
    pgs_arena_set_state, pgs_arena_visit, pgs_arena_vouch, pgs_event, pgs_event_text, pgs_line_clock, pgs_load_32, pgs_load_head,
    pgs_shared, pgs_text_in, version_in,
)
from pgsession._core.arguments cimport checked_count
from pgsession._core.clock cimport exact, recent
from pgsession._core.key cimport key_bytes, parse, pgs_store_big
from pgsession._core.lock cimport pgs_lock, pgs_take_and_unlock, pgs_unlock
from pgsession._core.record cimport CURRENT, PREVIOUS, Span, owner_of, standing_of
from pgsession._core.record_bytes cimport encoded
from pgsession._core.reference cimport pgs_give

from pgsession._core.arena import ArenaError

from secrets import randbits

from pgsession.codec import Codec

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *length) except NULL

cdef int64_t NEVER = 0x7FFF_FFFF_FFFF_FFFFLL
cdef double INFINITE = float("inf")
cdef uint32_t LARGEST = 0x7FFF_FFFF
cdef uint64_t POISONED = 1ULL << 63
cdef object GONE = 1 << 63
cdef int64_t NOT_SEEN = -1                           # no line says this
cdef enum:
    MOST_TRIES = 8
    MOST_LOCK_EVENTS = 1000
cdef enum Entered:
    REFUSED, ENTERED, NO_MEMORY
cdef enum Reading:
    ALL_READ, MORE, GIVEN_UP
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

    A cache is private, or shares an arena with the other processes of the host (`share`). Then whatever leaves it, leaves
    all of them: a change is made in the arena, told in its ring, and done here by reading that (S1, S2, S4); what is not here
    may be there. The rules S1 to S9 are those of docs/host-cache.md.
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
        self.line = &self.own
        self.lock_events = []
        self.table.owner_of = record_owner
        if pgs_table_init(&self.table, randbits(64), randbits(64)):
            raise MemoryError

    def __dealloc__(self):
        cdef pgs_table table = self.table
        pgs_table_clear(&self.table)
        release_all(&table)
        if self.arena is not None:
            self.arena.leave()

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
        arena = arena_of(self)
        return version if arena is None else max(version, version_in(<Arena> arena, key))

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
        """Return everything that is cached, as the lists of the keys, of their versions and of their generations.

        Of a shared cache that is what is in the arena: what is here and not there is dropped by new_epoch().
        """
        cdef list keys = [], versions = [], generations = []
        cdef uint32_t slot
        arena = arena_of(self)
        if arena is not None:
            return identities_in(<Arena> arena)
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
        Of a shared cache it is enough that the arena has it.
        """
        cdef Entered entered = REFUSED
        cdef int64_t now = exact(self.clock) + self.clock.offset + self.clock.lag
        released = None
        arena = arena_of(self)
        if arena is not None:
            return put_shared(self, <Arena> arena, record, now, behind)
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
        catch_up(self)
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
        return discard_owned(self, PGS_USER, user_id)

    def discard_group(self, str group_id not None):
        """Drop all sessions of a group; return how many there were."""
        return discard_owned(self, PGS_GROUP, group_id)

    def clear(self):
        """Drop everything; return how many sessions there were. Accesses still to be written are kept."""
        cdef pgs_table old
        cdef int64_t changed = change(self, CLEAR, Key(0, 0), 0, None)
        if changed >= 0:
            return changed
        pgs_table_clear(&old)
        pgs_lock(&self.mutex)
        try:
            empty(self, &old)
        finally:
            pgs_unlock(&self.mutex)
            changed = old.count
            release_all(&old)
        return changed

    def expire(self, limit=1000):
        """Look at up to `limit` entries, from where the last call stopped; drop the expired ones, return how many.

        In the arena too, where nobody is just changing it; these do not count.
        """
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
        arena = arena_of(self)
        if arena is not None:
            expire_in(<Arena> arena, now, <uint32_t> most)
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

    # ---- sharing ----

    @property
    def in_sync_until(self):
        """Return the node time until which memory may answer; 0: it may not. Only a private cache is told it by its owner."""
        cdef int64_t until
        catch_up(self)
        pgs_lock(&self.mutex)
        until = self.served_until
        pgs_unlock(&self.mutex)
        return until

    @in_sync_until.setter
    def in_sync_until(self, int64_t until):
        cdef bint private
        pgs_lock(&self.mutex)
        private = self.arena is None
        if private:
            self.own.in_sync_until = self.seen = self.served_until = until
        pgs_unlock(&self.mutex)
        if not private:
            raise TypeError("of a shared cache the leader says until when it is in sync, by prove()")

    @property
    def shared(self):
        """Return the arena that it shares, or None: it is private."""
        return arena_of(self)

    @property
    def tied(self):
        """Return True where memory may answer from the arena, see `tie`."""
        return bool(self.tied_)

    def share(self, Arena arena not None, int64_t after=0):
        """Share an arena from now on: what is cached leaves, and nothing is served before `tie`.

        Args:
            arena: What is shared.
            after: Nothing is served either while the arena's time in sync ends then, or sooner, in node time.

        Raises:
            ArenaError: It is closed.
            TypeError: The cache shares one already.
        """
        cdef pgs_table old
        pgs_table_clear(&old)
        if not arena.enter():
            raise ArenaError("the arena is closed")
        pgs_lock(&self.mutex)
        try:
            if self.arena is not None:
                raise TypeError("the cache shares an arena already")
            empty(self, &old)
            self.arena = arena
            arena.shares += 1
            self.line = arena.memory.line
            self.after = after
            restart(self)
        except BaseException:
            arena.leave()
            raise
        finally:
            pgs_unlock(&self.mutex)
            release_all(&old)

    def unshare(self):
        """Be private again, with nothing cached and out of sync; a private cache stays as it is."""
        leave(self, None)

    def tie(self):
        """Serve from the arena: a read of this process has returned the incarnation that the arena holds records of (S8)."""
        pgs_lock(&self.mutex)
        if self.arena is not None and not self.tied_:
            self.tied_ = True
            self.seen = NOT_SEEN
        pgs_unlock(&self.mutex)

    def untie(self):
        """Serve nothing until the next `tie`."""
        pgs_lock(&self.mutex)
        if self.arena is not None:
            self.tied_ = False
            self.served_until = 0
        pgs_unlock(&self.mutex)

    def begin(self, bint wait=True):
        """Begin a section: until `end` no other process changes the arena, and what they did is done here too.

        Sections of one thread may be nested. A private cache has none: it answers True.

        Args:
            wait: False: do not wait, as an event loop must not.

        Returns:
            False where somebody else has the arena, and this was not to wait: then there is no section.

        Raises:
            ArenaError: The arena is given up, or closed; the cache is private then, and out of sync.
        """
        cdef int got
        arena = arena_of(self)
        if arena is None:
            return True
        got = begin_in(self, <Arena> arena, wait)
        if got == PGS_BUSY:
            return False
        if got != PGS_HELD:
            raise ArenaError("the arena is given up")
        return True

    def end(self):
        """End a section; where there is none, nothing happens."""
        cdef Arena arena = self.section
        if arena is None or not arena.holds():
            return
        if arena.depth == 1:
            self.section = None
        arena.release()

    def news(self, open not None):
        """Return what the host said since the last call of the sessions that leases are open for, in a section.

        Args:
            open: Holds the keys; where it is empty, nothing is said, now or later, of what was before.

        Returns:
            A pair: True where it could be about any session, and the list of those that it is about, as (key, version); the
            version is `1 << 63` where the session is gone.
        """
        cdef pgs_event event
        cdef uint64_t position
        cdef bint everything = False
        cdef int said = 1
        cdef list items = []
        cdef Arena arena = arena_of(self)
        if arena is None:
            return False, items
        if not open:
            self.news_tail = pgs_load_head(&arena.memory.line.head)
            return False, items
        position = self.news_tail
        while said > 0:
            said = pgs_arena_next(&arena.memory, &position, &event)
            if said < 0 or (said > 0 and PGS_GONE < event.kind <= PGS_EPOCH):
                everything = True
            elif said > 0 and event.kind <= PGS_GONE:
                key = key_bytes(Key(event.high, event.low))
                if key in open:
                    items.append((key, event.version if event.kind == PGS_CHANGED else GONE))
        self.news_tail = position
        return everything, items

    def lock_news(self):
        """Return what the host said of locks since the last call, as (resource, token), token 0: released.

        The resource is None where some were missed: it could be any.
        """
        catch_up(self)
        pgs_lock(&self.mutex)
        events = self.lock_events
        self.lock_events = []
        pgs_unlock(&self.mutex)
        return events

    def share_lock(self, str resource not None, int64_t token=0):
        """Tell the host that a lock was released or, with a token, that it ended, and ring the bell."""
        cdef pgs_event event
        cdef pgs_text text
        cdef Arena arena = arena_of(self)
        if arena is None:
            return
        text_of_owner(resource, &text)
        memset(&event, 0, sizeof(event))
        event.kind = PGS_LOCKS_MISSED
        if text.length <= PGS_LONGEST_LOCK:
            event.kind = PGS_LOCK_ENDED if token else PGS_LOCK_RELEASED
            event.high = <uint64_t> token
            pgs_event_text(&event, PGS_LOCK_AT, text.data, text.length)
        if begin_in(self, arena, True) == PGS_HELD:
            pgs_arena_append(&arena.memory, &event)
            pgs_arena_ring_bell(&arena.memory)
            self.end()

    def prove(self, uint64_t number, int64_t until, int64_t proved_until):
        """Say until when memory may be served on the host, and what this clock knows of the database's.

        All that the proof stands for was told before (S3).

        Returns:
            False where another process leads (S6), or the arena is given up.
        """
        cdef bint proved = False
        cdef Arena arena = arena_of(self)
        if arena is not None and begin_in(self, arena, True) == PGS_HELD:
            proved = pgs_arena_vouch(&arena.memory, number, until, proved_until, self.clock.offset,
                                      self.clock.lag - self.clock.slack) > 0
            self.end()
        return proved

    def new_epoch(self, uint64_t number, bint lost):
        """Start an epoch of the host: leases are void, and what each process has of its own leaves. Not what is in the arena.

        With `lost` nothing of that: only nothing enters the arena any more until the next epoch.

        Returns:
            False where another process leads, or the arena is given up.
        """
        cdef pgs_event event
        cdef bint led = False
        cdef Arena arena = arena_of(self)
        if arena is None or begin_in(self, arena, True) != PGS_HELD:
            return False
        if pgs_arena_number(&arena.memory) == number:
            pgs_arena_set_state(&arena.memory, PGS_LOST if lost else PGS_LISTENING)
            led = True
            if not lost:
                memset(&event, 0, sizeof(event))
                event.kind = PGS_EPOCH
                pgs_arena_next_epoch(&arena.memory)
                led = pgs_arena_append(&arena.memory, &event) == PGS_ARENA_OK
                catch_up(self)
        self.end()
        return led

    def mark_used(self):
        """Mark in the arena what was used here since the last call, so that it stays there; return how many were looked at.

        To be called about once a second: what is read here is not read there.
        """
        cdef uint32_t slot
        cdef uint64_t left, count = 0
        cdef Arena arena = arena_of(self)
        if arena is None or not arena.enter():
            return 0
        pgs_lock(&self.mutex)
        left = self.hits - self.marked          # each hit puts one in front at the most
        self.marked = self.hits
        slot = self.table.hot[0].older
        while slot and count < left:
            pgs_arena_visit(&arena.memory, self.table.hot[slot].high, self.table.hot[slot].low)
            slot = self.table.hot[slot].older
            count += 1
        pgs_unlock(&self.mutex)
        arena.leave()
        return count

    def forked(self):
        """Start over in the child of a fork: with nothing cached, no access to be written, and not tied.

        Of an arena, its own forked() comes first.
        """
        cdef pgs_table old
        memset(&self.mutex, 0, sizeof(self.mutex))
        pgs_table_clear(&old)
        self.section = None
        try:
            empty(self, &old)
            self.evicted_accesses = EvictedAccesses(MOST_EVICTED_ACCESSES)
            if self.arena is None:
                self.own.in_sync_until = self.seen = self.served_until = 0
            else:
                restart(self)
        finally:
            release_all(&old)

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
        cdef pgs_text text
        text_of_owner(user_id, &text)
        pgs_lock(&self.mutex)
        try:
            slot = first_member(self, PGS_USER, text)
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
                "shared_hits": self.shared_hits, "ring_events": self.ring_events, "ring_overruns": self.ring_overruns,
            }
        finally:
            pgs_unlock(&self.mutex)

    def __reduce__(self):
        raise TypeError("a cache is not pickled")


# ---- sharing ----

cdef object arena_of(Cache cache):
    """Return the arena that a cache shares, or None."""
    pgs_lock(&cache.mutex)
    arena = cache.arena
    pgs_unlock(&cache.mutex)
    return arena


cdef void restart(Cache cache) noexcept:
    """Begin at the end of the ring, with nothing cached and untied. The caller has the lock."""
    cache.tail = pgs_load_head(&cache.line.head) & ~POISONED        # the bit is news that is still to be read
    cache.news_tail = cache.tail
    cache.seen = NOT_SEEN
    cache.served_until = 0
    cache.tied_ = False
    cache.lock_events = []


cdef int leave(Cache cache, Arena only) except -1:
    """Make a cache private, that shares this arena, or any."""
    cdef pgs_table old
    cdef Arena arena
    pgs_table_clear(&old)
    pgs_lock(&cache.mutex)
    try:
        arena = cache.arena
        if arena is None or (only is not None and arena is not only):
            return 0
        empty(cache, &old)
        cache.arena = None
        arena.shares -= 1
        cache.line = &cache.own
        cache.own.in_sync_until = 0
        restart(cache)
        cache.seen = 0
        cache.lock_events.append((None, 0))
    finally:
        pgs_unlock(&cache.mutex)
        release_all(&old)
    arena.leave()
    return 0


cdef int begin_in(Cache cache, Arena arena, bint wait) except -3:
    """Begin a section in an arena, see begin(); or say why there is none: PGS_BUSY, PGS_ARENA_POISONED.

    The cache is private after the second.
    """
    cdef int got = PGS_ARENA_POISONED
    if arena.enter():
        got = arena.hold(wait)
        if got != PGS_HELD:
            arena.leave()
    if got == PGS_ARENA_POISONED:
        leave(cache, arena)
    if got == PGS_HELD:
        cache.section = arena
        try:
            catch_up(cache)
        except BaseException:
            cache.end()
            raise
    return got


cdef enum Change:
    DISCARD, DISCARD_USER, DISCARD_GROUP, CLEAR


cdef inline int64_t change(Cache cache, Change what, Key key, int64_t version, str owner) except -2:
    """Change a shared cache: the arena, then the ring, then what is here (S1, S2, S4); return how many left here.

    -1: it is private. That it is too once the arena is found to be given up: then nobody else serves from it any more.
    """
    arena = arena_of(cache)
    return -1 if arena is None else change_in(cache, <Arena> arena, what, key, version, owner)


cdef int64_t change_in(Cache cache, Arena arena, Change what, Key key, int64_t version, str owner) except -2:
    cdef pgs_event event
    cdef pgs_text text
    cdef int64_t count
    memset(&event, 0, sizeof(event))
    event.high = key.high
    event.low = key.low
    text.data = NULL
    text.length = 0
    if owner is not None:
        text_of_owner(owner, &text)
    if begin_in(cache, arena, True) != PGS_HELD:
        return -1
    try:
        if what == CLEAR:
            pgs_arena_clear(&arena.memory)
            event.kind = PGS_ALL_CHANGED
        elif what == DISCARD and version == NEVER:
            pgs_arena_discard(&arena.memory, key.high, key.low)
            event.kind = PGS_GONE
        elif what == DISCARD:
            pgs_arena_discard_older(&arena.memory, key.high, key.low, version)
            event.kind = PGS_CHANGED
            event.version = version
        else:
            pgs_arena_discard_owner(&arena.memory, what == DISCARD_GROUP, text.data, text.length)
            event.kind = PGS_ALL_CHANGED
            if text.length <= PGS_LONGEST_OWNER:
                event.kind = PGS_GROUP_CHANGED if what == DISCARD_GROUP else PGS_USER_CHANGED
                pgs_event_text(&event, PGS_OWNER_AT, text.data, text.length)
        pgs_arena_append(&arena.memory, &event)
        count = catch_up(cache)
        return count if arena_of(cache) is arena else -1
    finally:
        cache.end()


cdef bint put_shared(Cache cache, Arena arena, Record record, int64_t now, bint behind) except -1:
    """Put a record into the arena, where it may be, and in here; True where it is in one of them."""
    cdef pgs_event event
    cdef Entered entered = REFUSED
    cdef bint inserted = False
    cdef bytes blob = encoded(record)
    released = None
    memset(&event, 0, sizeof(event))
    event.kind = PGS_CHANGED
    event.high = record.id.high
    event.low = record.id.low
    event.version = record.version
    if begin_in(cache, arena, True) != PGS_HELD:
        return False
    try:
        pgs_arena_discard_older(&arena.memory, record.id.high, record.id.low, record.version)
        pgs_arena_append(&arena.memory, &event)
        catch_up(cache)
        if not cache.tied_ or record.expires_at <= now or pgs_load_32(&arena.memory.line.state) == PGS_LOST:
            return False
        if version_in(arena, record.id) > record.version:
            cache.refused += 1
            return False
        inserted = insert(arena, record, blob, exact(cache.clock) + cache.clock.offset)
        pgs_lock(&cache.mutex)
        try:
            if cache.arena is arena:
                released = enter(cache, record, now, behind, &entered)
        finally:
            pgs_unlock(&cache.mutex)
    finally:
        cache.end()
    if entered == NO_MEMORY:
        raise MemoryError
    return inserted or entered == ENTERED


cdef int64_t catch_up(Cache cache) except -1:
    """Do here what the host has said since the last time; return how many records left for it. The lock is not held."""
    cdef pgs_table old
    cdef int64_t count = 0
    cdef Reading reading = MORE
    cdef list released
    cdef Arena arena
    while reading == MORE:
        pgs_table_clear(&old)
        released = []
        pgs_lock(&cache.mutex)
        try:
            arena = cache.arena
            reading = ALL_READ if arena is None else read_ring(cache, arena, released, &old)
            count += len(released) + old.count
        finally:
            pgs_unlock(&cache.mutex)
            release_all(&old)
    if reading == GIVEN_UP:
        leave(cache, arena)
    return count


cdef Reading read_ring(Cache cache, Arena arena, list released, pgs_table *old) except *:
    """Read the ring to its head, and take over the line as it was before (S3). The caller has the lock.

    Where that empties the cache, it stops with MORE behind the first time. An event counts as read once it is done: what
    a finalizer reads in between does it again, which does no harm.
    """
    cdef pgs_event event
    cdef uint64_t position
    cdef int said
    cdef int64_t offset, lag
    cdef int64_t until = pgs_load_acquire(&arena.memory.line.in_sync_until)
    while True:
        position = cache.tail
        said = pgs_arena_next(&arena.memory, &position, &event)
        if said == 0:
            break
        if said == PGS_ARENA_POISONED:
            return GIVEN_UP
        if said < 0:
            event.kind = PGS_ALL_CHANGED
            cache.ring_overruns += 1
            note_lock(cache, None, 0)
        cache.ring_events += said > 0
        if PGS_GROUP_CHANGED < event.kind <= PGS_EPOCH:
            empty(cache, old)
        else:
            hear(cache, &event, released)
        if cache.arena is not arena:
            return MORE
        if <int64_t> (position - cache.tail) > 0:
            cache.tail = position
        if old.hot != NULL:
            return MORE
    if until != cache.seen:
        if cache.tied_ and until:
            if not pgs_line_clock(arena.memory.line, &offset, &lag):
                return ALL_READ         # it is just being written: there is news still
            cache.clock.offset = offset
            cache.clock.lag = cache.clock.slack + lag
        cache.seen = until
        cache.served_until = until if cache.tied_ and until > cache.after else 0
    return ALL_READ


cdef int hear(Cache cache, const pgs_event *event, list released) except -1:
    """Do what an event says that is about a session, an owner or a lock."""
    cdef pgs_text text
    cdef uint32_t slot
    if event.kind == PGS_CHANGED or event.kind == PGS_GONE:
        slot = find_below(cache, Key(event.high, event.low), event.version if event.kind == PGS_CHANGED else NEVER)
        if slot:
            collect(cache, slot, released)
            cache.discards += 1
    elif event.kind == PGS_USER_CHANGED or event.kind == PGS_GROUP_CHANGED:
        text.data = pgs_text_in(event, PGS_OWNER_AT, &text.length)
        remove_members(cache, PGS_GROUP if event.kind == PGS_GROUP_CHANGED else PGS_USER, text, released)
    elif event.kind == PGS_LOCK_RELEASED or event.kind == PGS_LOCK_ENDED:
        text.data = pgs_text_in(event, PGS_LOCK_AT, &text.length)
        note_lock(cache, text.data[:text.length].decode(), <int64_t> event.high)
    else:
        note_lock(cache, None, 0)
    return 0


cdef int note_lock(Cache cache, str resource, int64_t token) except -1:
    if len(cache.lock_events) >= MOST_LOCK_EVENTS:
        cache.lock_events.clear()
        resource = None
    cache.lock_events.append((resource, token if resource is not None else 0))
    return 0


cdef bint copy_from_arena(Cache cache, Key key) except -1:
    """Copy a session from the arena into the cache; True: look again. The lock is not held.

    What was copied enters only if nothing was told meanwhile (S9): another thread may have read that this very copy is
    outdated, and would not read it again.
    """
    cdef pgs_shared what
    cdef Entered entered = REFUSED
    cdef uint64_t tail
    cdef uint32_t slot
    cdef int64_t now
    cdef Record record
    cdef Arena arena
    cdef list released = []
    pgs_lock(&cache.mutex)
    arena = cache.arena if cache.tied_ else None
    tail = cache.tail
    pgs_unlock(&cache.mutex)
    if arena is None or not arena.enter():
        return False
    try:
        record = copy_of(arena, key, &what)
    finally:
        arena.leave()
    if record is None:
        return False
    now = exact(cache.clock) + cache.clock.offset + cache.clock.lag
    pgs_lock(&cache.mutex)
    try:
        if not is_untold(cache, arena, tail):
            return True
        released.append(enter(cache, record, now, False, &entered))
        slot = pgs_find(&cache.table, key.high, key.low)
        if slot and entered == ENTERED:
            if not is_untold(cache, arena, tail):
                collect(cache, slot, released)      # a finalizer came in between, before it was here
                return True
            cache.table.cold[slot].cached_at = min(cache.table.cold[slot].cached_at, what.cached_at)
            cache.table.hot[slot].deadline = deadline_of(cache, slot)
    finally:
        pgs_unlock(&cache.mutex)
    if entered == NO_MEMORY:
        raise MemoryError
    return entered == ENTERED


cdef inline bint is_untold(Cache cache, Arena arena, uint64_t tail) noexcept:
    """Return True where the host has said nothing since the ring was read up to there."""
    return cache.arena is arena and cache.tied_ and cache.tail == tail and pgs_load_head(&cache.line.head) == tail


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
    cdef int tries = 0
    cdef bint copied = False
    while True:
        pgs_lock(&cache.mutex)
        before = cache.misses
        if not in_sync and cache.arena is not None and not cache.tied_:
            answer[0] = MISS
        elif claim != NULL:
            answer[0] = look_up_by_token(cache, key, touch, min_version, claim, &hot)
        else:
            answer[0] = look_up(cache, key, touch, min_version, in_sync, &hot)
        if answer[0] > MISS:
            break
        tries += 1
        if answer[0] == BEHIND and tries < MOST_TRIES:
            pgs_unlock(&cache.mutex)
            catch_up(cache)
            continue
        if answer[0] == NOT_CACHED and cache.tied_ and tries < MOST_TRIES:
            pgs_unlock(&cache.mutex)
            copied = copy_from_arena(cache, key)
            if copied:
                continue
            pgs_lock(&cache.mutex)
        if answer[0] == NOT_CACHED:
            cache.misses.not_cached += 1
        elif answer[0] == BEHIND:
            cache.misses.out_of_sync += 1
        if not in_sync:
            cache.misses = before
        pgs_unlock(&cache.mutex)
        if answer[0] == OVER:
            drop(cache, key)
        return None
    if not in_sync:
        cache.hits -= 1
    else:
        cache.shared_hits += copied
        if answer[0] == HIT_LATE and not ask(cache, <uint32_t> (hot - cache.table.hot)):
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


cdef int empty(Cache cache, pgs_table *old) except -1:
    """Take everything out, into `old`, which is released later. The caller has the lock."""
    cdef pgs_table fresh
    pgs_table_clear(&fresh)
    fresh.owner_of = record_owner
    if pgs_table_init(&fresh, cache.table.seed[0], cache.table.seed[1]):
        pgs_table_free(&fresh)
        raise MemoryError
    try:
        while cache.table.cold[0].access.next:
            keep_access(cache, cache.table.cold[0].access.next)
    except BaseException:
        pgs_table_free(&fresh)
        raise
    old[0] = cache.table
    cache.table = fresh
    cache.absences.clear()
    cache.discards += old.count
    return 0


cdef object discard_below(Cache cache, object session_id, int64_t version):
    cdef Key key
    cdef int64_t changed
    cdef uint32_t slot
    released = None
    parse(session_id, &key)
    changed = change(cache, DISCARD, key, version, None)
    if changed < 0:
        pgs_lock(&cache.mutex)
        try:
            slot = find_below(cache, key, version)
            changed = slot != 0
            if slot:
                released = take_out(cache, slot)
                cache.discards += 1
        finally:
            pgs_unlock(&cache.mutex)
    return changed > 0


cdef uint32_t find_below(Cache cache, Key key, int64_t version) noexcept:
    """Return the slot of a session that is older than that, 0: none is here; forget any absence. The caller has the lock."""
    cdef uint32_t slot = pgs_find(&cache.table, key.high, key.low)
    cache.absences.remove(key)
    return slot if slot and cache.table.hot[slot].version < version else 0


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
    cdef int64_t now
    cdef bint absent
    pgs_lock(&cache.mutex)
    absent = not is_behind(cache)       # what is not read yet could say that there is one; and before the clock (S3)
    now = recent(cache.clock) + cache.clock.slack
    absent = absent and now < cache.served_until and cache.absences.has(key, min_version, now)
    cache.negative_hits += absent
    pgs_unlock(&cache.mutex)
    return absent


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


cdef int text_of_owner(str owner, pgs_text *text) except -1:
    cdef Py_ssize_t length
    text.data = PyUnicode_AsUTF8AndSize(owner, &length)
    text.length = <uint32_t> min(length, <Py_ssize_t> 0x10000)      # no record has one of so many
    return 0


cdef inline uint32_t first_member(Cache cache, int which, pgs_text owner) noexcept:
    return pgs_members(&cache.table, which, owner, pgs_text_tag(&cache.table, owner))


cdef object discard_owned(Cache cache, int which, str owner):
    """Drop all sessions of a user or a group; return how many there were."""
    cdef list released = []
    cdef pgs_text text
    cdef int64_t changed = change(cache, DISCARD_GROUP if which else DISCARD_USER, Key(0, 0), 0, owner)
    if changed < 0:
        text_of_owner(owner, &text)
        pgs_lock(&cache.mutex)
        try:
            changed = remove_members(cache, which, text, released)
        finally:
            pgs_unlock(&cache.mutex)
    return changed


cdef int64_t remove_members(Cache cache, int which, pgs_text owner, list released) except -1:
    """Take out all sessions of a user or a group; return how many there were. The caller has the lock.

    Each removal is complete before the next head is looked for; all records are released at the end.
    """
    cdef int64_t count = 0
    cdef uint32_t slot = first_member(cache, which, owner)
    while slot:
        collect(cache, slot, released)
        cache.discards += 1
        count += 1
        slot = first_member(cache, which, owner)
    return count


cdef void release_all(pgs_table *table) noexcept:
    """Release a table that no cache uses any more."""
    cdef uint32_t slot
    for slot in range(1, table.count + 1):
        Py_DECREF(<Record> table.hot[slot].record)
    pgs_table_free(table)
