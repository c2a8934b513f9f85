from libc.stdint cimport int64_t

from pgsession._core.session_edits cimport Edit, SessionState
from pgsession._core.session_nested_changes cimport Found
from pgsession._core.record cimport Record


cdef class Changes:
    cdef readonly list sets
    cdef readonly list deletes
    cdef list taken             # of Part
    cdef Record record          # on which all of it is based


cdef class Part:
    cdef str key
    cdef Edit edit
    cdef Found found            # None: a deletion


cdef Changes changes_of(SessionState session)
cdef int seal_changes(SessionState session, Changes changes) except -1
cdef int check_limits(SessionState session, Changes changes) except -1
cdef int become(SessionState session, Changes changes, Record record, int64_t accessed, bint rotated) except -1
