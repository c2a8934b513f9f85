"""What a session costs a request of Flask and of Django, in process: one view, called as a WSGI server calls it."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from time import perf_counter, thread_time
from typing import Any

from .frameworks import configured_django
from .race import Contender, Missing, Race, Round, Sample
from .stage import Stage
from .test_web import CHANGED, KEY, NONE, READ, UNTOUCHED, VALUES, VISITORS

FLASK_SIGNED = "Flask's signed cookie, one value read"

in_flask = Race("web-flask", "A request of a Flask application, computing", baseline=NONE)
in_django = Race("web-django", "A request of a Django application, computing", baseline=NONE)
_WAITING = "with all that it waits for"
flask_stores = Race(
    "web-flask-stores", f"A request of a Flask application, {_WAITING}", baseline=READ, rounds=5
)
django_stores = Race(
    "web-django-stores", f"A request of a Django application, {_WAITING}", baseline=READ, rounds=5
)

_numbers = itertools.count()


@dataclass(frozen=True)
class Application:
    """A WSGI application with a view that leaves its session alone, and some that read, change and fill it."""

    call: Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
    settings: Callable[[], AbstractContextManager[Any]] = nullcontext
    """What is true while it runs."""
    has_sessions: bool = True
    close: Callable[[], object] = lambda: None


def _contender(
    make: Callable[[Stage], Application], path: str, clock: Callable[[], float], requests: int
) -> Contender:
    """Rounds of requests, one after the other."""

    def contender(stage: Stage) -> Iterator[Round]:
        app = make(stage)
        with app.settings():
            cookies = [_fill(app) if app.has_sessions else "other=1" for _ in range(VISITORS)]

        def take_turn() -> Sample:
            environs = [_environ(path, cookies[number % VISITORS]) for number in range(requests)]
            with app.settings():
                _answer(app, _environ(path, cookies[0]))
                began = clock()
                for environ in environs:
                    _answer(app, environ)
                elapsed = clock() - began
            return Sample(elapsed / requests, operations=requests if clock is perf_counter else 0)

        yield take_turn
        app.close()

    return contender


def _enter(race: Race, *rows: tuple[str, Callable[[Stage], Application], str]) -> None:
    """Enters rows that only compute, which the thread's own clock measures; those of a race of stores also wait."""
    clock, requests = (perf_counter, 50) if race in (flask_stores, django_stores) else (thread_time, 200)
    for name, make, path in rows:
        race.contender(name)(_contender(make, path, clock, requests))


def _fill(app: Application) -> str:
    headers = _answer(app, _environ("/fill", ""))
    return next(value.partition(";")[0] for name, value in headers if name.lower() == "set-cookie")


def _answer(app: Application, environ: dict[str, Any]) -> list[tuple[str, str]]:
    said: list[Any] = []
    body = app.call(environ, lambda *arguments: said.extend(arguments))
    for _ in body:
        pass
    if hasattr(body, "close"):
        body.close()
    assert said[0].startswith("200"), said[0]
    headers: list[tuple[str, str]] = said[1]
    return headers


def _environ(path: str, cookies: str) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": "", "SERVER_NAME": "example.org",
        "SERVER_PORT": "443", "SERVER_PROTOCOL": "HTTP/1.1", "REMOTE_ADDR": "::1", "HTTP_HOST": "example.org",
        "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64)", "HTTP_ACCEPT": "text/html", "HTTP_COOKIE": cookies,
        "wsgi.version": (1, 0), "wsgi.url_scheme": "https", "wsgi.input": io.BytesIO(), "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True, "wsgi.multiprocess": False, "wsgi.run_once": False,
    }  # fmt: skip


# Flask


def _flask(**config: Any) -> Any:
    import flask

    app = flask.Flask("benchmark")
    app.config.update(SECRET_KEY=KEY, **config)

    def read() -> str:
        assert flask.session["role"] == "admin"
        return "done"

    def change() -> str:
        flask.session["visits"] = next(_numbers)
        return "done"

    def fill() -> str:
        flask.session.update(VALUES)
        return "done"

    for view in (read, change, fill):
        app.add_url_rule(f"/{view.__name__}", view_func=view)
    app.add_url_rule("/alone", view_func=lambda: "done", endpoint="alone")
    return app


def _flask_without(_: Stage) -> Application:
    from flask.sessions import SessionInterface

    class NoSessions(SessionInterface):
        def open_session(self, app: Any, request: Any) -> Any:
            return self.make_null_session(app)

    app = _flask()
    app.session_interface = NoSessions()
    return Application(app.wsgi_app, has_sessions=False)


def _flask_signed(_: Stage) -> Application:
    return Application(_flask().wsgi_app)


def _flask_pgsession(stage: Stage) -> Application:
    from pgsession.contrib.flask import PgSession, session_manager

    def close() -> None:
        with app.app_context():
            session_manager().close()

    app = _flask(PGSESSION_DATABASE=stage.new_database(), PGSESSION_CREATE_SCHEMA_IF_MISSING=True)
    PgSession(app)
    return Application(app.wsgi_app, close=close)


def _flask_session(stage: Stage) -> Application:
    import flask_session
    import redis

    app = _flask(SESSION_TYPE="redis", SESSION_REDIS=redis.Redis.from_url(stage.redis))
    flask_session.Session(app)
    return Application(app.wsgi_app)


_enter(
    in_flask,
    (NONE, _flask_without, "/alone"),
    (UNTOUCHED, _flask_pgsession, "/alone"),
    (READ, _flask_pgsession, "/read"),
    ("Flask's signed cookie, the session left alone", _flask_signed, "/alone"),
    (FLASK_SIGNED, _flask_signed, "/read"),
)
_enter(
    flask_stores,
    (READ, _flask_pgsession, "/read"),
    (CHANGED, _flask_pgsession, "/change"),
    ("Flask's signed cookie, one value changed", _flask_signed, "/change"),
    ("Flask-Session (Redis), the session left alone", _flask_session, "/alone"),
    ("Flask-Session (Redis), one value read", _flask_session, "/read"),
    ("Flask-Session (Redis), one value changed", _flask_session, "/change"),
)


# Django


def _django(engine: str | None, cache: str = "default") -> Callable[[Stage], Application]:
    def make(stage: Stage) -> Application:
        configured_django(stage)
        from django.conf import settings
        from django.core.handlers.wsgi import WSGIHandler
        from django.http import HttpResponse
        from django.test import override_settings
        from django.urls import path

        from pgsession.contrib.django.manager import close_manager

        if cache not in settings.CACHES:
            raise Missing("no redis-server on the PATH, and no REDIS_URL")

        def alone(_: Any) -> HttpResponse:
            return HttpResponse("done")

        def read(request: Any) -> HttpResponse:
            assert request.session["role"] == "admin"
            return HttpResponse("done")

        def change(request: Any) -> HttpResponse:
            request.session["visits"] = next(_numbers)
            return HttpResponse("done")

        def fill(request: Any) -> HttpResponse:
            request.session.update(VALUES)
            return HttpResponse("done")

        def with_settings() -> AbstractContextManager[Any]:
            manager: AbstractContextManager[Any] = override_settings(
                ROOT_URLCONF=tuple(path(view.__name__, view) for view in (alone, read, change, fill)),
                MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"] if engine else [],
                SESSION_ENGINE=engine or settings.SESSION_ENGINE,
                SESSION_CACHE_ALIAS=cache,
            )
            return manager

        with with_settings():
            handler = WSGIHandler()
        return Application(handler, with_settings, has_sessions=engine is not None, close=close_manager)

    return make


_SHIPPED = "django.contrib.sessions.backends."
_enter(
    in_django,
    (NONE, _django(None), "/alone"),
    (UNTOUCHED, _django("pgsession.contrib.django"), "/alone"),
    (READ, _django("pgsession.contrib.django"), "/read"),
    ("Django signed_cookies, the session left alone", _django(_SHIPPED + "signed_cookies"), "/alone"),
    ("Django signed_cookies, one value read", _django(_SHIPPED + "signed_cookies"), "/read"),
    ("Django cached_db (in this process), one value read", _django(_SHIPPED + "cached_db"), "/read"),
)
_enter(
    django_stores,
    (READ, _django("pgsession.contrib.django"), "/read"),
    (CHANGED, _django("pgsession.contrib.django"), "/change"),
    ("Django signed_cookies, one value changed", _django(_SHIPPED + "signed_cookies"), "/change"),
    ("Django cached_db (in this process), one value changed", _django(_SHIPPED + "cached_db"), "/change"),
    ("Django cached_db (Redis), one value read", _django(_SHIPPED + "cached_db", "redis"), "/read"),
    ("Django cached_db (Redis), one value changed", _django(_SHIPPED + "cached_db", "redis"), "/change"),
    ("Django db, one value read", _django(_SHIPPED + "db"), "/read"),
    ("Django db, one value changed", _django(_SHIPPED + "db"), "/change"),
)

test_flask = in_flask.test()
test_flask_stores = flask_stores.test()
test_django = in_django.test()
test_django_stores = django_stores.test()
