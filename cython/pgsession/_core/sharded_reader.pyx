# cython: binding=False
# cython: embedsignature=True
# cython: embedsignature.format=clinic
"""The managers of several shards have these compiled bases, which find the shard of an id and have its reader answer.

The shard stands in the id: a UUID of version 8 (RFC 9562), whose 12 bits after the version are the shard's number. An id
of any other kind is of the time before there were shards, and belongs to the shard that is given for those.
"""

cimport cython
from libc.stdint cimport int64_t, uint64_t

from cpython.object cimport PyObject, PyTypeObject
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE

from pgsession._core.arguments cimport checked_flag
from pgsession._core.cache cimport Cache
from pgsession._core.completed cimport completed
from pgsession._core.cpython_tricks cimport pgs_enter_by, pgs_method
from pgsession._core.key cimport Key, key_bytes, parse
from pgsession._core.reader cimport (
    AsyncReader,
    Base,
    Reader,
    await_by_key,
    await_opened_verified,
    await_verified,
    cached_by_key,
    cached_verified,
    floor_of,
    get_by_key,
    get_verified,
    open_verified,
    refuse_forged,
    verify,
)
from pgsession._core.token_cache cimport Verified


cdef inline Py_ssize_t number_in(Key key, Py_ssize_t legacy) noexcept:
    """Return the number of the shard that an id belongs to; it may be one that there is not, and -1 for none."""
    if (key.high >> 12 & 0xF) == 8 and key.low >> 62 == 2:
        return key.high & 0xFFF
    return legacy


@cython.final
cdef class Shards:
    """Holds the readers of the shards, by number; `legacy` is that of ids which name none, -1 for none of them."""

    def __init__(self, tuple readers not None, Py_ssize_t legacy):
        self.readers = readers
        self.legacy = legacy

    def number(self, session_id):
        """Return the number of the shard that an id belongs to, or -1 where there is none."""
        cdef Key key
        parse(session_id, &key)
        number = number_in(key, self.legacy)
        return number if number < len(self.readers) else -1


cdef inline PyObject *shard_of(Shards shards, Key key) noexcept:
    """Return the reader of the shard that an id belongs to, borrowed, or NULL."""
    cdef PyObject *readers = <PyObject *> shards.readers
    cdef uint64_t number = <uint64_t> number_in(key, shards.legacy)
    if number < <uint64_t> PyTuple_GET_SIZE(<tuple> readers):
        return <PyObject *> PyTuple_GET_ITEM(<tuple> readers, <Py_ssize_t> number)
    return NULL


cdef class ShardedReader(Reader):
    """This is the base of ShardedSessionManager."""

    def __init__(self, Cache cache not None, Shards shards not None):
        Reader.__init__(self, cache)        # which stays empty; it counts what belongs to no shard
        self._shards = shards

    def get_cached_session(self, session_id, *, touch=True):
        """Return the session of this id if this node may answer it from memory; never a query, not awaited.

        Args:
            session_id: A UUID, its str of 36 characters or its 16 bytes.
            touch: True: this is an access, which keeps the session from becoming inactive. False: it is none.

        Returns:
            The session; None where it is not in memory, not live, or the node is not in sync.

        Raises:
            TypeError, ValueError: The session id or `touch` is not usable; the message names it.
            ManagerClosedError: The manager is closed, or was never opened.
        """
        return cached(self, self._shards, session_id, checked_flag("touch", touch))

    def get_cached_session_by_token(self, token, *, touch=True):
        """Return the session of a token if this node may answer it from memory; never a query, not awaited.

        Args:
            token: A token that `token` has given; None, or what is no token, is taken for a bad one.
            touch: True: this is an access, which keeps the session from becoming inactive. False: it is none.

        Returns:
            The session; None where the token is bad, or the session not in memory, not live, or the node not in sync.

        Raises:
            ConfigError: The manager was not given a signer.
            TypeError, ValueError: `touch` is not usable; the message names it.
            ManagerClosedError: The manager is closed, or was never opened.
        """
        return cached_by_token(self, self._shards, token, checked_flag("touch", touch))

    def get_session(self, session_id, *, touch=True, refresh=False, min_version=0):
        """Return the session of this id, or None where there is no live one.

        Args:
            session_id: A UUID, its str of 36 characters or its 16 bytes.
            touch: True: this is an access, which keeps the session from becoming inactive. False: it is none.
            refresh: True: the database is read, whatever is cached.
            min_version: The oldest version that will do; the database is read where the cached one is older.

        Returns:
            The session, or None where there is no live one.

        Raises:
            TypeError, ValueError: The session id or another argument is not usable; the message names it.
            ManagerClosedError: The manager is closed, or was never opened.
            psycopg.Error: The database had to be read and could not be.
        """
        return get(
            self, session_id, checked_flag("touch", touch), checked_flag("refresh", refresh), floor_of(min_version)
        )

    def get_session_by_token(self, token, *, touch=True, refresh=False, min_version=0):
        """Return the session of a token, or None. A bad one costs no query.

        Args:
            token: A token that `token` has given; None, or what is no token, is taken for a bad one.
            touch: True: this is an access, which keeps the session from becoming inactive. False: it is none.
            refresh: True: the database is read, whatever is cached.
            min_version: The oldest version that will do; the token's own version counts where it is newer.

        Returns:
            The session, or None where there is no live one or the token is bad.

        Raises:
            ConfigError: The manager was not given a signer.
            TypeError, ValueError: An option is not usable; the message names it.
            ManagerClosedError: The manager is closed, or was never opened.
            psycopg.Error: The database had to be read and could not be.
        """
        return get_by_token(
            self, token, checked_flag("touch", touch), checked_flag("refresh", refresh), floor_of(min_version)
        )

    def open_token(self, token, *, touch=True, refresh=False, min_version=0):
        """Return what a token opens: its session, or the reason why it opens none.

        Args:
            token: A token that `token` has given; None, or what is no token, is taken for a bad one.
            touch: True: this is an access, which keeps the session from becoming inactive. False: it is none.
            refresh: True: the database is read, whatever is cached.
            min_version: The oldest version that will do; the token's own version counts where it is newer.

        Returns:
            An `Opened`: the session or None, and the state of the token.

        Raises:
            ConfigError: The manager was not given a signer.
            TypeError, ValueError: An option is not usable; the message names it.
            ManagerClosedError: The manager is closed, or was never opened.
            psycopg.Error: The database had to be read and could not be.
        """
        return open_by_token(
            self, token, checked_flag("touch", touch), checked_flag("refresh", refresh), floor_of(min_version)
        )


cdef class AsyncShardedReader(AsyncReader):
    """This is the base of AsyncShardedSessionManager."""

    def __init__(self, Cache cache not None, Shards shards not None):
        AsyncReader.__init__(self, cache)        # which stays empty; it counts what belongs to no shard
        self._shards = shards

    def get_cached_session(self, session_id, *, touch=True):
        """Return the session of this id if this node may answer it from memory; never a query, not awaited.

        Args:
            session_id: A UUID, its str of 36 characters or its 16 bytes.
            touch: True: this is an access, which keeps the session from becoming inactive. False: it is none.

        Returns:
            The session; None where it is not in memory, not live, or the node is not in sync.

        Raises:
            TypeError, ValueError: The session id or `touch` is not usable; the message names it.
            ManagerClosedError: The manager is closed, or was never opened.
        """
        return cached(self, self._shards, session_id, checked_flag("touch", touch))

    def get_cached_session_by_token(self, token, *, touch=True):
        """Return the session of a token if this node may answer it from memory; never a query, not awaited.

        Args:
            token: A token that `token` has given; None, or what is no token, is taken for a bad one.
            touch: True: this is an access, which keeps the session from becoming inactive. False: it is none.

        Returns:
            The session; None where the token is bad, or the session not in memory, not live, or the node not in sync.

        Raises:
            ConfigError: The manager was not given a signer.
            TypeError, ValueError: `touch` is not usable; the message names it.
            ManagerClosedError: The manager is closed, or was never opened.
        """
        return cached_by_token(self, self._shards, token, checked_flag("touch", touch))

    def get_session(self, session_id, *, touch=True, refresh=False, min_version=0):
        """Await the session of this id, or None where there is no live one.

        Args:
            session_id: A UUID, its str of 36 characters or its 16 bytes.
            touch: True: this is an access, which keeps the session from becoming inactive. False: it is none.
            refresh: True: the database is read, whatever is cached.
            min_version: The oldest version that will do; the database is read where the cached one is older.

        Returns:
            An awaitable of the session, or of None where there is no live one; it works wherever a coroutine does.

        Raises:
            TypeError, ValueError: The session id or another argument is not usable; the message names it.
            ManagerClosedError: The manager is closed, or was never opened.
            EventLoopError: The manager was opened by another event loop.
            psycopg.Error: The database had to be read and could not be.
        """
        return await_session(
            self, session_id, checked_flag("touch", touch), checked_flag("refresh", refresh), floor_of(min_version)
        )

    def get_session_by_token(self, token, *, touch=True, refresh=False, min_version=0):
        """Await the session of a token, or None. A bad one costs no query.

        Args:
            token: A token that `token` has given; None, or what is no token, is taken for a bad one.
            touch: True: this is an access, which keeps the session from becoming inactive. False: it is none.
            refresh: True: the database is read, whatever is cached.
            min_version: The oldest version that will do; the token's own version counts where it is newer.

        Returns:
            An awaitable of the session, or of None where there is no live one or the token is bad.

        Raises:
            ConfigError: The manager was not given a signer.
            TypeError, ValueError: An option is not usable; the message names it.
            ManagerClosedError: The manager is closed, or was never opened.
            EventLoopError: The manager was opened by another event loop.
            psycopg.Error: The database had to be read and could not be.
        """
        return await_by_token(
            self, token, checked_flag("touch", touch), checked_flag("refresh", refresh), floor_of(min_version)
        )

    def open_token(self, token, *, touch=True, refresh=False, min_version=0):
        """Await what a token opens: its session, or the reason why it opens none.

        Args:
            token: A token that `token` has given; None, or what is no token, is taken for a bad one.
            touch: True: this is an access, which keeps the session from becoming inactive. False: it is none.
            refresh: True: the database is read, whatever is cached.
            min_version: The oldest version that will do; the token's own version counts where it is newer.

        Returns:
            An awaitable of an `Opened`: the session or None, and the state of the token.

        Raises:
            ConfigError: The manager was not given a signer.
            TypeError, ValueError: An option is not usable; the message names it.
            ManagerClosedError: The manager is closed, or was never opened.
            EventLoopError: The manager was opened by another event loop.
            psycopg.Error: The database had to be read and could not be.
        """
        return await_opened(
            self, token, checked_flag("touch", touch), checked_flag("refresh", refresh), floor_of(min_version)
        )


cdef object nowhere(Base self):
    """Return None for an id of no shard, of which no database needs to be asked."""
    self._check_open()
    return None


cdef object nothing_opened(Base self, const Verified *verified):
    """Return what a token opens that we have signed for an id of no shard."""
    self._check_open()
    return self._refuse_token("ended", key_bytes(verified.key))


cdef object cached(Base self, Shards shards, object session_id, bint touch):
    cdef Key key
    cdef PyObject *shard
    parse(session_id, &key)
    shard = shard_of(shards, key)
    return nowhere(self) if shard == NULL else cached_by_key(<Base> shard, key, touch)


cdef object get(ShardedReader self, object session_id, bint touch, bint refresh, int64_t min_version):
    cdef Key key
    cdef PyObject *shard
    parse(session_id, &key)
    shard = shard_of(self._shards, key)
    return nowhere(self) if shard == NULL else get_by_key(<Reader> shard, key, touch, refresh, min_version)


cdef object await_session(AsyncShardedReader self, object session_id, bint touch, bint refresh, int64_t min_version):
    cdef Key key
    cdef PyObject *shard
    parse(session_id, &key)
    shard = shard_of(self._shards, key)
    if shard == NULL:
        return completed(nowhere(self))
    return await_by_key(<AsyncReader> shard, key, touch, refresh, min_version)


cdef object cached_by_token(Base self, Shards shards, object token, bint touch):
    cdef Verified verified
    cdef PyObject *shard
    if not verify(self, self.tokens, token, &verified):
        refuse_forged(self, token)
        return None
    shard = shard_of(shards, verified.key)
    if shard == NULL:
        nothing_opened(self, &verified)
        return None
    return cached_verified(<Base> shard, &verified, touch)


cdef object get_by_token(ShardedReader self, object token, bint touch, bint refresh, int64_t min_version):
    cdef Verified verified
    cdef PyObject *shard
    if not verify(self, self.tokens, token, &verified):
        return refuse_forged(self, token).session
    shard = shard_of(self._shards, verified.key)
    if shard == NULL:
        return nothing_opened(self, &verified).session
    return get_verified(<Reader> shard, &verified, touch, refresh, min_version)


cdef object await_by_token(AsyncShardedReader self, object token, bint touch, bint refresh, int64_t min_version):
    cdef Verified verified
    cdef PyObject *shard
    if not verify(self, self.tokens, token, &verified):
        return completed(refuse_forged(self, token).session)
    shard = shard_of(self._shards, verified.key)
    if shard == NULL:
        return completed(nothing_opened(self, &verified).session)
    return await_verified(<AsyncReader> shard, &verified, touch, refresh, min_version)


cdef object open_by_token(ShardedReader self, object token, bint touch, bint refresh, int64_t min_version):
    cdef Verified verified
    cdef PyObject *shard
    if not verify(self, self.tokens, token, &verified):
        return refuse_forged(self, token)
    shard = shard_of(self._shards, verified.key)
    if shard == NULL:
        return nothing_opened(self, &verified)
    return open_verified(<Reader> shard, &verified, touch, refresh, min_version)


cdef object await_opened(AsyncShardedReader self, object token, bint touch, bint refresh, int64_t min_version):
    cdef Verified verified
    cdef PyObject *shard
    if not verify(self, self.tokens, token, &verified):
        return completed(refuse_forged(self, token))
    shard = shard_of(self._shards, verified.key)
    if shard == NULL:
        return completed(nothing_opened(self, &verified))
    return await_opened_verified(<AsyncReader> shard, &verified, touch, refresh, min_version)


# ---- the short way in, as in reader.pyx ----

cdef pgs_method get_session, get_session_by_token, async_get_session, async_get_session_by_token
cdef pgs_method get_cached_session, async_get_cached_session


cdef object enter_get_session(object self, PyObject *const *args, Py_ssize_t count, PyObject *names):
    cdef PyObject *given
    if count == 1 and names == NULL:
        given = args[0]
        return get(<ShardedReader> self, <object> given, True, False, 0)
    return get_session(self, args, count, names)


cdef object enter_get_cached_session(object self, PyObject *const *args, Py_ssize_t count, PyObject *names):
    cdef PyObject *given
    if count == 1 and names == NULL:
        given = args[0]
        return cached(<ShardedReader> self, (<ShardedReader> self)._shards, <object> given, True)
    return get_cached_session(self, args, count, names)


cdef object enter_get_session_by_token(object self, PyObject *const *args, Py_ssize_t count, PyObject *names):
    cdef PyObject *given
    if count == 1 and names == NULL:
        given = args[0]
        return get_by_token(<ShardedReader> self, <object> given, True, False, 0)
    return get_session_by_token(self, args, count, names)


cdef object enter_async_get_session(object self, PyObject *const *args, Py_ssize_t count, PyObject *names):
    cdef PyObject *given
    if count == 1 and names == NULL:
        given = args[0]
        return await_session(<AsyncShardedReader> self, <object> given, True, False, 0)
    return async_get_session(self, args, count, names)


cdef object enter_async_get_cached_session(object self, PyObject *const *args, Py_ssize_t count, PyObject *names):
    cdef PyObject *given
    if count == 1 and names == NULL:
        given = args[0]
        return cached(<AsyncShardedReader> self, (<AsyncShardedReader> self)._shards, <object> given, True)
    return async_get_cached_session(self, args, count, names)


cdef object enter_async_get_session_by_token(object self, PyObject *const *args, Py_ssize_t count, PyObject *names):
    cdef PyObject *given
    if count == 1 and names == NULL:
        given = args[0]
        return await_by_token(<AsyncShardedReader> self, <object> given, True, False, 0)
    return async_get_session_by_token(self, args, count, names)


get_session = pgs_enter_by(<PyTypeObject *> ShardedReader, b"get_session", enter_get_session)
get_cached_session = pgs_enter_by(<PyTypeObject *> ShardedReader, b"get_cached_session", enter_get_cached_session)
get_session_by_token = pgs_enter_by(<PyTypeObject *> ShardedReader, b"get_session_by_token", enter_get_session_by_token)
async_get_session = pgs_enter_by(<PyTypeObject *> AsyncShardedReader, b"get_session", enter_async_get_session)
async_get_cached_session = pgs_enter_by(
    <PyTypeObject *> AsyncShardedReader, b"get_cached_session", enter_async_get_cached_session
)
async_get_session_by_token = pgs_enter_by(
    <PyTypeObject *> AsyncShardedReader, b"get_session_by_token", enter_async_get_session_by_token
)
