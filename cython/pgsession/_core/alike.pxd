cdef bint looks_alike(object one, object other) except -1
