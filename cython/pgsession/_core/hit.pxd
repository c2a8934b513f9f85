"""The hit path leads from an id to a session, without Python code of ours.

A manager's method (reader.pyx) reads the id as a key (key.pxd) and calls hit(): look_up() in cache.pxd finds the record
in the cache and checks that it may be served, new_session() in hit.pyx puts a session around it. Reading an attribute
then begins in session.pyx. `tools/hot/` counts what all of it costs.
"""

from libc.stdint cimport int64_t

from cpython.object cimport PyObject

from pgsession._core.cache cimport HIT, PGS_UNLIKELY, Answer, Cache, Claim, look_up, pgs_hot
from pgsession._core.key cimport Key
from pgsession._core.lock cimport PGS_FREE_THREADED
from pgsession._core.record cimport Record


cdef PyObject *rare_hit(object manager, Cache cache, Key key, bint touch, int64_t min_version, Claim *claim, Answer answer,
                        pgs_hot *hot) except? NULL
cdef PyObject *locked_hit(object manager, Cache cache, Key key, bint touch, int64_t min_version, Claim *claim) except? NULL
cdef PyObject *new_session(Cache cache, Record record, bint from_cache, int64_t accessed) except NULL
cdef PyObject *hit_by_token(object manager, Cache cache, Key key, bint touch, int64_t min_version, Claim *claim) except? NULL


cdef inline PyObject *hit(object manager, Cache cache, Key key, bint touch, int64_t min_version) except? NULL:
    """Return the session from memory as a new reference, or NULL."""
    cdef pgs_hot *hot = NULL
    cdef PyObject *record
    cdef Answer answer
    if PGS_FREE_THREADED:
        return locked_hit(manager, cache, key, touch, min_version, NULL)
    answer = look_up(cache, key, touch, min_version, True, &hot)
    if PGS_UNLIKELY(answer != HIT):
        return rare_hit(manager, cache, key, touch, min_version, NULL, answer, hot)
    record = <PyObject *> hot.record
    return new_session(cache, <Record> record, True, hot.accessed)
