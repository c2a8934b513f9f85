from libc.stdint cimport int64_t, uint32_t

from pgsession._core.session_edits cimport SessionState
from pgsession._core.record cimport Record


cdef object read(SessionState session, str key, object type_)
cdef object decode_fresh(SessionState session, Record record, uint32_t place, object key)
cdef bint is_there(SessionState session, str key) except -1
cdef list live_keys(SessionState session)
cdef str last_key(SessionState session)
cdef int64_t looks_so_far() noexcept
cdef bint is_same(SessionState session, Record record, str key, int64_t version) noexcept
