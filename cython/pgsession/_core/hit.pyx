"""The second half of the hit path puts a session around a record that was found; hit.pxd has the first half.

A session is made at every hit, so the last few that were released are kept to be used again. One that has nothing of
its own is not tracked by the garbage collector: it refers to its record and its cache, which refer to no session (unless
a codec keeps one). With the first edit it is tracked, since a caller's values may refer to anything.
"""

from cpython.object cimport PyTypeObject
from cpython.ref cimport Py_XDECREF

from libc.stdint cimport int64_t, uint32_t

from pgsession._core.cache cimport BEHIND, HIT_LATE, MISS, NOT_CACHED, OVER, ask, drop, held, look_up_by_token
from pgsession._core.record cimport CURRENT, PREVIOUS
from pgsession._core.cpython_tricks cimport PGS_REUSES_SESSIONS, destructor, pgs_hold, pgs_release_by, pgs_revive
from pgsession._core.key cimport key_bytes
from pgsession._core.reference cimport pgs_give
from pgsession._core.session cimport Session, make_session
from pgsession._core.session_edits cimport note_older_token

cdef extern from "Python.h":
    void PyObject_GC_UnTrack(PyObject *)

cdef enum:
    SPARE = 64
cdef PyObject *spare[SPARE]
cdef int spares = 0
cdef destructor ordinary_release = NULL


# ---- hits that are not ordinary ----

cdef PyObject *rare_hit(object manager, Cache cache, Key key, bint touch, int64_t min_version, Claim *claim, Answer answer,
                        pgs_hot *hot) except? NULL:
    """Return the session where there is more to do for it, or NULL for a miss.

    That is to hear what the host has to say, to look in the arena, or to ask for the access: another node may take the
    session for inactive before the next accesses are written.
    """
    cdef Cache kept = cache
    cdef bint told
    if answer == BEHIND or (answer == NOT_CACHED and kept.tied_):
        return locked_hit(manager, kept, key, touch, min_version, claim)
    if answer == NOT_CACHED:
        kept.misses.not_cached += 1
    elif answer == OVER:
        drop(kept, key)
    if answer <= MISS:
        return NULL
    told = ask(kept, <uint32_t> (hot - kept.table.hot))
    session = pgs_give(new_session(kept, <Record> hot.record, True, hot.accessed))
    if told:
        manager._write_access_soon(key_bytes(key))
    return pgs_hold(<PyObject *> session)


cdef PyObject *locked_hit(object manager, Cache cache, Key key, bint touch, int64_t min_version, Claim *claim) except? NULL:
    """Do what hit() does, under the lock: where other threads, or a look at the arena, change the cache meanwhile.

    The record is ours before the lock is given up.
    """
    cdef Cache kept = cache
    cdef Answer answer = MISS
    cdef int64_t accessed = 0
    cdef Record record = held(kept, key, touch, min_version, True, &answer, &accessed, claim)
    if record is None:
        return NULL
    session = pgs_give(new_session(kept, record, True, accessed))
    if answer == HIT_LATE:
        manager._write_access_soon(key_bytes(key))
    return pgs_hold(<PyObject *> session)


# ---- hits by a token ----

cdef PyObject *hit_by_token(object manager, Cache cache, Key key, bint touch, int64_t min_version, Claim *claim) except? NULL:
    """Return the session of a verified token from memory as a new reference, or NULL.

    Then `claim.standing` says whether the record in memory refuses the token: it is CURRENT where it does not. The same as
    hit(), with what a token adds; a function of its own, so that the compiler keeps the other one short.
    """
    cdef pgs_hot *hot = NULL
    cdef PyObject *session
    cdef PyObject *record
    cdef Answer answer
    claim.standing = CURRENT
    if PGS_FREE_THREADED:
        session = locked_hit(manager, cache, key, touch, min_version, claim)
    else:
        answer = look_up_by_token(cache, key, touch, min_version, claim, &hot)
        if PGS_UNLIKELY(answer != HIT):
            session = rare_hit(manager, cache, key, touch, min_version, claim, answer, hot)
        else:
            record = <PyObject *> hot.record
            session = new_session(cache, <Record> record, True, hot.accessed)
    if PGS_UNLIKELY(claim.standing == PREVIOUS) and session != NULL:
        note_older_token(<Session> session)
    return session


# ---- making and releasing sessions ----

cdef PyObject *new_session(Cache cache, Record record, bint from_cache, int64_t accessed) except NULL:
    """Return a session as a new reference.

    Cache and record may both be borrowed from somebody whom a collection could make release them.
    """
    global spares
    cdef PyObject *session
    if spares > 0:
        spares -= 1
        session = spare[spares]
        pgs_revive(session)
        (<Session> session).record = pgs_hold(<PyObject *> record)
        (<Session> session).cache = pgs_hold(<PyObject *> cache)
    else:
        session = another_session(cache, record)
    (<Session> session).accessed = accessed
    (<Session> session).from_cache = from_cache
    (<Session> session).invalidated = False
    return session


cdef PyObject *another_session(Cache cache, Record record) except NULL:
    """Return a session that is made anew.

    Cache and record are held before memory is asked for, which may run a collection.
    """
    cdef Cache kept_cache = cache
    cdef Record kept_record = record
    cdef Session session = make_session()
    session.record = pgs_hold(<PyObject *> kept_record)
    session.cache = pgs_hold(<PyObject *> kept_cache)
    return pgs_hold(<PyObject *> session)


cdef void release_session(PyObject *session) noexcept:
    """Keep a session that nobody refers to any more to be used again, or release it where enough are kept."""
    global spares
    cdef PyObject *record = (<Session> session).record
    cdef PyObject *cache = (<Session> session).cache
    if spares >= SPARE:
        ordinary_release(session)
        return
    if (<Session> session).tracked:
        PyObject_GC_UnTrack(session)
        (<Session> session).tracked = False
        release_edited(session)
    else:
        spare[spares] = session
        spares += 1
    Py_XDECREF(record)          # null where the session could not be made
    Py_XDECREF(cache)


cdef void release_edited(PyObject *session) noexcept:
    """Keep a session that had edits to be used again.

    The edits go last: releasing a caller's values may run code that makes sessions.
    """
    global spares
    lone, first, edits = (<Session> session).lone, (<Session> session).first, (<Session> session).edits
    (<Session> session).lone = None
    (<Session> session).lone_key = None
    (<Session> session).first = None
    (<Session> session).edits = None
    (<Session> session).passed = 0
    (<Session> session).nothing_added = False
    (<Session> session).iterated_at = 0
    (<Session> session).by_older_token = False
    spare[spares] = session
    spares += 1


if PGS_REUSES_SESSIONS:
    ordinary_release = pgs_release_by(<PyTypeObject *> Session, release_session)


def session_of(Cache cache not None, Record record not None, *, bint from_cache, accessed=None,
               bint by_older_token=False):
    """Return a new session on a record.

    Args:
        cache: The cache of the session's manager.
        record: The record; it need not be in the cache.
        from_cache: True: the session was answered from memory.
        accessed: A newer access than the record's, in microseconds since the epoch; None: there is none.
        by_older_token: True: it was opened by a token of the previous generation.
    """
    cdef int64_t us = 0 if accessed is None else accessed
    session = pgs_give(new_session(cache, record, from_cache, us))
    if by_older_token:
        note_older_token(<Session> session)
    return session
