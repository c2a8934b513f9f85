"""Quart's sessions in PostgreSQL, read from memory: the extra `quart`.

    app.config["PGSESSION_DATABASE"] = "postgresql://app@db/app"
    PgSession(app)

All else is as `pgsession.contrib.flask` has it, awaited where that waits. WebSockets have their sessions too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from datetime import datetime
from functools import partial
from typing import TypeVar, cast

from flask.json.tag import TaggedJSONSerializer
from quart import Quart, Response, Websocket, has_websocket_context, request, websocket
from quart import session as quart_session
from quart.sessions import SecureCookieSessionInterface, SessionInterface, SessionMixin
from quart.wrappers.base import BaseRequestWebsocket
from werkzeug.datastructures import Headers
from werkzeug.wrappers import Response as WerkzeugResponse

from pgsession import Opened, Session
from pgsession.contrib._managers import Managers
from pgsession.contrib._pallets import (
    FAILED,
    PalletsSession,
    RequestConflict,
    Rules,
    become,
    check_cookie,
    end_of,
    is_to_be_looked_at,
    read_settings,
    secrets_of,
    set_cookie,
    signer,
)
from pgsession.web import SessionConflict, SessionRules, releasing

__all__ = ["PgSession", "PgSessionInterface", "QuartSession", "session"]

_T = TypeVar("_T")
_NAME = "pgsession"  # in Quart.extensions
_KEY = "pgsession.session"  # in a request's scope
_logger = logging.getLogger("pgsession")


class QuartSession(PalletsSession):
    """The session of a request or WebSocket, as `quart.session` has it: see `pgsession.web.WebSession`.

    Args:
        rules: The rules.
        managers: What makes the calls.
        opened: What the request's token opens, or the error of who looks at it.
    """

    _failed = False  # the last attempt to save it: the response, which is about that, does not try it again

    def __init__(
        self, rules: SessionRules, managers: Managers, opened: Session | Opened | Exception | None
    ) -> None:
        self._rules = rules
        self._managers = managers
        super().__init__(
            rules.cookie,
            managers.token,
            partial(_fail, opened) if isinstance(opened, Exception) else opened,
        )

    async def save(self) -> None:
        """Save what was changed so far; that is done when the response begins, and when a WebSocket ends.

        Call it after that: in background tasks, the body of a stream, the middle of a WebSocket. And in a handler that
        is to know of an error, such as `TooManySessionsError`.

        Raises:
            SessionConflict: Another request was faster.
            RuntimeError: It would be a new one, and the response has begun.
        """
        await self._save()

    async def _save(self, *, refresh: bool = False) -> None:
        if refresh or self._rules.is_due(self):
            self._failed = True
            await self._managers.run(self._rules.saving(self, refresh=refresh))
        self._failed = False

    async def _end_turn(self) -> None:
        """Let the session's next request begin."""
        if self._release is not None:
            await _to_the_end(self._managers.run(releasing(self)))


session = cast("QuartSession", quart_session)  # the same, as type checkers are to see it


class PgSessionInterface(SessionInterface):
    """Keeps the sessions of applications, each by what its configuration says.

    Attributes:
        serializer: What tags the values that JSON has not, as Quart's own. `serializer.register` adds tags.
        session_class: What a session is.
    """

    serializer = TaggedJSONSerializer()
    session_class = QuartSession

    async def open_session(self, app: Quart, request: BaseRequestWebsocket) -> QuartSession | None:
        """Return the session of a request or WebSocket; None without a secret key."""
        if not app.secret_key:
            return None
        state = self._state(app)
        rules, managers = state.rules.of(self.get_cookie_name(app)), state.managers(app)
        tokens = rules.tokens("; ".join(request.headers.getlist("Cookie")))
        manager = managers.here() if tokens else None
        opened: Session | Opened | Exception | None = None
        release = None
        if manager is not None:
            opened = rules.from_memory(manager, tokens)
        if tokens and opened is None:
            try:
                opened, release = await managers.run(
                    rules.opening(tokens), waits=rules.on_conflict == "serial"
                )
            except Exception as error:  # of who looks at it, for here no handler of errors would be asked
                opened = RequestConflict(str(error)) if isinstance(error, SessionConflict) else error
        session = self.session_class(rules, managers, opened)
        session._release = release
        session._lasts = lambda: app.permanent_session_lifetime
        _extras(request)[_KEY] = session
        if isinstance(request, Websocket):
            self._save_at_accept(app, session, request)
        return session

    async def save_session(
        self, app: Quart, session: SessionMixin, response: Response | WerkzeugResponse | None
    ) -> None:
        """Save what a request did to its session, and have the response set its cookie where it has to.

        Args:
            app: The application.
            session: One that `open_session` returned.
            response: The response; None: a WebSocket has ended.

        Raises:
            SessionConflict: Another request was faster than a WebSocket.
        """
        assert isinstance(session, QuartSession), "one that open_session returned"
        if response is None:
            await session.save()
            return
        session._failed = session._failed or response.status_code >= FAILED
        try:
            if not session._failed:
                await self._save(app, session)
        except SessionConflict as error:
            answer = await app.make_response(await app.handle_user_exception(error))
            body = answer.get_data() if isinstance(answer, WerkzeugResponse) else await answer.get_data()
            become(response, answer, body if isinstance(body, bytes) else body.encode())
        finally:
            await session._end_turn()
        if not session._started:
            set_cookie(self, app, session, response)

    def get_expiration_time(self, app: Quart, session: SessionMixin) -> datetime | None:
        """Return when the session's cookie ends, as the session itself; None: with the browser."""
        return end_of(session)

    async def _save(self, app: Quart, session: QuartSession) -> None:
        if not is_to_be_looked_at(app, session):
            return
        was_modified = session.modified
        await session._save(refresh=self.should_set_cookie(app, session))
        if was_modified and session._is_empty():
            session.log_out()
            await session.save()
        session.modified = was_modified  # as Quart's own

    def _save_at_accept(self, app: Quart, session: QuartSession, websocket: Websocket) -> None:
        """Have a session be saved when its WebSocket is accepted, which is when its cookie can be set."""
        accept = websocket.accept

        async def save_and_accept(
            headers: dict[str, str] | Headers | None = None, subprotocol: str | None = None
        ) -> None:
            if not session._started:
                await self._save(app, session)
                await session._end_turn()
                response = Response()
                set_cookie(self, app, session, response)
                headers = Headers(headers)
                for value in response.headers.getlist("Set-Cookie"):
                    headers.add("Set-Cookie", value)
                session._told = None
                session._started = True
            await accept(headers, subprotocol)

        websocket.accept = save_and_accept  # type: ignore[method-assign]

    def _state(self, app: Quart) -> _State:
        state: _State | None = app.extensions.get(_NAME)
        if state is None:
            app.extensions[_NAME] = state = _State(app, self.serializer)
        return state


class PgSession:
    """Is the extension: it has applications keep their sessions in PostgreSQL.

    The manager is opened and closed with the application. Where Quart is not told of that, as by some test clients, one
    is opened by the first request that needs it, and closed when the process exits.

    Args:
        app: The application; None: `init_app` is called for each.
    """

    def __init__(self, app: Quart | None = None) -> None:
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Quart) -> None:
        """Have an application keep its sessions in PostgreSQL.

        Args:
            app: The application, configured.

        Raises:
            ConfigError: A setting is missing or not usable; the message names it.
        """
        check_cookie(app)
        interface = PgSessionInterface()
        app.extensions[_NAME] = state = _State(app, interface.serializer)
        app.session_interface = cast("SecureCookieSessionInterface", interface)  # Quart takes any
        app.before_serving(partial(state.open, app))
        app.after_serving(state.close)
        app.teardown_request(_end)
        app.teardown_websocket(_end)


class _State:
    """Holds what an application has of ours."""

    def __init__(self, app: Quart, serializer: TaggedJSONSerializer) -> None:
        self._settings = read_settings(app.config, serializer)
        self.rules = Rules(self._settings)
        self._by_secrets: dict[tuple[str | bytes, ...], Managers] = {}

    def managers(self, app: Quart) -> Managers:
        """Return what makes the calls, with the keys of now."""
        secrets = secrets_of(app)
        managers = self._by_secrets.get(secrets)
        if managers is None:
            settings = self._settings
            managers = Managers((settings.database, settings.config, signer(secrets)), None)
            self._by_secrets[secrets] = managers
        return managers

    async def open(self, app: Quart) -> None:
        """Open a manager for the running loop."""
        if app.secret_key:
            await self.managers(app).open()

    async def close(self) -> None:
        """Close those of the running loop."""
        for managers in self._by_secrets.values():
            await managers.close()


async def _end(error: BaseException | None) -> None:
    """End what a request has left; save what a WebSocket has done whose client is gone."""
    is_websocket = has_websocket_context()
    session = _extras(websocket if is_websocket else request).get(_KEY)
    if not isinstance(session, QuartSession):
        return
    await session._end_turn()
    if not session._started or not session._accessed or session._failed or not session._has_changes():
        return
    if not is_websocket:
        _logger.warning(
            "a session was changed after its response had begun, and the change is lost: "
            "call `await session.save()` after it"
        )
    elif not session.new and (error is None or isinstance(error, asyncio.CancelledError)):
        await _to_the_end(session.save())


def _extras(request: BaseRequestWebsocket) -> dict[str, object]:
    return cast("dict[str, object]", request.scope)


def _fail(error: Exception) -> Opened:
    raise error


async def _to_the_end(work: Coroutine[None, None, _T]) -> _T:
    """Do what has to be done also where the request's task is cancelled, as may be when its client goes."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise
