from pgsession._protocol.operations cimport Operation


cdef class Batch:
    cdef public list operations
    cdef list _creates
    cdef list _deletes
    cdef list _updates

    cdef _fill(self, list operations)


cdef class Queue:
    cdef object _claims
    cdef bint _claims_next
    cdef object _waiting
