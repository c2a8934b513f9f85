"""The ASGI middleware, where a test over HTTP does not reach: loops, lifespans, WebSockets, what is done afterwards."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("httpx2")
pytest.importorskip("trio")

import anyio
import anyio.to_thread
import httpx2 as httpx
import msgspec
import psycopg
import trio
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

import pgsession
from pgsession import AsyncSessionManager, Config, ConfigError, SessionManager, Signer
from pgsession.contrib.asgi import SessionMiddleware
from pgsession.web import SessionConflict
from tests.tables import Tables

KEY = b"k" * 32
ROOT = Path(__file__).parents[2]
PATIENCE = 30
Make = Callable[..., Starlette]


async def put(request: Request) -> Response:
    request.session.update(request.query_params)
    return JSONResponse(dict(request.session))


async def get(request: Request) -> Response:
    return JSONResponse(dict(request.session))


def get_in_thread(request: Request) -> Response:
    request.session["seen"] = True
    return JSONResponse(dict(request.session))


async def nothing(_: Request) -> Response:
    return Response()


async def add(request: Request) -> Response:
    cart = request.session.setdefault("cart", [])
    cart.append(len(cart))
    return JSONResponse(cart)


ROUTES = [
    Route("/put", put),
    Route("/get", get),
    Route("/thread", get_in_thread),
    Route("/nothing", nothing),
    Route("/add", add),
]


@pytest.fixture
def make(dsn: str, config: Config, tables: Tables) -> Make:
    """`make(routes, on_conflict="fail")`: an application with the middleware."""

    def application(routes: list[Any] = ROUTES, **options: Any) -> Starlette:
        arguments = {"database": dsn, "keys": [KEY], "config": config, **options}
        return Starlette(routes=routes, middleware=[Middleware(SessionMiddleware, **arguments)])

    return application


@pytest.fixture(autouse=True)
def closed_with_the_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is closed when the process exits is so when the test ends."""
    with ExitStack() as noted:
        monkeypatch.setattr("pgsession.contrib._managers.atexit.register", noted.callback)
        yield


def client(app: Any, **options: Any) -> TestClient:
    return TestClient(app, base_url="https://testserver", **options)


def nodes(dsn: str, config: Config) -> int:
    return len(pgsession.Admin(dsn, config).nodes())


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# ---- loops and lifespans ----


def test_the_manager_lives_as_long_as_the_application(
    make: Make, dsn: str, config: Config, backend: str
) -> None:
    before = nodes(dsn, config)
    for _ in range(2):
        app = make()
        with client(app, backend=backend) as browser:
            assert nodes(dsn, config) == before + 1, "open before the first request"
            assert browser.get("/put?n=1").json() == {"n": "1"}
            assert browser.get("/get").json() == {"n": "1"}
            assert browser.get("/thread").json() == {"n": "1", "seen": True}
            assert browser.get("/get").json() == {"n": "1", "seen": True}
            assert nodes(dsn, config) == before + 1
        assert nodes(dsn, config) == before


def test_one_application_may_live_twice(make: Make) -> None:
    app = make()
    with client(app) as browser:
        browser.get("/put?n=1")
    with client(app, cookies=browser.cookies) as again:
        assert again.get("/get").json() == {"n": "1"}


def test_a_startup_that_fails_closes_the_manager(make: Make, dsn: str, config: Config) -> None:
    before = nodes(dsn, config)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        assert nodes(dsn, config) == before + 1
        raise RuntimeError("no")
        yield

    app = SessionMiddleware(Starlette(lifespan=lifespan), database=dsn, keys=KEY, config=config)
    with pytest.raises(RuntimeError, match="no"):
        with client(app):
            pass
    assert nodes(dsn, config) == before


@pytest.mark.parametrize("kind", ["starlette", "tells by itself"])
async def test_a_manager_that_cannot_open_fails_the_startup(make: Make, kind: str) -> None:
    """Servers take an application that only raises for one that knows no lifespan, and go on."""
    sent = []

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    async def teller(scope: Any, receive: Any, send: Any) -> None:
        try:
            await receive()
        except Exception:
            await send({"type": "lifespan.startup.failed"})
            raise

    app = Starlette() if kind == "starlette" else teller
    nowhere = SessionMiddleware(app, database="host=/nowhere dbname=none", keys=KEY)
    with pytest.raises(psycopg.OperationalError):
        await nowhere({"type": "lifespan", "asgi": {}, "state": {}}, receive, send)
    [message] = sent
    assert message["type"] == "lifespan.startup.failed" and "/nowhere" in message["message"]


def test_a_lifespan_that_is_cancelled_closes_the_manager(
    make: Make, dsn: str, config: Config, trio_or_asyncio: Callable[..., None]
) -> None:
    before = nodes(dsn, config)

    async def main() -> None:
        started = anyio.Event()

        async def receive() -> Any:
            if started.is_set():
                await anyio.sleep_forever()
            return {"type": "lifespan.startup"}

        async def send(message: Any) -> None:
            if message["type"] == "lifespan.startup.complete":
                started.set()

        async with anyio.create_task_group() as group:
            group.start_soon(make(), {"type": "lifespan", "asgi": {}, "state": {}}, receive, send)
            await started.wait()
            assert await anyio.to_thread.run_sync(nodes, dsn, config) == before + 1
            group.cancel_scope.cancel()
        assert await anyio.to_thread.run_sync(nodes, dsn, config) == before

    trio_or_asyncio(main)


SCRIPT = """
import sys
from starlette.testclient import TestClient
from tests.web.test_asgi import KEY, ROUTES, Middleware, SessionMiddleware, Starlette
from pgsession import Config

dsn, schema, backend = sys.argv[1:]
arguments = dict(database=dsn, keys=KEY, config=Config(schema_name=schema))
app = Starlette(routes=ROUTES, middleware=[Middleware(SessionMiddleware, **arguments)])
browser = TestClient(app, base_url="https://testserver", backend=backend)
for n in range(3):
    assert browser.get(f"/put?n={n}").json() == {"n": str(n)}
    assert browser.get("/get").json() == {"n": str(n)}
"""


def test_without_a_lifespan_each_request_may_have_a_loop_of_its_own(
    make: Make, dsn: str, config: Config, backend: str
) -> None:
    """The process closes what the first one opened, without a warning."""
    before = nodes(dsn, config)
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", SCRIPT, dsn, config.schema_name, backend],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert nodes(dsn, config) == before


async def test_a_request_without_a_cookie_costs_nothing(make: Make) -> None:
    """Not even a manager, which could not be opened here."""
    app = make(database="host=/nowhere dbname=none connect_timeout=1")
    async with asgi_client(app) as browser:
        assert (await browser.get("/nothing")).status_code == 200
        assert (await browser.get("/get")).json() == {}
        assert (await browser.get("/get", headers={"Cookie": "theme=dark; other=1"})).json() == {}


@asynccontextmanager
async def asgi_client(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="https://testserver") as opened:
        yield opened


@pytest.mark.parametrize("kind", [SessionManager, AsyncSessionManager])
async def test_a_manager_of_the_applications_own(
    dsn: str, config: Config, make: Make, kind: type[SessionManager] | type[AsyncSessionManager]
) -> None:
    manager = kind(dsn, config, signer=Signer(KEY))
    async with AsyncExitStack() as stack:
        if isinstance(manager, SessionManager):
            stack.enter_context(manager)
        else:
            await stack.enter_async_context(manager)
        app = make(database=None, keys=(), config=None, manager=manager)
        async with asgi_client(app) as browser:
            assert (await browser.get("/put?n=1")).json() == {"n": "1"}
            assert (await browser.get("/get")).json() == {"n": "1"}
        assert "open" in repr(manager)


@pytest.fixture
def trio_or_asyncio(backend: str) -> Callable[[Callable[[], Any]], None]:
    def run(main: Callable[[], Any]) -> None:
        trio.run(main) if backend == "trio" else anyio.run(main)

    return run


def test_many_that_wait_for_their_turn_do_not_keep_its_holder_waiting(
    dsn: str, config: Config, make: Make, trio_or_asyncio: Callable[..., None]
) -> None:
    """More requests than there are threads: one has its turn, and needs a thread to save."""
    many = 60

    async def main() -> None:
        with SessionManager(dsn, config, signer=Signer(KEY)) as manager:
            app = make(database=None, keys=(), config=None, manager=manager, on_conflict="serial")
            async with asgi_client(app) as browser:
                await browser.get("/add")
                async with anyio.create_task_group() as group:
                    for _ in range(many):
                        group.start_soon(browser.get, "/add")
                assert (await browser.get("/get")).json() == {"cart": list(range(many + 1))}

    trio_or_asyncio(main)


def test_a_cancelled_request_ends_its_turn(
    dsn: str, config: Config, make: Make, trio_or_asyncio: Callable[..., None]
) -> None:
    async def main() -> None:
        running = anyio.Event()

        async def hang(request: Request) -> Response:
            request.session["n"] = 2
            running.set()
            await anyio.sleep_forever()
            raise AssertionError

        app = make([Route("/hang", hang), *ROUTES], on_conflict="serial", serial_timeout=PATIENCE)
        async with asgi_client(app) as browser:
            await browser.get("/put?n=1")
            async with anyio.create_task_group() as group:
                group.start_soon(browser.get, "/hang")
                await running.wait()
                group.cancel_scope.cancel()
            with anyio.fail_after(PATIENCE / 2):
                assert (await browser.get("/get")).json() == {"n": "1"}

    trio_or_asyncio(main)


async def test_a_request_that_asyncio_cancels_while_a_thread_waits_for_its_turn_gives_it_back(
    dsn: str, config: Config, make: Make
) -> None:
    loop = asyncio.get_running_loop()
    running, waiting, taken, go_on = (asyncio.Event() for _ in range(4))

    class Telling(SessionManager):
        def lock(self, *arguments: Any, **options: Any) -> pgsession.Lock:
            lock = super().lock(*arguments, **options)
            acquire = lock.acquire

            def telling(**options: Any) -> bool:
                loop.call_soon_threadsafe(waiting.set)
                try:
                    return acquire(**options)
                finally:
                    loop.call_soon_threadsafe(taken.set)

            lock.acquire = telling  # type: ignore[method-assign]
            return lock

    async def hang(request: Request) -> Response:
        running.set()
        await go_on.wait()
        return JSONResponse(dict(request.session))

    with Telling(dsn, config, signer=Signer(KEY)) as manager:
        app = make(
            [Route("/hang", hang), *ROUTES],
            database=None, keys=(), config=None, manager=manager, on_conflict="serial", serial_timeout=5,
        )  # fmt: skip
        async with asgi_client(app) as browser:
            await browser.get("/add")
            first = asyncio.create_task(browser.get("/hang"))
            await running.wait()
            waiting.clear()
            taken.clear()
            second = asyncio.create_task(browser.get("/get"))
            await waiting.wait()
            second.cancel()
            await asyncio.sleep(0)
            go_on.set()
            assert (await first).status_code == 200
            with pytest.raises(asyncio.CancelledError):
                await second
            await taken.wait()
            assert (await browser.get("/get")).json() == {"cart": [0]}


# ---- other middleware, sub-applications, several sessions ----


class Plain(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Response:
        request.session["outside"] = request.session.get("outside", 0) + 1
        response = await call_next(request)
        assert isinstance(response, Response)
        return response


def test_other_middleware_and_sub_applications_have_the_same_session(make: Make) -> None:
    app = make([Mount("/sub", Starlette(routes=ROUTES)), *ROUTES])
    app.add_middleware(Plain)  # outermost: before there is a session
    app.user_middleware.reverse()
    with client(app) as browser:
        assert browser.get("/sub/put?n=1").json() == {"outside": 1, "n": "1"}
        assert browser.get("/get").json() == {"outside": 2, "n": "1"}


def test_two_sessions_with_cookies_of_their_own(make: Make, dsn: str, config: Config) -> None:
    """With keys of their own: the token of one is none in the cookie of the other."""

    async def both(request: Request) -> Response:
        one, other = request.session, request.scope["admin"]
        one["n"], other["m"] = one.get("n", 0) + 1, other.get("m", 0) + 2
        return JSONResponse([dict(one), dict(other)])

    app = make([Route("/both", both), *ROUTES])
    app.add_middleware(
        SessionMiddleware, database=dsn, keys=b"o" * 32, config=config, name="admin", scope_key="admin"
    )
    with client(app) as browser:
        first = browser.get("/both")
        assert {header.partition("=")[0] for header in first.headers.get_list("set-cookie")} == {
            "admin", "__Host-session",
        }  # fmt: skip
        assert first.headers.get_list("vary") == ["Cookie"]
        assert browser.get("/both").json() == [{"n": 2}, {"m": 4}]
        assert browser.get("/get").json() == {"n": 2}
        mine = browser.cookies["__Host-session"]
        browser.cookies.clear()
        swapped = browser.get("/both", headers={"Cookie": f"admin={mine}"}).json()
        assert swapped == [{"n": 1}, {"m": 2}]


async def test_a_response_keeps_the_headers_it_has(make: Make) -> None:
    async def varied(request: Request) -> Response:
        request.session["n"] = 1
        headers = {"Vary": request.query_params["vary"], "Set-Cookie": "theme=dark"}
        return Response(headers=headers)

    app = make([Route("/varied", varied)])
    with client(app) as browser:
        answer = browser.get("/varied?vary=Accept")
        assert answer.headers.get_list("vary") == ["Accept", "Cookie"]
        assert len(answer.headers.get_list("set-cookie")) == 2
        for value in ("*", "Accept, cookie"):
            assert browser.get(f"/varied?vary={value}").headers.get_list("vary") == [value]


def test_a_response_keeps_headers_that_can_be_read_once(make: Make) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert not scope["session"]
        await send(
            {"type": "http.response.start", "status": 200, "headers": iter([(b"x", b"1"), (b"x", b"2")])}
        )
        await send({"type": "http.response.body"})

    headers = client(make([Mount("/", app)])).get("/").headers
    assert headers.get_list("x") == ["1", "2"] and headers["vary"] == "Cookie"


def test_a_cookie_may_come_in_several_headers(make: Make) -> None:
    """HTTP/2 splits them."""
    with client(make()) as browser:
        browser.get("/put?n=1")
        mine = f"__Host-session={browser.cookies['__Host-session']}"
        browser.cookies.clear()
        headers = [("Cookie", "theme=dark"), ("Cookie", mine), ("Cookie", "x=y")]
        assert browser.get("/get", headers=headers).json() == {"n": "1"}


# ---- what fails ----


def test_what_a_handler_that_fails_has_done_is_not_saved(make: Make, tables: Tables) -> None:
    async def fail(request: Request) -> Response:
        request.session["n"] = 1
        raise ValueError("bug")

    with client(make([Route("/fail", fail)]), raise_server_exceptions=False) as browser:
        answer = browser.get("/fail")
        assert answer.status_code == 500 and "set-cookie" not in answer.headers
    assert tables.count() == 0


@pytest.mark.parametrize("status", [500, 503])
def test_an_answer_that_something_failed_saves_nothing(
    make: Make, tables: Tables, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    """A sub-application answers so before its handler's error is seen outside of it."""

    async def fail(request: Request) -> Response:
        request.session.log_in("alice")
        if status == 500:
            raise ValueError("bug")
        return Response(status_code=status)

    app = make([Mount("/sub", Starlette(routes=[Route("/fail", fail)]))])
    with client(app, raise_server_exceptions=False) as browser:
        answer = browser.get("/sub/fail")
        assert answer.status_code == status and "set-cookie" not in answer.headers
        assert answer.headers["vary"] == "Cookie"
    assert tables.count() == 0 and not caplog.records


def test_what_was_saved_before_something_failed_sets_the_cookie(make: Make, tables: Tables) -> None:
    async def fail(request: Request) -> Response:
        request.session.log_in("alice")
        await request.session.save()
        request.session["n"] = 1
        return Response(status_code=500)

    with client(make([Route("/fail", fail), *ROUTES])) as browser:
        assert "set-cookie" in browser.get("/fail").headers
        assert browser.get("/get").json() == {}
    assert tables.one("SELECT user_id FROM {sessions}") == "alice"


def overtaken(manager: SessionManager) -> Callable[[Request], Response]:
    """A handler that somebody else is faster than."""

    def handler(request: Request) -> Response:
        request.session["n"] = 2
        manager.modify_session(request.session.session_id, lambda session: session.update(n=3))
        return PlainTextResponse("done")

    return handler


def test_a_conflict_is_answered_409(make: Make, manager: SessionManager) -> None:
    app = make([Route("/overtaken", overtaken(manager)), *ROUTES], on_conflict="fail")
    with client(app) as browser:
        browser.get("/put?n=1")
        answer = browser.get("/overtaken")
        assert (answer.status_code, answer.text) == (
            409, "The session was changed by another request: repeat this one.",
        )  # fmt: skip
        assert "set-cookie" not in answer.headers
        assert browser.get("/get").json() == {"n": 3}


def test_a_conflict_keeps_the_cookie_of_what_was_saved_before(make: Make, manager: SessionManager) -> None:
    """Else its browser would have the token that this login has ended."""

    async def log_in(request: Request) -> Response:
        request.session.log_in("ann")
        await request.session.save()
        return overtaken(manager)(request)

    app = make([Route("/in", log_in), *ROUTES], on_conflict="fail")
    with client(app) as browser:
        browser.get("/put?n=1")
        before = browser.cookies["__Host-session"]
        answer = browser.get("/in")
        assert answer.status_code == 409 and "cookie" in answer.headers["vary"].lower()
        assert browser.cookies["__Host-session"] != before
        assert browser.get("/get").json() == {"n": 3}


def test_a_conflict_in_a_sub_application_is_answered_409(make: Make, tables: Tables) -> None:
    """Which has answered 500 by itself when the error is seen outside of it."""

    async def log_in(request: Request) -> Response:
        request.session.log_in("bob")
        raise AssertionError

    app = make([Mount("/sub", Starlette(routes=[Route("/in", log_in)])), Route("/in", alice), *ROUTES])
    with client(app) as browser:
        browser.get("/put?n=1")
        before = browser.cookies["__Host-session"]
        browser.get("/in")
        browser.cookies.clear()
        answer = browser.get("/sub/in", headers={"Cookie": f"__Host-session={before}"})
        assert (answer.status_code, answer.headers["vary"]) == (409, "Cookie")
    assert tables.one("SELECT user_id FROM {sessions}") == "alice"


async def alice(request: Request) -> Response:
    request.session.log_in("alice")
    return Response()


def test_a_conflict_is_answered_once(make: Make, manager: SessionManager) -> None:
    """Also where a background task of the response that was refused saves again."""

    async def handler(request: Request) -> Response:
        overtaken(manager)(request)
        return Response(background=BackgroundTask(request.session.save))

    with client(make([Route("/overtaken", handler), *ROUTES], on_conflict="fail")) as browser:
        browser.get("/put?n=1")
        assert browser.get("/overtaken").status_code == 409


def test_an_application_that_saves_answers_what_fails_itself(make: Make, manager: SessionManager) -> None:
    async def handler(request: Request) -> Response:
        overtaken(manager)(request)
        await request.session.save()
        return Response()

    async def answer(request: Request, _: Exception) -> Response:
        return PlainTextResponse("again", 418)

    app = make([Route("/overtaken", handler), *ROUTES], on_conflict="fail")
    app.add_exception_handler(SessionConflict, answer)
    with client(app) as browser:
        browser.get("/put?n=1")
        refused = browser.get("/overtaken")
        assert (refused.status_code, refused.text) == (418, "again") and "set-cookie" not in refused.headers
        assert browser.get("/get").json() == {"n": 3}


def test_a_limit_that_rejects_may_be_answered_by_the_application(make: Make, config: Config) -> None:
    async def log_in(request: Request) -> Response:
        request.session.log_in("alice")
        await request.session.save()
        return PlainTextResponse("in")

    async def answer(_: Request, error: Exception) -> Response:
        return PlainTextResponse(str(error), 403)

    strict = msgspec.structs.replace(config, max_sessions=1, max_sessions_policy="reject")
    app = make([Route("/in", log_in)], config=strict)
    app.add_exception_handler(pgsession.TooManySessionsError, answer)
    with client(app) as browser:
        assert browser.get("/in").status_code == 200
        browser.cookies.clear()
        assert browser.get("/in").status_code == 403


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "database: either this or manager is needed, and not both"),
        ({"database": ""}, "keys: at least one key is needed"),
        ({"database": "", "keys": [b"short"]}, "keys: each must have at least 32 bytes, not 5"),
        ({"database": "", "keys": KEY, "on_conflict": "last"}, "on_conflict: must be"),
        ({"database": "", "keys": KEY, "samesite": "none", "secure": False}, "samesite: 'none' needs"),
    ],
)
def test_what_contradicts_itself_is_refused_at_once(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        SessionMiddleware(Starlette(), **options)
    assert str(refused.value).startswith(words)


# ---- after the response ----


@pytest.mark.parametrize("kind", [SessionManager, AsyncSessionManager])
async def test_tasks_of_a_request_that_save_at_once_begin_one_session(
    dsn: str,
    config: Config,
    make: Make,
    tables: Tables,
    kind: type[SessionManager] | type[AsyncSessionManager],
) -> None:
    async def put_and_save(session: Any, n: int) -> None:
        session[f"k{n}"] = n
        await session.save()
        session[f"m{n}"] = n

    async def both(request: Request) -> Response:
        await asyncio.gather(*(put_and_save(request.session, n) for n in range(5)))
        return Response()

    manager = kind(dsn, config, signer=Signer(KEY))
    async with AsyncExitStack() as stack:
        if isinstance(manager, SessionManager):
            stack.enter_context(manager)
        else:
            await stack.enter_async_context(manager)
        app = make([Route("/both", both), *ROUTES], database=None, keys=(), config=None, manager=manager)
        async with asgi_client(app) as browser:
            await browser.get("/both")
            assert (await browser.get("/get")).json() == {f"{key}{n}": n for key in "km" for n in range(5)}
    assert tables.count() == 1


def test_a_background_task_saves_by_itself(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    async def later(request: Request, save: bool) -> None:
        request.session["later"] = save
        with pytest.raises(RuntimeError, match="the response has begun"):
            request.session.rotate()
        if save:
            await request.session.save()

    async def task(request: Request) -> Response:
        request.session["now"] = True
        return Response(background=BackgroundTask(later, request, request.query_params["save"] == "yes"))

    with client(make([Route("/task", task), *ROUTES])) as browser:
        browser.get("/task?save=yes")
        assert browser.get("/get").json() == {"now": True, "later": True}
        assert not caplog.records
        browser.get("/task?save=no")
        assert browser.get("/get").json() == {"now": True, "later": True}
        assert "call `await session.save()` after it" in caplog.text


async def test_a_new_session_cannot_begin_after_the_response(make: Make) -> None:
    async def stream(request: Request) -> Response:
        async def body() -> AsyncIterator[str]:
            request.session["n"] = 1
            with pytest.raises(RuntimeError, match="no cookie can be set any more"):
                await request.session.save()
            request.session.clear()
            yield "done"

        return StreamingResponse(body())

    async with asgi_client(make([Route("/stream", stream)])) as browser:
        assert (await browser.get("/stream")).text == "done"


# ---- WebSockets ----


async def socket(websocket: WebSocket) -> None:
    session = websocket.scope["session"]
    if "before" in websocket.query_params:
        session["before"] = True
    await websocket.accept()
    async for message in websocket.iter_json():
        if message == "save":
            await session.save()
        elif message in ("rotate", "log_in"):
            with pytest.raises(RuntimeError, match="WebSocket was accepted"):
                session.rotate() if message == "rotate" else session.log_in("alice")
        else:
            session.update(message)
        await websocket.send_json(dict(session))


def test_a_websocket_loads_its_session_and_saves_when_told_and_at_its_end(make: Make) -> None:
    with client(make([WebSocketRoute("/socket", socket), *ROUTES])) as browser:
        browser.get("/put?n=1")
        with browser.websocket_connect("wss://testserver/socket") as connection:
            connection.send_json({"m": 2})
            assert connection.receive_json() == {"n": "1", "m": 2}
            assert browser.get("/get").json() == {"n": "1"}
            connection.send_json("save")
            connection.receive_json()
            assert browser.get("/get").json() == {"n": "1", "m": 2}
            for name in ("rotate", "log_in"):
                connection.send_json(name)
                connection.receive_json()
            connection.send_json({"m": 3})
            connection.receive_json()
        assert browser.get("/get").json() == {"n": "1", "m": 3}


def test_what_is_changed_before_a_websocket_is_accepted_sets_the_cookie(make: Make) -> None:
    with client(make([WebSocketRoute("/socket", socket), *ROUTES])) as browser:
        with browser.websocket_connect("wss://testserver/socket?before") as connection:
            headers = dict(connection.extra_headers or [])
            assert headers[b"set-cookie"].startswith(b"__Host-session=") and headers[b"vary"] == b"Cookie"
        with browser.websocket_connect("wss://testserver/socket") as connection:
            assert connection.extra_headers in ([], [(b"vary", b"Cookie")]), "nothing was changed"


@pytest.mark.parametrize("told_by", ["receive", "send"])
def test_a_websocket_whose_client_goes_saves(make: Make, told_by: str) -> None:
    """Starlette raises `WebSocketDisconnect`."""
    ended = threading.Event()

    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        websocket.scope["session"]["m"] = 1
        try:
            while True:
                await (websocket.receive_text() if told_by == "receive" else websocket.send_text("tick"))
        finally:
            ended.set()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            if told_by == "send" and message["type"] == "websocket.send":
                raise OSError("the client has gone")
            await send(message)

        await inner(scope, receive, sending)

    inner = make([WebSocketRoute("/socket", socket), *ROUTES])
    with client(app) as browser:
        browser.get("/put?n=1")
        with pytest.raises(WebSocketDisconnect), browser.websocket_connect("wss://testserver/socket"):
            assert told_by == "receive" or ended.wait(PATIENCE)
        assert browser.get("/get").json() == {"n": "1", "m": 1}


def test_a_websocket_that_fails_while_its_client_is_there_saves_nothing(make: Make) -> None:
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        websocket.scope["session"]["m"] = 1
        raise ValueError("bug")

    with client(make([WebSocketRoute("/socket", socket), *ROUTES])) as browser:
        browser.get("/put?n=1")
        with pytest.raises(ValueError, match="bug"), browser.websocket_connect("wss://testserver/socket"):
            pass
        assert browser.get("/get").json() == {"n": "1"}


def test_a_logout_by_a_websocket_ends_the_session(make: Make, tables: Tables) -> None:
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        websocket.scope["session"].log_out()
        await websocket.close()

    with client(make([WebSocketRoute("/socket", socket), *ROUTES])) as browser:
        browser.get("/put?n=1")
        with browser.websocket_connect("wss://testserver/socket"):
            pass
    assert tables.count() == 0


@pytest.mark.parametrize("change", ["rotate", "log_in", "expire"])
def test_a_websocket_that_is_refused_takes_no_cookie_away(make: Make, tables: Tables, change: str) -> None:
    """What needs another cookie is forgotten, for none can be set; the rest is saved."""

    async def socket(websocket: WebSocket) -> None:
        session = websocket.scope["session"]
        getattr(session, change)(*{"log_in": ["bob"], "expire": [60]}.get(change, []))
        session["m"] = 2
        await websocket.close()

    with client(make([WebSocketRoute("/socket", socket), *ROUTES])) as browser:
        browser.get("/put?n=1")
        with pytest.raises(WebSocketDisconnect), browser.websocket_connect("wss://testserver/socket"):
            pass
        assert browser.get("/get").json() == {"n": "1", "m": 2}
    assert tables.one("SELECT user_id FROM {sessions}") is None


def test_a_websocket_does_not_keep_other_requests_waiting(make: Make) -> None:
    app = make([WebSocketRoute("/socket", socket), *ROUTES], on_conflict="serial")
    with client(app) as browser:
        browser.get("/put?n=1")
        with browser.websocket_connect("wss://testserver/socket"):
            assert browser.get("/add").json() == [0]


def test_a_session_that_a_websocket_begins_after_it_was_accepted_is_warned_of(
    make: Make, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    with client(make([WebSocketRoute("/socket", socket)])) as browser:
        with browser.websocket_connect("wss://testserver/socket") as connection:
            connection.send_json({"m": 2})
            connection.receive_json()
    assert tables.count() == 0 and "the change is lost" in caplog.text


def test_a_session_that_ends_while_a_websocket_is_open_stays_ended(
    make: Make, tables: Tables, manager: SessionManager
) -> None:
    with client(make([WebSocketRoute("/socket", socket), *ROUTES])) as browser:
        browser.get("/put?n=1")
        with browser.websocket_connect("wss://testserver/socket") as connection:
            manager.delete_session(tables.one("SELECT id FROM {sessions}"))
            connection.send_json({"m": 2})
            connection.receive_json()
    assert tables.count() == 0
