from libc.stdint cimport int64_t

from pgsession._key cimport Key
from pgsession._lock cimport pgs_mutex


cdef class Proven:
    cdef Key key
    cdef int64_t version


cdef class Seen:
    cdef dict young, old
    cdef Py_ssize_t half
    cdef pgs_mutex mutex        # guards both

    cdef Proven find(self, str token)
    cdef Proven remember(self, str token, Key key, int64_t version)
    cdef Proven known(self, str token)
    cdef dict keep(self, str token, Proven proven)
