from libc.stdint cimport int64_t, uint32_t, uint64_t

from pgsession._core.key cimport Key
from pgsession._core.lock cimport pgs_mutex


cdef extern from "table.h" nogil:
    ctypedef struct pgs_index:
        uint64_t *cells
        uint64_t mask


cdef struct Verified:           # what a verified token says
    Key key
    int64_t generation
    int64_t version


cdef enum:
    CHARACTERS = 88             # of a token


cdef struct Entry:
    char text[CHARACTERS]
    Verified says


cdef struct Half:
    pgs_index index             # by 32 bits of a hash: the number of an entry, from 1 on
    Entry *entries
    uint32_t count, room


cdef class TokenCache:
    cdef Half young, old
    cdef uint64_t seed[2]
    cdef uint32_t half
    cdef pgs_mutex mutex        # guards both

    cdef bint find(self, str token, Verified *says) noexcept
    cdef int remember(self, str token, const Verified *says) except -1
