cdef class Lease:
    cdef readonly bytes key
    cdef readonly long long opened
    cdef readonly long long epoch
    cdef readonly long long wide
    cdef public object stamp


cdef class Fill(Lease):
    cdef public bint early
    cdef readonly object future


cdef class Leases:
    cdef public long long epoch
    cdef long long _wide
    cdef dict _open

    cpdef Lease open_write(self, bytes key, long long now)
    cpdef Fill open_fill(self, bytes key, long long now, object future)
    cpdef bint close(self, Lease lease) except -1
    cpdef stamp(self, bytes key, object version)
    cpdef bint allow(self, Lease lease, object version) except -1
    cpdef bint undisturbed(self, Lease lease) except -1
    cdef bint _is_of_today(self, Lease lease) except -1
