from pgsession._cache cimport Cache
from pgsession._seen cimport Seen


cdef class Reader:
    cdef readonly Cache _cache
    cdef Seen seen


cdef class AsyncReader:
    cdef readonly Cache _cache
    cdef Seen seen
