from libc.stdint cimport int64_t

from pgsession._cache cimport Cache
from pgsession._record cimport Record


cdef class Changes:
    cdef readonly list sets
    cdef readonly list deletes
    cdef list taken             # of Part


cdef class Session:
    cdef readonly Record _record
    cdef Cache cache
    cdef dict edits             # key -> Edit, None while nothing is of this session's own
    cdef int64_t accessed
    cdef readonly bint from_cache
    cdef bint invalidated


cdef inline Session new_session(Cache cache, Record record, bint from_cache, int64_t accessed):
    cdef Session session = Session.__new__(Session)
    session._record = record
    session.cache = cache
    session.accessed = accessed
    session.from_cache = from_cache
    return session
