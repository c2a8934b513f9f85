from pgsession._cache cimport Cache
from pgsession._seen cimport Seen


cdef class Base:
    cdef readonly Cache _cache
    cdef Seen seen


cdef class Reader(Base):
    pass


cdef class AsyncReader(Base):
    pass
