from libc.stdint cimport int64_t

from pgsession._key cimport Key


cdef class Proven:
    cdef Key key
    cdef int64_t version


cdef class Seen:
    cdef dict young, old
    cdef Py_ssize_t half

    cdef Proven find(self, str token)
    cdef int remember(self, str token, Key key, int64_t version) except -1
    cdef int keep(self, str token, Proven proven) except -1
