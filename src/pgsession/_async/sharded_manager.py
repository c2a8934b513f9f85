"""The sharded manager keeps sessions on several servers: it finds the shard of each call, and has that answer."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar, cast
from uuid import UUID

import msgspec
import psycopg
from msgspec import UNSET, UnsetType

from pgsession._concurrency import (
    GRACE,
    AsyncAction,
    AsyncBackgroundTasks,
    AsyncMutex,
    Unclosed,
    async_call,
    deadline_in,
    fork,
    left_until,
)
from pgsession._core.cache import Cache
from pgsession._core.clock import Clock
from pgsession._core.record import Record
from pgsession._core.session import Session
from pgsession._core.sharded_reader import AsyncShardedReader, Shards
from pgsession._counted import counted
from pgsession._database.shard_mark import ShardMark
from pgsession._protocol import idle_timeouts, rules
from pgsession._protocol.idle_timeouts import Inactivity
from pgsession._protocol.operations import Create, IfExists, Update, new_generation
from pgsession._protocol.shards import MOST, home_of, home_of_resource, id_in
from pgsession.config import LEAST_SHARED, Config
from pgsession.default import DEFAULT
from pgsession.errors import (
    AttributeVersionConflict,
    ConfigError,
    ConflictError,
    ManagerClosedError,
    PgSessionError,
    SessionNotFoundError,
    SessionVersionConflict,
    ShardsFailed,
    TooManySessionsError,
    WriteOutcomeUnknown,
)
from pgsession.opened import Opened
from pgsession.shard import CitusShards, Shard, complete
from pgsession.stats import Health, Stats
from pgsession.tokens import Signer

from .citus_place import LOCAL, AsyncCitusPlace
from .lock import AsyncLock
from .manager import (
    _CHECKS,
    _LONGEST_CUT,
    _LONGEST_LIST,
    _WHY_CLOSED,
    AnyId,
    AsyncSessionManager,
    Change,
    Check,
    SessionId,
    _not_open,
    cache_size,
)
from .places import AsyncPlaces
from .server import seconds_of
from .shard import AsyncPlace, AsyncShardManager

if TYPE_CHECKING:
    from pgsession._core.session import Changes

R = TypeVar("R")

_PATIENCE_WHEN_DROPPED = 2  # seconds to close what was dropped
_COPIES = 5  # of a session that others change while it moves to its user's shard
_HIGHEST = {"proof_age", "clock_error", "notification_queue_usage", "oldest_write", "nodes"}
_OF_A_SERVER = {"pool_size", "pool_waiting"}


class AsyncShardedSessionManager(AsyncShardedReader, AsyncSessionManager):
    """Keeps sessions on several PostgreSQL servers, each user's on one of them; otherwise an `AsyncSessionManager`.

    A shard is a schema of its own, with tables, functions and a channel. A server has one or several, which share one
    pool and one listener. A user's shard follows from a hash of the user id, a session's stands in its id (a UUID of
    version 8), so no call about one user or session asks more than one server, and a server that is down takes its
    own users only: their calls fail as they do with an `AsyncSessionManager` whose server is down. Calls about a group,
    or about everything, ask every shard; they raise `ShardsFailed`, which names those that were done.

    Every node has to be given the same shards in the same order. Their number is fixed once there are users; which
    server a shard is on can change. The tables say which shard of how many they are, and `open` compares.

    What is different from an `AsyncSessionManager`:

    - A session that is given to a user of another shard moves there, with another id: its locks end, and so do all of
      its tokens. `rotate_session` and `update_session` return it as it is then.
    - A chosen `session_id` has to be one of the user's shard: `id_for` makes one of any UUID.
    - A lock lives in the shard of its resource, and can be tied to a session of that shard only: a resource whose name
      ends with a session's id, as in `f"cart:{session.id}"`, is in the shard of that session.
    - `Config.cache_size` and `shared_cache_size` are for all shards together, each of which has an equal part;
      `pool_max_size` is a server's.

    Args:
        shards: A `Shard` for each, or only its conninfo; from 1 to 4096. Or `CitusShards`.
        config: How the manager works; None: with the defaults of `Config`.
        signer: The signer of the tokens.

    Raises:
        TypeError: An argument is of a wrong type.
        ConfigError: A field is given that cannot be meant for several servers, or two shards are the same.
    """

    def __init__(
        self,
        shards: Sequence[Shard | str] | CitusShards,
        config: Config | None = None,
        *,
        signer: Signer | None = None,
    ) -> None:
        config = Config() if config is None else rules.instance("config", config, Config, "a Config or None")
        if signer is not None:
            rules.instance("signer", signer, Signer, "a Signer or None")
        given: list[Shard] | CitusShards
        legacy: int | None = None
        if isinstance(shards, CitusShards):
            given = _checked_for_citus(shards, config)
        else:
            given = _checked(shards, config)
            legacy = next((number for number, shard in enumerate(given) if shard.legacy), None)
        self._config = config
        self._signer = signer
        self._legacy = legacy
        self._logger = config.logger or logging.getLogger("pgsession")
        self._runtime = None  # it has none of its own: its shards have
        self._state = "new"
        self._unclosed = None
        self._given = given
        self._begin_anew()
        self._make()
        fork.watch(self)

    def _make(self) -> None:
        """Make the managers of the shards, none of which has been open."""
        if isinstance(self._given, CitusShards):
            self._all, places = _made_by_citus(self._given, self._config, self._signer, self._logger)
        else:
            self._all, places = _made(self._given, self._config, self._signer, self._logger)
        self._places = AsyncPlaces(places, self._logger)
        cache = Cache(1, Clock(manual=0), access_interval=0, lifetime=0, max_attribute_length=0)
        AsyncShardedReader.__init__(
            self, cache, Shards(self._all, -1 if self._legacy is None else self._legacy)
        )

    def _begin_anew(self) -> None:
        self._moving = AsyncMutex()
        # What is begun is brought to its end. A close does not wait for those who open: it ends what they do.
        self._opener = AsyncBackgroundTasks(self._logger, most=1)
        self._closer = AsyncBackgroundTasks(self._logger, most=1)
        self._is_opening = False
        # A login of a thread that somebody interrupts goes on in one of these, of which there are no more than callers.
        self._logins = AsyncBackgroundTasks(self._logger, most=sys.maxsize)

    def __repr__(self) -> str:
        cached = sum(len(shard._cache) for shard in self._all)
        return (
            f"<{type(self).__name__} {self._state}, {counted(len(self._all), 'shard')}, "
            f"{counted(cached, 'session')} in memory>"
        )

    # Which shard

    def shard_of_user(self, user_id: str | int | UUID) -> int:
        """Return the number of the shard that a user's sessions are in.

        Args:
            user_id: The user, as given to `create_session`.
        """
        return home_of(rules.identifier("user_id", user_id), len(self._all))

    def shard_of_session(self, session_id: SessionId) -> int | None:
        """Return the number of the shard that a session id belongs to, None where it belongs to none.

        Args:
            session_id: The session's id: a UUID, its 36-character str or 16 bytes.
        """
        number = self._shards.number(session_id)
        return None if number < 0 else number

    def id_for(self, given: UUID, user_id: str | int | UUID | None = None) -> UUID:
        """Return the id that a session of a chosen id has in the shard of its user, always the same one.

        110 bits of the UUID stay, so give one whose bits are random or a hash.

        Args:
            given: The UUID.
            user_id: The user whom the session is created for; None: nobody, whose shard follows from the UUID.
        """
        own = UUID(bytes=rules.session_id("given", rules.instance("given", given, UUID, "a UUID")))
        user = rules.optional_identifier("user_id", user_id)
        return id_in(home_of(own.hex if user is None else user, len(self._all)), own)

    def _home(self, user: str) -> AsyncShardManager:
        return self._all[home_of(user, len(self._all))]

    def _home_of_anybody(self) -> AsyncShardManager:
        """Return any shard whose server is not known to be down, if there is one."""
        there = [shard for shard in self._all if shard.runtime and not shard.runtime.is_known_down]
        return (there or self._all)[home_of(None, len(there or self._all))]

    def _of_user(self, user: str) -> list[AsyncShardManager]:
        """Return the shards in which a user may have sessions, the own one first."""
        home = self._home(user)
        if self._legacy is None or self._all[self._legacy] is home:
            return [home]
        return [home, self._all[self._legacy]]

    def _of_session(self, key: bytes) -> AsyncShardManager | None:
        number = self._shards.number(key)
        return None if number < 0 else self._all[number]

    def _of_given(self, session: Session) -> AsyncShardManager:
        record = rules.instance("session", session, Session, "a Session")._record
        shard = self._of_session(record.key)
        if shard is None:
            raise SessionNotFoundError(session.id)
        return shard

    async def _on(
        self, shards: Sequence[AsyncShardManager], do: AsyncAction[AsyncShardManager, R]
    ) -> list[R]:
        """Return what it gives on each of these shards.

        Raises:
            ShardsFailed: It failed on some of several; of one, what that failed with.
        """
        self._check_can_open()
        if len(shards) == 1:
            return [await do(shards[0])]
        done: dict[int, R] = {}
        failed: dict[int, Exception] = {}
        until = time.monotonic() + seconds_of(self._config.operation_timeout)
        for shard, result, error in await self._places.of_each(shards, do, until):
            if error is not None:
                failed[shard.mark.number] = error
            else:
                done[shard.mark.number] = cast(R, result)
        if failed:
            raise ShardsFailed(done, failed) from next(iter(failed.values()))
        return list(done.values())

    # Opening and closing

    async def open(self) -> None:
        """Connect to every server, check (or create) each schema, listen, and return once reads can be answered.

        A server that cannot be reached does not keep the others from work: calls about its users raise
        `DatabaseUnavailable`, and it is tried again until it is there. A manager that is open already stays as it is,
        and one that could not be opened can be tried again.

        Raises:
            SchemaError: Tables are missing or of another version; the message names the command to run.
            ConfigError: Tables say that they are another shard than they are given for.
            EventLoopError: psycopg cannot work in this kind of event loop (Windows' ProactorEventLoop).
            ListenerError: Notifications cannot reach a listener where it was pointed; the message says what to do.
            ManagerClosedError: The manager was closed before.
            psycopg.Error: No server can be reached.
        """
        await self._opener.call(self._open)

    async def _open(self) -> None:
        async with self._moving:
            if self._state == "open":
                return
            if self._state == "closed":
                raise ManagerClosedError("a closed manager cannot be opened again: make a new one")
            self._is_opening = True
            try:
                self._refuse_closed()  # `close` sees `_is_opening`, or is seen here
                await self._places.open()
                self._refuse_closed()
            except BaseException as error:
                await self._closer.complete(partial(self._places.close, 0), "pgsession close")
                if isinstance(error, Exception):
                    self._refuse_closed(error)
                self._make()
                raise
            finally:
                self._is_opening = False
            self._unclosed = Unclosed(
                self,
                f"a {type(self).__name__}",
                dropped=partial(self._places.abandon, _PATIENCE_WHEN_DROPPED),
                at_exit=self._places.at_exit,
            )
            self._state = "open"

    async def close(self, timeout: timedelta | float | None = 30) -> None:
        """Finish what was accepted on every server, write noted accesses, give locks back, and disconnect.

        An `open` that is under way ends with an error. A second call does nothing. A caller who is interrupted, or
        cancelled, leaves the work to be finished without him.

        Args:
            timeout: A timedelta or seconds for all of it. What has not ended by then is given up, and its connections
                are cut. 0: at once. None: no limit.
        """
        deadline = deadline_in(rules.timeout("timeout", timeout))
        self._places.note_close()
        patience = left_until(deadline)
        try:
            await self._closer.complete(
                partial(self._close, deadline),
                "pgsession close",
                None if patience is None else patience + _LONGEST_CUT,
            )
        except TimeoutError:
            self._logger.warning(
                "the manager is still being closed: something does not end although it was cut"
            )
        await self._closer.drain(GRACE)
        await self._opener.drain(GRACE)

    async def _close(self, deadline: float) -> None:
        before, self._state = self._state, "closed"
        if self._unclosed is not None:
            self._unclosed.closed()
            self._unclosed = None
        if self._is_opening:
            await self._places.close(0)
        async with self._moving:
            if before == "closed":
                return
            await self._logins.drain(left_until(deadline))
            await self._places.close(left_until(deadline))

    def _after_fork(self) -> None:
        """Start over in the child of a fork; each shard does so by itself."""
        if self._state == "closed":
            return
        if self._unclosed is not None:
            self._unclosed.closed()
            self._unclosed = None
        if self._state == "open":
            self._state = "forked"
        self._begin_anew()
        self._places.after_fork()

    def _refuse_closed(self, cause: Exception | None = None) -> None:
        if self._state == "closed":
            raise ManagerClosedError("the manager was closed while it was opened") from cause

    def _check_open(self) -> None:
        if self._state not in ("open", "forked"):
            raise ManagerClosedError(_WHY_CLOSED[self._state])

    def _check_can_open(self) -> None:
        self._check_open()
        self._places.check()

    def _refuse_token(self, state: Literal["superseded", "ended", "forged"], key: bytes | None) -> Opened:
        runtime = next((shard.runtime for shard in self._all if shard.runtime is not None), None)
        if runtime is not None:
            runtime.audit.token_refused(state, key)
        return AsyncShardedReader._refuse_token(self, state, key)

    # Writing one session

    async def create_session(
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
        """Create a session in its user's shard; a visitor's in any whose server is there. See `SessionManager`.

        Args:
            user_id: As for `SessionManager.create_session`, as are all others.
            attributes: Its attributes.
            group_id: Its group.
            inactivity: Its idle timeout.
            include_inactivity: False: the same as `inactivity=None`.
            expires_at: When it ends at the latest.
            expires_in: After how long it ends at the latest.
            session_id: An id of the caller's choice in the shard of the user: `id_for` makes one.
            if_exists: What is done where there is a session of the chosen id.

        Raises:
            ValueError: The chosen id is of another shard than the user.
            Exception: What `SessionManager.create_session` raises.
        """
        user = rules.optional_identifier("user_id", user_id)
        chosen = rules.optional_session_id("session_id", session_id)
        if chosen is not None:
            shard = self._of_chosen(chosen, user)
        else:
            shard = self._home_of_anybody() if user is None else self._home(user)
        create = shard._creation(
            user, attributes, group_id=group_id, inactivity=inactivity, include_inactivity=include_inactivity,
            expires_at=expires_at, expires_in=expires_in, session_id=chosen, if_exists=if_exists,
        )  # fmt: skip
        self._check_can_open()
        if user is not None:
            await self._make_room_in_legacy(user)
        return await shard._create(create)

    def _of_chosen(self, chosen: bytes, user: str | None) -> AsyncShardManager:
        shard = self._of_session(chosen)
        version = chosen[6] >> 4
        if shard is None or (shard.mark.number == self._legacy and version != 8):
            raise ValueError(
                "session_id: must name a shard, for that is how it is found: make it by id_for(uuid, user_id)"
            )
        if user is not None and shard is not self._home(user):
            raise ValueError(
                f"session_id: names shard {shard.mark.number}, and the user's sessions are in shard "
                f"{self._home(user).mark.number}: make it by id_for(uuid, user_id)"
            )
        return shard

    async def _make_room_in_legacy(self, user: str, coming: Record | None = None) -> None:
        """Keep a user's sessions of before there were shards within the limit, where another one is to come.

        Args:
            user: The user.
            coming: The one that comes, which does not count where it is the user's already; None: it is a new one.
        """
        limit = self._config.max_sessions
        if not limit:
            return
        home, *others = self._of_user(user)
        if not others:
            return
        legacy = others[0]
        own = None if coming is None or coming.user_id != user else coming.key
        its = None if own is None else self._of_session(own)
        there = await legacy.count_sessions(user_id=user) - (its is legacy)
        if there <= 0:
            return
        over = there + await home.count_sessions(user_id=user) - (its is home) + 1 - limit
        if over <= 0:
            return
        if self._config.max_sessions_policy == "reject":
            raise TooManySessionsError(user, limit)
        page = await legacy._page("user", user, _LONGEST_LIST, None)
        oldest = [session.id for session in page if session._record.key != own]
        for session_id in oldest[-over:]:
            await legacy.delete_session(session_id)

    async def update_session(
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
        """Save what changed in a session, as `SessionManager.update_session` does, and return the session.

        One that is given to a user of another shard moves there: see `rotate_session`.

        Args:
            session: The session, with its pending changes.
            check: As for `SessionManager.update_session`, as are all others.
            notify: False: the other nodes are not told.
            expires_at: When it is to end.
            expires_in: After how long it is to end.
            include_inactivity: True: it is to end by inactivity too.
            group_id: Its new group.
            user_id: The user who gets it.
            inactivity: Its idle timeout.
        """
        shard = self._of_given(session)
        user = _given_to(user_id)
        login = None
        if user is not None:
            login = _login(
                shard, session, user, check=check, expires_at=expires_at, expires_in=expires_in,
                include_inactivity=include_inactivity, group_id=group_id, inactivity=inactivity,
            )  # fmt: skip
        if login is None or await self._stays(shard, login):
            return await shard.update_session(
                session, check=check, notify=notify, expires_at=expires_at, expires_in=expires_in,
                include_inactivity=include_inactivity, group_id=group_id, user_id=user_id, inactivity=inactivity,
            )  # fmt: skip
        return await self._moved(shard, login)

    async def rotate_session(
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
        """Give a session a new token, as `SessionManager.rotate_session` does; return the session.

        A session that is given to a user of another shard moves there, as nearly every login of a visitor does: it is
        created there with its pending changes, and the one here ends at the version that was copied. Where somebody has
        changed that one meanwhile, it is copied again. So nothing is lost; but its id is another, its locks end, and it
        takes three writes in place of one, each within `operation_timeout`. A caller who is interrupted, or cancelled,
        leaves it to be finished without him. If this process ends in between, or the outcome of a write is unknown,
        there may be a copy that nobody has the token of: `list_user_sessions` shows it.

        Args:
            session: The session, with its pending changes.
            user_id: As for `SessionManager.rotate_session`, as are all others.
            grace: For how long the token of before is still good.
            group_id: Its new group.
            inactivity: Its idle timeout.
            expires_at: When it is to end.
            expires_in: After how long it is to end.
            wait: For how long to wait until no node takes the token of before for the current one.

        Raises:
            SessionVersionConflict: The session was rotated by somebody else, or changed by others each time that it was
                copied; nothing was done.
            WriteOutcomeUnknown: As for any write; of one that moves the old session may have ended all the same, or a
                copy may be left that nobody has the token of.
            Exception: What `SessionManager.rotate_session` raises.
        """
        shard = self._of_given(session)
        user = _given_to(user_id)
        login = None
        if user is not None:
            if grace is not None and rules.seconds("grace", grace, 0):
                raise ValueError(
                    "grace: must be 0 or None where user_id is given, for the old token ends at once"
                )
            login = _login(
                shard, session, user, expires_at=expires_at, expires_in=expires_in, group_id=group_id,
                inactivity=inactivity,
            )  # fmt: skip
        patience = rules.optional_seconds("wait", wait)
        if login is None or await self._stays(shard, login):
            return await shard.rotate_session(
                session, user_id=user_id, grace=grace, group_id=group_id, inactivity=inactivity,
                expires_at=expires_at, expires_in=expires_in, wait=wait,
            )  # fmt: skip
        await self._moved(shard, login)
        await shard._confirm_everywhere(shard.runtime, patience, 1)
        return session

    async def _stays(self, shard: AsyncShardManager, login: _Login) -> bool:
        """Return True where a session is in the shard of the user whom it is given to; make room for it then."""
        if self._home(login.user) is not shard:
            return False
        self._check_can_open()
        if self._config.max_sessions and len(self._of_user(login.user)) > 1:
            now = await _as_it_is(shard, login)
            await self._make_room_in_legacy(login.user, now._record)
        return True

    async def _moved(self, shard: AsyncShardManager, login: _Login) -> Session:
        """Move a session to its new user's shard, whatever becomes of the caller: half of it would be no login."""
        self._check_can_open()
        return await self._logins.complete(partial(self._move, shard, login), "pgsession login")

    async def _move(self, shard: AsyncShardManager, login: _Login) -> Session:
        """Move a session to its new user's shard, with its pending changes.

        Those are in the new one only, since who has the old one's token may be somebody else. The old one ends by an
        update that is checked, as nobody has changed it since it was copied.
        """
        session, user = login.session, login.user
        home = self._home(user)
        for _ in range(_COPIES):
            now = await _as_it_is(shard, login)
            old, changes = now._record, session._changes()
            _apply(session, changes, now)
            key = home._new_key()
            idle = login.idle
            copy = Create(
                key, new_generation(), user, login.group[0] if login.group else old.group_id, login.ends,
                idle[0] if idle and not (login.keeps_idle and old.inactivity) else old.inactivity or None,
                home._new_attributes(key, login.ends, {name: now.attribute(name) for name in now}),
                home._room_for(user),
            )  # fmt: skip
            await self._make_room_in_legacy(user, old)
            try:
                record = await home.write(copy)
            except WriteOutcomeUnknown as error:
                await _take_back(home, key, error)
                raise
            try:
                await self._end_copied(shard, old)
            except WriteOutcomeUnknown:
                raise  # the copy may be all that there is
            except Exception as error:
                await _take_back(home, key, error)
                if not isinstance(error, SessionVersionConflict):
                    raise
                continue
            session._saved(changes, record, 0, True)
            try:
                await shard.delete_session(old.key)
            except (psycopg.Error, PgSessionError):
                pass  # it has ended; the cleanup removes it
            return session
        raise SessionVersionConflict(session.id, session.version, session.version)

    async def _end_copied(self, shard: AsyncShardManager, old: Record) -> None:
        """End a session unless somebody has changed it since it was copied.

        Raises:
            WriteOutcomeUnknown: It may have ended.
            Exception: It has not.
        """
        try:
            await shard.write(_ending(old))
        except WriteOutcomeUnknown as unknown:
            # The server may be at it still. Who does it again waits for that, and hears what came of it.
            try:
                await shard.write(_ending(old))
            except SessionNotFoundError:
                pass
            except SessionVersionConflict:
                raise
            except Exception:
                raise unknown from unknown.__cause__

    async def modify_session(
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
            change: As for `SessionManager.modify_session`, as are all others.
            check: As for `update_session`.
            retries: How often to try again after a conflict.
            **options: The other arguments of `update_session`.
        """
        key = rules.session_id("session_id", session_id)
        shard = self._of_session(key)
        self._check_can_open()
        if shard is None:
            raise SessionNotFoundError(UUID(bytes=key))
        user = _given_to(options.get("user_id", UNSET))
        if user is None or (self._home(user) is shard and self._legacy in (None, shard.mark.number)):
            return await shard.modify_session(key, change, check=check, retries=retries, **options)
        rules.function("change", change)
        for left in range(rules.count("retries", retries, 0), -1, -1):
            session = await shard.get_session(key, refresh=left < retries)
            if session is None:
                break
            await async_call(change, session)
            try:
                return await self.update_session(session, check=check, **options)
            except ConflictError:
                if not left:
                    raise
        raise SessionNotFoundError(UUID(bytes=key))

    async def delete_session(self, session_id: SessionId, *, wait: timedelta | float | None = None) -> bool:
        """End a session, on every node, and its locks with it, as `SessionManager.delete_session` does.

        Args:
            session_id: The session's id: a UUID, its 36-character str or 16 bytes.
            wait: For how long to wait until no node returns it.
        """
        key = rules.session_id("session_id", session_id)
        patience = rules.optional_seconds("wait", wait)
        self._check_can_open()
        shard = self._of_session(key)
        return False if shard is None else await shard.delete_session(key, wait=patience)

    # Many sessions

    async def load_sessions(self, ids: Iterable[AnyId], *, touch: bool = True) -> dict[AnyId, Session]:
        """Return the live ones among many sessions, by the ids that were given, from all of their shards at once.

        Args:
            ids: The ids, each a UUID, its 36-character str or 16 bytes.
            touch: False: this is no access to them.

        Raises:
            ShardsFailed: Those of some shards could not be read; `done` has the others, by shard.
        """
        keys = rules.session_ids("ids", ids)
        rules.boolean("touch", touch)
        self._check_can_open()
        parts: dict[int, list[AnyId]] = {}
        for given, key in keys.items():
            number = self._shards.number(key)
            if number >= 0:
                parts.setdefault(number, []).append(given)
        if not parts:
            return {}
        found: dict[AnyId, Session] = {}
        for some in await self._on(
            [self._all[number] for number in parts],
            lambda shard: shard.load_sessions(parts[shard.mark.number], touch=touch),
        ):
            found.update(some)
        return {given: found[given] for given in keys if given in found}

    async def count_sessions(
        self, *, user_id: str | int | UUID | None = None, group_id: str | int | UUID | None = None
    ) -> int:
        """Return the number of live sessions: of a user by the user's shard, else the sum of all shards.

        Args:
            user_id: The user, as given to `create_session`.
            group_id: The group, as given to `create_session`.
        """
        user = rules.optional_identifier("user_id", user_id)
        group = rules.optional_identifier("group_id", group_id)
        shards = self._all if user is None else self._of_user(user)
        return sum(await self._on(shards, lambda shard: shard.count_sessions(user_id=user, group_id=group)))

    async def _list(
        self, subject: Literal["user", "group"], name: str, limit: int, after: Session | SessionId | None
    ) -> list[Session]:
        """Return a page of all shards that may have such sessions: each gives one, and the newest of these are it."""
        limit = rules.count("limit", limit, 1, _LONGEST_LIST)
        self._check_can_open()
        key = None if isinstance(after, Session) else rules.optional_session_id("after", after)
        shards = self._of_user(name) if subject == "user" else self._all
        shard: AsyncShardManager | None = shards[0]
        if key is not None:
            shard = self._of_session(key)
            if shard is None:
                raise SessionNotFoundError(UUID(bytes=key))
        assert shard is not None
        position = await shard._position(subject, name, after)
        pages = await self._on(shards, lambda shard: shard._page(subject, name, limit, position))
        if len(pages) == 1:
            return pages[0]
        merged = sorted(
            (session for page in pages for session in page),
            key=attrgetter("_record.last_accessed", "_record.key"),
            reverse=True,
        )
        return merged[:limit]

    async def delete_user_sessions(
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
            wait: For how long to wait until no node serves any of them.
        """
        user = rules.identifier("user_id", user_id)
        kept = rules.optional_session_id("keep", keep)
        patience = rules.optional_seconds("wait", wait)
        return sum(
            await self._on(
                self._of_user(user), lambda shard: shard.delete_user_sessions(user, keep=kept, wait=patience)
            )
        )

    async def delete_group_sessions(
        self, group_id: str | int | UUID, *, wait: timedelta | float | None = None
    ) -> int:
        """End every session of a group, on every server; return how many ended.

        Args:
            group_id: The group, as given to `create_session`.
            wait: For how long to wait until no node serves any of them.

        Raises:
            ShardsFailed: Some shards could not be asked, or have not confirmed; it names those that were done.
        """
        group = rules.identifier("group_id", group_id)
        patience = rules.optional_seconds("wait", wait)
        return sum(await self._on(self._all, lambda shard: shard.delete_group_sessions(group, wait=patience)))

    async def delete_all_sessions(self, *, wait: timedelta | float | None = None) -> int:
        """End every session, on every server; return how many ended.

        Args:
            wait: For how long to wait until no node serves any of them.

        Raises:
            ShardsFailed: Some shards could not be asked, or have not confirmed; it names those that were done.
        """
        patience = rules.optional_seconds("wait", wait)
        return sum(await self._on(self._all, lambda shard: shard.delete_all_sessions(wait=patience)))

    async def delete_expired_sessions(self) -> int:
        """Delete the sessions that have expired or are inactive, on every server; return how many.

        Raises:
            ShardsFailed: Some shards could not be asked; it names those that were done.
        """
        return sum(await self._on(self._all, lambda shard: shard.delete_expired_sessions()))

    async def delete_attribute_from_user_sessions(self, user_id: str | int | UUID, key: str) -> int:
        """Remove an attribute from each of a user's sessions, to be computed anew; return how many had it.

        Args:
            user_id: The user, as given to `create_session`.
            key: The attribute's key.
        """
        user = rules.identifier("user_id", user_id)
        name = rules.attribute_key("key", key)
        return sum(
            await self._on(
                self._of_user(user), lambda shard: shard.delete_attribute_from_user_sessions(user, name)
            )
        )

    async def evict_user_sessions(self, user_id: str | int | UUID) -> None:
        """Drop a user's sessions from every node's memory; the database keeps them.

        Args:
            user_id: The user, as given to `create_session`.
        """
        user = rules.identifier("user_id", user_id)
        await self._on(self._of_user(user), lambda shard: shard.evict_user_sessions(user))

    async def clear_cache(self) -> None:
        """Empty every node's memory; the databases keep the sessions.

        Raises:
            ShardsFailed: Some shards could not be asked; it names those that were done.
        """
        await self._on(self._all, lambda shard: shard.clear_cache())

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
    ) -> AsyncLock:
        """Make a distributed lock in the shard of its resource; see `SessionManager.lock`.

        A resource is in the shard that a hash of its name says; one whose name ends with a session's id, as in
        `f"cart:{session.id}"`, is in that session's. Fencing tokens grow for each resource, as they do with one server.

        Args:
            resource: What is locked; text of at most 512 bytes.
            session_id: A live session, of the resource's shard, that the lock ends with.
            lease_time: As for `SessionManager.lock`, as are all others.
            heartbeat_interval: Seconds (or a timedelta) from one renewal to the next.
            max_retries: How often `acquire` without a timeout tries again.
            retry_delay: Seconds (or a timedelta) to wait before trying again.

        Raises:
            ValueError: The session is in another shard than the resource: no transaction could end both.
        """
        name = rules.identifier("resource", resource)
        key = rules.optional_session_id("session_id", session_id)
        shard = self._all[home_of_resource(name, len(self._all), self._legacy)]
        if key is not None and self._of_session(key) is not shard:
            raise ValueError(
                f"session_id: is of another shard than the resource, which is in shard {shard.mark.number}, and no "
                "transaction ends a session and a lock on two servers: end the resource's name with the session's id, "
                "or take the lock without session_id"
            )
        self._check_can_open()
        return shard.lock(
            name, session_id=key, lease_time=lease_time, heartbeat_interval=heartbeat_interval,
            max_retries=max_retries, retry_delay=retry_delay,
        )  # fmt: skip

    def stats(self) -> Stats:
        """Return the sum of what all shards have counted, and of their gauges.

        Of ages, errors, the queue's usage and the nodes it is the highest; `in_sync` is true where all are, and
        `leader` where this process leads the host for any; `shared_fallback_reason` has each reason once; the pool's
        connections are counted once a server.
        """
        self._check_open()
        each = self.stats_by_shard()
        firsts = [each[place.shards[0].mark.number] for place in self._places.all]
        forged, superseded, ended = self._refused_tokens_by_state
        own = {
            "forged_tokens": forged, "superseded_tokens": superseded, "ended_tokens": ended,
            "refused_tokens": forged + superseded + ended, "misses": self._cache.stats()["misses"],
            "misses_refused": self._cache.stats()["misses_refused"],
        }  # fmt: skip
        total: dict[str, Any] = {}
        for name in Stats.__struct_fields__:
            values = [getattr(stats, name) for stats in (firsts if name in _OF_A_SERVER else each.values())]
            if name == "in_sync":
                total[name] = all(values)
            elif name == "leader":
                total[name] = any(values)
            elif name == "shared_fallback_reason":
                total[name] = "; ".join(dict.fromkeys(value for value in values if value)) or None
            elif name in _HIGHEST:
                total[name] = max((value for value in values if value is not None), default=None)
            else:
                total[name] = sum(values) + own.get(name, 0)
        return Stats(**total)

    def stats_by_shard(self) -> dict[int, Stats]:
        """Return the counters and gauges of each shard, by its number."""
        self._check_open()
        return {shard.mark.number: shard.stats() for shard in self._all}

    async def check_health(self, *, timeout: timedelta | float = 5) -> Health:
        """Ask every server, and tell whether this node can do its work.

        It is `ready` while any shard is, so that a server that is down takes no node out of service; it is `healthy`
        where all are, and `reason` names the shards that are not.

        Args:
            timeout: Seconds (or a timedelta) after which a database that has not answered counts as down.
        """
        patience = rules.seconds("timeout", timeout)
        if self._state not in ("open", "forked"):
            return _not_open(_WHY_CLOSED[self._state])
        self._places.check()
        health = await self.check_health_by_shard(timeout=patience)
        each = list(health.values())
        reasons = [
            f"shard {number}: {one.reason}" for number, one in health.items() if one.reason is not None
        ]
        failures = [
            f"shard {number}: {one.database}" for number, one in health.items() if one.database is not None
        ]
        ages = [one.proof_age for one in each]
        firsts = [health[place.shards[0].mark.number] for place in self._places.all]
        return Health(
            ready=any(one.ready for one in each),
            healthy=all(one.healthy for one in each),
            reason="; ".join(reasons) or None,
            in_sync=all(one.in_sync for one in each),
            proof_age=None if None in ages else max(age for age in ages if age is not None),
            listening=all(one.listening for one in each),
            database="; ".join(failures) or None,
            round_trip=None if failures else max(one.round_trip or 0.0 for one in each),
            pool_size=sum(one.pool_size for one in firsts),
            pool_waiting=sum(one.pool_waiting for one in firsts),
            queued_writes=sum(one.queued_writes for one in each),
            oldest_write=max(
                (one.oldest_write for one in each if one.oldest_write is not None), default=None
            ),
        )

    async def check_health_by_shard(self, *, timeout: timedelta | float = 5) -> dict[int, Health]:
        """Ask every server, and tell of each shard, by its number, whether this node can do its work there.

        Args:
            timeout: Seconds (or a timedelta) after which a database that has not answered counts as down.
        """
        patience = rules.seconds("timeout", timeout)
        self._check_can_open()
        results = await self._places.of_each_now(
            self._all, lambda shard: shard.check_health(timeout=patience)
        )
        return {
            shard.mark.number: _not_open(str(error)) if health is None else health
            for shard, health, error in results
        }


def _checked(shards: Sequence[Shard | str], config: Config) -> list[Shard]:
    """Return the shards with the names of their schemas."""
    _refuse_what_is_of_one_server(config)
    given = complete(shards, config.schema_name)
    least = len(given) * LEAST_SHARED
    if config.shared_cache is not None and config.shared_cache_size < least:
        raise ConfigError(
            f"shared_cache_size: each of {counted(len(given), 'shard')} has an equal part, of at least {LEAST_SHARED} "
            f"bytes: give {least} or more"
        )
    return given


def _refuse_what_is_of_one_server(config: Config) -> None:
    if config.listener_conninfo is not None:
        raise ConfigError("listener_conninfo: leads to one server: give each Shard its own")


def _checked_for_citus(shards: CitusShards, config: Config) -> CitusShards:
    count = rules.count("shards", shards.count, 1, MOST)
    rules.conninfo("shards", shards.coordinator)
    rules.schema_name("schema_name", f"{config.schema_name}_{count - 1}{LOCAL}")
    _refuse_what_is_of_one_server(config)
    if config.shared_cache is not None:
        raise ConfigError(
            "shared_cache: is of the tables of one server for as long as it lasts, and Citus moves a shard to another"
        )
    if not config.synchronous_commit:
        raise ConfigError(
            "synchronous_commit: a move of Citus may leave behind what is not durable when it ends"
        )
    return shards


def _made_by_citus(
    given: CitusShards, config: Config, signer: Signer | None, logger: logging.Logger
) -> tuple[tuple[AsyncShardManager, ...], list[AsyncPlace]]:
    """Return the managers of shards that move, each with a server of its own that changes."""
    shards = []
    places = []
    for number in range(given.count):
        schema, mark = f"{config.schema_name}_{number}", ShardMark(number, given.count)
        citus = AsyncCitusPlace(
            given.coordinator, schema, config.table_prefix, mark,
            creates=config.create_schema_if_missing, logger=logger,
        )  # fmt: skip
        place = AsyncPlace(citus.conninfo, None, config, logger, citus)
        # A move ends once it has what the server had written when the locks were given back: a commit that is written a
        # moment later would stay behind.
        own = _part_of(config, f"{schema}{LOCAL}", mark, notify_before_flush=False)
        shards.append(AsyncShardManager(place, mark, own, signer, citus.conninfo))
        places.append(place)
    return tuple(shards), places


def _part_of(config: Config, schema: str, mark: ShardMark, **changes: Any) -> Config:
    """Return the configuration of one shard of several."""
    return msgspec.structs.replace(
        config,
        schema_name=schema,
        cache_size=-(-cache_size(config) // mark.shards),
        shared_cache_size=max(config.shared_cache_size // mark.shards, LEAST_SHARED),
        warm=None if config.warm is None else f"{os.fspath(config.warm)}.{mark.number}",
        **changes,
    )


def _made(
    given: list[Shard], config: Config, signer: Signer | None, logger: logging.Logger
) -> tuple[tuple[AsyncShardManager, ...], list[AsyncPlace]]:
    """Return the managers of the shards, and where they are."""
    places: dict[Any, AsyncPlace] = {}
    shards = []
    for number, shard in enumerate(given):
        if shard.database not in places:
            places[shard.database] = AsyncPlace(shard.database, shard.listener_conninfo, config, logger)
        mark = ShardMark(number, len(given))
        own = _part_of(config, str(shard.schema_name), mark)
        shards.append(AsyncShardManager(places[shard.database], mark, own, signer, shard.database))
    return tuple(shards), list(places.values())


class _Login(NamedTuple):
    """Says what becomes of a session that is given to a user; all of it is usable.

    Attributes:
        session: The session.
        user: The user.
        check: What nobody may have changed.
        idle: Its new idle timeout; None: it stays.
        keeps_idle: Whether an idle timeout that it has stays all the same.
        group: Its new group; None: it stays.
        ends: When it is to end.
    """

    session: Session
    user: str
    check: Check | None
    idle: tuple[int | None] | None
    keeps_idle: bool
    group: tuple[str | None] | None
    ends: int


def _given_to(user_id: str | int | UUID | UnsetType | None) -> str | None:
    """Return the user who gets a session; None where nobody does."""
    return None if user_id is UNSET else rules.optional_identifier("user_id", user_id)


def _login(
    shard: AsyncShardManager,
    session: Session,
    user: str,
    *,
    check: Check | None = None,
    expires_at: datetime | None = None,
    expires_in: timedelta | float | None = None,
    include_inactivity: bool | None = None,
    group_id: str | int | UUID | UnsetType | None = UNSET,
    inactivity: Inactivity | UnsetType = UNSET,
) -> _Login:
    ends = rules.expiry(shard._clock, expires_at, expires_in)
    login = _Login(
        session,
        user,
        rules.choice("check", check, _CHECKS),
        idle_timeouts.of_changed(inactivity, include_inactivity, shard._idle_timeout),
        include_inactivity is True and inactivity is UNSET,
        None if group_id is UNSET else (rules.optional_identifier("group_id", group_id),),
        shard._clock.database_now() + shard._expires_in if ends is None else ends,
    )
    if session._by_older_token:
        raise SessionVersionConflict(session.id, session.version, session.version)
    session._check_usable()
    return login


async def _as_it_is(shard: AsyncShardManager, login: _Login) -> Session:
    """Return the session as the database has it, for which the login is to be done.

    Raises:
        SessionNotFoundError: It is gone, or another user has it.
        ConflictError: Somebody else has rotated it, or changed what is checked.
    """
    session = login.session
    now = await shard.get_session(session.id, touch=False, refresh=True)
    if now is None or now._record.owner_since != session._record.owner_since:
        raise SessionNotFoundError(session.id, taken=now is not None)
    if now._record.generation != session._record.generation:
        raise SessionVersionConflict(session.id, session.version, session.version)
    if login.check is not None:
        _check_unchanged(session, now._record, session._changes(), login.check)
    return now


def _check_unchanged(session: Session, current: Record, changes: Changes | None, check: Check) -> None:
    """Make the check of an update: nobody has changed what it is based on."""
    based_on = session._record
    if check == "session":
        if (current.incarnation, current.version) != (based_on.incarnation, based_on.version):
            raise SessionVersionConflict(session.id, based_on.version, current.version)
    elif changes is not None:
        versions = {name: version for name, version, _, _ in current.attributes()}
        written = [(name, base) for name, _, _, base in changes.sets] + changes.deletes
        others = tuple(name for name, base in written if versions.get(name, 0) != base)
        if others:
            raise AttributeVersionConflict(session.id, others)


def _apply(session: Session, changes: Changes | None, target: Session) -> None:
    """Do a session's pending changes to another object of the same session, which is newer."""
    if changes is None:
        return
    for name, _, _, _ in changes.sets:
        attribute = session.attribute(name)
        target.set(name, attribute.value, expires_at=attribute.expires_at)
    for name, _ in changes.deletes:
        if name in target:
            del target[name]


async def _take_back(home: AsyncShardManager, key: bytes, error: Exception) -> None:
    """Take back the copy of a session that has not moved; the error says why it has not.

    Raises:
        WriteOutcomeUnknown: The copy may be left, and the error says that nothing was done.
    """
    try:
        await home.delete_session(key)
    except (psycopg.Error, PgSessionError):
        if not isinstance(error, WriteOutcomeUnknown):
            raise WriteOutcomeUnknown(
                f"a copy of the session that nobody has the token of may be left in shard {home.mark.number}: {error}"
            ) from error


def _ending(record: Record) -> Update:
    """Return what ends a session now, unless it is not the version that was copied."""
    return Update(
        record, check="session", sets=[], deletes=[], expires_at=record.created_at, inactivity=None, group=None,
        notify=True, notify_on_conflict=False,
    )  # fmt: skip
