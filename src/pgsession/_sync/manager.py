# Generated from src/pgsession/_async/manager.py by tools/async_to_sync.py: never edit.

"""The manager is what a service calls. It checks arguments and passes them on to the runtime."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from uuid import UUID

import psycopg
from msgspec import UNSET, UnsetType
from psycopg_pool import ConnectionPool

from pgsession import instrument
from pgsession._concurrency import (
    GRACE,
    BackgroundTasks,
    ConninfoFunction,
    Mutex,
    Thunk,
    Unclosed,
    call,
    deadline_in,
    fork,
    left_until,
)
from pgsession._core.cache import Cache
from pgsession._core.clock import Clock
from pgsession._core.hit import session_of
from pgsession._core.reader import Reader
from pgsession._core.record import Record
from pgsession._core.session import Session
from pgsession._core.token import open_session_token
from pgsession._counted import counted
from pgsession._database.conninfo import check_readable
from pgsession._protocol import events, idle_timeouts, rules
from pgsession._protocol.coherence import Coherence
from pgsession._protocol.idle_timeouts import Inactivity
from pgsession._protocol.operations import (
    Create,
    Delete,
    IfExists,
    Operation,
    Room,
    Rotation,
    Update,
    new_generation,
    new_key,
)
from pgsession._protocol.rules import microseconds
from pgsession.config import Config, microseconds_of
from pgsession.default import DEFAULT
from pgsession.errors import (
    ConfigError,
    DatabaseUnavailable,
    ListenerError,
    ManagerClosedError,
    OperationTimeout,
    SchemaError,
    SessionNotFoundError,
    SessionVersionConflict,
    WriteOutcomeUnknown,
)
from pgsession.opened import Opened
from pgsession.stats import Health, Stats
from pgsession.tokens import Signer

from .confirmation import Confirmation
from .conflict_retry import ConflictRetry
from .listener import Listener
from .lock import Lock
from .lock_renewal import LockRenewal
from .runtime import NOTHING_COUNTED, Runtime
from .section import Section

SessionId = UUID | str | bytes
AnyId = TypeVar("AnyId", bound=UUID | str | bytes)
Check = Literal["session", "attributes"]
Change = Callable[[Session], Awaitable[object] | object]

_CHECKS: tuple[Check | None, ...] = (None, "session", "attributes")
_IF_EXISTS: tuple[IfExists, ...] = ("error", "return", "replace")
CACHE_SIZE = 10_000  # sessions, where nothing is said
SHARED_CACHE_SIZE = 2_000
_LONGEST_CUT = 5 * GRACE  # seconds; only a name server that does not answer can take more
_LONGEST_LIST = 1000  # sessions in one page


def cache_size(config: Config) -> int:
    """Return how many sessions a process keeps."""
    return config.cache_size or (CACHE_SIZE if config.shared_cache is None else SHARED_CACHE_SIZE)


class SessionManager(Reader):
    """Keeps sessions in PostgreSQL and answers reads from this process's memory, in step with every other node.

    One manager serves a whole process. Open it before use, close it at the end, or use it as a context manager. One
    that is dropped without that gives a `ResourceWarning`, and is closed in the background. At the interpreter's exit
    an open one gives the warning too, and noted accesses are written within a few seconds at most, on a connection of
    their own, since an event loop may be gone by then; its locks end after their lease time.

    Every call that needs the database may raise `OperationTimeout` or `DatabaseUnavailable`, of which nothing was done,
    or psycopg's own errors, likewise; and one that writes `WriteOutcomeUnknown`. None takes longer than
    `Config.operation_timeout`, but for a wait that it asks for; one about many sessions takes that long for each step.

    Args:
        database: A conninfo ("postgresql://..." or "host=... dbname=..."), for which the manager keeps a pool of its
            own; a function that returns one, called whenever a connection is made, for passwords and tokens that
            change (with asyncio it may be a coroutine function); or a pool (`ConnectionPool`) that stays the
            caller's.
        config: How the manager works; None: with the defaults of `Config`.
        listener: The `Listener` to share with others; None: the manager has its own, connected as
            `Config.listener_conninfo` or else `database` says.
        signer: The signer of the tokens.

    Raises:
        TypeError: An argument is of a wrong type.
        ConfigError: `database` is no conninfo, or says too little to connect a listener.
    """

    _opened = Opened

    def __init__(
        self,
        database: str | ConninfoFunction | ConnectionPool[Any],
        config: Config | None = None,
        *,
        listener: Listener | None = None,
        signer: Signer | None = None,
    ) -> None:
        if isinstance(database, str) or callable(database):
            database = rules.conninfo("database", database)
            if isinstance(database, str):
                check_readable("database", database)
        else:
            rules.instance(
                "database",
                database,
                ConnectionPool,
                "a conninfo, a function that returns one, or a pool (ConnectionPool)",
            )
        if listener is not None:
            rules.instance("listener", listener, Listener, "a listener (Listener) or None")
        if signer is not None:
            rules.instance("signer", signer, Signer, "a Signer or None")
        config = Config() if config is None else rules.instance("config", config, Config, "a Config or None")
        self._config = config
        self._database = database
        self._shared_listener = listener
        self._signer = signer
        self._logger = config.logger or logging.getLogger("pgsession")
        self._clock = Clock()
        super().__init__(
            Cache(
                cache_size(config),
                self._clock,
                access_interval=microseconds_of(config.last_access_update_interval),
                lifetime=microseconds_of(config.max_session_lifetime_in_cache),
                max_attribute_length=config.max_attribute_length,
                max_session_size=config.max_session_size,
                max_attributes=config.max_attributes,
                operation_timeout=microseconds_of(config.operation_timeout),
                rotation_grace=microseconds_of(config.rotation_grace),
                codec=config.codec,
            )
        )
        self._idle_timeout = microseconds_of(config.inactivity_duration)
        self._expires_in = microseconds_of(config.session_expiration)
        self._node = secrets.token_hex(8)
        self._coherence = Coherence(
            self._cache,
            self._clock,
            max_staleness=microseconds_of(config.max_staleness),
            stale_if_error=microseconds_of(config.stale_if_error),
            logger=self._logger,
        )
        self._runtime: Runtime | None = None
        self._starting: Runtime | None = None  # while it is opened
        self._closing: Runtime | None = None  # while it is closed
        self._unclosed: Unclosed | None = None  # while it is open
        self._state: Literal["new", "open", "closed", "forked"] = "new"
        self._begin_anew()
        fork.watch(self)

    def _begin_anew(self) -> None:
        self._moving = Mutex()
        self._background = self._new_background()
        # What is begun is brought to its end. A close does not wait for those who open: it ends what they do.
        self._opener = BackgroundTasks(self._logger, most=1)
        self._closer = BackgroundTasks(self._logger, most=1)
        self._conflict_retry = ConflictRetry()

    def _new_background(self) -> BackgroundTasks:
        database = self._database
        theirs = database.max_size if isinstance(database, ConnectionPool) else None
        return BackgroundTasks(self._logger, most=theirs or self._config.pool_max_size)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._state}, {counted(len(self._cache), 'session')} in memory>"

    # Opening and closing

    def open(self) -> None:
        """Connect, check (or create) the schema, listen, and return once reads can be answered from memory.

        A manager that is open already stays as it is.

        Raises:
            SchemaError: The tables are missing or of another version; the message names the command to run.
            EventLoopError: psycopg cannot work in this kind of event loop (Windows' ProactorEventLoop).
            ListenerError: Notifications cannot reach the listener where it was pointed; the message says what to do.
            ManagerClosedError: The manager was closed before.
            ConfigError: The function that gives the conninfo returned what is none; a psycopg.OperationalError, too.
            psycopg.Error: The database cannot be reached, within its connect timeout, or refuses.
        """
        self._opener.call(self._open)

    def _open(self) -> None:
        with self._moving:
            if self._state == "open":
                return
            if self._state == "closed":
                raise ManagerClosedError("a closed manager cannot be opened again: make a new one")
            if self._state == "forked" and isinstance(self._database, ConnectionPool):
                raise ManagerClosedError(
                    "this process is a fork, and the pool belongs to its parent: make a new manager"
                )
            runtime = self._new_runtime()
            self._starting = runtime
            try:
                self._refuse_closed()  # `close` sees `_starting`, or is seen here
                warm_up_first = self._config.warm_mode == "before_ready" and self._state == "new"
                runtime.open(warm_up_first=warm_up_first)
                self._refuse_closed()
            except BaseException as error:
                self._closer.complete(partial(runtime.close, deadline_in(GRACE)), "pgsession close")
                if isinstance(error, Exception):
                    self._refuse_closed(error)
                raise
            finally:
                self._starting = None
            self._runtime = runtime
            self._watch_over(runtime)
            self._state = "open"

    def _new_runtime(self) -> Runtime:
        return Runtime(
            self._database,
            self._config,
            node=self._node,
            cache=self._cache,
            clock=self._clock,
            coherence=self._coherence,
            listener=self._shared_listener if self._state == "new" else None,
            background=self._background,
            logger=self._logger,
        )

    def _watch_over(self, runtime: Runtime) -> None:
        self._unclosed = Unclosed(
            self, f"a {type(self).__name__}", dropped=runtime.abandon, at_exit=runtime.at_exit
        )

    def _refuse_closed(self, cause: Exception | None = None) -> None:
        if self._state == "closed":
            raise ManagerClosedError("the manager was closed while it was opened") from cause

    def close(self, timeout: timedelta | float | None = 30) -> None:
        """Finish what was accepted, write noted accesses, give locks back, and disconnect.

        An `open` that is under way ends with an error. A second call does nothing. A caller who is interrupted, or
        cancelled, leaves the work to be finished without him. A function of the caller's that the library is calling
        may close the manager, and is not waited for: `on_audit_event` is told the rest afterwards.

        Args:
            timeout: A timedelta or seconds for all of it. What has not ended by then is given up, and its connections
                are cut, which takes a moment: writes that were sent have an unknown outcome, and locks end after their
                lease time. 0: at once. None: no limit.
        """
        deadline = deadline_in(rules.timeout("timeout", timeout))
        runtime = self._runtime or self._closing
        if runtime is not None:
            runtime.note_close()
        patience = left_until(deadline)
        try:
            self._closer.complete(
                partial(self._close, deadline),
                "pgsession close",
                None if patience is None else patience + _LONGEST_CUT,
            )
        except TimeoutError:
            self._logger.warning(
                "the manager is still being closed: something does not end although it was cut"
            )
        self._closer.drain(GRACE)
        self._opener.drain(GRACE)

    def _close(self, deadline: float) -> None:
        self._state = "closed"
        self._watch_no_longer()
        if self._starting is not None:
            self._starting.cut()
        with self._moving:
            runtime = self._closing = self._runtime
            self._runtime = None
            if runtime is not None:
                runtime.close(deadline)
                self._closing = None
            self._coherence.on_lost()
            self._cache.clear()

    def _watch_no_longer(self) -> None:
        if self._unclosed is not None:
            self._unclosed.closed()
            self._unclosed = None

    def __enter__(self) -> Self:
        try:
            self.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _ready(self) -> Runtime:
        if self._state == "forked" and not isinstance(self._database, ConnectionPool):
            self.open()
        return self._open_runtime()

    def _open_runtime(self) -> Runtime:
        if self._runtime is None:
            raise ManagerClosedError(_WHY_CLOSED[self._state])
        self._runtime.home.check()
        return self._runtime

    def _lock_renewal(self) -> LockRenewal:
        return (self._ready()).lock_renewal

    def _after_fork(self) -> None:
        """Start over in the child of a fork: the parent's connections, cache and node id are not ours.

        None of the connections is closed here.
        """
        if self._state == "closed":
            return
        self._watch_no_longer()
        fork.inherited.append((self._runtime, self._background, self._shared_listener))
        if self._runtime is not None:
            self._runtime.lock_renewal.disown()
        self._runtime = None
        if self._state == "open":
            self._state = "forked"
        self._begin_anew()
        self._node = secrets.token_hex(8)
        self._coherence.forked()

    # Reading: the compiled base class answers what is in memory, and calls these for the rest

    def _load(self, key: bytes, touch: bool, refresh: bool, min_version: int) -> Session | None:
        return self._load_by(key, touch, refresh, min_version, None)

    def _load_by(
        self, key: bytes, touch: bool, refresh: bool, min_version: int, deadline: float | None
    ) -> Session | None:
        record, from_cache = self._look_up(key, refresh, min_version, deadline)
        return None if record is None else self._session(record, touch, from_cache=from_cache)

    def _load_by_token(
        self, key: bytes, generation: int, touch: bool, refresh: bool, min_version: int
    ) -> Opened:
        record, from_cache = self._look_up(key, refresh, min_version, None)
        if record is None:
            return self._refuse_token("ended", key)
        state = record.standing(generation, self._clock.earliest_database_now(), self._cache.rotation_grace)
        if state == "superseded" or state == "ended":
            return self._refuse_token(state, key)
        older = state == "previous"
        return Opened(self._session(record, touch, from_cache=from_cache, by_older_token=older), state)

    def _refuse_token(self, state: Literal["superseded", "ended", "forged"], key: bytes | None) -> Opened:
        if self._runtime is not None:
            self._runtime.audit.token_refused(state, key)
        return super()._refuse_token(state, key)

    def _load_session_by_token(
        self, key: bytes, generation: int, touch: bool, refresh: bool, min_version: int
    ) -> Session | None:
        return (self._load_by_token(key, generation, touch, refresh, min_version)).session

    def _look_up(
        self, key: bytes, refresh: bool, min_version: int, deadline: float | None
    ) -> tuple[Record | None, bool]:
        """Return what the database says of a session, or where it fails what memory may; True: it was memory."""
        runtime = self._ready()
        try:
            with runtime.meter.watch("get_session"):
                record = runtime.reads.read(key, refresh=refresh, min_version=min_version, deadline=deadline)
            return record, False
        except (psycopg.Error, OperationTimeout, DatabaseUnavailable):
            stale = None if refresh else self._coherence.stale_if_error(key, min_version=min_version)
            if stale is None:
                raise
            return stale, True

    def _session(
        self, record: Record, touch: bool, *, from_cache: bool = False, by_older_token: bool = False
    ) -> Session:
        """Return a session on a record that was just read; note the access, whether or not it is cached."""
        accessed = self._clock.database_now() if touch else None
        if accessed is not None and self._cache.note_access(record, accessed):
            self._write_access_soon(record.key)
        return session_of(
            self._cache, record, from_cache=from_cache, accessed=accessed, by_older_token=by_older_token
        )

    def _check_open(self) -> None:
        if self._runtime is None and self._state != "forked":
            raise ManagerClosedError(_WHY_CLOSED[self._state])

    def _check_can_open(self) -> None:
        """Refuse a call that no opening will make possible; the child of a fork opens at its first one that waits."""
        self._check_open()
        if self._state == "forked" and isinstance(self._database, ConnectionPool):
            raise ManagerClosedError(_WHY_CLOSED[self._state])

    def _write_access_soon(self, key: bytes) -> None:
        if self._runtime is not None and self._runtime.home.here():
            self._runtime.maintenance.plan_anew()

    # Tokens

    def token(self, session: Session) -> str | None:
        """Return what a browser gets for a session: 88 characters that nobody can forge, and that a rotation ends.

        It says which version of the session it was given for, and every node shows its bearer at least that: give the
        browser a new one after a change.

        Args:
            session: The session.

        Returns:
            The token; None for a session that was opened by an older one, or that somebody else has rotated since:
            whoever has got no further than that is not given the current one.

        Raises:
            ConfigError: The manager was not given a signer.
            TypeError: `session` is not a Session.
        """
        record = rules.instance("session", session, Session, "a Session")._record
        signer = self._needed_signer()
        if session._by_older_token:
            return None
        return signer._session_token(record.key, record.generation, record.version)

    def _needed_signer(self) -> Signer:
        if self._signer is None:
            raise ConfigError("signer: tokens need the manager to have been given a signer")
        return self._signer

    def _verify_token(self, token: str) -> tuple[bytes, int, int] | None:
        return open_session_token(self._needed_signer()._session_keys, token)

    # Writing one session

    def create_session(
        self,
        user_id: str | int | UUID | None = None,
        attributes: Mapping[str, Any] | None = None,
        *,
        group_id: str | int | UUID | None = None,
        inactivity: Inactivity = DEFAULT,
        include_inactivity: bool = True,
        expires_at: datetime | None = None,
        expires_in: timedelta | float | None = None,
        session_id: SessionId | None = None,
        if_exists: IfExists = "error",
    ) -> Session:
        """Create a session, for a user who has logged in or for a visitor who has not; return it.

        Args:
            user_id: The user, kept as text of at most 512 bytes. None: an anonymous session, which counts toward
                nobody's limit.
            attributes: Values that msgspec encodes as JSON, or `Attribute(value, expires_at=)` for those that expire.
            group_id: An account or tenant, likewise kept as text.
            inactivity: After how long without an access the session ends, a timedelta or seconds, at least 1 second.
                It is stored with the session, for every node. DEFAULT: after `Config.inactivity_duration` of now. None:
                only at its expiry.
            include_inactivity: False: the same as `inactivity=None`; then `inactivity` cannot be a time.
            expires_at: When it ends at the latest, an aware datetime.
            expires_in: After how long it ends at the latest, a timedelta or seconds. Without either of these it ends
                after `Config.session_expiration`.
            session_id: An id of the caller's choice, where it has one already: a UUID, its 36-character str or 16
                bytes. Of any number of callers with one id, one creates the session. None: an id that nobody can guess.
            if_exists: What is done where there is a session of the chosen id. `"error"`: `SessionExistsError`.
                `"return"`: it is returned as it is, if it is of the same user and can be used; else
                `SessionExistsError`. `"replace"`: it ends, whosever it is, with its locks, and the new one takes its
                place: tokens of before are refused, and nothing that is held of it can be saved any more. One that has
                expired counts as absent; one that is inactive is there until the cleanup has deleted it.

        Raises:
            TooManySessionsError: The user has `Config.max_sessions` and the policy is "reject".
            SessionExistsError: There is a session of the chosen id, and `if_exists` does not allow for that.
            SessionTooLargeError, TooManyAttributesError, AttributeTooLargeError: A limit of `Config` is passed.
            AttributeCodecError: `Config.codec` has failed.
            TypeError, ValueError: An argument is not usable; the message names it.
            WriteOutcomeUnknown: The connection was lost at the wrong moment; the session may exist.
        """
        create = self._creation(
            user_id, attributes, group_id=group_id, inactivity=inactivity, include_inactivity=include_inactivity,
            expires_at=expires_at, expires_in=expires_in, session_id=session_id, if_exists=if_exists,
        )  # fmt: skip
        return self._create(create)

    def _creation(
        self,
        user_id: str | int | UUID | None,
        attributes: Mapping[str, object] | None,
        *,
        group_id: str | int | UUID | None,
        inactivity: Inactivity,
        include_inactivity: bool,
        expires_at: datetime | None,
        expires_in: timedelta | float | None,
        session_id: SessionId | None,
        if_exists: IfExists,
    ) -> Create:
        """Return what `create_session` is to do, of arguments that are usable."""
        user = rules.optional_identifier("user_id", user_id)
        group = rules.optional_identifier("group_id", group_id)
        idle = idle_timeouts.of_new(inactivity, include_inactivity, self._idle_timeout)
        ends = rules.expiry(self._clock, expires_at, expires_in)
        if ends is None:
            ends = self._clock.database_now() + self._expires_in
        chosen = rules.optional_session_id("session_id", session_id)
        if_exists = rules.choice("if_exists", if_exists, _IF_EXISTS)
        if chosen is None and if_exists != "error":
            raise ValueError(f"if_exists: must be 'error' where no session_id is given, not {if_exists!r}")
        key = self._new_key() if chosen is None else chosen
        stored = self._new_attributes(key, ends, attributes)
        return Create(
            key, new_generation(), user, group, ends, idle, stored, self._room_for(user),
            None if chosen is None else if_exists,
        )  # fmt: skip

    def _create(self, create: Create) -> Session:
        record = self._write(self._ready(), create)
        if record.generation != create.generation:
            return self._session(record, True)  # it was there
        return session_of(self._cache, record, from_cache=False)

    def _new_key(self) -> bytes:
        return new_key()

    def _room_for(self, user: str | None) -> Room:
        limit = self._config.max_sessions
        accesses = self._cache.accesses_of_user(user) if limit and user is not None else []
        return Room(limit, self._config.max_sessions_policy == "evict", accesses)

    def _new_attributes(
        self, key: bytes, ends: int, attributes: Mapping[str, Any] | None
    ) -> list[tuple[str, bytes, int | None]]:
        """Return the attributes of a new session, checked and encoded as those of any session are."""
        values = {} if attributes is None else rules.mapping("attributes", attributes)
        if not values:
            return []
        draft = session_of(self._cache, Record(key, 0, None, None, 0, 0, 0, ends, None, []), from_cache=False)
        for name, value in values.items():
            draft[name] = value
        changes = draft._changes()
        return [] if changes is None else [(name, text, until) for name, text, until, _ in changes.sets]

    def update_session(
        self,
        session: Session,
        *,
        check: Check | None = None,
        notify: bool = True,
        expires_at: datetime | None = None,
        expires_in: timedelta | float | None = None,
        include_inactivity: bool | None = None,
        group_id: str | int | UUID | UnsetType | None = UNSET,
        user_id: str | int | UUID | UnsetType | None = UNSET,
        inactivity: Inactivity | UnsetType = UNSET,
    ) -> Session:
        """Save what changed in a session, nested changes included, and return the session at its new version.

        Without `check`, what others changed meanwhile in other attributes is kept, and is in the session afterwards.
        On any error the session keeps its pending changes.

        Args:
            session: The session, with its pending changes.
            check: `"session"`: only if nobody has updated the session since it was read. `"attributes"`: only if
                nobody has changed the attributes that are to be written. All or nothing.
            notify: False: the other nodes are not told, and go on serving what they have until it expires there.
            expires_at: When it is to end, an aware datetime.
            expires_in: After how long it is to end, a timedelta or seconds.
            include_inactivity: True: it is to end by inactivity too, after the time that it has, or else
                `Config.inactivity_duration`. False: the same as `inactivity=None`. None: as before.
            group_id: Its new group; None: no group any more.
            user_id: The user who gets it; None: nobody. That is a login: see `rotate_session`, which this is as well
                then. The browser needs its new token.
            inactivity: After how long without an access it is to end, a timedelta or seconds, at least 1 second;
                DEFAULT: after `Config.inactivity_duration`; None: only at its expiry. An update is an access.

        Raises:
            SessionNotFoundError: The session is gone: deleted, expired or inactive. Or another user has it since, or it
                was replaced.
            SessionVersionConflict, AttributeVersionConflict: The check failed; nothing was written.
            TooManySessionsError: The user who is to get it has `Config.max_sessions`, and the policy is "reject".
            SessionInvalidatedError: The session object was invalidated.
            SessionTooLargeError, TooManyAttributesError: The session would grow beyond a limit of `Config`.
            AttributeCodecError: `Config.codec` has failed.
            TypeError, ValueError: An argument is not usable; the message names it.
            WriteOutcomeUnknown: The connection was lost at the wrong moment; the changes may have been written.
        """
        return self._update(
            session, None, None, check=check, notify=notify, expires_at=expires_at, expires_in=expires_in,
            include_inactivity=include_inactivity, group_id=group_id, user_id=user_id, inactivity=inactivity,
        )  # fmt: skip

    def rotate_session(
        self,
        session: Session,
        *,
        user_id: str | int | UUID | UnsetType | None = UNSET,
        grace: timedelta | float | None = None,
        group_id: str | int | UUID | UnsetType | None = UNSET,
        inactivity: Inactivity | UnsetType = UNSET,
        expires_at: datetime | None = None,
        expires_in: timedelta | float | None = None,
        wait: timedelta | float | None = None,
    ) -> Session:
        """Give a session a new token, in one write, which also saves pending changes; return the session.

        `token` gives the token. Do so at each login, with `user_id`: nobody who has planted or seen the token of before
        is logged in with it. And with `grace=0` where rights grow or a password was changed. Id, locks and attributes
        stay.

        Of two requests that rotate a session without a user, the second rotates nothing: its changes are saved, and
        `token` gives none for it, since the browser gets that of the first.

        Args:
            session: The session, with its pending changes.
            user_id: The user who gets the session, also the one who has it already; None: nobody. The limit of the
                user's sessions is enforced as in `create_session`, and what others hold of the session can no longer be
                saved where it was another user's. It ends after `Config.session_expiration`, unless an expiry is given.
                Tokens of before end at once.
            grace: For how long the token of before is still good, a timedelta or seconds, so that requests under way
                are not logged out; None: for `Config.rotation_grace`. 0: it ends at once.
            group_id: Its new group; None: no group any more.
            inactivity: As for `update_session`. With an expiry it makes "remember me" the one write of the login.
            expires_at: When it is to end, an aware datetime.
            expires_in: After how long it is to end, a timedelta or seconds.
            wait: For how long to wait, a timedelta or seconds, until no call that begins then, on any node, takes the
                token of before for the current one. None: not at all.

        Raises:
            RevocationNotConfirmed: It was done, but that is not certain yet.
            SessionNotFoundError: The session is gone: deleted, expired or inactive. Or another user has it since, or it
                was replaced.
            SessionVersionConflict: A user was given, and the session was opened by an older token, or was rotated by
                somebody else since; nothing was done.
            TooManySessionsError: The user has `Config.max_sessions`, and the policy is "reject"; nothing was done.
            SessionInvalidatedError: The session object was invalidated.
            SessionTooLargeError, TooManyAttributesError: The session would grow beyond a limit of `Config`.
            TypeError, ValueError: An argument is not usable; the message names it.
            WriteOutcomeUnknown: The connection was lost at the wrong moment; this may have been done.
        """
        if grace is None:
            lasting = microseconds_of(self._config.rotation_grace)
        else:
            lasting = microseconds("grace", grace, 0)
            if lasting and user_id is not UNSET:
                raise ValueError(
                    "grace: must be 0 or None where user_id is given, for the old token ends at once"
                )
        patience = rules.optional_seconds("wait", wait)
        runtime = self._runtime if patience is None else self._ready()
        self._update(
            session, None, lasting, expires_at=expires_at, expires_in=expires_in, group_id=group_id, user_id=user_id,
            inactivity=inactivity,
        )  # fmt: skip
        self._confirm_everywhere(runtime, patience, 1)
        return session

    def _update(
        self,
        session: Session,
        deadline: float | None,
        grace: int | None,
        /,
        *,
        check: Check | None = None,
        notify: bool = True,
        expires_at: datetime | None = None,
        expires_in: timedelta | float | None = None,
        include_inactivity: bool | None = None,
        group_id: str | int | UUID | UnsetType | None = UNSET,
        user_id: str | int | UUID | UnsetType | None = UNSET,
        inactivity: Inactivity | UnsetType = UNSET,
    ) -> Session:
        """Save changes; rotate the session where a user or a `grace`, in microseconds, is given."""
        rules.instance("session", session, Session, "a Session")
        check = rules.choice("check", check, _CHECKS)
        idle = idle_timeouts.of_changed(inactivity, include_inactivity, self._idle_timeout)
        ends = rules.expiry(self._clock, expires_at, expires_in)
        notify = rules.boolean("notify", notify) and self._config.notify_on_updates
        group = None if group_id is UNSET else (rules.optional_identifier("group_id", group_id),)
        rotation = self._rotation(session, user_id, grace)
        if ends is None and rotation is not None and rotation.user is not None:
            ends = self._clock.database_now() + self._expires_in
        runtime = self._open_runtime() if self._runtime is not None else self._ready()
        session._check_usable()
        changes = session._changes()
        if changes is None and ends is None and idle is None and group is None and rotation is None:
            return self._confirm(runtime, session, check, deadline)
        operation = Update(
            session._record,
            check=check,
            sets=changes.sets if changes is not None else [],
            deletes=changes.deletes if changes is not None else [],
            expires_at=ends,
            inactivity=idle,
            group=group,
            notify=notify,
            notify_on_conflict=self._config.notify_on_failed_updates,
            rotation=rotation,
            keep_inactivity=include_inactivity is True and inactivity is UNSET,
        )
        record = self._write(runtime, operation, deadline)
        rotated = rotation is not None and record.generation == rotation.generation
        session._saved(changes, record, 0, rotated)
        return session

    def _rotation(
        self, session: Session, user_id: str | int | UUID | UnsetType | None, grace: int | None
    ) -> Rotation | None:
        """Return the rotation that these arguments ask for.

        Who has come by an older token does not earn the current one: nothing is rotated.
        """
        if user_id is UNSET:
            return None if grace is None or session._by_older_token else Rotation(new_generation(), grace)
        user = rules.optional_identifier("user_id", user_id)
        if session._by_older_token:
            raise SessionVersionConflict(session.id, session.version, session.version)
        return Rotation(new_generation(), 0, (user,), self._room_for(user))

    def _confirm(
        self, runtime: Runtime, session: Session, check: Check | None, deadline: float | None
    ) -> Session:
        """Do an update that changes nothing: write nothing, and still tell whether the session is there, and newer."""
        based_on = session._record
        record = runtime.reads.read(based_on.key, refresh=True, deadline=deadline)
        if record is None or based_on.owner_since != record.owner_since:
            raise SessionNotFoundError(session.id, taken=record is not None)
        moved = (record.incarnation, record.version) != (based_on.incarnation, based_on.version)
        if check == "session" and moved:
            conflict = SessionVersionConflict(session.id, based_on.version, record.version)
            runtime.audit.conflict(based_on, conflict)
            raise conflict
        session._saved(None, record, 0)
        return session

    def modify_session(
        self,
        session_id: SessionId,
        change: Change,
        *,
        check: Check | None = "attributes",
        retries: int = 3,
        **options: Any,
    ) -> Session:
        """Read a session, let `change(session)` change it, and save it; on a conflict read and try again.

        Args:
            session_id: The session's id: a UUID, its 36-character str or 16 bytes.
            change: A plain function or, for asyncio, a coroutine function; called once for each try, so it should do
                nothing else.
            check: As for `update_session`.
            retries: How often to try again after a conflict.
            **options: The other arguments of `update_session`.

        Returns:
            The session at its new version.

        Raises:
            SessionNotFoundError: There is no such session (any more).
            ConflictError: Others were faster each time.
            TypeError, ValueError: An argument is not usable; the message names it.
            WriteOutcomeUnknown: The connection was lost at the wrong moment; the changes may have been written.
        """
        key = rules.session_id("session_id", session_id)
        rules.function("change", change)
        check = rules.choice("check", check, _CHECKS)
        retries = rules.count("retries", retries, 0)
        deadline = (self._ready()).store.deadline()
        attempt = partial(self._modify, key, change, deadline, check, options)
        return self._conflict_retry.run(key, attempt, retries, deadline)

    def _modify(
        self, key: bytes, change: Change, deadline: float, check: Check | None, options: dict[str, Any]
    ) -> Session:
        """Try once. A conflict drops what is in memory, so that the next try is based on something newer."""
        session = self.get_cached_session(key) or self._load_by(key, True, False, 0, deadline)
        if session is None:
            raise SessionNotFoundError(UUID(bytes=key))
        call(change, session)
        return self._update(session, deadline, None, check=check, **options)

    def delete_session(self, session_id: SessionId, *, wait: timedelta | float | None = None) -> bool:
        """End a session, on every node, and its locks with it.

        Args:
            session_id: The session's id: a UUID, its 36-character str or 16 bytes.
            wait: For how long to wait, a timedelta or seconds, until no `get_session` that begins then, on any node,
                returns it; also where somebody else has ended it. What was given out before lives until its request
                ends, but is saved no more. None: not at all.

        Returns:
            False if there was no live session of this id.

        Raises:
            RevocationNotConfirmed: It has ended, but that is not certain yet.
            TypeError, ValueError: The id is of a wrong type or malformed.
            WriteOutcomeUnknown: The connection was lost at the wrong moment; the session may have ended.
        """
        key = rules.session_id("session_id", session_id)
        patience = rules.optional_seconds("wait", wait)
        runtime = self._ready()
        ended = True
        try:
            self._write(runtime, Delete(key))
        except SessionNotFoundError:
            ended = False
        except BaseException:
            # Whoever wanted to end it is not shown it by this node, whatever became of that.
            with Section(self._coherence):
                self._coherence.drop(events.Deleted(key))
            raise
        self._confirm_everywhere(runtime, patience, int(ended))
        return ended

    def _confirm_everywhere(self, runtime: Runtime | None, patience: float | None, done: int) -> None:
        """Wait for so many seconds until no node serves what this runtime has ended; None: not at all.

        A manager that was closed meanwhile has ended it all the same.
        """
        if patience is None or runtime is None:
            return
        confirmation = Confirmation(
            runtime.store, self._clock.now, runtime.longest, lambda: self._runtime is runtime
        )
        confirmation.wait(patience, done)

    def _write(self, runtime: Runtime, operation: Operation, deadline: float | None = None) -> Any:
        if runtime.meter.active:
            with runtime.meter.watch(_called(operation)):
                result = runtime.group_commit.write(operation, deadline)
        else:
            result = runtime.group_commit.write(operation, deadline)
        if self._cache.many_evicted_accesses:
            runtime.maintenance.write_accesses_soon()
        return result

    # Many sessions

    def load_sessions(self, ids: Iterable[AnyId], *, touch: bool = True) -> dict[AnyId, Session]:
        """Return the live ones among many sessions, by the ids that were given; read up to 256 by one statement.

        What is in memory is answered from there, and what is read enters it, as by `get_session`. Each statement has
        `operation_timeout` for itself.

        Args:
            ids: The ids, each a UUID, its 36-character str or 16 bytes. One that is given in two forms has a `Session`
                for each.
            touch: False: this is no access to them.

        Raises:
            OperationTimeout: The database did not answer in time; `done` sessions were there by then.
            TypeError, ValueError: An id is of a wrong type or malformed.
        """
        keys = rules.session_ids("ids", ids)
        rules.boolean("touch", touch)
        runtime = self._ready()
        loaded = {given: self.get_cached_session(key, touch=touch) for given, key in keys.items()}
        unknown = (keys[given] for given, session in loaded.items() if session is None)
        missing = dict.fromkeys(key for key in unknown if not self._cache.is_absent(key))
        records = runtime.reads.read_many(list(missing), len(keys) - len(missing))
        for given, key in keys.items():
            if loaded[given] is None and key in records:
                loaded[given] = self._session(records[key], touch)
        return {given: session for given, session in loaded.items() if session is not None}

    def count_sessions(
        self, *, user_id: str | int | UUID | None = None, group_id: str | int | UUID | None = None
    ) -> int:
        """Return the number of live sessions: of a user, of a group, of a user in a group, or without either of all.

        The database looks at each session that it counts.

        Args:
            user_id: The user, as given to `create_session`.
            group_id: The group, as given to `create_session`.
        """
        user = rules.optional_identifier("user_id", user_id)
        group = rules.optional_identifier("group_id", group_id)
        return (self._ready()).store.count(user, group)

    def list_user_sessions(
        self, user_id: str | int | UUID, *, limit: int = 100, after: Session | SessionId | None = None
    ) -> list[Session]:
        """Return a page of a user's live sessions, newest access first, as for a "your devices" page.

        That is no access to them. The order is that of the accesses which are in the database: each node's arrive there
        within `Config.last_access_update_interval`; the `last_accessed` of a session says what this node knows. No
        session comes twice in a walk through the pages. One that is accessed meanwhile moves to the front, and may so
        be missing from the later pages.

        Args:
            user_id: The user, as given to `create_session`.
            limit: How many at most, from 1 to 1000.
            after: The last session of the page before, as it was listed; or its id, which counts by the access that is
                in the database now. None: the first page.

        Raises:
            SessionNotFoundError: `after` is the id of a session that is none of this user's, or not live any more.
        """
        user = rules.identifier("user_id", user_id)
        return self._list("user", user, limit, after)

    def list_group_sessions(
        self, group_id: str | int | UUID, *, limit: int = 100, after: Session | SessionId | None = None
    ) -> list[Session]:
        """Return a page of a group's live sessions, newest access first, as `list_user_sessions` does for a user.

        Args:
            group_id: The group, as given to `create_session`.
            limit: How many at most, from 1 to 1000.
            after: The last session of the page before, or its id; None: the first page.

        Raises:
            SessionNotFoundError: `after` is the id of a session that is not in this group, or not live any more.
        """
        group = rules.identifier("group_id", group_id)
        return self._list("group", group, limit, after)

    def _list(
        self, subject: Literal["user", "group"], name: str, limit: int, after: Session | SessionId | None
    ) -> list[Session]:
        """Return a page with what this node knows of each session's last access. Listing does not fill the cache."""
        limit = rules.count("limit", limit, 1, _LONGEST_LIST)
        position = self._position(subject, name, after)
        return self._page(subject, name, limit, position)

    def _position(
        self, subject: Literal["user", "group"], name: str, after: Session | SessionId | None
    ) -> tuple[int, bytes] | None:
        """Return behind which access and id a page begins, None for the first."""
        key = None if isinstance(after, Session) else rules.optional_session_id("after", after)
        last = after._record if isinstance(after, Session) else None
        if key is not None:
            store = (self._ready()).store
            last, *_ = store.read(key, store.deadline())
            if last is None or name != (last.user_id if subject == "user" else last.group_id):
                raise SessionNotFoundError(UUID(bytes=key))
        return None if last is None else (last.last_accessed, last.key)

    def _page(
        self, subject: Literal["user", "group"], name: str, limit: int, position: tuple[int, bytes] | None
    ) -> list[Session]:
        store = (self._ready()).store
        records, incarnation = store.list_page(subject, name, limit, position, store.deadline())
        with Section(self._coherence):
            self._coherence.observed([(record.key, record.version) for record in records], incarnation)
        accesses = dict(self._cache.accesses_of_user(name)) if subject == "user" else {}
        return [
            session_of(
                self._cache, record, from_cache=False,
                accessed=max(record.last_accessed, accesses.get(record.key, 0)),
            )
            for record in records
        ]  # fmt: skip

    def delete_user_sessions(
        self,
        user_id: str | int | UUID,
        *,
        keep: SessionId | None = None,
        wait: timedelta | float | None = None,
    ) -> int:
        """End a user's sessions everywhere; return how many ended.

        Args:
            user_id: The user, as given to `create_session`.
            keep: The id of a session that goes on.
            wait: For how long to wait until no node serves any of them, as `delete_session` does. None: not at all.

        Raises:
            RevocationNotConfirmed: They have ended, but that is not certain yet.
        """
        user = rules.identifier("user_id", user_id)
        kept = rules.optional_session_id("keep", keep)
        patience = rules.optional_seconds("wait", wait)
        runtime = self._ready()
        with self._dropping(events.UserChanged(user)) as dropping:
            delete = partial(runtime.store.delete_user, user, kept, dropping.these)
            count = self._revoke(delete, runtime, user_id=user)
        self._confirm_everywhere(runtime, patience, count)
        return count

    def delete_group_sessions(
        self, group_id: str | int | UUID, *, wait: timedelta | float | None = None
    ) -> int:
        """End every session of a group; return how many ended.

        Args:
            group_id: The group, as given to `create_session`.
            wait: For how long to wait until no node serves any of them, as `delete_session` does. None: not at all.

        Raises:
            RevocationNotConfirmed: They have ended, but that is not certain yet.
        """
        group = rules.identifier("group_id", group_id)
        patience = rules.optional_seconds("wait", wait)
        runtime = self._ready()
        with self._dropping(events.GroupChanged(group)) as dropping:
            delete = partial(runtime.store.delete_group, group, dropping.these)
            count = self._revoke(delete, runtime, group_id=group)
        self._confirm_everywhere(runtime, patience, count)
        return count

    def delete_all_sessions(self, *, wait: timedelta | float | None = None) -> int:
        """End every session; return how many ended.

        Args:
            wait: For how long to wait until no node serves any of them, as `delete_session` does. None: not at all.

        Raises:
            RevocationNotConfirmed: They have ended, but that is not certain yet.
        """
        patience = rules.optional_seconds("wait", wait)
        runtime = self._ready()
        with self._dropping(events.Everything()) as dropping:
            count = self._revoke(partial(runtime.store.delete_all, dropping.these), runtime)
        self._confirm_everywhere(runtime, patience, count)
        return count

    def _revoke(
        self,
        delete: Thunk[int],
        runtime: Runtime,
        *,
        user_id: str | None = None,
        group_id: str | None = None,
    ) -> int:
        """Do a deletion of many, and tell of it; also of what was deleted where it was not done in time."""
        count = 0
        try:
            count = delete()
        except OperationTimeout as error:
            count = error.done
            raise
        finally:
            runtime.audit.ended("revoked", user_id=user_id, group_id=group_id, count=count)
        return count

    def delete_expired_sessions(self) -> int:
        """Delete the sessions that have expired or are inactive, as each node's cleanup does; return how many.

        It is for a maintenance job, where `Config.cleanup_interval` is 0. Nobody could read them any more. It goes in
        steps; where another node is at it already, the rest is left to that.

        Raises:
            OperationTimeout: A step was not done in time; `done` sessions were deleted before.
        """
        return (self._ready()).maintenance.delete_expired()

    def delete_attribute_from_user_sessions(self, user_id: str | int | UUID, key: str) -> int:
        """Remove an attribute from each of a user's sessions, to be computed anew; return how many had it.

        Args:
            user_id: The user, as given to `create_session`.
            key: The attribute's key.
        """
        user = rules.identifier("user_id", user_id)
        name = rules.attribute_key("key", key)
        runtime = self._ready()
        with self._dropping(events.UserChanged(user)) as dropping:
            return runtime.store.drop_attribute(user, name, dropping.these)

    def evict_user_sessions(self, user_id: str | int | UUID) -> None:
        """Drop a user's sessions from every node's memory; the database keeps them.

        Args:
            user_id: The user, as given to `create_session`.
        """
        self._drop_everywhere(events.UserChanged(rules.identifier("user_id", user_id)))

    def clear_cache(self) -> None:
        """Empty every node's memory; the database keeps the sessions."""
        self._drop_everywhere(events.Everything())

    def _drop_everywhere(self, item: events.UserChanged | events.Everything) -> None:
        runtime = self._ready()
        with self._dropping(item):
            runtime.store.notify([item])

    def _dropping(self, item: events.UserChanged | events.GroupChanged | events.Everything) -> _Dropping:
        return _Dropping(self._coherence, item)

    # Locks, statistics and health

    def lock(
        self,
        resource: str,
        *,
        session_id: SessionId | None = None,
        lease_time: timedelta | float = 60,
        heartbeat_interval: timedelta | float = 10,
        max_retries: int | None = 2,
        retry_delay: timedelta | float = 0.001,
    ) -> Lock:
        """Make a distributed lock, which has one holder among all nodes for as long as it is renewed.

        Nothing is acquired yet: see `Lock`. A lock can end before its lease time is over, and its holder may hear
        of it after somebody else has it: at the latest with the next heartbeat, `heartbeat_interval` after the last
        one, or `lease_time` after that where the database is not reached (`Lock.lost`). Meanwhile the fencing
        `token` lets a store refuse its writes.

        Args:
            resource: What is locked; text of at most 512 bytes.
            session_id: A live session that the lock ends with.
            lease_time: Seconds (or a timedelta) after which a holder that stopped renewing has lost it.
            heartbeat_interval: Seconds (or a timedelta) from one renewal to the next; less than `lease_time`.
            max_retries: How often `acquire` without a timeout tries again; None: until it succeeds.
            retry_delay: Seconds (or a timedelta) to wait before trying again, unless a release wakes it earlier.

        Raises:
            TypeError, ValueError: An argument is not usable; the message names it.
            ManagerClosedError: The manager is not open.
        """
        name = rules.identifier("resource", resource)
        key = rules.optional_session_id("session_id", session_id)
        lease = microseconds("lease_time", lease_time)
        heartbeat = microseconds("heartbeat_interval", heartbeat_interval)
        if heartbeat >= lease:
            raise ValueError(
                f"heartbeat_interval: must be less than lease_time ({lease_time}), not {heartbeat_interval}"
            )
        if max_retries is not None:
            max_retries = rules.count("max_retries", max_retries, 0)
        delay = rules.seconds("retry_delay", retry_delay)
        self._check_can_open()
        return Lock(
            self._lock_renewal,
            self._clock,
            name,
            key,
            lease=lease,
            heartbeat=heartbeat,
            max_retries=max_retries,
            retry_delay=delay,
        )

    def stats(self) -> Stats:
        """Return the counters since the manager was made, and gauges of this moment, without a query."""
        self._check_can_open()
        counters, cached = self._coherence.counters, self._cache.stats()
        forged, superseded, ended = self._refused_tokens_by_state
        return Stats(
            cached_sessions=len(self._cache),
            cache_capacity=self._cache.capacity,
            hits=cached["hits"],
            misses=cached["misses"],
            negative_hits=cached["negative_hits"],
            evictions=cached["evictions"],
            expirations=cached["expirations"],
            fills=counters.fills,
            joined_fills=counters.joined_fills,
            discarded_fills=counters.discarded_fills,
            stale_served=counters.stale_served,
            events=counters.events,
            malformed_events=counters.malformed_events,
            invalidations=counters.invalidations,
            proofs=counters.proofs,
            listener_losses=counters.listener_losses,
            resyncs=counters.resyncs,
            misses_out_of_sync=cached["misses_out_of_sync"],
            misses_not_cached=cached["misses_not_cached"],
            misses_over=cached["misses_over"],
            misses_outdated=cached["misses_outdated"],
            misses_refreshed=cached["misses_refreshed"],
            misses_refused=cached["misses_refused"],
            refused_tokens=forged + superseded + ended,
            forged_tokens=forged,
            superseded_tokens=superseded,
            ended_tokens=ended,
            pending_accesses=cached["pending_accesses"],
            lost_accesses=cached["lost_accesses"],
            shared_hits=cached["shared_hits"],
            ring_overruns=cached["ring_overruns"],
            **(NOTHING_COUNTED if self._runtime is None else self._runtime.counters()),
        )

    def check_health(self, *, timeout: timedelta | float = 5) -> Health:
        """Ask the database, and tell whether this node can do its work.

        Nothing is raised where it cannot: not for a database that is down, nor by a manager that is not open. In the
        child of a fork it opens the manager first.

        Args:
            timeout: Seconds (or a timedelta) after which a database that has not answered counts as down; at most
                `Config.operation_timeout`.

        Raises:
            TypeError, ValueError: The timeout is not usable; the message names it.
            EventLoopError: The manager was opened by another event loop.
        """
        patience = rules.seconds("timeout", timeout)
        try:
            runtime = self._ready()
        except (ManagerClosedError, psycopg.Error, SchemaError, ListenerError) as error:
            return _not_open(str(error))
        return runtime.check_health(patience)


def _not_open(reason: str) -> Health:
    """Return the health of a manager that is not open, or of a fork's that could not be opened."""
    return Health(
        ready=False, healthy=False, reason=reason, in_sync=False, proof_age=None, listening=False, database=reason,
        round_trip=None, pool_size=0, pool_waiting=0, queued_writes=0, oldest_write=None,
    )  # fmt: skip


def _called(operation: Operation) -> instrument.Operation:
    """Return what the instrument has for the call of an operation."""
    if isinstance(operation, Create):
        return "create_session"
    if isinstance(operation, Delete):
        return "delete_session"
    return "rotate_session" if isinstance(operation, Update) and operation.rotation else "update_session"


class _Dropping:
    """Stands around an own statement about many sessions, to drop them once it returned or its outcome is unknown.

    Nothing that was cached or under way before is served any more then (C3, C7). What memory says of a session's user
    and group may be outdated, so each step of the statement tells which sessions it was about. Where the outcome of one
    is unknown, nobody can say which those were.
    """

    def __init__(
        self, coherence: Coherence, item: events.UserChanged | events.GroupChanged | events.Everything
    ) -> None:
        self._coherence = coherence
        self._item = item

    def __enter__(self) -> Self:
        return self

    def these(self, keys: list[bytes]) -> None:
        """Drop these sessions: a step of the statement is done."""
        with Section(self._coherence):
            self._coherence.drop(*map(events.Deleted, keys))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        unknown = kind is not None and issubclass(kind, WriteOutcomeUnknown)
        with Section(self._coherence):
            self._coherence.drop(events.Everything() if unknown else self._item)


_WHY_CLOSED = {
    "new": "the manager is not open: call open(), or use it in a with block",
    "open": "the manager is not open",
    "closed": "the manager is closed",
    "forked": "this process is a fork, and the manager's pool belongs to its parent: make a new manager",
}
