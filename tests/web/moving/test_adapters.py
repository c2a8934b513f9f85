"""The adapters that the services of `test_moves` do not have exchange a key too; a logout deletes both cookies."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import pytest

pytest.importorskip("anyio")

from pgsession import Config, SessionManager
from tests.tables import Tables
from tests.web.moving.notes import OLD, Moving, Notes

KEY = b"k" * 32
NEW = "token"
Set = list[str]  # what the Set-Cookie headers of a response say
Request = Callable[[str, str | None], tuple[str, Set]]  # a path and the Cookie header; the body, and those


@pytest.fixture
def key(moving: Moving, manager: SessionManager, tables: Tables) -> str:
    """Of a session that was brought."""
    store = Notes()
    brought = store.begin(user="alice")
    moving.run(store)
    return brought


@pytest.fixture
def options(config: Config, monkeypatch: pytest.MonkeyPatch) -> Iterable[dict[str, Any]]:
    """For the adapters; what is closed when the process exits is so when the test ends."""
    with ExitStack() as noted:
        monkeypatch.setattr("pgsession.contrib._managers.atexit.register", noted.callback)
        yield {"keys": [KEY], "config": config, "secure": False, "name": NEW, "moved_from": OLD}


def go_through(request: Request, key: str) -> None:
    body, given = request("/", f"{OLD}={key}")
    assert body == "alice" and [cookie.partition("=")[0] for cookie in given] == [NEW]
    both = f"{OLD}={key}; {given[0].partition(';')[0]}"
    assert request("/", both) == ("alice", [])
    body, given = request("/leave", both)
    assert sorted(cookie.partition(";")[0].replace('""', "") for cookie in given) == [f"{OLD}=", f"{NEW}="]
    assert request("/", f"{OLD}={key}") == ("None", [])


def test_wsgi(key: str, manager: SessionManager, options: dict[str, Any]) -> None:
    from wsgiref.util import setup_testing_defaults

    from pgsession.contrib.wsgi import SessionMiddleware

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        session = environ["pgsession.session"]
        if environ["PATH_INFO"] == "/leave":
            session.log_out()
        start_response("200 OK", [])
        return [str(session.user_id).encode()]

    for name in ("keys", "config"):
        del options[name]
    served: Any = SessionMiddleware(app, manager=manager, **options)

    def request(path: str, cookie: str | None) -> tuple[str, Set]:
        environ: dict[str, Any] = {"PATH_INFO": path, "HTTP_COOKIE": cookie}
        setup_testing_defaults(environ)
        told: list[tuple[str, str]] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            told.extend(headers)
            return lambda _: None

        body = b"".join(served(environ, start_response))
        return body.decode(), [value for name, value in told if name == "Set-Cookie"]

    go_through(request, key)


def test_litestar(key: str, dsn: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("litestar")
    from litestar import Litestar, Request, get
    from litestar.testing import TestClient

    from pgsession.contrib.litestar import PgSessionConfig

    monkeypatch.setenv("LITESTAR_WARN_IMPLICIT_SYNC_TO_THREAD", "0")

    @get(["/", "/leave"])
    def handle(request: Request[Any, Any, Any]) -> str:
        session: Any = request.scope["session"]
        if request.url.path == "/leave":
            session.log_out()
        return str(session.user_id)

    handle.fn.__annotations__["request"] = Request
    app = Litestar(
        [handle], plugins=[PgSessionConfig(dsn, **options)], openapi_config=None, logging_config=None
    )
    with TestClient(app) as client:

        def request(path: str, cookie: str | None) -> tuple[str, Set]:
            client.cookies.clear()
            answer = client.get(path, headers={"Cookie": cookie or ""})
            return answer.text, answer.headers.get_list("set-cookie")

        go_through(request, key)


@pytest.mark.filterwarnings("ignore:It is recommended to use web.RequestKey::aiohttp_session")
async def test_aiohttp(key: str, dsn: str, options: dict[str, Any]) -> None:
    pytest.importorskip("aiohttp_session")
    from aiohttp import DummyCookieJar, web
    from aiohttp.test_utils import TestClient, TestServer

    from pgsession.contrib.aiohttp import PgSessionStorage, get_session, setup

    async def handle(request: web.Request) -> web.Response:
        session = await get_session(request)
        if request.path == "/leave":
            session.log_out()
        return web.Response(text=str(session.user_id))

    app = web.Application()
    setup(app, PgSessionStorage(dsn, **options))
    app.add_routes([web.get("/", handle), web.get("/leave", handle)])
    async with TestClient(TestServer(app), cookie_jar=DummyCookieJar()) as client:

        async def ask(path: str, cookie: str) -> tuple[str, Set]:
            async with client.get(path, headers={"Cookie": cookie}) as answer:
                return await answer.text(), answer.headers.getall("Set-Cookie", [])

        body, given = await ask("/", f"{OLD}={key}")
        assert body == "alice" and [cookie.partition("=")[0] for cookie in given] == [NEW]
        both = f"{OLD}={key}; {given[0].partition(';')[0]}"
        assert await ask("/", both) == ("alice", [])
        _, given = await ask("/leave", both)
        assert sorted(cookie.partition("=")[0] for cookie in given) == [OLD, NEW]
        assert await ask("/", f"{OLD}={key}") == ("None", [])
