"""The storage for aiohttp-session, where a test over HTTP of all does not reach: its interface, lives, failures."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from http.cookies import SimpleCookie
from typing import Any
from uuid import UUID, uuid4

import pytest

pytest.importorskip("aiohttp_session")

import aiohttp_session
from aiohttp import ClientPayloadError, ClientSession, CookieJar, web
from aiohttp.test_utils import TestClient, TestServer

import pgsession
from pgsession import Config, ConfigError, SessionManager
from pgsession.contrib.aiohttp import PgSessionStorage, get_session, new_session, setup
from pgsession.web import SessionConflict
from tests.tables import Tables

# What aiohttp-session does itself, aiohttp 3.14 advises against.
pytestmark = pytest.mark.filterwarnings("ignore:It is recommended to use web.RequestKey::aiohttp_session")
KEY = b"k" * 32
PATIENCE = 30
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[..., Any]
OK = "ok"


@pytest.fixture
def storage(dsn: str, config: Config, tables: Tables) -> Callable[..., PgSessionStorage]:
    """`storage(on_conflict="fail")`: with cookies that the tests' client, which has no https, sends back."""

    def make(**options: Any) -> PgSessionStorage:
        return PgSessionStorage(dsn, **{"keys": [KEY], "config": config, "secure": False, **options})

    return make


@pytest.fixture
def serve(storage: Callable[..., PgSessionStorage]) -> Serve:
    """`async with serve({"/": handler}) as client`: an application with sessions, and a client with cookies."""

    @asynccontextmanager
    async def client(
        routes: dict[str, Handler], set_up: Any = setup, outer: list[Any] | None = None, **options: Any
    ) -> AsyncIterator[TestClient[Any, Any]]:
        app = web.Application(middlewares=outer or [])
        set_up(app, storage(**options))
        app.add_routes([web.get(path, handler) for path, handler in routes.items()])
        async with TestClient(TestServer(app), cookie_jar=CookieJar(unsafe=True)) as opened:
            yield opened

    return client


@pytest.fixture(autouse=True)
def closed_with_the_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is closed when the process exits is so when the test ends."""
    with ExitStack() as noted:
        monkeypatch.setattr("pgsession.contrib._managers.atexit.register", noted.callback)
        yield


async def put(request: web.Request) -> web.Response:
    session = await get_session(request)
    session.update(request.query)
    return web.json_response(dict(session))


async def get(request: web.Request) -> web.Response:
    return web.json_response(dict(await get_session(request)))


async def log_out(request: web.Request) -> web.Response:
    (await get_session(request)).invalidate()
    return web.Response()


async def what(client: TestClient[Any, Any], path: str, status: int = 200) -> Any:
    async with client.get(path) as response:
        assert response.status == status
        return await response.json()


def cookies_of(client: TestClient[Any, Any]) -> dict[str, str]:
    return {cookie.key: cookie.value for cookie in client.session.cookie_jar}


def nodes(dsn: str, config: Config) -> int:
    return len(pgsession.Admin(dsn, config).nodes())


# ---- lives ----


async def test_the_manager_lives_as_long_as_the_application(serve: Serve, dsn: str, config: Config) -> None:
    before = nodes(dsn, config)
    async with serve({"/put": put, "/get": get}) as client:
        assert nodes(dsn, config) == before + 1, "open before the first request"
        assert await what(client, "/put?n=1") == {"n": "1"}
        assert await what(client, "/get") == {"n": "1"}
    assert nodes(dsn, config) == before


@pytest.mark.parametrize("loop", ["one", "another"])
async def test_the_setup_of_aiohttp_session_will_do(serve: Serve, loop: str, tables: Tables) -> None:
    routes = {"/put": put, "/get": get, "/out": log_out}
    async with serve(routes, aiohttp_session.setup) as client:
        assert await what(client, "/get") == {} and tables.count() == 0
        assert await what(client, f"/put?loop={loop}") == {"loop": loop}
        assert await what(client, "/get") == {"loop": loop}
        async with client.get("/out") as response:
            assert response.cookies["session"]["max-age"] == "0"
        assert await what(client, "/get") == {} and tables.count() == 0


async def test_turns_need_our_setup(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.Response:
        with pytest.raises(RuntimeError, match=r"pgsession\.contrib\.aiohttp\.setup"):
            await get_session(request)
        return web.json_response(OK)

    async with serve({"/": handler}, aiohttp_session.setup, on_conflict="serial") as client:
        assert await what(client, "/") == OK


async def test_a_manager_of_ones_own(serve: Serve, manager: SessionManager, dsn: str, config: Config) -> None:
    before = nodes(dsn, config)
    given = {"database": None, "keys": (), "config": None, "manager": manager}

    def set_up(app: web.Application, _: object) -> None:
        setup(app, PgSessionStorage(manager=manager, secure=False))

    async with serve({"/put": put, "/get": get}, set_up) as client:
        await what(client, "/put?n=1")
        assert await what(client, "/get") == {"n": "1"} and nodes(dsn, config) == before
    with pytest.raises(ConfigError, match="database"):
        PgSessionStorage(**given | {"database": dsn})  # type: ignore[arg-type]


def test_what_the_storage_says_of_its_cookie(storage: Callable[..., PgSessionStorage]) -> None:
    made = storage(cookie_name="mine", max_age=60, path="/shop", samesite="strict")
    assert made.cookie_name == "mine" and made.max_age == 60
    assert made.cookie_params == {
        "domain": None, "max_age": 60, "path": "/shop", "secure": False, "httponly": True, "samesite": "Strict",
    }  # fmt: skip
    with pytest.raises(ConfigError, match="name"):
        storage(cookie_name="__Host-session")


# ---- the interface of a session ----


async def test_a_session_is_what_aiohttp_session_says(serve: Serve, tables: Tables) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await aiohttp_session.get_session(request)
        assert await aiohttp_session.get_session(request) is session
        assert isinstance(session, aiohttp_session.Session) and session == {} and session.empty
        assert session.new and session.identity is None and not session._changed and session.max_age is None
        assert session.created > 1_700_000_000
        session["cart"] = []
        assert session.new and session._changed and not session.empty
        return web.json_response(session.created)

    async def again(request: web.Request) -> web.Response:
        session = await aiohttp_session.get_session(request)
        assert not session.new and session.identity == tables.one("SELECT id FROM {sessions}")
        assert session._mapping == {"cart": []} and not session._changed
        session["cart"].append("book")
        assert session._changed, "found without being told"
        with pytest.raises(RuntimeError, match="not new"):
            session.set_new_identity(uuid4())
        return web.json_response(session.created)

    async with serve({"/": handler, "/again": again, "/get": get}) as client:
        created = await what(client, "/")
        assert await what(client, "/again") == pytest.approx(created, abs=30)
        assert await what(client, "/get") == {"cart": ["book"]}


async def test_tasks_of_a_request_have_the_same_session(serve: Serve) -> None:
    """Loaded once: by `"serial"` the second one would wait for the turn of the first."""

    async def two(request: web.Request) -> web.Response:
        first, second = await asyncio.gather(get_session(request), get_session(request))
        first["a"], second["b"] = 1, 2
        return web.Response()

    async with serve(
        {"/put": put, "/get": get, "/two": two}, on_conflict="serial", serial_timeout=1
    ) as client:
        await what(client, "/put?n=0")
        async with client.get("/two") as response:
            assert response.status == 200
        assert await what(client, "/get") == {"n": "0", "a": 1, "b": 2}


async def test_an_id_can_be_chosen_by_the_application(serve: Serve, tables: Tables) -> None:
    chosen = UUID("11111111-2222-3333-4444-555555555555")

    async def handler(request: web.Request) -> web.Response:
        session = await get_session(request)
        with pytest.raises(ValueError, match="UUID"):
            session.set_new_identity("admin")
        session.set_new_identity(str(chosen))
        assert session.identity == chosen and session.new
        session["n"] = 1
        return web.json_response(OK)

    async with serve({"/": handler}) as client:
        await what(client, "/")
        assert tables.one("SELECT id FROM {sessions}") == chosen
        client.session.cookie_jar.clear()
        async with client.get("/") as response:
            assert response.status == 500, "one that is there is never taken over"


async def test_max_age_and_changed(serve: Serve, tables: Tables) -> None:
    async def remember(request: web.Request) -> web.Response:
        session = await get_session(request)
        session.max_age = 100
        assert session.max_age == 100
        session["n"] = 1
        return web.json_response(OK)

    async def touch(request: web.Request) -> web.Response:
        session = await get_session(request)
        session.changed()
        assert session._changed
        return web.json_response(session.max_age)

    async with serve({"/remember": remember, "/touch": touch, "/get": get}) as client:
        async with client.get("/touch") as response:
            assert not response.cookies, "there is nothing to keep"
        async with client.get("/remember") as response:
            assert response.cookies["session"]["max-age"] == "100"
        async with client.get("/get") as response:
            assert not response.cookies and response.headers["Vary"] == "Cookie"
        async with client.get("/touch") as response:
            assert await response.json() == 100 and response.cookies["session"]["max-age"] == "100"


# ---- a login that begins a new session ----


async def test_a_new_session_ends_that_of_before(serve: Serve, tables: Tables) -> None:
    async def log_in(request: web.Request) -> web.Response:
        session = await aiohttp_session.new_session(request)
        assert session.new and session == {}
        session["user"] = "alice"
        return web.Response()

    async def ours(request: web.Request) -> web.Response:
        session = await new_session(request)
        session.log_in("bob")
        await session.save()
        return web.Response()

    for serial in ("merge", "serial"):
        async with serve(
            {"/put": put, "/get": get, "/log_in": log_in, "/ours": ours}, on_conflict=serial
        ) as client:
            await what(client, "/put?cart=book")
            planted = cookies_of(client)
            for path, holds in (("/log_in", {"user": "alice"}), ("/ours", {})):
                async with client.get(path) as response:
                    assert response.status == 200 and len(response.headers.getall("Set-Cookie")) == 1
                assert await what(client, "/get") == holds
                assert tables.count() == 1, "that of before has ended"
            assert tables.one("SELECT user_id FROM {sessions}") == "bob"
            client.session.cookie_jar.clear()
            client.session.cookie_jar.update_cookies(planted)
            assert await what(client, "/get") == {}
            tables.run("DELETE FROM {sessions}")


async def test_a_new_session_that_stays_empty_changes_nothing(serve: Serve, tables: Tables) -> None:
    async def handler(request: web.Request) -> web.Response:
        await new_session(request)
        return web.json_response(OK)

    async with serve({"/put": put, "/get": get, "/new": handler}) as client:
        await what(client, "/put?n=1")
        async with client.get("/new") as response:
            assert not response.cookies
        assert await what(client, "/get") == {"n": "1"} and tables.count() == 1


async def test_a_new_session_that_is_invalidated_ends_that_of_before(serve: Serve, tables: Tables) -> None:
    """Whoever does so means the user."""

    async def handler(request: web.Request) -> web.Response:
        session = await new_session(request)
        session["n"] = 2
        session.invalidate()
        return web.json_response(OK)

    async with serve({"/put": put, "/get": get, "/out": handler}) as client:
        await what(client, "/put?n=1")
        await what(client, "/out")
        assert not cookies_of(client) and tables.count() == 0


async def test_a_late_login_by_a_new_session_is_refused(serve: Serve, tables: Tables) -> None:
    async def log_in(request: web.Request) -> web.Response:
        (await new_session(request)).log_in(request.query["user"])
        return web.Response()

    async def in_place(request: web.Request) -> web.Response:
        (await get_session(request)).log_in("alice")
        return web.Response()

    async def put_new(request: web.Request) -> web.Response:
        (await new_session(request))["n"] = 1
        return web.Response()

    routes = {"/put": put, "/log_in": log_in, "/in_place": in_place, "/put_new": put_new}
    async with serve(routes) as client, ClientSession(cookie_jar=CookieJar(unsafe=True)) as late:
        await what(client, "/put?n=1")
        late.cookie_jar.update_cookies(cookies_of(client), client.make_url("/"))
        async with client.get("/in_place") as response:
            assert response.status == 200
        for path, status in (("/log_in?user=bob", 409), ("/put_new", 200), ("/in_place", 409)):
            async with late.get(client.make_url(path)) as response:
                assert response.status == status and not response.cookies
        assert tables.run("SELECT user_id FROM {sessions}") == [("alice",)]


# ---- streams and WebSockets ----


async def test_a_stream_that_is_only_returned_is_saved(serve: Serve) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        (await get_session(request))["n"] = 1
        return web.StreamResponse()

    async with serve({"/": stream, "/get": get}) as client:
        async with client.get("/") as response:
            assert len(response.cookies) == 1
        assert await what(client, "/get") == {"n": 1}


async def test_a_change_after_the_response_has_begun_is_lost_with_a_warning(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        session = await get_session(request)
        session["n"] = 1
        response = web.StreamResponse()
        await response.prepare(request)
        session["n"] = 2
        if "save" in request.query:
            await session.save()
        await response.write_eof()
        return response

    async with serve({"/": stream, "/get": get}) as client:
        with caplog.at_level(logging.WARNING, "pgsession"):
            await (await client.get("/?save=1")).read()
            assert await what(client, "/get") == {"n": 2} and not caplog.records
            await (await client.get("/")).read()
            assert await what(client, "/get") == {"n": 1}
        assert [record.message for record in caplog.records if "the change is lost" in record.message]


async def test_a_websocket_saves_when_it_is_told_and_when_it_ends(serve: Serve) -> None:
    async def talk(request: web.Request) -> web.StreamResponse:
        session = await get_session(request)
        session.setdefault("heard", [])
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            session["heard"].append(message.data)
            if message.data == "save":
                await session.save()
            with pytest.raises(RuntimeError, match="the WebSocket was accepted"):
                session.log_in("alice")
            await socket.send_json(session["heard"])
        return socket

    ended = asyncio.Event()

    @web.middleware
    async def around(request: web.Request, handler: Any) -> Any:
        try:  # the test's server cancels handlers whose client has gone
            return await handler(request)
        finally:
            if request.path == "/talk":
                ended.set()

    async with serve({"/talk": talk, "/get": get}, outer=[around]) as client:
        async with client.ws_connect("/talk") as socket:
            for word in ("hello", "save", "bye"):
                await socket.send_str(word)
                await socket.receive_json()
            assert await what(client, "/get") == {"heard": ["hello", "save"]}
        await asyncio.wait_for(ended.wait(), PATIENCE)
        assert await what(client, "/get") == {"heard": ["hello", "save", "bye"]}


async def test_a_session_that_is_first_asked_for_in_a_websocket_cannot_begin_there(serve: Serve) -> None:
    async def talk(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        session = await get_session(request)
        known = session.setdefault("n", "0")
        if session.new:
            with pytest.raises(RuntimeError, match="no cookie can be set"):
                await session.save()
        await socket.send_json(known)
        return socket

    async with serve({"/talk": talk, "/put": put, "/get": get}) as client:
        async with client.ws_connect("/talk") as socket:
            assert await socket.receive_json() == "0"
        assert await what(client, "/get") == {}
        await what(client, "/put?n=1")
        async with client.ws_connect("/talk") as socket:
            assert await socket.receive_json() == "1"


# ---- what fails ----


@pytest.mark.parametrize("kind", ["error", "raised", "returned"])
async def test_what_fails_saves_nothing(serve: Serve, tables: Tables, kind: str) -> None:
    async def fail(request: web.Request) -> web.Response:
        (await get_session(request))["n"] = 1
        if kind == "returned":
            return web.Response(status=500)
        raise ValueError("no") if kind == "error" else web.HTTPInternalServerError()

    async with serve({"/": fail}) as client:
        async with client.get("/") as response:
            assert response.status == 500 and not response.cookies and tables.count() == 0


async def test_a_websocket_whose_client_goes_saves_and_one_that_fails_does_not(
    serve: Serve, tables: Tables
) -> None:
    ended = asyncio.Event()

    @web.middleware
    async def around(request: web.Request, handler: Any) -> Any:
        try:
            return await handler(request)
        finally:
            ended.set()

    async def talk(request: web.Request) -> web.StreamResponse:
        session = await get_session(request)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        session["n"] = request.query["n"]
        await socket.send_str("set")
        if request.query["n"] == "fails":
            raise ValueError("no")
        await socket.receive()
        if request.query["n"] == "out":
            session.log_out()
        raise ConnectionResetError("as a send to who has gone")

    async with serve({"/talk": talk, "/put": put, "/get": get}, outer=[around]) as client:
        await what(client, "/put?n=0")
        for how, holds in (("fails", {"n": "0"}), ("goes", {"n": "goes"}), ("out", {})):
            ended.clear()
            async with client.ws_connect(f"/talk?n={how}") as socket:
                assert await socket.receive_str() == "set"
            await asyncio.wait_for(ended.wait(), PATIENCE)
            assert await what(client, "/get") == holds
        assert tables.count() == 0


async def test_a_response_that_is_raised_is_one(serve: Serve) -> None:
    async def redirect(request: web.Request) -> web.Response:
        (await get_session(request))["n"] = 1
        raise web.HTTPFound("/get")

    async with serve({"/": redirect, "/get": get}) as client:
        assert await what(client, "/") == {"n": 1}


async def test_other_middlewares_may_answer_instead(serve: Serve) -> None:
    """The cookie is that of the response that is sent, and there is one."""

    @web.middleware
    async def around(request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            response: web.StreamResponse = await handler(request)
        except web.HTTPForbidden:
            response = web.Response()
        (await get_session(request)).setdefault("seen", True)
        response.set_cookie("theme", "dark")
        return response

    async def handler(request: web.Request) -> web.Response:
        (await get_session(request))["n"] = 1
        if "no" in request.query:
            raise web.HTTPForbidden()
        return web.Response(headers={"Set-Cookie": "other=1", "Vary": "Accept"})

    async with serve({"/": handler, "/get": get}, outer=[around]) as client:
        for path in ("/?no=1", "/"):
            async with client.get(path) as response:
                names = [next(iter(SimpleCookie(h))) for h in response.headers.getall("Set-Cookie")]
                assert (
                    names.count("session") == 1 and "theme" in names and ("other" in names) == (path == "/")
                )
                assert "Cookie" in response.headers.getall("Vary")
            assert await what(client, "/get") == {"n": 1, "seen": True}
            client.session.cookie_jar.clear()


async def test_who_is_slower_once_the_response_has_begun_sends_no_other(
    serve: Serve, elsewhere: SessionManager
) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        session = await get_session(request)
        session["n"] = 1
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        elsewhere.modify_session(session.session_id, lambda other: other.set("n", 2))  # type: ignore[arg-type]
        session["n"] = 3
        await session.save()
        return response

    async with serve({"/": stream, "/get": get}, on_conflict="fail") as client:
        async with client.get("/") as response:
            assert response.status == 200
            with pytest.raises(ClientPayloadError):
                await asyncio.wait_for(response.read(), PATIENCE)
        assert await what(client, "/get") == {"n": 2}


@pytest.mark.parametrize("kind", ["response", "stream", "websocket", "late"])
async def test_who_was_slower_is_told(serve: Serve, elsewhere: SessionManager, kind: str) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        session = await get_session(request)
        session["n"] = "mine"
        await elsewhere_changes(str(session.session_id))
        if kind == "late":
            with pytest.raises(SessionConflict):
                await session.save()
            return web.Response(status=418)
        if kind == "response":
            return web.Response()
        response = web.StreamResponse() if kind == "stream" else web.WebSocketResponse()
        await response.prepare(request)
        return response

    async def elsewhere_changes(session_id: str) -> None:
        elsewhere.modify_session(session_id, lambda session: session.set("n", "theirs"))

    async with serve({"/put": put, "/get": get, "/": handler}, on_conflict="fail") as client:
        await what(client, "/put?n=1")
        upgrade = {
            "Upgrade": "websocket", "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        } if kind == "websocket" else {}  # fmt: skip
        async with client.get("/", headers=upgrade) as response:
            assert response.status == (418 if kind == "late" else 409) and not response.cookies
            if kind != "late":
                assert "n" in await response.text()
