# cython: binding=False
# cython: embedsignature=True
# cython: embedsignature.format=clinic
"""The compiled bases of both managers: a hit is answered here, without Python code of ours.

(Without `binding` methods are plain method descriptors, which the interpreter calls faster; the signatures are
embedded for `inspect`.)
"""

cimport cython
from libc.stdint cimport int64_t

from pgsession._cache cimport HIT_LATE, MISS, OVER, PGS_ASKED, Answer, Cache, drop, held, look_up, pgs_hot
from pgsession._clock cimport Clock
from pgsession._key cimport Key, key_bytes, parse
from pgsession._lock cimport PGS_FREE_THREADED
from pgsession._ready cimport ready
from pgsession._record cimport Record
from pgsession._seen cimport Proven, Seen
from pgsession._session cimport Session, new_session

from pgsession._clock import Clock as MakeClock

# What a reader has before it is given a cache: never in sync, so that everything goes to _load.
cdef Cache NOTHING = Cache(1, MakeClock(manual=0), inactivity=0, touch_interval=0, lifetime=0, max_attribute_length=0)
cdef Seen NOTHING_SEEN = Seen(1)


cdef inline Session hit(object manager, Cache cache, Key key, bint touch, int64_t min_version):
    """The session from memory, or None."""
    cdef pgs_hot *hot = NULL
    cdef Answer answer
    if PGS_FREE_THREADED:
        return shared_hit(manager, cache, key, touch, min_version)
    answer = look_up(cache, key, touch, min_version, True, &hot)
    if answer <= MISS:
        if answer == OVER:
            drop(cache, key)
        return None
    if answer == HIT_LATE:
        hot.flags |= PGS_ASKED
    cdef Session session = new_session(cache, <Record> hot.record, True, hot.accessed)
    if answer == HIT_LATE:      # another node may call it inactive before the next flush: written at once
        manager._touch_now(key_bytes(key))
    return session


cdef Session shared_hit(object manager, Cache cache, Key key, bint touch, int64_t min_version):
    """hit() where other threads change the cache meanwhile: the record is ours before the lock is given up."""
    cdef Answer answer = MISS
    cdef int64_t accessed = 0
    cdef Record record = held(cache, key, touch, min_version, True, &answer, &accessed)
    if record is None:
        return None
    cdef Session session = new_session(cache, record, True, accessed)
    if answer == HIT_LATE:
        manager._touch_now(key_bytes(key))
    return session


cdef Proven prove(object manager, Seen seen, object token):
    """What a token says, or None for one that is not ours."""
    if type(token) is not str:
        if not isinstance(token, str):
            return None
        token = str.__str__(token)      # a subclass may have a hash of its own
    cdef Proven proven = seen.find(token)
    cdef Key key
    if proven is not None:
        return proven
    verified = manager._verify_token(token)
    if verified is None:
        return None
    session_id, version = verified
    parse(session_id, &key)
    return seen.remember(token, key, version)


cdef class Reader:
    """Base of SessionManager. Subclasses have `_load(key, touch, refresh, min_version)`, which reads the database,
    `_touch_now(key)`, `_verify_token(token)` and `_check_open()`."""

    def __cinit__(self, *args, **kwargs):
        self._cache = NOTHING
        self.seen = NOTHING_SEEN

    def __init__(self, Cache cache not None):
        self._cache = cache
        self.seen = Seen(cache.capacity)

    def get_session(self, session_id, *, bint touch=True, bint refresh=False, int64_t min_version=0):
        """The session of this id, or None where there is no live one.

        `session_id`: a UUID, its str of 36 characters or 16 bytes. With `touch=False` reading it does not count as an
        access. `refresh` reads the database whatever is cached; `min_version` does so where the cached version is
        older. Raises TypeError or ValueError for what is not an id, and psycopg's errors where the database had to be
        read and could not be.
        """
        cdef Key key
        cdef Session session
        parse(session_id, &key)
        if not refresh:
            session = hit(self, self._cache, key, touch, min_version)
            if session is not None:
                return session
        return self._load(key_bytes(key), touch, refresh, min_version)

    def get_cached_session(self, session_id, *, bint touch=True):
        """The session of this id if it is in memory, in sync and live, else None; never a query."""
        cdef Key key
        parse(session_id, &key)
        cdef Session session = hit(self, self._cache, key, touch, 0)
        if session is None:
            self._check_open()
        return session

    def get_session_by_token(self, token, *, bint touch=True, bint refresh=False, int64_t min_version=0):
        """As `get_session`, by a signed token; a bad token is None, and costs no query."""
        cdef Proven proven = prove(self, self.seen, token)
        cdef Session session
        if proven is None:
            return None
        min_version = max(min_version, proven.version)
        if not refresh:
            session = hit(self, self._cache, proven.key, touch, min_version)
            if session is not None:
                return session
        return self._load(key_bytes(proven.key), touch, refresh, min_version)


cdef class AsyncReader:
    """Base of AsyncSessionManager. As Reader, where `_load` is a coroutine function."""

    def __cinit__(self, *args, **kwargs):
        self._cache = NOTHING
        self.seen = NOTHING_SEEN

    def __init__(self, Cache cache not None):
        self._cache = cache
        self.seen = Seen(cache.capacity)

    def get_session(self, session_id, *, bint touch=True, bint refresh=False, int64_t min_version=0):
        """Await the session of this id, or None where there is no live one.

        What is returned works wherever a coroutine does. `session_id`: a UUID, its str of 36 characters or 16 bytes.
        With `touch=False` reading it does not count as an access. `refresh` reads the database whatever is cached;
        `min_version` does so where the cached version is older. Raises TypeError or ValueError for what is not an id,
        and psycopg's errors where the database had to be read and could not be.
        """
        cdef Key key
        cdef Session session
        parse(session_id, &key)
        if not refresh:
            session = hit(self, self._cache, key, touch, min_version)
            if session is not None:
                return ready(session)
        return self._load(key_bytes(key), touch, refresh, min_version)

    def get_cached_session(self, session_id, *, bint touch=True):
        """The session of this id if it is in memory, in sync and live, else None; never a query, not awaited."""
        cdef Key key
        parse(session_id, &key)
        cdef Session session = hit(self, self._cache, key, touch, 0)
        if session is None:
            self._check_open()
        return session

    def get_session_by_token(self, token, *, bint touch=True, bint refresh=False, int64_t min_version=0):
        """As `get_session`, by a signed token; a bad token is None, and costs no query."""
        cdef Proven proven = prove(self, self.seen, token)
        cdef Session session
        if proven is None:
            return ready(None)
        min_version = max(min_version, proven.version)
        if not refresh:
            session = hit(self, self._cache, proven.key, touch, min_version)
            if session is not None:
                return ready(session)
        return self._load(key_bytes(proven.key), touch, refresh, min_version)
