# cython: freethreading_compatible=True
"""An absence is what the database said of an id a moment ago: no session is there. It spares the next one who asks a query.

They have room of their own, fixed in size: each id has a set of a few places, by a keyed hash, and the absence that ends
first leaves it. So whatever ids a client makes up, they drive out no session, and nobody can choose what else they drive out.

The mutex of the cache guards them.
"""

cimport cython
from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from secrets import randbits

cdef extern from "table.h" nogil:
    uint32_t pgs_hash(const uint64_t *seed, uint64_t high, uint64_t low)

cdef enum:
    SETS = 2048                 # a power of two
    WAYS = 4
cdef size_t SIZE = SETS * WAYS * sizeof(Absence)        # 256 KiB


@cython.final
cdef class Absences:
    """Holds absences by session key, each with the highest version that was asked for, and until when it is good."""

    def __cinit__(self):
        self.seed[0] = randbits(64)
        self.seed[1] = randbits(64)

    def __dealloc__(self):
        free(self.entries)

    cdef bint has(self, Key key, int64_t min_version, int64_t now) noexcept:
        """Return True where no session of this id is there, nor one that has reached `min_version`."""
        cdef Absence *found = place_of(self, key)
        return found != NULL and now < found.until and min_version <= found.floor

    cdef int add(self, Key key, int64_t floor, int64_t until, int64_t now) except -1:
        """Remember an absence until then; beside what is known of this id, the later end and the higher floor count."""
        cdef Absence *place = place_of(self, key)
        if place != NULL and place.until > now:
            place.floor = max(place.floor, floor)
            place.until = max(place.until, until)
            return 0
        if self.entries == NULL:
            self.entries = <Absence *> calloc(1, SIZE)
            if self.entries == NULL:
                raise MemoryError
        if place == NULL:
            place = first_to_end(set_of(self, key))
        place.key = key
        place.floor = floor
        place.until = until
        self.used = True
        return 0

    cdef void remove(self, Key key) noexcept:
        """Forget what is known of an id."""
        cdef Absence *place = place_of(self, key)
        if place != NULL:
            place.until = 0

    cdef void clear(self) noexcept:
        """Forget all."""
        if self.used:
            memset(self.entries, 0, SIZE)
            self.used = False


cdef inline Absence *set_of(Absences self, Key key) noexcept:
    return &self.entries[(pgs_hash(self.seed, key.high, key.low) & (SETS - 1)) * WAYS]


cdef Absence *place_of(Absences self, Key key) noexcept:
    """Return where an id is remembered, or null."""
    cdef Absence *places
    cdef int way
    if not self.used:
        return NULL
    places = set_of(self, key)
    for way in range(WAYS):
        if places[way].until and places[way].key.high == key.high and places[way].key.low == key.low:
            return &places[way]
    return NULL


cdef Absence *first_to_end(Absence *places) noexcept:
    """Return the place of a set that is free, or else the one whose absence ends first."""
    cdef int way, first = 0
    for way in range(1, WAYS):
        if places[way].until < places[first].until:
            first = way
    return &places[first]
