from libc.stdint cimport int64_t, uint64_t


cdef class EvictedAccesses:
    cdef readonly Py_ssize_t limit
    cdef readonly uint64_t given_up
    cdef dict owners            # key -> user id, or None where it is not known
    cdef dict times             # user id -> {key: microseconds}

    cdef int note(self, bytes key, int64_t us, object user_id) except -1
    cdef int64_t pop(self, bytes key) except -1
    cdef list take(self, Py_ssize_t limit)
    cdef list of_user(self, str user_id)
