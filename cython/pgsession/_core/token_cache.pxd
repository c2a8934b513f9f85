from libc.stdint cimport int64_t

from pgsession._core.key cimport Key
from pgsession._core.lock cimport pgs_mutex


cdef class Verified:
    cdef Key key
    cdef int64_t generation
    cdef int64_t version


cdef class TokenCache:
    cdef dict young, old
    cdef Py_ssize_t half
    cdef pgs_mutex mutex        # guards both

    cdef Verified find(self, str token)
    cdef Verified remember(self, str token, Key key, int64_t generation, int64_t version)
    cdef Verified known(self, str token)
    cdef dict keep(self, str token, Verified verified)
