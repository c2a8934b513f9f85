"""Quart's adapter, where the rules over HTTP and Flask's tests do not reach: loops, WebSockets, what is awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from http.cookies import SimpleCookie
from typing import Any

import pytest

pytest.importorskip("quart")

import quart
from quart import Quart, session, websocket
from quart.testing import WebsocketResponseError
from quart.testing.connections import WebsocketDisconnectError

import pgsession
from pgsession import Config, ConfigError, SessionManager
from pgsession.contrib.quart import PgSession, PgSessionInterface, QuartSession
from tests.tables import Tables

PATIENCE = 30
Make = Callable[..., Quart]


@pytest.fixture
def make(dsn: str, config: Config, tables: Tables) -> Make:
    """`make(PGSESSION_ON_CONFLICT="fail")`: an application."""

    def application(**settings: Any) -> Quart:
        app = Quart(__name__)
        app.config.update(
            {"SECRET_KEY": "a secret", "TESTING": True, "PGSESSION_DATABASE": dsn}
            | {"PGSESSION_SCHEMA_NAME": config.schema_name, "PGSESSION_POOL_MAX_SIZE": 2}
            | settings
        )
        PgSession(app)

        @app.get("/put")
        async def put() -> Any:
            session.update(quart.request.args)
            return dict(session)

        @app.get("/get")
        async def get() -> Any:
            return dict(session)

        @app.get("/thread")
        def in_thread() -> Any:
            session["thread"] = True
            return dict(session)

        @app.get("/nothing")
        async def nothing() -> str:
            return ""

        @app.get("/pop/<key>")
        async def pop(key: str) -> str:
            return str(session.pop(key))

        return app

    return application


@pytest.fixture(autouse=True)
def closed_with_the_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is closed when the process exits is so when the test ends."""
    with ExitStack() as noted:
        monkeypatch.setattr("pgsession.contrib._managers.atexit.register", noted.callback)
        yield


def ours() -> QuartSession:
    """The session of the request or WebSocket itself."""
    where: Any = quart.websocket if quart.has_websocket_context() else quart.request
    found = where.scope["pgsession.session"]
    assert isinstance(found, QuartSession)
    return found


async def test_the_manager_lives_as_long_as_the_application(make: Make, dsn: str, config: Config) -> None:
    app = make()
    before = len(pgsession.Admin(dsn, config).nodes())
    async with app.test_app() as running:
        assert len(pgsession.Admin(dsn, config).nodes()) == before + 1
        client = running.test_client()
        assert await (await client.get("/put?n=1")).get_json() == {"n": "1"}
        assert await (await client.get("/thread")).get_json() == {"n": "1", "thread": True}
    assert len(pgsession.Admin(dsn, config).nodes()) == before


async def test_without_a_lifespan_sessions_work_too(make: Make, tables: Tables) -> None:
    app = make()
    client = app.test_client()
    assert await (await client.get("/get")).get_json() == {} and tables.count() == 0
    await client.get("/put?n=1")
    async with client.session_transaction() as changing:
        changing.update(t=(1, b"\xff"), d=datetime(2026, 1, 1, tzinfo=UTC))
    async with client.session_transaction() as reading:
        assert dict(reading) == {"n": "1", "t": (1, b"\xff"), "d": datetime(2026, 1, 1, tzinfo=UTC)}
    for key in "ntd":
        response = await client.get(f"/pop/{key}")
    assert response.headers["Set-Cookie"].startswith("session=;") and tables.count() == 0
    assert response.headers["Vary"] == "Cookie" and "Vary" not in (await client.get("/nothing")).headers


async def test_keys_are_rotated(make: Make) -> None:
    app = make(SECRET_KEY="old")
    client = app.test_client()
    await client.get("/put?n=1")
    app.config.update(SECRET_KEY="new")
    assert await (await client.get("/get")).get_json() == {}
    app.config.update(SECRET_KEY_FALLBACKS=["old"])
    assert await (await client.get("/get")).get_json() == {"n": "1"}


async def test_settings_are_checked_at_the_start(make: Make) -> None:
    with pytest.raises(ConfigError, match="SESSION_COOKIE_SAMESITE"):
        make(SESSION_COOKIE_SAMESITE="None")
    with pytest.raises(ConfigError, match="PGSESSION_DATABASE"):
        PgSession().init_app(Quart(__name__))


async def test_a_permanent_session_is_refreshed_by_each_response(make: Make) -> None:
    app = make(PERMANENT_SESSION_LIFETIME=3600)

    @app.get("/permanent")
    async def permanent() -> str:
        session.permanent = True
        session["n"] = 1
        return ""

    client = app.test_client()
    assert "Max-Age=3600" in (await client.get("/permanent")).headers["Set-Cookie"]
    for path in ("/get", "/nothing"):
        response = await client.get(path)
        assert "Expires" in response.headers["Set-Cookie"] and response.headers["Vary"] == "Cookie"


@pytest.mark.parametrize("handled", [False, True])
async def test_a_conflict_is_409_as_the_application_answers_it(make: Make, handled: bool) -> None:
    app = make(PGSESSION_ON_CONFLICT="fail")
    if handled:

        @app.errorhandler(409)
        async def again(_: Exception) -> Any:
            return "once more", 409

    @app.get("/late")
    async def late() -> Any:
        session["n"] = "2"
        cookie = {"Cookie": quart.request.headers["Cookie"]}
        await app.test_client(use_cookies=False).get("/put?n=7", headers=cookie)
        return "no", 200, {"X-Late": "yes"}

    client = app.test_client()
    await client.get("/put?n=1")
    answer = await client.get("/late")
    assert answer.status_code == 409 and "X-Late" not in answer.headers and "Set-Cookie" not in answer.headers
    assert ((await answer.get_data()) == b"once more") is handled


async def test_a_conflict_keeps_the_cookie_of_what_was_saved_before(
    make: Make, manager: SessionManager
) -> None:
    app = make(PGSESSION_ON_CONFLICT="fail")

    @app.get("/log-in")
    async def log_in() -> str:
        session.log_in("alice")
        await session.save()
        session["n"] = "2"
        assert session.session_id is not None
        manager.modify_session(session.session_id, lambda session: session.update(n="3"))
        return "no"

    client = app.test_client()
    await client.get("/put?n=1")
    answer = await client.get("/log-in")
    assert answer.status_code == 409 and "Set-Cookie" in answer.headers
    assert await (await client.get("/get")).get_json() == {"n": "3"}


async def test_a_page_about_a_turn_that_does_not_come_begins_no_other_session(make: Make) -> None:
    app = make(PGSESSION_ON_CONFLICT="serial", PGSESSION_SERIAL_TIMEOUT=1)

    @app.errorhandler(409)
    async def sorry(_: Exception) -> Any:
        await quart.flash("sorry")
        return "once more", 409

    @app.get("/nested")
    async def nested() -> str:
        cookie = {"Cookie": quart.request.headers["Cookie"]}
        return str((await app.test_client(use_cookies=False).get("/put?a=1", headers=cookie)).headers)

    client = app.test_client()
    await client.get("/put?n=1")
    body = await (await client.get("/nested")).get_data()
    assert b"vary" in body.lower() and b"set-cookie" not in body.lower()
    assert await (await client.get("/get")).get_json() == {"n": "1"}


async def test_a_session_that_cannot_be_loaded_fails_who_looks_at_it(make: Make) -> None:
    """As the application answers errors; others are answered as ever."""
    client = make().test_client()
    await client.get("/put?n=1")
    app = make(PGSESSION_DATABASE="host=/nowhere dbname=none")

    @app.errorhandler(Exception)
    async def sorry(_: Exception) -> Any:
        await quart.flash("sorry")
        return "sorry", 503

    [cookie] = client.cookie_jar
    other, headers = app.test_client(use_cookies=False), {"Cookie": f"session={cookie.value}"}
    assert (await other.get("/nothing", headers=headers)).status_code == 200
    answer = await other.get("/get", headers=headers)
    assert answer.status_code == 503 and "Set-Cookie" not in answer.headers


async def test_a_turn_that_does_not_come_is_409_and_one_that_raises_ends(make: Make) -> None:
    app = make(PGSESSION_ON_CONFLICT="serial", PGSESSION_SERIAL_TIMEOUT=1)

    @app.get("/nested")
    async def nested() -> str:
        cookie = {"Cookie": quart.request.headers["Cookie"]}
        return str((await app.test_client(use_cookies=False).get("/get", headers=cookie)).status_code)

    @app.get("/fail")
    async def fail() -> str:
        session["n"] = str(1 / 0)
        return ""

    client = app.test_client()
    await client.get("/put?n=1")
    assert await (await client.get("/nested")).get_data() == b"409"
    assert (await client.get("/fail")).status_code == 500
    assert await (await client.get("/get")).get_json() == {"n": "1"}


async def test_what_fails_saves_nothing(make: Make, tables: Tables) -> None:
    app = make(PROPAGATE_EXCEPTIONS=False, TESTING=False)

    @app.get("/fail")
    async def fail() -> str:
        session["n"] = 1
        raise ZeroDivisionError

    assert (await app.test_client().get("/fail")).status_code == 500 and tables.count() == 0


async def test_a_stream_is_saved_before_it_begins_and_later_by_save_or_warned_of(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    app = make()

    @app.get("/stream/<how>")
    async def stream(how: str) -> Any:
        session["n"] = 1

        @quart.stream_with_context
        async def lines() -> AsyncIterator[str]:
            session["n"] = 2
            if how == "save":
                await ours().save()
            yield ""

        return lines(), 200

    client = app.test_client()
    await (await client.get("/stream/save")).get_data()
    assert not caplog.records and await (await client.get("/get")).get_json() == {"n": 2}
    await (await client.get("/stream/lose")).get_data()
    assert await (await client.get("/get")).get_json() == {"n": 1}


# ---- WebSockets ----


async def test_a_websocket_has_its_session_and_saves_it(make: Make) -> None:
    app = make()

    @app.websocket("/count")
    async def count() -> None:
        while True:
            message = await websocket.receive()
            session["n"] = session.get("n", 0) + 1
            if message == "save":
                await ours().save()
            if message == "end":
                return
            await websocket.send(str(session["n"]))

    client = app.test_client()
    await client.get("/put?user=alice")
    cookie = {"Cookie": f"session={next(iter(client.cookie_jar)).value}"}
    async with client.websocket("/count", headers=cookie) as connection:
        await connection.send("save")
        assert await connection.receive() == "1"
        assert await (await client.get("/get")).get_json() == {"user": "alice", "n": 1}, "in the middle"
        await connection.send("more")
        assert await connection.receive() == "2"
    assert await soon(client, {"user": "alice", "n": 2}), "its client has gone"
    async with client.websocket("/count", headers=cookie) as connection:
        await connection.send("end")
        with pytest.raises(WebsocketDisconnectError):
            await connection.receive()
    assert await soon(client, {"user": "alice", "n": 3}), "it has ended itself"


async def soon(client: Any, expected: dict[str, Any]) -> bool:
    """What the session holds in a moment."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if await (await client.get("/get")).get_json() == expected:
                return True


async def test_a_websocket_begins_a_session_before_it_is_accepted_only(make: Make, tables: Tables) -> None:
    app = make()
    given = []

    @app.websocket("/begin")
    async def begin() -> None:
        session["n"] = 1
        await websocket.accept(headers={"X-Own": "yes"})
        with pytest.raises(RuntimeError, match="rotate"):
            ours().rotate()
        given.append(ours().session_id)

    async def send(message: Any) -> None:
        given.append(message)

    incoming = iter([{"type": "websocket.connect"}])

    async def receive() -> Any:
        for message in incoming:
            return message
        await asyncio.Event().wait()

    scope = {
        "type": "websocket", "asgi": {"spec_version": "2.4"}, "path": "/begin", "query_string": b"", "headers": [],
        "scheme": "ws", "subprotocols": [], "extensions": {}, "http_version": "1.1", "root_path": "",
    }  # fmt: skip
    await app(scope, receive, send)  # type: ignore[arg-type]
    headers = dict(given[0]["headers"])
    assert headers[b"x-own"] == b"yes" and tables.count() == 1 and given[1] is not None
    token = SimpleCookie(headers[b"set-cookie"].decode())["session"].value
    client = app.test_client()
    response = await client.get("/get", headers={"Cookie": f"session={token}"})
    assert await response.get_json() == {"n": 1}


async def test_a_websocket_that_raises_saves_nothing(make: Make, tables: Tables) -> None:
    app = make(TESTING=False, PROPAGATE_EXCEPTIONS=False)

    @app.websocket("/fail")
    async def fail() -> None:
        session["n"] = 1
        raise ZeroDivisionError

    with pytest.raises(WebsocketResponseError):
        async with app.test_client().websocket("/fail") as connection:
            await connection.receive()
    assert tables.count() == 0


async def test_an_interface_that_is_given_directly(make: Make, dsn: str, config: Config) -> None:
    app = Quart(__name__)
    app.config.update(PGSESSION_DATABASE=dsn, PGSESSION_SCHEMA_NAME=config.schema_name)
    app.session_interface = PgSessionInterface()  # type: ignore[assignment]
    client = app.test_client()
    with pytest.raises(RuntimeError):  # without a key there is none
        async with client.session_transaction() as changing:
            changing["n"] = 1
    app.secret_key = "a secret"
    async with client.session_transaction() as changing:
        changing["n"] = 1
    async with client.session_transaction() as reading:
        assert dict(reading) == {"n": 1}
