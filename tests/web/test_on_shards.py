"""Web applications and their metrics on several servers: a login moves the session, and the browser goes on."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

import pgsession
from pgsession.contrib.wsgi import SessionMiddleware
from tests.sharded import Shards

from .test_wsgi import KEY, Client, Start, session_of

USERS = ("alice", "bob", "carol", "dave")  # in three of the four shards


@pytest.fixture(autouse=True)
def closed_with_the_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is closed when the process exits is so when the test ends."""
    with ExitStack() as noted:
        monkeypatch.setattr("pgsession.contrib._managers.atexit.register", noted.callback)
        yield


def shop(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    session = session_of(environ)
    if environ["PATH_INFO"] == "/add":
        session["n"] = session.get("n", 0) + 1
    elif environ["PATH_INFO"] != "/":
        session.log_in(environ["PATH_INFO"][1:])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{session.get('n')} {session.user_id}".encode()]


@pytest.mark.parametrize("on_conflict", ["merge", "fail", "serial"])
def test_wsgi(empty_shards: Shards, on_conflict: Any) -> None:
    with pgsession.ShardedSessionManager(empty_shards, signer=pgsession.Signer(KEY)) as manager:
        app = SessionMiddleware(shop, manager=manager, on_conflict=on_conflict)
        for user in USERS:
            client = Client(app)
            assert client.get("/add")[1] == "1 None"
            visitor = client.cookie
            client.get(f"/{user}")
            assert client.cookie != visitor
            assert client.get("/add")[1] == f"2 {user}"
            assert client.get("/")[1] == f"2 {user}"
            client.cookie = visitor
            assert client.get("/")[1] == "None None"
        assert manager.count_sessions() == 4


def test_wsgi_that_opens_its_manager(empty_shards: Shards) -> None:
    app = SessionMiddleware(shop, database=empty_shards, keys=[KEY])
    client = Client(app)
    client.get("/add")
    client.get("/alice")
    assert client.get("/add")[1] == "2 alice"
    del app, client
    gc.collect()


@pytest.mark.parametrize("on_conflict", ["merge", "serial"])
def test_asgi(empty_shards: Shards, on_conflict: Any) -> None:
    pytest.importorskip("httpx2")
    applications = pytest.importorskip("starlette.applications")
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route
    from starlette.testclient import TestClient

    from pgsession.contrib.asgi import SessionMiddleware

    async def add(request: Request) -> Response:
        request.session["n"] = request.session.get("n", 0) + 1
        return JSONResponse([request.session["n"], request.session.user_id])

    async def log_in(request: Request) -> Response:
        request.session.log_in(request.path_params["user"])
        return JSONResponse(None)

    app = applications.Starlette(
        routes=[Route("/add", add), Route("/{user}", log_in)],
        middleware=[
            Middleware(SessionMiddleware, database=empty_shards, keys=[KEY], on_conflict=on_conflict)
        ],
    )
    with TestClient(app, base_url="https://testserver") as first:
        for user in USERS:
            first.cookies.clear()
            assert first.get("/add").json() == [1, None]
            first.get(f"/{user}")
            assert first.get("/add").json() == [2, user]


@pytest.mark.parametrize("on_conflict", ["merge", "serial"])
def test_flask(empty_shards: Shards, on_conflict: str) -> None:
    flask = pytest.importorskip("flask")
    from pgsession.contrib.flask import PgSession, session, session_manager

    app = flask.Flask(__name__)
    app.config.update(
        SECRET_KEY="a secret", PGSESSION_DATABASE=empty_shards, PGSESSION_ON_CONFLICT=on_conflict
    )
    PgSession(app)

    @app.get("/add")
    def add() -> Any:
        session["n"] = session.get("n", 0) + 1
        return [session["n"], session.user_id]

    @app.get("/<user>")
    def log_in(user: str) -> str:
        session.log_in(user)
        return ""

    for user in USERS:
        client = app.test_client()
        assert client.get("/add").json == [1, None]
        client.get(f"/{user}")
        assert client.get("/add").json == [2, user]
    assert isinstance(session_manager(app), pgsession.ShardedSessionManager)
    app.extensions["pgsession"].process.close()


async def test_quart(empty_shards: Shards) -> None:
    quart = pytest.importorskip("quart")
    from pgsession.contrib.quart import PgSession, session

    app = quart.Quart(__name__)
    app.config.update(SECRET_KEY="a secret", PGSESSION_DATABASE=empty_shards)
    PgSession(app)

    @app.get("/add")
    async def add() -> Any:
        session["n"] = session.get("n", 0) + 1
        return [session["n"], session.user_id]

    @app.get("/<user>")
    async def log_in(user: str) -> str:
        session.log_in(user)
        return ""

    async with app.test_app():
        for user in USERS:
            client = app.test_client()
            assert await (await client.get("/add")).json == [1, None]
            await client.get(f"/{user}")
            assert await (await client.get("/add")).json == [2, user]


def test_a_setting_that_is_no_list_of_shards() -> None:
    flask = pytest.importorskip("flask")
    from pgsession.contrib.flask import PgSession

    app = flask.Flask(__name__)
    app.config.update(SECRET_KEY="a secret", PGSESSION_DATABASE=3)
    with pytest.raises(pgsession.ConfigError, match=r"PGSESSION_DATABASE: .*or a list of shards"):
        PgSession(app)
