from libc.stdint cimport int64_t, uint64_t

from pgsession._core.key cimport Key


cdef struct Absence:
    Key key
    int64_t floor               # the highest version that was asked for
    int64_t until               # node time; 0: nothing is remembered here


cdef class Absences:
    cdef Absence *entries       # null before the first
    cdef uint64_t seed[2]
    cdef bint used              # since it was cleared

    cdef bint has(self, Key key, int64_t min_version, int64_t now) noexcept
    cdef int add(self, Key key, int64_t floor, int64_t until, int64_t now) except -1
    cdef void remove(self, Key key) noexcept
    cdef void clear(self) noexcept
