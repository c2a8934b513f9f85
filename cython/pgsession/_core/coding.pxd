from libc.stdint cimport uint32_t

from cpython.object cimport PyObject

from pgsession._core.cache cimport Cache
from pgsession._core.record cimport Record
from pgsession._core.session_edits cimport Edit, SessionState


cdef inline bint has_codec(SessionState session) noexcept:
    cdef PyObject *cache = session.cache
    return (<Cache> cache).has_codec


cdef inline bint is_sealing(SessionState session) noexcept:
    cdef PyObject *cache = session.cache
    return (<Cache> cache).seals


cdef bytes encoding_of(SessionState session, str key, object value)
cdef bytes comparable(SessionState session, str key, object value)
cdef object from_plain(SessionState session, str key, object value)
cdef bytes sealed(SessionState session, Edit edit, bytes encoded)
cdef bytes opened(SessionState session, Record record, uint32_t place)
