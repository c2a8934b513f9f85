"""The session of a connection is the ASGI middleware's, with what Litestar lets handlers do to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from copy import copy
from datetime import timedelta
from typing import Any, Unpack, cast

from litestar import Litestar
from litestar.config.app import AppConfig
from litestar.connection import ASGIConnection
from litestar.datastructures import MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.exceptions import ClientException
from litestar.middleware import DefineMiddleware
from litestar.middleware.session.base import BaseBackendConfig, BaseSessionBackend
from litestar.middleware.session.base import SessionMiddleware as LitestarMiddleware
from litestar.plugins import InitPluginProtocol
from litestar.serialization import decode_json, msgspec_hooks
from litestar.types import ASGIApp, Empty, Receive, Scope, Scopes, ScopeSession, Send
from litestar.types import Message as LitestarMessage

from pgsession import AsyncSessionManager, Config, SessionManager
from pgsession.contrib import asgi
from pgsession.contrib._databases import Database
from pgsession.web import CookiePolicy, CookieSettings, OnConflict, SessionConflict, SessionRules

__all__ = ["LitestarSession", "PgSessionBackend", "PgSessionConfig"]

_KEY = (
    "pgsession"  # the connection's session, whatever the handler has put in the place of `scope["session"]`
)


class _Conflict(SessionConflict, ClientException):
    """Handlers need not catch it: Litestar answers 409."""

    status_code = 409

    def __init__(self, message: str) -> None:
        ClientException.__init__(self, detail=message)


class LitestarSession(asgi.AsgiSession):
    """The session of a connection, as `request.session` has it: see `pgsession.web.WebSession`."""

    _conflict = _Conflict

    def __bool__(self) -> bool:
        """Return True where it holds something, or somebody is logged in: `SessionAuth` asks for this."""
        return len(self) > 0 or self.user_id is not None

    def _become_what(self, value: object, scope: Scope) -> None:
        """Do what has put a value in the place of `scope["session"]`: `set_session` or `clear_session`."""
        if isinstance(value, LitestarSession):  # this one, or that of another configuration in a layer within
            return
        scope["session"] = cast("ScopeSession", self)
        if value is Empty or value is None:
            self.log_out()
            return
        data = cast("ScopeSession", value)
        values: dict[str, Any] = decode_json(PgSessionBackend.serialize_data(data, scope))
        if values == dict(self):
            return
        for key in set(self).difference(values):
            del self[key]
        self.update(values)
        if not self._started:  # it is how a user logs in, in Litestar: no token of before may still be good
            self.rotate(grace=0)


cast("dict[type, Callable[[Any], Any]]", msgspec_hooks.DEFAULT_TYPE_ENCODERS)[LitestarSession] = dict


class _Asgi(asgi.SessionMiddleware):
    _kind = LitestarSession


class PgSessionBackend(BaseSessionBackend["PgSessionConfig"]):
    """Loads and saves the session of a connection, as a `PgSessionConfig` says."""

    def __init__(self, config: PgSessionConfig) -> None:
        super().__init__(config)
        self._asgi = config._adapter()

    def __deepcopy__(self, _: object) -> PgSessionBackend:
        return self  # Litestar copies what its layers have, and all of them have one manager

    def get_session_id(self, connection: ASGIConnection[Any, Any, Any, Any]) -> None:
        """Return None: what the browser has is known when the response begins. `session.session_id` is for logs.

        Args:
            connection: The connection.
        """

    async def load_from_connection(self, connection: ASGIConnection[Any, Any, Any, Any]) -> dict[str, Any]:
        """Return the session of a connection.

        Args:
            connection: The connection.
        """
        return cast("dict[str, Any]", await self._load(connection))

    async def store_in_message(
        self,
        scope_session: ScopeSession,
        message: LitestarMessage,
        connection: ASGIConnection[Any, Any, Any, Any],
    ) -> None:
        """Save the session of a connection, and have its cookie set.

        Args:
            scope_session: The session, what it is to hold in place of that, or `Empty`, which ends it.
            message: The first message of the response.
            connection: The connection.
        """
        value: object = scope_session
        session = value if isinstance(value, LitestarSession) else await self._load(connection)
        session._become_what(value, connection.scope)
        await session.save()
        headers = MutableScopeHeaders.from_message(message)
        for name, value in self._asgi._rules.headers(session, headers.getall("Vary", [""])):
            headers.add(name, value)

    async def _load(self, connection: ASGIConnection[Any, Any, Any, Any]) -> LitestarSession:
        cookie = connection.cookies.get(self.config.key)
        headers = [] if cookie is None else [(b"cookie", f"{self.config.key}={cookie}".encode("latin-1"))]
        session = await self._asgi._load(self._asgi._rules.tokens(headers))
        session._middleware = self._asgi
        return cast("LitestarSession", session)


class _Middleware(LitestarMiddleware[PgSessionBackend]):
    """The ASGI middleware, between Litestar's rules of where it applies and what handlers do to `scope["session"]`."""

    def __init__(self, app: ASGIApp, backend: PgSessionBackend) -> None:
        super().__init__(app, backend)
        self._asgi = copy(backend._asgi)
        self._asgi.app = self._handle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope."""
        around = cast("dict[str, Any]", scope).get(_KEY)
        serve: Any = self._asgi
        if around is not None and around._middleware._managers is self._asgi._managers:
            serve = self.app  # it has its session: the application has this middleware in two of its layers
        await serve(scope, receive, send)

    async def _handle(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        session: LitestarSession = scope[_KEY]
        scope["session"] = session
        litestar_scope = cast("Scope", scope)

        async def send_of_handler(message: asgi.Message) -> None:
            if message["type"] in asgi._BEGINNINGS:
                session._become_what(scope["session"], litestar_scope)
            await send(message)

        try:
            await self.app(litestar_scope, cast("Receive", receive), cast("Send", send_of_handler))
        finally:
            if scope["type"] == "websocket":
                session._become_what(scope["session"], litestar_scope)


class PgSessionConfig(BaseBackendConfig[PgSessionBackend], InitPluginProtocol):
    """Gives each request and WebSocket its session, as `request.session`: a plugin, with all of it.

    Or its `middleware` in a layer of the application, or as `session_backend_config=` of `SessionAuth`; as a plugin
    beside that, it opens and closes its manager with the application. Else one is opened by the first request that
    needs it, and closed when the process exits.

    Args:
        database: As for `SessionManager`; or a list of shards, as for `ShardedSessionManager`.
        keys: As for `Signer`.
        config: As for `SessionManager`.
        on_conflict: What becomes of overlapping requests' changes: see `pgsession.web.SessionRules`.
        serial_timeout: With `"serial"`, for how long a request waits for its turn.
        manager: One that you open and close, with a signer, in place of `database`, `keys` and `config`.
        exclude: Patterns of the paths that have no session.
        exclude_opt_key: What handlers that have none have in their `opt`.
        scopes: Which kinds of connections have one.
        **cookie: The fields of `CookiePolicy`; `name` is then `key` here. For plain http: `secure=False`.

    Raises:
        ConfigError: An argument is not usable; the message names it.
    """

    _backend_class = PgSessionBackend
    max_age: int | None  # type: ignore[assignment]  # None: as long as the browser runs

    def __init__(
        self,
        database: Database | None = None,
        *,
        keys: bytes | Sequence[bytes] = (),
        config: Config | None = None,
        on_conflict: OnConflict = "merge",
        serial_timeout: timedelta | float = 30,
        manager: SessionManager | AsyncSessionManager | None = None,
        exclude: str | list[str] | None = None,
        exclude_opt_key: str = "skip_session",
        scopes: Scopes | None = None,
        **cookie: Unpack[CookieSettings],
    ) -> None:
        self._asgi = _Asgi(
            _nothing,
            database=database,
            keys=keys,
            config=config,
            on_conflict=on_conflict,
            serial_timeout=serial_timeout,
            manager=manager,
            scope_key=_KEY,
            **cookie,
        )
        policy = self._asgi._rules.cookie
        self.key = str(policy.name)
        self.max_age = policy.max_age_seconds
        self.path, self.domain = policy.path, policy.domain
        self.secure, self.httponly, self.samesite = policy.secure, policy.httponly, policy.samesite
        self.partitioned, self.remember_for, self.renew = (
            policy.partitioned,
            policy.remember_for,
            policy.renew,
        )
        self.moved_from = policy.moved_from
        self.exclude = exclude
        self.exclude_opt_key = exclude_opt_key
        self.scopes = scopes or {ScopeType.HTTP, ScopeType.WEBSOCKET}

    @property
    def middleware(self) -> DefineMiddleware:
        """Return the middleware, for a layer of the application."""
        return DefineMiddleware(_Middleware, backend=PgSessionBackend(self))

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Give the application the middleware, in front of its own, and have it open and close the manager.

        Args:
            app_config: The application's.
        """
        app_config.middleware.insert(0, self.middleware)
        app_config.lifespan.insert(0, self._live)
        return app_config

    @asynccontextmanager
    async def _live(self, _: Litestar) -> AsyncIterator[None]:
        await self._asgi._managers.open()
        try:
            yield
        finally:
            await self._asgi._managers.close()

    def _adapter(self) -> _Asgi:
        """Return the ASGI middleware with the cookie as the attributes say, which can be set, as Litestar's can."""
        adapter, rules = copy(self._asgi), self._asgi._rules
        policy = CookiePolicy(
            name=self.key, secure=self.secure, httponly=self.httponly, samesite=self.samesite,
            path=self.path, domain=self.domain, partitioned=self.partitioned,
            max_age=self.max_age, remember_for=self.remember_for, renew=self.renew,
            moved_from=self.moved_from,
        )  # fmt: skip
        adapter._rules = SessionRules(
            policy, on_conflict=rules.on_conflict, serial_timeout=rules.serial_timeout
        )
        return adapter


async def _nothing(scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None: ...
