"""Sessions for aiohttp.web, as a storage of aiohttp-session: the extra `aiohttp`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any, Unpack, cast
from uuid import UUID

import aiohttp_session
from aiohttp import web
from aiohttp.typedefs import Handler
from aiohttp_session import SESSION_KEY, AbstractStorage

from pgsession import AsyncSessionManager, Config, ConfigError, SessionManager, Signer
from pgsession.contrib._databases import Database
from pgsession.contrib._managers import Managers
from pgsession.web import (
    CookiePolicy,
    CookieSettings,
    OnConflict,
    SessionConflict,
    SessionRules,
    WebSession,
    releasing,
    replace,
)

__all__ = ["AiohttpSession", "PgSessionStorage", "get_session", "new_session", "setup"]

# Older versions of aiohttp have no such keys.
_key: Callable[[str, type], Any] = getattr(web, "RequestKey", lambda name, _: name)
_LOADED = _key("pgsession.loaded", object)  # the session that the request came with
_LOADING = _key("pgsession.loading", asyncio.Lock)  # a request may have tasks, which get the same one
# The response, once it has begun, else None; without `setup` there is no such key.
_BEGUN = _key("pgsession.begun", object)
_FAILED = 500  # from this status on a response is about a failure, and saves nothing
_logger = logging.getLogger("pgsession")


class _Conflict(SessionConflict, web.HTTPConflict):
    """Handlers need not catch it: aiohttp answers 409."""

    def __init__(self, message: str) -> None:
        web.HTTPConflict.__init__(self, text=message)

    def __str__(self) -> str:
        return str(self.text)


class AiohttpSession(WebSession, aiohttp_session.Session):  # type: ignore[misc]  # of both, it is the former's mapping
    """The session of a request is one of aiohttp-session, and has all that `pgsession.web.WebSession` has."""

    _conflict = _Conflict
    _storage: PgSessionStorage
    _request: web.Request | None = None  # of one that begins in place of the request's
    _fresh = False  # it does
    _told = False  # by `changed` or `invalidate`
    _failed = False  # the last attempt to save it: the response, which is about that, does not try it again

    @property
    def created(self) -> int:
        """Return when it began, as a UNIX timestamp; for one that is new: now."""
        self._look()
        return int(time.time() if self._stored is None else self._stored.created_at.timestamp())

    @property
    def identity(self) -> UUID | None:
        """Return the session's id, which lets nobody in; None while nothing is stored, and none was chosen."""
        return self.session_id or self._chosen

    def set_new_identity(self, identity: object) -> None:
        """Choose the id of a session that is new.

        Args:
            identity: A UUID, or its text; None: a random one.

        Raises:
            RuntimeError: It is not new.
            ValueError: It is no UUID.
        """
        if not self.new:
            raise RuntimeError("Can't change identity for a session which is not new")
        self._chosen = None if identity is None else UUID(str(identity))

    @property
    def max_age(self) -> int | None:
        """Return for how many seconds it lasts, and browsers keep its cookie; None: until they are closed."""
        self._look()
        return self._max_age()

    @max_age.setter
    def max_age(self, value: timedelta | float | None) -> None:
        """Have it last so long, as `expire` does."""
        self.expire(value)

    def changed(self) -> None:
        """Have its lifetime begin anew. Changes are found without this, those inside of values too."""
        self._told = True
        self._look()
        if not self._started:
            self._live_for(self._max_age())

    def invalidate(self) -> None:
        """End the session, on the server too, as `log_out` does; also that in whose place this one was to begin."""
        self._told = True
        self.log_out()

    async def save(self) -> None:
        """Save what was changed so far; that is done when the response begins, and when a WebSocket ends.

        Call it after that: in the body of a stream, in the middle of a WebSocket. And in a handler that is to know of
        an error, such as `TooManySessionsError`.

        Raises:
            SessionConflict: Another request was faster.
            RuntimeError: It would be a new one, and the response has begun.
        """
        self._failed = True
        try:
            await self._storage._save(self)
        except _Conflict as error:
            if self._started:  # no other response can be sent
                raise SessionConflict(str(error)) from None
            raise
        self._failed = False

    # What aiohttp-session asks of it

    @property
    def _changed(self) -> bool:  # type: ignore[override]  # nor does anybody else write these
        return self._told or self._storage._rules.is_due(self)

    @property
    def _mapping(self) -> dict[str, Any]:  # type: ignore[override]
        return dict(self)


class PgSessionStorage(AbstractStorage):
    """Keeps the sessions of aiohttp-session: give it to `setup`.

    Args:
        database: As for `SessionManager`; or a list of shards, as for `ShardedSessionManager`.
        keys: As for `Signer`.
        config: As for `SessionManager`.
        on_conflict: What becomes of overlapping requests' changes: see `pgsession.web.SessionRules`.
        serial_timeout: With `"serial"`, for how long a request waits for its turn.
        manager: One that you open and close, with a signer, in place of `database`, `keys` and `config`.
        cookie_name: What aiohttp-session calls `name`.
        **cookie: The fields of `CookiePolicy`. For plain http: `secure=False`.

    Raises:
        ConfigError: An argument is not usable; the message names it.
    """

    def __init__(
        self,
        database: Database | None = None,
        *,
        keys: bytes | Sequence[bytes] = (),
        config: Config | None = None,
        on_conflict: OnConflict = "merge",
        serial_timeout: timedelta | float = 30,
        manager: SessionManager | AsyncSessionManager | None = None,
        cookie_name: str | None = None,
        **cookie: Unpack[CookieSettings],
    ) -> None:
        if (database is None) == (manager is None):
            raise ConfigError("database: either this or manager is needed, and not both")
        if cookie_name is not None:
            cookie["name"] = cookie_name
        policy = CookiePolicy(**cookie)
        super().__init__(
            cookie_name=str(policy.name),
            domain=policy.domain,
            max_age=policy.max_age_seconds,
            path=policy.path,
            secure=policy.secure,
            httponly=policy.httponly,
            samesite=policy.samesite.capitalize(),
        )
        self._rules = SessionRules(policy, on_conflict=on_conflict, serial_timeout=serial_timeout)
        made = None if database is None else (database, config, Signer(keys))
        self._managers = Managers(made, manager)

    async def load_session(self, request: web.Request) -> AiohttpSession:
        """Return the session that a request came with, or a new one; for `aiohttp_session.get_session`.

        Args:
            request: The request.
        """
        async with request.setdefault(_LOADING, asyncio.Lock()):
            loaded: AiohttpSession | None = request.get(_LOADED)
            if loaded is None or loaded._storage is not self:
                request[_LOADED] = loaded = await self._load(request)
            return loaded

    async def _load(self, request: web.Request) -> AiohttpSession:
        serial = self._rules.on_conflict == "serial"
        if serial and _BEGUN not in request:
            raise RuntimeError("on_conflict: 'serial' needs pgsession.contrib.aiohttp.setup")
        tokens = self._rules.tokens("; ".join(request.headers.getall("Cookie", ())))
        manager = self._managers.here() if tokens else None
        opened: Any = None if manager is None else self._rules.from_memory(manager, tokens)
        release = None
        if tokens and opened is None:
            try:
                opened, release = await self._managers.run(self._rules.opening(tokens), waits=serial)
            except SessionConflict as error:
                raise _Conflict(str(error)) from error
        session = AiohttpSession(self._rules.cookie, self._managers.token, opened, release)
        session._storage = self
        session._started = request.get(_BEGUN) is not None
        return session

    async def new_session(self) -> AiohttpSession:
        """Return a new session; for `aiohttp_session.new_session`.

        That of the request ends when this one is saved with the response.
        """
        session = AiohttpSession(self._rules.cookie, self._managers.token)
        session._storage, session._fresh = self, True
        return session

    async def save_session(
        self, request: web.Request, response: web.StreamResponse, session: aiohttp_session.Session
    ) -> None:
        """Save a request's session, if there is something to save, and have its cookie set.

        Args:
            request: The request.
            response: Its response, before it is sent.
            session: The session.

        Raises:
            SessionConflict: Another request was faster. aiohttp answers 409.
        """
        assert isinstance(session, AiohttpSession), "one of this storage"
        session._request = request
        if response.status >= _FAILED:
            session._failed = True
        if not session._failed:
            await session.save()
        await self._release(session)
        lines = response.headers.popall("Set-Cookie", [])
        for line in lines:  # without what a save of before has set
            if not line.startswith(f"{self.cookie_name}="):
                response.headers.add("Set-Cookie", line)
        for name, value in self._rules.headers(session, response.headers.getall("Vary", ())):
            response.headers.add(name, value)
        session._started = False  # another middleware may do something to it still

    async def _save(self, session: AiohttpSession) -> None:
        if session._fresh and (session.modified or session._told):
            request = session._request
            if request is None:
                raise RuntimeError(
                    "save: of a session that aiohttp_session.new_session has made: use pgsession.contrib.aiohttp's"
                )
            replace(request.get(_LOADED) or await self.load_session(request), session)
            session._fresh = False
        await self._managers.run(self._rules.saving(session))

    async def _release(self, session: AiohttpSession | None) -> None:
        if session is not None and session._release is not None:
            await _to_the_end(self._managers.run(releasing(session)))

    # Around the handlers of an application

    async def _live(self, _: web.Application) -> AsyncIterator[None]:
        await self._managers.open()
        try:
            yield
        finally:
            await self._managers.close()

    @web.middleware
    async def _serve(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        request[_BEGUN] = None
        failed = True
        try:
            response = await handler(request)
            failed = False
            return response
        finally:
            try:
                await self._end(request, failed)
            finally:
                await self._release(request.get(_LOADED))
                await self._release(request.get(SESSION_KEY))

    async def _end(self, request: web.Request, failed: bool) -> None:
        """Save the session of a WebSocket; what fails while its client is there saves nothing."""
        session: AiohttpSession | None = request.get(SESSION_KEY)
        begun = request[_BEGUN]
        if session is None or begun is None or not session._accessed or session._failed:
            return
        gone = request.transport is None or request.transport.is_closing()
        may_save = isinstance(begun, web.WebSocketResponse) and (gone or not failed)
        if may_save and (session._ending is not None or (session.modified and not session.new)):
            await _to_the_end(session.save())
        if session.modified:
            _logger.warning(
                "a session was changed after its response had begun, and the change is lost: "
                "call `await session.save()` after it"
            )

    async def _begin(self, request: web.Request, response: web.StreamResponse) -> None:
        """Save the session of a response that is about to be sent, whatever kind it is of."""
        session = request.get(SESSION_KEY)
        if session is not None:
            try:
                await self.save_session(request, response, session)
            except BaseException:  # the answer that tells of this has a length, if this one has none
                request.writer.chunked = False  # type: ignore[attr-defined]
                raise
            session._started = True
        request[_BEGUN] = response


async def _to_the_end(work: Coroutine[None, None, None]) -> None:
    """Do what has to be done also where the handler's task is cancelled, as may be when its client goes."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


def setup(app: web.Application, storage: PgSessionStorage) -> None:
    """Give each request of an application its session, which `get_session` returns.

    In place of `aiohttp_session.setup`: this one also opens the storage when the application starts and closes it with
    that, saves the sessions of streams and WebSockets, and has a session that was only read be renewed, and told of by
    `Vary`.

    Args:
        app: The application.
        storage: The storage.
    """
    app.cleanup_ctx.append(storage._live)
    app.on_response_prepare.append(storage._begin)
    app.middlewares.append(storage._serve)
    aiohttp_session.setup(app, storage)


async def get_session(request: web.Request) -> AiohttpSession:
    """Return the session of a request, as `aiohttp_session.get_session` does.

    Args:
        request: The request.
    """
    return cast("AiohttpSession", await aiohttp_session.get_session(request))


async def new_session(request: web.Request) -> AiohttpSession:
    """Return a new session, as `aiohttp_session.new_session` does; that of before ends when this one is saved.

    Args:
        request: The request.
    """
    session = cast("AiohttpSession", await aiohttp_session.new_session(request))
    session._request = request
    return session
