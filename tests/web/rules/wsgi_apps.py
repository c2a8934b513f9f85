"""The applications for WSGI: one for each setting, below a URL of its own, in one process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pgsession import Config
from pgsession.contrib.wsgi import SessionMiddleware
from tests.web.rules.asgi_site import perform
from tests.web.rules.contract import KEY, SETTINGS, Place, meet
from tests.web.rules.django_site import POOL

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def perform_all(session: Any, actions: list[list[Any]]) -> list[Any]:
    return [
        meet(*arguments) if name == "meet" else perform(session, name, *arguments)
        for name, *arguments in actions
    ]


def simple(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """An application without a framework."""
    actions = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
    results = json.dumps(perform_all(environ["pgsession.session"], actions)).encode()
    start_response("200 OK", [("Content-Type", "application/json")])
    if environ["PATH_INFO"] == "/do":
        return [results]

    def lines() -> Iterator[bytes]:
        yield results + b"\n"
        meet(int(environ["QUERY_STRING"].removeprefix("port=")))
        yield b"end\n"

    return lines()


def make_simple(place: Place, setting: str) -> WsgiApp:
    return SessionMiddleware(
        simple,
        database=place.dsn,
        keys=[KEY.encode()],
        config=Config(schema_name=place.schema, pool_max_size=POOL),
        **SETTINGS[setting],
    )


def configure(app: Any, place: Place, setting: str) -> bool:
    """Give an application of Flask or Quart its settings; return True where its sessions are permanent."""
    options = dict(SETTINGS[setting])
    max_age = options.pop("max_age", None)
    app.config.update(
        SECRET_KEY=KEY,
        SESSION_COOKIE_NAME="__Host-session",
        SESSION_COOKIE_SECURE=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_REFRESH_EACH_REQUEST=False,
        PGSESSION_DATABASE=place.dsn,
        PGSESSION_SCHEMA_NAME=place.schema,
        PGSESSION_POOL_MAX_SIZE=POOL,
        **{f"PGSESSION_{name.upper()}": value for name, value in options.items()},
    )
    if max_age is not None:
        app.permanent_session_lifetime = max_age
    return max_age is not None


def make_flask(place: Place, setting: str) -> WsgiApp:
    from flask import Flask, Response, jsonify, request, session

    from pgsession.contrib.flask import PgSession

    app = Flask(__name__)
    is_lasting = configure(app, place, setting)
    PgSession(app)

    @app.post("/do")
    def do() -> Any:
        actions = request.get_json()
        if is_lasting and actions:
            session.permanent = True
        return jsonify(perform_all(session, actions))

    @app.post("/stream")
    def stream() -> Any:
        results = json.dumps(perform_all(session, request.get_json()))
        port = int(request.args["port"])

        def lines() -> Iterator[str]:
            yield results + "\n"
            meet(port)
            yield "end\n"

        return Response(lines())

    _ = do, stream  # Flask has them
    return app


MAKE: dict[str, Callable[[Place, str], WsgiApp]] = {"wsgi": make_simple, "flask": make_flask}


def application(framework: str, place: Place) -> WsgiApp:
    applications = {setting: MAKE[framework](place, setting) for setting in SETTINGS}

    def dispatch(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        _, setting, rest = environ["PATH_INFO"].split("/", 2)
        environ.update(SCRIPT_NAME=f"/{setting}", PATH_INFO=f"/{rest}")
        return applications[setting](environ, start_response)

    return dispatch
