"""Flask's sessions in PostgreSQL, read from memory: the extra `flask`.

    app.config["PGSESSION_DATABASE"] = "postgresql://app@db/app"
    PgSession(app)

All else is Flask's own: `flask.session`, the settings `SESSION_COOKIE_...`, and `SECRET_KEY` with
`SECRET_KEY_FALLBACKS`, from which the keys that sign are derived.
"""

from __future__ import annotations

import logging
from datetime import datetime
from functools import partial
from typing import cast

from flask import Flask, current_app, request
from flask import session as flask_session
from flask.json.tag import TaggedJSONSerializer
from flask.sessions import SessionInterface, SessionMixin
from flask.wrappers import Request, Response

from pgsession import Opened, SessionManager
from pgsession.contrib import _databases
from pgsession.contrib._pallets import (
    FAILED,
    PalletsSession,
    RequestConflict,
    Rules,
    Settings,
    become,
    check_cookie,
    end_of,
    is_to_be_looked_at,
    read_settings,
    secrets_of,
    set_cookie,
    signer,
)
from pgsession.contrib._process import OncePerProcess, open_or_close
from pgsession.contrib.wsgi import WsgiSession
from pgsession.web import SessionConflict

__all__ = ["FlaskSession", "PgSession", "PgSessionInterface", "session", "session_manager"]

_NAME = "pgsession"  # in Flask.extensions
_KEY = "pgsession.session"  # in a request's environ
_logger = logging.getLogger("pgsession")


class FlaskSession(PalletsSession, WsgiSession):  # type: ignore[override]
    """The session of a request, as `flask.session` has it: see `pgsession.web.WebSession`."""

    def _open(self) -> Opened | None:
        try:
            return super()._open()
        except SessionConflict as error:
            raise RequestConflict(str(error)) from error

    def _peek(self, manager: SessionManager | None) -> None:
        """Take what is in memory, without an access: it may be one whose cookie is set with each response."""
        if self._load is not None and manager is not None:
            stored = self._rules.from_memory(manager, self._tokens)
            if stored is not None:
                self._load, self._stored = None, stored


session = cast("FlaskSession", flask_session)  # the same, as type checkers are to see it


class PgSessionInterface(SessionInterface):
    """Keeps the sessions of applications, each by what its configuration says.

    Attributes:
        serializer: What tags the values that JSON has not, as Flask's own. `serializer.register` adds tags.
        session_class: What a session is.
    """

    serializer = TaggedJSONSerializer()
    session_class = FlaskSession

    def open_session(self, app: Flask, request: Request) -> FlaskSession | None:
        """Return the session of a request, which is loaded when it is first looked at; None without a secret key."""
        if not app.secret_key:
            return None
        state = self._state(app)
        cookies = request.environ.get("HTTP_COOKIE", "")
        session = self.session_class(
            state.rules.of(self.get_cookie_name(app)), partial(state.manager, app), cookies
        )
        session._lasts = lambda: app.permanent_session_lifetime
        request.environ[_KEY] = session
        return session

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Save what a request did to its session, and have the response set its cookie where it has to."""
        assert isinstance(session, FlaskSession), "one that open_session returned"
        session._failed = session._failed or response.status_code >= FAILED
        try:
            if not session._failed:
                self._save(app, session)
        except SessionConflict as error:
            answer = app.make_response(app.handle_user_exception(error))
            become(response, answer, answer.get_data())
        finally:
            session._end_turn()
        set_cookie(self, app, session, response)

    def get_expiration_time(self, app: Flask, session: SessionMixin) -> datetime | None:
        """Return when the session's cookie ends, as the session itself; None: with the browser."""
        return end_of(session)

    def _save(self, app: Flask, session: FlaskSession) -> None:
        if app.config["SESSION_REFRESH_EACH_REQUEST"] and not session._accessed:
            session._peek(self._state(app).process.opened)
        if not is_to_be_looked_at(app, session):
            return
        was_modified = session.modified
        session._save(refresh=self.should_set_cookie(app, session))
        if was_modified and session._is_empty():
            session.log_out()
            session.save()
        session.modified = was_modified  # as Flask's own

    def _state(self, app: Flask) -> _State:
        state: _State | None = app.extensions.get(_NAME)
        if state is None:
            app.extensions[_NAME] = state = _State(app, self.serializer)
        return state


class PgSession:
    """Is the extension: it has applications keep their sessions in PostgreSQL.

    A process opens its manager when the first session needs it, and closes it when it exits.

    Args:
        app: The application; None: `init_app` is called for each.
    """

    def __init__(self, app: Flask | None = None) -> None:
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Have an application keep its sessions in PostgreSQL.

        Args:
            app: The application, configured.

        Raises:
            ConfigError: A setting is missing or not usable; the message names it.
        """
        check_cookie(app)
        interface = PgSessionInterface()
        app.extensions[_NAME] = _State(app, interface.serializer)
        app.session_interface = interface
        app.teardown_request(_end_request)


class _State:
    """Holds what an application has of ours."""

    def __init__(self, app: Flask, serializer: TaggedJSONSerializer) -> None:
        self._settings = read_settings(app.config, serializer)
        self.rules = Rules(self._settings)
        self._begin(secrets_of(app))

    def _begin(self, secrets: tuple[str | bytes, ...]) -> None:
        self._secrets = secrets
        self.process = OncePerProcess(partial(_opened, self._settings, secrets), _databases.close)

    def manager(self, app: Flask) -> SessionManager:
        """Return the manager of this process, opened, whose keys are those of now."""
        secrets = secrets_of(app)
        if secrets != self._secrets:
            self._begin(secrets)
        return self.process.get()


def _opened(settings: Settings, secrets: tuple[str | bytes, ...]) -> SessionManager:
    manager = _databases.manager(settings.database, settings.config, signer(secrets))
    open_or_close(manager)
    return manager


def session_manager(app: Flask | None = None) -> SessionManager:
    """Return the manager of an application in this process, opened: for lists of a user's sessions, locks and so on.

    Nobody has to close it.

    Args:
        app: The application; None: the current one.
    """
    app = app or current_app._get_current_object()  # type: ignore[attr-defined]
    state: _State = app.extensions[_NAME]
    return state.manager(app)


def _end_request(error: BaseException | None) -> None:
    """End what a request has left that got no response, or changed its session after that had begun."""
    session: FlaskSession | None = request.environ.get(_KEY)
    if session is None:
        return
    session._end_turn()
    if session._started and session._accessed and not session._failed and session._has_changes():
        _logger.warning(
            "a session was changed after its response had begun, and the change is lost: "
            "call `session.save()` after it"
        )
