from libc.stdint cimport int64_t

from pgsession._core.session_edits cimport SessionState


cdef int put(SessionState session, object key, object value, int64_t expires_at) except -1
cdef int delete_attribute(SessionState session, str key) except -1
cdef void note_set(SessionState session, str key) noexcept
