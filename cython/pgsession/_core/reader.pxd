from libc.stdint cimport int64_t, uint64_t

from pgsession._core.cache cimport Cache
from pgsession._core.key cimport Key
from pgsession._core.token_cache cimport TokenCache, Verified


cdef class Base:
    cdef readonly Cache _cache
    cdef TokenCache tokens
    cdef uint64_t forged_tokens, superseded_tokens, ended_tokens


cdef class Reader(Base):
    pass


cdef class AsyncReader(Base):
    pass


# For readers that have several, see sharded_reader.pyx.
cdef int64_t floor_of(object min_version) except? -1
cdef bint verify(object manager, TokenCache tokens, object token, Verified *verified) except -1
cdef object refuse_forged(Base self, object token)
cdef object cached_by_key(Base self, Key key, bint touch)
cdef object get_by_key(Reader self, Key key, bint touch, bint refresh, int64_t min_version)
cdef object await_by_key(AsyncReader self, Key key, bint touch, bint refresh, int64_t min_version)
cdef object cached_verified(Base self, const Verified *verified, bint touch)
cdef object get_verified(Reader self, const Verified *verified, bint touch, bint refresh, int64_t min_version)
cdef object await_verified(AsyncReader self, const Verified *verified, bint touch, bint refresh, int64_t min_version)
cdef object open_verified(Reader self, const Verified *verified, bint touch, bint refresh, int64_t min_version)
cdef object await_opened_verified(AsyncReader self, const Verified *verified, bint touch, bint refresh, int64_t min_version)
