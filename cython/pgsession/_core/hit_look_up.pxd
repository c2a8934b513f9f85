"""The part of the hit path that looks into the cache; apart from hit.pxd, since the cache itself needs it too."""

from libc.stdint cimport int64_t, uint32_t

from cpython.object cimport PyObject

from pgsession._core.cache cimport (
    HIT, MISS, PGS_ACCESSED, PGS_UNLIKELY, Answer, Cache, pgs_access_add, pgs_find, pgs_hot, pgs_table, pgs_use, recheck,
)
from pgsession._core.clock cimport Clock, recent
from pgsession._core.key cimport Key


cdef inline Answer look_up(Cache cache, Key key, bint touch, int64_t min_version, bint proven,
                           pgs_hot **found) noexcept:
    """The hit path, under the lock. With `proven` nothing is served beyond the proof of sync (C6)."""
    cdef pgs_table *table = &cache.table
    cdef PyObject *clock = <PyObject *> cache.clock     # borrowed, see reference.h
    cdef uint32_t slot = pgs_find(table, key.high, key.low)
    cdef int64_t now = recent(<Clock> clock)
    cdef pgs_hot *hot
    cdef Answer answer = HIT
    if proven and PGS_UNLIKELY(now + cache.clock.slack >= cache.in_sync_until):
        cache.stale += 1
        return MISS
    if PGS_UNLIKELY(slot == 0):
        cache.misses += 1
        return MISS
    now += cache.clock.offset
    hot = &table.hot[slot]
    if PGS_UNLIKELY(now + cache.clock.slack >= hot.deadline or hot.version < min_version):
        answer = recheck(cache, slot, now + cache.clock.slack, touch, min_version)
        if answer <= MISS:
            return answer
    if touch and now > hot.accessed:
        hot.accessed = now
        if not hot.flags & PGS_ACCESSED:
            pgs_access_add(table, slot)
    pgs_use(table, slot)
    cache.hits += 1
    found[0] = hot
    return answer
