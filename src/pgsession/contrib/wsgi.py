"""Sessions for any WSGI application, on any server for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Unpack

from pgsession import Config, ConfigError, Opened, Session, SessionManager, Signer
from pgsession.contrib import _databases
from pgsession.contrib._databases import Database
from pgsession.contrib._process import OncePerProcess, open_or_close
from pgsession.web import (
    CookiePolicy,
    CookieSettings,
    OnConflict,
    SessionConflict,
    SessionRules,
    WebSession,
    releasing,
    run,
)

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["SessionMiddleware", "WsgiSession"]

Headers = list[tuple[str, str]]
FAILED = 500  # what is answered with this status or a higher one saves nothing
_CONFLICT = b"The session was changed by another request: repeat this one."
_logger = logging.getLogger("pgsession")


class WsgiSession(WebSession):
    """The session of a request, as `environ["pgsession.session"]` has it: see `pgsession.web.WebSession`.

    Args:
        rules: The rules.
        manager: Returns the manager, opened.
        cookies: The request's Cookie header.
    """

    _failed = False  # the last attempt to save it: the response, which is about that, does not try it again

    def __init__(self, rules: SessionRules, manager: Callable[[], SessionManager], cookies: str) -> None:
        self._rules = rules
        self._manager = manager
        self._tokens = rules.tokens(cookies) if cookies else []
        self._loading = threading.Lock()  # a request may have threads
        super().__init__(rules.cookie, self._token_of, self._open if self._tokens else None)

    def save(self) -> None:
        """Save what was changed so far. When the response begins that is done anyway.

        Call it after that, in the body of a stream. And in a handler that is to know of an error, such as
        `TooManySessionsError`.

        Raises:
            SessionConflict: Another request was faster.
            RuntimeError: It would be a new one, and the response has begun.
        """
        self._save()

    def _save(self, *, refresh: bool = False) -> None:
        if refresh or self._rules.is_due(self):
            self._failed = True
            run(self._manager(), self._rules.saving(self, refresh=refresh))
        self._failed = False

    def _find_out(self) -> None:
        with self._loading:
            if self._load is not None:
                super()._find_out()

    def _open(self) -> Opened | None:
        manager = self._manager()
        stored = self._rules.from_memory(manager, self._tokens)
        if stored is not None:
            return Opened(stored, "current")
        opened, self._release = run(manager, self._rules.opening(self._tokens))
        return opened

    def _token_of(self, session: Session) -> str | None:
        return self._manager().token(session)

    def _end_turn(self) -> None:
        """Let the session's next request begin."""
        if self._release is not None:
            run(self._manager(), releasing(self))


class SessionMiddleware:
    """Gives each request its session, as `environ["pgsession.session"]`, and saves it.

    The first request that needs a manager opens it, in each process, and it is closed when the process exits.

    Args:
        app: The application.
        database: As for `SessionManager`; or a list of shards, as for `ShardedSessionManager`.
        keys: As for `Signer`.
        config: As for `SessionManager`.
        on_conflict: What becomes of overlapping requests' changes: see `pgsession.web.SessionRules`.
        serial_timeout: With `"serial"`, for how long a request waits for its turn.
        manager: One that you open and close, with a signer, in place of `database`, `keys` and `config`.
        environ_key: Where the session is in the environ, for an application with several of these.
        **cookie: The fields of `CookiePolicy`. For plain http: `secure=False`.

    Raises:
        ConfigError: An argument is not usable; the message names it.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        database: Database | None = None,
        keys: bytes | Sequence[bytes] = (),
        config: Config | None = None,
        on_conflict: OnConflict = "merge",
        serial_timeout: timedelta | float = 30,
        manager: SessionManager | None = None,
        environ_key: str = "pgsession.session",
        **cookie: Unpack[CookieSettings],
    ) -> None:
        if (database is None) == (manager is None):
            raise ConfigError("database: either this or manager is needed, and not both")
        self.app = app
        self._rules = SessionRules(
            CookiePolicy(**cookie), on_conflict=on_conflict, serial_timeout=serial_timeout
        )
        self._key = environ_key
        self._manager: Callable[[], SessionManager]
        if manager is not None:
            self._manager = lambda: manager
        elif database is not None:
            self._manager = _opening(database, config, Signer(keys))

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        session = WsgiSession(self._rules, self._manager, environ.get("HTTP_COOKIE", ""))
        environ[self._key] = session
        response = _Response(session, self._rules, start_response)
        body = _Body(session, response)
        try:
            body.given = self.app(environ, response.start)
            if response.is_asked_for:
                response.begin()
        except BaseException as error:
            body.close()
            if isinstance(error, SessionConflict) and not response.has_begun:
                return response.refuse()
            raise
        return body.given if response.has_begun and _is_whole(body.given, environ) else body


def _is_whole(body: Iterable[bytes], environ: WSGIEnvironment) -> bool:
    """Return True for what runs no code of the application's, and servers send faster as it is."""
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(body, list | tuple) or (isinstance(wrapper, type) and isinstance(body, wrapper))


def _opening(database: Database, config: Config | None, signer: Signer) -> Callable[[], SessionManager]:
    def opened() -> SessionManager:
        manager = _databases.manager(database, config, signer)
        open_or_close(manager)
        return manager

    return OncePerProcess(opened, _databases.close).get


class _Response:
    """Begins a response: just before that the session is saved, and its headers are added.

    What the application asks for is not told to the server before it has returned, or asks to write: until then
    it may change the session, and the headers, too.
    """

    def __init__(self, session: WsgiSession, rules: SessionRules, start_response: StartResponse) -> None:
        self._session = session
        self._rules = rules
        self._start = start_response
        self._asked: tuple[str, Headers, OptExcInfo | None] | None = None
        self._added: Headers = []
        self._write: Callable[[bytes], object] | None = None

    @property
    def is_asked_for(self) -> bool:
        """Return True once the application has called `start`."""
        return self._asked is not None

    @property
    def has_begun(self) -> bool:
        """Return True once the server was told."""
        return self._write is not None

    def start(
        self, status: str, headers: Headers, exc_info: OptExcInfo | None = None
    ) -> Callable[[bytes], object]:
        """Be what the application calls: `start_response`."""
        if self._asked is not None and exc_info is None:
            raise AssertionError("start_response: it was called already, and exc_info was not given")
        self._asked = status, headers, exc_info
        if self._write is not None:  # the server decides whether that is too late
            self._write = self._start(status, [*headers, *self._added], exc_info)
        return self.write

    def write(self, data: bytes) -> None:
        """Be what the application calls to write a piece of the body."""
        if self._write is None:
            self.begin()
        assert self._write is not None
        self._write(data)

    def begin(self) -> None:
        """Save the session and tell the server.

        Raises:
            SessionConflict: Another request was faster.
        """
        if self._write is not None:
            return
        assert self._asked is not None
        status, headers, exc_info = self._asked
        session = self._session
        if int(status[:3]) >= FAILED:
            if session._conflicted:
                raise SessionConflict(
                    "another request was faster, which the application has answered as a failure"
                )
            session._failed = True
        if not session._failed:
            session.save()
        session._end_turn()
        vary = [value for name, value in headers if name.lower() == "vary"]
        self._added = self._rules.headers(session, vary)
        try:
            self._write = self._start(status, [*headers, *self._added], exc_info)
        finally:
            self._asked, exc_info = (status, headers, None), None

    def refuse(self) -> list[bytes]:
        """Answer 409, with the cookie of what was saved before; return the body."""
        length = str(len(_CONFLICT))
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", length)]
        headers += self._rules.headers(self._session)
        self._write = self._start("409 Conflict", headers)
        return [_CONFLICT]


class _Body:
    """Is the body of a response, which begins with its first piece where it has not before."""

    given: Iterable[bytes] = ()  # by the application

    def __init__(self, session: WsgiSession, response: _Response) -> None:
        self._session = session
        self._response = response
        self._pieces: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        response = self._response
        if response.has_begun and self._pieces is not None:
            return next(self._pieces)
        try:
            if self._pieces is None:
                self._pieces = iter(self.given)
            piece = next(self._pieces, None)
            if response.is_asked_for:
                response.begin()
        except SessionConflict:
            if response.has_begun:
                raise
            self._pieces = iter(())
            return response.refuse()[0]
        if piece is None:
            raise StopIteration
        return piece

    def close(self) -> None:
        """End the body, as a server does also in the middle of it."""
        session = self._session
        try:
            close = getattr(self.given, "close", None)
            if close is not None:
                close()
        finally:
            session._end_turn()
        if session._accessed and self._response.has_begun and session.modified and not session._failed:
            _logger.warning(
                "a session was changed after its response had begun, and the change is lost: "
                "call `session.save()` after it"
            )
