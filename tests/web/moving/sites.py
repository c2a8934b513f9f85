"""A service before and after its move, each on a port of its own, for Starlette and Flask.

Each answers `POST /do`: it performs the actions in the body, a JSON list, on the request's session.

    ["all"]             what is in it
    ["user"]            who is logged in
    ["set", key, value]
    ["log_in", user]
    ["log_out"]
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager
from http.cookies import SimpleCookie
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from pgsession import Config
from tests.serving import serving
from tests.web.moving.page import snippet

PATIENCE = 30
KEY = b"k" * 32
USER = "user"


class Service(NamedTuple):
    """The URLs of both versions, the names of their cookies, and how the command is called."""

    before: str
    after: str
    old: str
    new: str
    move: Callable[..., tuple[int, str]]  # with options; its exit status, and what it says


def perform(session: MutableMapping[str, Any], actions: list[list[Any]], after: bool) -> list[Any]:
    """What the actions are, with a session of before, which is a dict, and with one of ours."""
    results = []
    for name, *arguments in actions:
        result = None
        match name, *arguments:
            case ["all"]:
                result = {key: value for key, value in session.items() if not key.startswith("_")}
            case ["user"]:
                result = session.user_id if after else session.get(USER)  # type: ignore[attr-defined]
            case "set", key, value:
                session[key] = value
            case "log_in", user:
                session[USER] = user
                if after:
                    session.log_in(user)  # type: ignore[attr-defined]
            case ["log_out"]:
                session.clear()
            case _:
                raise ValueError(name)
        results.append(result)
    return results


class Browser:
    """A browser, with all the cookies that the service has set."""

    def __init__(self) -> None:
        self.cookies: dict[str, str] = {}

    def do(self, url: str, *actions: list[Any]) -> list[Any]:
        """Send the actions, which all have to succeed; keep the cookies."""
        where = urlsplit(url)
        assert where.hostname is not None
        connection = http.client.HTTPConnection(where.hostname, where.port, timeout=PATIENCE)
        headers = {"Content-Type": "application/json"}
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        try:
            connection.request("POST", "/do", json.dumps(actions), headers)
            response = connection.getresponse()
            body = response.read().decode()
            assert response.status == 200, body
        finally:
            connection.close()
        for header in response.headers.get_all("Set-Cookie", []):
            for name, morsel in SimpleCookie(header).items():
                if morsel["max-age"] == "0" or "1970" in morsel["expires"]:
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel.value
        results: list[Any] = json.loads(body)
        return results


# ---- Starlette ----


@contextmanager
def served(app: Any) -> Iterator[str]:
    """An ASGI application under uvicorn, in a thread."""
    import uvicorn

    listening = socket.create_server(("127.0.0.1", 0), backlog=100)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        listening.close()
        assert not thread.is_alive()


def starlette_before(redis_url: str, prefix: str) -> Any:
    from redis.asyncio import Redis
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route
    from starsessions import SessionAutoloadMiddleware, SessionMiddleware
    from starsessions.stores.redis import RedisStore

    async def do(request: Request) -> JSONResponse:
        return JSONResponse(perform(request.session, await request.json(), False))

    redis = Redis.from_url(redis_url)

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        yield
        await redis.aclose()

    app = Starlette(routes=[Route("/do", do, methods=["POST"])], lifespan=lifespan)
    app.add_middleware(SessionAutoloadMiddleware)
    store = RedisStore(connection=redis, prefix=prefix)
    app.add_middleware(
        SessionMiddleware, store=store, lifetime=3600, cookie_https_only=False, cookie_name="session"
    )
    return app


def starlette_after(dsn: str, schema: str) -> Any:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def do(request: Request) -> JSONResponse:
        return JSONResponse(perform(request.session, await request.json(), True))

    app = Starlette(routes=[Route("/do", do, methods=["POST"])])
    add_middleware = snippet("Starlette, FastAPI, other ASGI applications")
    place = f"{dsn!r}, config=Config(schema_name={schema!r})"
    exec(
        add_middleware.replace('"postgresql://app@db/app"', place), {"app": app, "key": KEY, "Config": Config}
    )
    return app


# ---- Flask ----


def served_by_threads(app: Any) -> AbstractContextManager[str]:
    """A WSGI application under werkzeug's server, in a thread."""
    from werkzeug.serving import make_server

    return serving(make_server("127.0.0.1", 0, app, threaded=True))


def flask_before(redis_url: str, prefix: str, form: str, signed: bool) -> Any:
    import flask
    from flask_session import Session
    from redis import Redis

    app = flask.Flask("before")
    app.config.update(
        SECRET_KEY="secret",
        SESSION_TYPE="redis",
        SESSION_REDIS=Redis.from_url(redis_url),
        SESSION_KEY_PREFIX=prefix,
        SESSION_SERIALIZATION_FORMAT=form,
        SESSION_USE_SIGNER=signed,
    )
    Session(app)

    @app.post("/do")
    def do() -> Any:
        return flask.jsonify(perform(flask.session, flask.request.get_json(), False))

    return app


@contextmanager
def flask_after(dsn: str, schema: str) -> Iterator[Any]:
    import flask

    shown = snippet("Flask").replace('"postgresql://app@db/app"', repr(dsn))
    shown = shown.replace(
        "PgSession(app)", f'app.config["PGSESSION_SCHEMA_NAME"] = {schema!r}\nPgSession(app)'
    )
    names: dict[str, Any] = {"key": "secret", "__name__": "after"}
    exec(shown, names)

    @names["app"].post("/do")  # type: ignore[untyped-decorator]
    def do() -> Any:
        return flask.jsonify(perform(flask.session, flask.request.get_json(), True))

    try:
        yield names["app"]
    finally:
        names["app"].extensions["pgsession"].process.close()


# ---- services ----


@contextmanager
def flask(dsn: str, schema: str, redis_url: str) -> Iterator[Service]:
    from tests.web.moving.command import call

    with ExitStack() as stack:
        before = stack.enter_context(
            served_by_threads(flask_before(redis_url, f"{schema}:", "msgpack", False))
        )
        app = stack.enter_context(flask_after(dsn, schema))
        after = stack.enter_context(served_by_threads(app))
        move = call(
            "flask-session", "--key-prefix", f"{schema}:", "--user-key", USER,
            PGSESSION_DATABASE=dsn, PGSESSION_SCHEMA_NAME=schema, REDIS_URL=redis_url,
        )  # fmt: skip
        yield Service(before, after, "session", "__Host-id", move)


@contextmanager
def starlette(dsn: str, schema: str, redis_url: str) -> Iterator[Service]:
    from tests.web.moving.command import call

    with ExitStack() as stack:
        before = stack.enter_context(served(starlette_before(redis_url, f"{schema}:")))
        after = stack.enter_context(served(starlette_after(dsn, schema)))
        move = call(
            "starsessions", "--key-prefix", f"{schema}:", "--user-key", USER,
            PGSESSION_DATABASE=dsn, PGSESSION_SCHEMA_NAME=schema, REDIS_URL=redis_url,
        )  # fmt: skip
        yield Service(before, after, "session", "__Host-id", move)
