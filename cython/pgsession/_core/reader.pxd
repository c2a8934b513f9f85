from pgsession._core.cache cimport Cache
from pgsession._core.token_cache cimport TokenCache


cdef class Base:
    cdef readonly Cache _cache
    cdef TokenCache tokens


cdef class Reader(Base):
    pass


cdef class AsyncReader(Base):
    pass
