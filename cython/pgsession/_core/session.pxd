from libc.stdint cimport int64_t, uint32_t

from cpython.object cimport PyObject

from pgsession._core.cache cimport Cache
from pgsession._core.record cimport Record


cdef enum Kind:
    READ
    SET
    DELETED


cdef class Edit:
    cdef Kind kind
    cdef readonly str key
    cdef Edit following         # of another attribute
    cdef object type            # that it was read as; Any for what was set
    cdef object value
    cdef bytes before           # its encoding when it was made, None: to be had by decoding what is stored
    cdef bytes source           # what it was decoded from, where that was not what is stored
    cdef Edit next              # another object for the same attribute, read later as another type
    cdef bytes encoded          # SET, of an immutable value
    cdef int64_t expires_at     # SET; 0: never
    cdef int64_t base           # version of the attribute that this is based on; 0: there was none


cdef class Changes:
    cdef readonly list sets
    cdef readonly list deletes
    cdef list taken             # of Part


cdef class Session:
    cdef PyObject *record       # a Record; both are references of our own, see release_session()
    cdef PyObject *cache        # a Cache
    cdef object lone            # a mutable value that is all that this session has of its own, see settle(); or None
    cdef Edit first             # what this session has of its own, None: nothing; see edits_of()
    cdef dict edits
    cdef int64_t accessed
    cdef readonly bint from_cache
    cdef bint invalidated
    cdef bint tracked           # by the garbage collector: it has something of its own, or had
    cdef uint32_t lone_place


cdef inline Record record_of(Session session):
    return <Record> session.record


cdef inline Cache cache_of(Session session):
    return <Cache> session.cache


cdef PyObject *new_session(Cache cache, Record record, bint from_cache, int64_t accessed) except NULL
