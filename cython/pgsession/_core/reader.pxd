from libc.stdint cimport int64_t, uint64_t

from cpython.object cimport PyObject

from pgsession._core.cache cimport Cache, Claim
from pgsession._core.completed cimport completed
from pgsession._core.hit cimport hit, hit_by_token
from pgsession._core.key cimport Key
from pgsession._core.reference cimport pgs_give
from pgsession._core.token_cache cimport TokenCache, Verified


cdef class Base:
    cdef readonly Cache _cache
    cdef TokenCache tokens
    cdef uint64_t forged_tokens, superseded_tokens, ended_tokens


cdef class Reader(Base):
    pass


cdef class AsyncReader(Base):
    pass


# ---- for readers that have several, see sharded_reader.pyx ----
#
# A hit is in line, and what else there is to do in functions of their own: it saves no registers for them.

cdef int64_t floor_of(object min_version) except? -1
cdef bint verify(object manager, TokenCache tokens, object token, Verified *verified) except -1
cdef object refuse_forged(Base self, object token)
cdef object not_cached(Base self)
cdef object load(Reader self, Key key, bint touch, bint refresh, int64_t min_version)
cdef object await_load(AsyncReader self, Key key, bint touch, bint refresh, int64_t min_version)
cdef object not_cached_by_token(Base self, const Verified *verified, Claim *claim)
cdef object load_by_token(Reader self, const Verified *verified, Claim *claim, bint touch, bint refresh, int64_t min_version)
cdef object await_load_by_token(AsyncReader self, const Verified *verified, Claim *claim, bint touch, bint refresh,
                                int64_t min_version)
cdef object open_verified(Reader self, const Verified *verified, bint touch, bint refresh, int64_t min_version)
cdef object await_opened_verified(AsyncReader self, const Verified *verified, bint touch, bint refresh, int64_t min_version)


cdef inline PyObject *remembered(Base self, Key key, bint touch, int64_t min_version) except? NULL:
    """Return the session from memory as a new reference, or NULL.

    The cache is read after parse(), which may run code that gives the manager another one.
    """
    cdef PyObject *cache = <PyObject *> self._cache
    return hit(self, <Cache> cache, key, touch, min_version)


cdef inline object cached_by_key(Base self, Key key, bint touch):
    cdef PyObject *session = remembered(self, key, touch, 0)
    return pgs_give(session) if session != NULL else not_cached(self)


cdef inline object get_by_key(Reader self, Key key, bint touch, bint refresh, int64_t min_version):
    cdef PyObject *session = NULL if refresh else remembered(self, key, touch, min_version)
    return pgs_give(session) if session != NULL else load(self, key, touch, refresh, min_version)


cdef inline object await_by_key(AsyncReader self, Key key, bint touch, bint refresh, int64_t min_version):
    cdef PyObject *session = NULL if refresh else remembered(self, key, touch, min_version)
    return completed(pgs_give(session)) if session != NULL else await_load(self, key, touch, refresh, min_version)


cdef inline PyObject *remembered_by_token(Base self, const Verified *verified, bint touch, int64_t min_version,
                                          Claim *claim) except? NULL:
    """Return the session of a verified token from memory as a new reference, or NULL; see hit_by_token()."""
    claim.generation = verified.generation
    return hit_by_token(self, self._cache, verified.key, touch, min_version, claim)


cdef inline object cached_verified(Base self, const Verified *verified, bint touch):
    cdef Claim claim
    cdef PyObject *session = remembered_by_token(self, verified, touch, verified.version, &claim)
    return pgs_give(session) if session != NULL else not_cached_by_token(self, verified, &claim)


cdef inline object get_verified(Reader self, const Verified *verified, bint touch, bint refresh, int64_t min_version):
    cdef Claim claim
    cdef PyObject *session = NULL
    min_version = max(min_version, verified.version)
    if not refresh:
        session = remembered_by_token(self, verified, touch, min_version, &claim)
        if session != NULL:
            return pgs_give(session)
    return load_by_token(self, verified, &claim, touch, refresh, min_version)


cdef inline object await_verified(AsyncReader self, const Verified *verified, bint touch, bint refresh, int64_t min_version):
    cdef Claim claim
    cdef PyObject *session = NULL
    min_version = max(min_version, verified.version)
    if not refresh:
        session = remembered_by_token(self, verified, touch, min_version, &claim)
        if session != NULL:
            return completed(pgs_give(session))
    return await_load_by_token(self, verified, &claim, touch, refresh, min_version)
