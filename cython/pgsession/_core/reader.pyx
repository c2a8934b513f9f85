# cython: binding=False
# cython: embedsignature=True
# cython: embedsignature.format=clinic
"""Both managers have these compiled bases, which answer a hit without Python code of ours.

(Without `binding` methods are plain method descriptors, which the interpreter calls faster; the signatures are
embedded for `inspect`.)
"""

cimport cython
from libc.stdint cimport int64_t

from cpython.object cimport PyObject, PyTypeObject

from pgsession._core.arguments cimport checked_count, checked_flag
from pgsession._core.cache cimport Cache, Claim, count_bad_token, count_refresh, is_absent
from pgsession._core.clock cimport Clock
from pgsession._core.completed cimport completed
from pgsession._core.cpython_tricks cimport pgs_enter_by, pgs_method
from pgsession._core.hit cimport hit_by_token
from pgsession._core.key cimport Key, key_bytes, parse
from pgsession._core.record cimport CURRENT, PREVIOUS, SUPERSEDED
from pgsession._core.reference cimport pgs_give
from pgsession._core.token_cache cimport TokenCache, Verified

from pgsession._core.clock import Clock as MakeClock

# What a reader has before it is given a cache: never in sync, so that everything goes to _load.
cdef Cache NOTHING = Cache(1, MakeClock(manual=0), access_interval=0, lifetime=0, max_attribute_length=0)
cdef TokenCache NO_TOKENS = TokenCache(1)


cdef object ZERO = 0       # a small int, so every 0 is this one


cdef int64_t floor_of(object min_version) except? -1:
    """Return the oldest version that will do, of the argument `min_version`."""
    return 0 if min_version is ZERO else checked_count("min_version", min_version, 0, 0x7FFFFFFFFFFFFFFF)


cdef bint verify(object manager, TokenCache tokens, object token, Verified *verified) except -1:
    """Return True for a token that is ours, and what it says."""
    if type(token) is not str:
        if not isinstance(token, str):
            return False
        token = str.__str__(token)      # a subclass is laid out in another way
    if tokens.find(token, verified):
        return True
    says = manager._verify_token(token)
    if says is None:
        return False
    session_id, generation, version = says
    parse(session_id, &verified.key)
    verified.generation = generation
    verified.version = version
    tokens.remember(token, verified)
    return True


cdef class Base:
    """This class has what both readers have.

    Subclasses of the readers have `_load(key, touch, refresh, min_version)` and `_load_by_token(key, generation, touch,
    refresh, min_version)`, which read the database and return a session and an Opened, and `_load_session_by_token`, which
    returns the session of that; `_opened(session, state)`, which makes an Opened; `_write_access_soon(key)`,
    `_verify_token(token)` and `_check_open()`.
    """

    def __cinit__(self, *args, **kwargs):
        self._cache = NOTHING
        self.tokens = NO_TOKENS

    def __init__(self, Cache cache not None):
        before = self._cache            # released when it is not to be found here any more
        tokens = TokenCache(cache.capacity)
        self._cache = cache
        self.tokens = tokens

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
        return cached(self, session_id, checked_flag("touch", touch))

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
        return cached_by_token(self, token, checked_flag("touch", touch))

    def _refuse_token(self, state, key):
        """Count a token that is refused, as "superseded", "ended" or "forged"; return what opening it gives.

        `key` is that of the session that it names, None where it is forged.
        """
        self.forged_tokens += state == "forged"
        self.superseded_tokens += state == "superseded"
        self.ended_tokens += state == "ended"
        return self._opened(None, state)

    @property
    def _refused_tokens(self):
        """Return how many tokens were refused."""
        return self.forged_tokens + self.superseded_tokens + self.ended_tokens

    @property
    def _refused_tokens_by_state(self):
        """Return how many of these were forged, superseded, and of what has ended."""
        return self.forged_tokens, self.superseded_tokens, self.ended_tokens


cdef class Reader(Base):
    """This is the base of SessionManager."""

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


cdef class AsyncReader(Base):
    """This is the base of AsyncSessionManager. It is like Reader, but `_load` is a coroutine function."""

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


cdef inline object cached(Base self, object session_id, bint touch):
    cdef Key key
    parse(session_id, &key)
    return cached_by_key(self, key, touch)


cdef object not_cached(Base self):
    self._check_open()
    return None


cdef inline object get(Reader self, object session_id, bint touch, bint refresh, int64_t min_version):
    cdef Key key
    parse(session_id, &key)
    return get_by_key(self, key, touch, refresh, min_version)


cdef object load(Reader self, Key key, bint touch, bint refresh, int64_t min_version):
    """Return the session from the database, or None at once where memory knows that there is none."""
    if refresh:
        count_refresh(self._cache)
    elif is_absent(self._cache, key, min_version):
        return None
    return self._load(key_bytes(key), touch, refresh, min_version)


cdef inline object await_session(AsyncReader self, object session_id, bint touch, bint refresh, int64_t min_version):
    """Return an awaitable of the session of this id."""
    cdef Key key
    parse(session_id, &key)
    return await_by_key(self, key, touch, refresh, min_version)


cdef object await_load(AsyncReader self, Key key, bint touch, bint refresh, int64_t min_version):
    if refresh:
        count_refresh(self._cache)
    elif is_absent(self._cache, key, min_version):
        return completed(None)
    return self._load(key_bytes(key), touch, refresh, min_version)


# ---- by a token ----

cdef object refuse(Base self, const Verified *verified, Claim *claim):
    """Return what a token opens that memory refuses: the record says so, or that there is none."""
    return self._refuse_token("superseded" if claim.standing == SUPERSEDED else "ended", key_bytes(verified.key))


cdef object refuse_forged(Base self, object token):
    """Return what a token opens that nobody here has signed; who has none, as a new visitor, has forged nothing."""
    count_bad_token(self._cache)
    if isinstance(token, str):
        token = str.__str__(token)      # a subclass may compare in a way of its own
        if token:
            return self._refuse_token("forged", None)
    elif token is not None:
        return self._refuse_token("forged", None)
    return self._opened(None, "forged")


cdef object cached_by_token(Base self, object token, bint touch):
    cdef Verified verified
    if not verify(self, self.tokens, token, &verified):
        refuse_forged(self, token)
        return None
    return cached_verified(self, &verified, touch)


cdef object not_cached_by_token(Base self, const Verified *verified, Claim *claim):
    if claim.standing >= SUPERSEDED:
        refuse(self, verified, claim)
    else:
        self._check_open()
    return None


cdef object get_by_token(Reader self, object token, bint touch, bint refresh, int64_t min_version):
    """Return the session of a token, or None."""
    cdef Verified verified
    if not verify(self, self.tokens, token, &verified):
        return refuse_forged(self, token).session
    return get_verified(self, &verified, touch, refresh, min_version)


cdef object load_by_token(Reader self, const Verified *verified, Claim *claim, bint touch, bint refresh, int64_t min_version):
    """Return the session from the database, or None at once where memory refuses the token; `claim` is what that said of it."""
    if refresh:
        count_refresh(self._cache)
    elif claim.standing >= SUPERSEDED or is_absent(self._cache, verified.key, min_version):
        return refuse(self, verified, claim).session
    return self._load_session_by_token(key_bytes(verified.key), verified.generation, touch, refresh, min_version)


cdef object await_by_token(AsyncReader self, object token, bint touch, bint refresh, int64_t min_version):
    """Return an awaitable of the session of a token, or of None."""
    cdef Verified verified
    if not verify(self, self.tokens, token, &verified):
        return completed(refuse_forged(self, token).session)
    return await_verified(self, &verified, touch, refresh, min_version)


cdef object await_load_by_token(AsyncReader self, const Verified *verified, Claim *claim, bint touch, bint refresh,
                                int64_t min_version):
    if refresh:
        count_refresh(self._cache)
    elif claim.standing >= SUPERSEDED or is_absent(self._cache, verified.key, min_version):
        return completed(refuse(self, verified, claim).session)
    return self._load_session_by_token(key_bytes(verified.key), verified.generation, touch, refresh, min_version)


cdef object open_by_token(Reader self, object token, bint touch, bint refresh, int64_t min_version):
    """Return what a token opens."""
    cdef Verified verified
    if not verify(self, self.tokens, token, &verified):
        return refuse_forged(self, token)
    return open_verified(self, &verified, touch, refresh, min_version)


cdef object open_verified(Reader self, const Verified *verified, bint touch, bint refresh, int64_t min_version):
    min_version = max(min_version, verified.version)
    if refresh:
        count_refresh(self._cache)
    else:
        opened = opened_in_memory(self, verified, touch, min_version)
        if opened is not None:
            return opened
    return self._load_by_token(key_bytes(verified.key), verified.generation, touch, refresh, min_version)


cdef object await_opened(AsyncReader self, object token, bint touch, bint refresh, int64_t min_version):
    """Return an awaitable of what a token opens."""
    cdef Verified verified
    if not verify(self, self.tokens, token, &verified):
        return completed(refuse_forged(self, token))
    return await_opened_verified(self, &verified, touch, refresh, min_version)


cdef object await_opened_verified(AsyncReader self, const Verified *verified, bint touch, bint refresh, int64_t min_version):
    min_version = max(min_version, verified.version)
    if refresh:
        count_refresh(self._cache)
    else:
        opened = opened_in_memory(self, verified, touch, min_version)
        if opened is not None:
            return completed(opened)
    return self._load_by_token(key_bytes(verified.key), verified.generation, touch, refresh, min_version)


cdef object opened_in_memory(Base self, const Verified *verified, bint touch, int64_t min_version):
    """Return what a verified token opens, or None where the database has to be asked."""
    cdef Claim claim
    cdef PyObject *session = remembered_by_token(self, verified, touch, min_version, &claim)
    if session != NULL:
        return self._opened(pgs_give(session), "previous" if claim.standing == PREVIOUS else "current")
    if claim.standing >= SUPERSEDED or is_absent(self._cache, verified.key, min_version):
        return refuse(self, verified, &claim)
    return None


# ---- the short way in ----
#
# Nearly every call gives an id or a token and nothing else: there are no options to check then.

cdef pgs_method get_session, get_cached_session, get_session_by_token, async_get_session, async_get_session_by_token


cdef object enter_get_session(object self, PyObject *const *args, Py_ssize_t count, PyObject *names):
    cdef PyObject *session_id
    if count == 1 and names == NULL:
        session_id = args[0]
        return get(<Reader> self, <object> session_id, True, False, 0)
    return get_session(self, args, count, names)


cdef object enter_get_cached_session(object self, PyObject *const *args, Py_ssize_t count, PyObject *names):
    cdef PyObject *session_id
    if count == 1 and names == NULL:
        session_id = args[0]
        return cached(<Base> self, <object> session_id, True)
    return get_cached_session(self, args, count, names)


cdef object enter_get_session_by_token(object self, PyObject *const *args, Py_ssize_t count, PyObject *names):
    cdef PyObject *token
    if count == 1 and names == NULL:
        token = args[0]
        return get_by_token(<Reader> self, <object> token, True, False, 0)
    return get_session_by_token(self, args, count, names)


cdef object enter_async_get_session(object self, PyObject *const *args, Py_ssize_t count, PyObject *names):
    cdef PyObject *session_id
    if count == 1 and names == NULL:
        session_id = args[0]
        return await_session(<AsyncReader> self, <object> session_id, True, False, 0)
    return async_get_session(self, args, count, names)


cdef object enter_async_get_session_by_token(object self, PyObject *const *args, Py_ssize_t count, PyObject *names):
    cdef PyObject *token
    if count == 1 and names == NULL:
        token = args[0]
        return await_by_token(<AsyncReader> self, <object> token, True, False, 0)
    return async_get_session_by_token(self, args, count, names)


get_session = pgs_enter_by(<PyTypeObject *> Reader, b"get_session", enter_get_session)
get_cached_session = pgs_enter_by(<PyTypeObject *> Base, b"get_cached_session", enter_get_cached_session)
get_session_by_token = pgs_enter_by(<PyTypeObject *> Reader, b"get_session_by_token", enter_get_session_by_token)
async_get_session = pgs_enter_by(<PyTypeObject *> AsyncReader, b"get_session", enter_async_get_session)
async_get_session_by_token = pgs_enter_by(
    <PyTypeObject *> AsyncReader, b"get_session_by_token", enter_async_get_session_by_token
)
