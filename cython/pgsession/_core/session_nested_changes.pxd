from libc.stdint cimport uint32_t

from pgsession._core.session_edits cimport Edit, SessionState
from pgsession._core.record cimport Record


cdef class Found:
    cdef Edit view
    cdef bytes encoded
    cdef Found alike            # an earlier object that says the same


cdef bint says(Found found, Edit view) noexcept
cdef Found nested_change(SessionState session, Record record, uint32_t place, Edit edit)
cdef Found current_value(SessionState session, Edit edit)
