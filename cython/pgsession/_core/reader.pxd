from libc.stdint cimport uint64_t

from pgsession._core.cache cimport Cache
from pgsession._core.token_cache cimport TokenCache


cdef class Base:
    cdef readonly Cache _cache
    cdef TokenCache tokens
    cdef uint64_t forged_tokens, superseded_tokens, ended_tokens


cdef class Reader(Base):
    pass


cdef class AsyncReader(Base):
    pass
