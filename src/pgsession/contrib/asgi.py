"""Sessions for any ASGI application, such as one of Starlette or FastAPI, under asyncio and trio: the extra `asgi`."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from datetime import timedelta
from traceback import format_exception
from typing import Any, Unpack

import anyio

from pgsession import AsyncSessionManager, Config, ConfigError, Session, SessionManager, Signer
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
)

__all__ = ["AsgiSession", "SessionMiddleware"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_BEGINNINGS = ("http.response.start", "websocket.accept", "websocket.http.response.start")
_FAILED = 500  # from this status on a response is about a failure, and saves nothing
_ENDINGS = ("lifespan.startup.failed", "lifespan.shutdown.complete", "lifespan.shutdown.failed")
_FIELDS = {"Set-Cookie": b"set-cookie", "Vary": b"vary"}
_logger = logging.getLogger("pgsession")


class AsgiSession(WebSession):
    """The session of a request or WebSocket, as `scope["session"]` has it: see `pgsession.web.WebSession`."""

    _middleware: SessionMiddleware
    _send: Send
    _answered = False  # the response has begun
    _refused = False  # the response is 409, and what the application sends is not
    _saving: anyio.Lock | None = None
    _failed = False  # the last attempt to save it: the response, which is about that, does not try it again

    async def save(self) -> None:
        """Save what was changed so far. The middleware does so when the response begins, or a WebSocket ends.

        Call it after that: in a background task, in the body of a stream, in the middle of a WebSocket. And in a
        handler that is to know of an error, such as `TooManySessionsError`.

        Raises:
            SessionConflict: Another request was faster.
            RuntimeError: It would be a new one, and the response has begun.
        """
        if self._saving is None:
            self._saving = anyio.Lock(fast_acquire=True)
        async with self._saving:  # tasks of one request would each begin a session
            self._failed = True
            try:
                await self._middleware._save(self)
            except SessionConflict:
                self._conflicted = True
                raise
            self._failed = False

    # The response: before its first byte the session is saved, and its headers are added

    def _respond(self, message: Message) -> Awaitable[None]:
        """Send a message of the application."""
        if self._answered:
            return self._send(message)
        if not self._accessed and self._release is None and message["type"] in _BEGINNINGS:
            self._answered = self._started = True
            return self._send(message)
        if self._refused:
            return _nothing()
        if message["type"] not in _BEGINNINGS:
            if message["type"] == "websocket.close":  # refused: no cookie can be set
                self._middleware._rules.headers(self)
            return self._send(message)
        if message.get("status", 200) >= _FAILED:
            if self._conflicted:
                return self._refuse(message)
            self._failed = True
        if self._release is not None or (
            self._accessed and not self._failed and self._middleware._rules.is_due(self)
        ):
            return self._save_and_begin(message)
        return self._send(self._with_headers(message))

    async def _refuse(self, message: Message) -> None:
        self._refused = True
        await _refuse(message["type"], self._send, self._middleware._rules.headers(self))

    async def _save_and_begin(self, message: Message) -> None:
        try:
            if not self._failed:
                await self.save()
        except SessionConflict:
            # Not raised: frameworks take a response that they begin to send for begun.
            await self._refuse(message)
            return
        if self._release is not None:
            await self._middleware._release(self)
        await self._send(self._with_headers(message))

    def _with_headers(self, message: Message) -> Message:
        """Return the first message, with the headers that the session adds."""
        self._answered = True
        if not self._accessed:
            self._started = True
            return message
        headers = [*message.get("headers", ())]
        vary = []
        for name, value in headers:
            if len(name) == 4 and name.lower() == b"vary":
                vary.append(value.decode("latin-1"))
        for field, text in self._middleware._rules.headers(self, vary):
            headers.append((_FIELDS[field], text.encode("latin-1")))
        return {**message, "headers": headers}


class SessionMiddleware:
    """Gives each request and WebSocket its session, as `scope["session"]` (`request.session`), and saves it.

    It opens and closes its manager with the application's lifespan. Where that is not told, as by some test clients, a
    manager is opened by the first request that needs one, and closed when the process exits.

    Args:
        app: The application.
        database: As for `SessionManager`; or a list of shards, as for `ShardedSessionManager`.
        keys: As for `Signer`.
        config: As for `SessionManager`.
        on_conflict: What becomes of overlapping requests' changes: see `pgsession.web.SessionRules`.
        serial_timeout: With `"serial"`, for how long a request waits for its turn.
        manager: One that you open and close, with a signer, in place of `database`, `keys` and `config`. An
            `AsyncSessionManager` serves the event loop that opened it, a `SessionManager` any, and trio.
        scope_key: Where the session is in the scope, for an application with several of these.
        **cookie: The fields of `CookiePolicy`. For plain http: `secure=False`.

    Raises:
        ConfigError: An argument is not usable; the message names it.
    """

    _kind: type[AsgiSession] = AsgiSession

    def __init__(
        self,
        app: App,
        *,
        database: Database | None = None,
        keys: bytes | Sequence[bytes] = (),
        config: Config | None = None,
        on_conflict: OnConflict = "merge",
        serial_timeout: timedelta | float = 30,
        manager: SessionManager | AsyncSessionManager | None = None,
        scope_key: str = "session",
        **cookie: Unpack[CookieSettings],
    ) -> None:
        if (database is None) == (manager is None):
            raise ConfigError("database: either this or manager is needed, and not both")
        self.app = app
        self._rules = SessionRules(
            CookiePolicy(**cookie), on_conflict=on_conflict, serial_timeout=serial_timeout
        )
        self._key = scope_key
        made = None if database is None else (database, config, Signer(keys))
        self._managers = Managers(made, manager)
        self._token = self._managers.token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope."""
        kind = scope["type"]
        if kind != "http" and kind != "websocket":
            await (self._live(scope, receive, send) if kind == "lifespan" else self.app(scope, receive, send))
            return
        found = self._rules.find(self._managers.here(), scope["headers"])
        if type(found) is Session:
            session = self._kind(self._rules.cookie, self._token, found)
        elif not found:
            session = self._kind(self._rules.cookie, self._token)
        else:
            try:
                session = await self._load(found)
            except SessionConflict:
                await _refuse(kind, send, [("Vary", "Cookie")])
                return
        session._middleware = self
        session._send = send
        scope[self._key] = session
        try:
            if kind == "http":
                await self.app(scope, receive, session._respond)
            else:
                await self._serve_websocket(scope, receive, session)
        except SessionConflict:
            if session._answered:
                raise
            if not session._refused:
                await _refuse(kind, send, self._rules.headers(session))
            return
        finally:
            if session._release is not None:
                await self._release(session)
        if session._accessed and session._answered and not session._failed and session.modified:
            _logger.warning(
                "a session was changed after its response had begun, and the change is lost: "
                "call `await session.save()` after it"
            )

    # One request or WebSocket

    async def _serve_websocket(self, scope: Scope, receive: Receive, session: AsgiSession) -> None:
        """Serve a WebSocket, and save its session at its end.

        It ends as its client goes. Frameworks tell their application so by an exception, and some servers cancel it;
        what fails while the client is there saves nothing.
        """
        over = False

        async def receive_until_over() -> Message:
            nonlocal over
            message = await receive()
            over = over or message["type"] == "websocket.disconnect"
            return message

        async def send_until_over(message: Message) -> None:
            nonlocal over
            try:
                await session._respond(message)
            except OSError:  # so servers say that the client has gone
                over = True
                raise

        try:
            await self.app(scope, receive_until_over, send_until_over)
            over = True
        finally:
            ends = session._accessed and session._ending is not None
            if over and not session._refused and (ends or (session.modified and not session.new)):
                with anyio.CancelScope(shield=True):
                    await session.save()

    async def _load(self, tokens: list[str]) -> AsgiSession:
        waits = self._rules.on_conflict == "serial"
        opened, release = await self._managers.run(self._rules.opening(tokens), waits=waits)
        return self._kind(self._rules.cookie, self._token, opened, release)

    async def _save(self, session: AsgiSession) -> None:
        await self._managers.run(self._rules.saving(session))

    async def _release(self, session: AsgiSession) -> None:
        with anyio.CancelScope(shield=True):
            await self._managers.run(releasing(session))

    # The lifespan

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Open a manager when the application starts, and close it when it has stopped."""
        failed = False

        async def receive_open() -> Message:
            nonlocal failed
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self._managers.open()
                except Exception as error:
                    # Said here: servers take an application that only raises for one that knows no lifespan, and go on.
                    failed = True
                    await send(
                        {"type": "lifespan.startup.failed", "message": "".join(format_exception(error))}
                    )
                    raise
            return message

        async def send_closed(message: Message) -> None:
            if message["type"] in _ENDINGS:
                await self._managers.close()
            if not failed:
                await send(message)

        try:
            await self.app(scope, receive_open, send_closed)
        finally:
            await self._managers.close()


async def _nothing() -> None: ...


async def _refuse(kind: str, send: Send, added: list[tuple[str, str]]) -> None:
    """Answer 409, with the cookie of what was saved before; a WebSocket that was not accepted yet is refused."""
    if kind.startswith("websocket"):
        await send({"type": "websocket.close", "code": 1013})
        return
    body = b"The session was changed by another request: repeat this one."
    headers: Iterable[tuple[bytes, bytes]] = [
        (b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode()),
        *((_FIELDS[name], value.encode("latin-1")) for name, value in added),
    ]  # fmt: skip
    await send({"type": "http.response.start", "status": 409, "headers": headers})
    await send({"type": "http.response.body", "body": body})
