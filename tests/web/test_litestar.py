"""Litestar's adapter, where a test over HTTP of all does not reach: what handlers do to `session`, layers, failures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

pytest.importorskip("litestar")

from litestar import Litestar, Request, Router, WebSocket, get, post, websocket
from litestar.connection import ASGIConnection
from litestar.di import Provide
from litestar.exceptions import NotAuthorizedException, PermissionDeniedException
from litestar.handlers import BaseRouteHandler
from litestar.security.session_auth import SessionAuth
from litestar.testing import TestClient
from litestar.types import Empty

import pgsession
from pgsession import Config, ConfigError, SessionManager
from pgsession.contrib.litestar import LitestarSession, PgSessionBackend, PgSessionConfig
from pgsession.web import SessionConflict
from tests.tables import Tables

KEY = b"k" * 32
AnyRequest = Request[Any, Any, Any]
AnySocket = WebSocket[Any, Any, Any]
Make = Callable[..., PgSessionConfig]


@pytest.fixture
def make(dsn: str, config: Config, tables: Tables) -> Make:
    """`make(on_conflict="fail")`: a configuration with cookies that a client without https sends back."""

    def configuration(**options: Any) -> PgSessionConfig:
        return PgSessionConfig(dsn, **{"keys": [KEY], "config": config, "secure": False, **options})

    return configuration


@pytest.fixture(autouse=True)
def closed_with_the_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is closed when the process exits is so when the test ends."""
    with ExitStack() as noted:
        monkeypatch.setattr("pgsession.contrib._managers.atexit.register", noted.callback)
        yield


@pytest.fixture(autouse=True)
def handlers_may_be_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITESTAR_WARN_IMPLICIT_SYNC_TO_THREAD", "0")


def application(*handlers: Any, **options: Any) -> Litestar:
    """Litestar's own logging would be that of all tests."""
    return Litestar(list(handlers), openapi_config=None, logging_config=None, **options)


def client(*handlers: Any, **options: Any) -> TestClient[Litestar]:
    return TestClient(application(*handlers, **options), raise_server_exceptions=False)


def nodes(dsn: str, config: Config) -> int:
    return len(pgsession.Admin(dsn, config).nodes())


@get("/put")
async def put(request: AnyRequest) -> dict[str, Any]:
    request.session.update(request.query_params)
    return request.session


@get("/read")
async def read(request: AnyRequest) -> dict[str, Any]:
    return request.session


@get("/clear")
async def clear(request: AnyRequest) -> None:
    request.clear_session()


# ---- lives and layers ----


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_plugin_lives_as_long_as_the_application(
    make: Make, dsn: str, config: Config, backend: Any
) -> None:
    before = nodes(dsn, config)
    app = application(put, read, plugins=[make()])
    for _ in range(2):
        with TestClient(app, backend=backend) as browser:
            assert nodes(dsn, config) == before + 1, "open before the first request"
            assert browser.get("/put?n=1").json() == {"n": "1"}
            assert browser.get("/read").json() == {"n": "1"}
            assert nodes(dsn, config) == before + 1
        assert nodes(dsn, config) == before


def test_a_layer_of_the_application_may_have_it(make: Make, tables: Tables) -> None:
    @get("/")
    async def none(request: AnyRequest) -> bool:
        return "session" in request.scope

    sessions = make()
    layer = Router("/in", route_handlers=[put, read], middleware=[sessions.middleware])
    with client(layer, none) as browser:
        assert browser.get("/").json() is False
        browser.get("/in/put?n=1")
        assert browser.get("/in/read").json() == {"n": "1"}
    with client(layer, none, plugins=[sessions]) as browser:  # in both: one session, saved once
        assert len(browser.get("/in/put?n=1").headers.get_list("set-cookie")) == 1
        assert browser.get("/").json() is True and tables.count() == 2


@pytest.mark.parametrize("change", ["set", "clear"])
def test_a_layer_with_another_configuration_has_a_session_of_its_own(make: Make, change: str) -> None:
    """What it does to that is not done to the one of the layer around it, in whose tables it may not be."""

    @get("/admin")
    async def admin(request: AnyRequest) -> dict[str, Any]:
        what = request.query_params["do"]
        if what == "set":
            request.set_session({"secret": 1})
        elif what == "clear":
            request.clear_session()
            return {}
        return dict(request.session)

    inner, outer = make(name="admin"), make(name="visitor")
    layer = Router("/", route_handlers=[admin], middleware=[inner.middleware])
    with client(put, read, layer, plugins=[outer]) as browser:
        browser.get("/put?n=1")
        if change == "clear":
            browser.get("/admin?do=set")
        browser.get(f"/admin?do={change}")
        assert browser.get("/admin?do=read").json() == ({"secret": 1} if change == "set" else {})
        assert browser.get("/read").json() == {"n": "1"}


def test_paths_handlers_and_kinds_of_connections_can_be_left_out(make: Make) -> None:
    @get(["/a", "/b"])
    async def has(request: AnyRequest) -> bool:
        return "session" in request.scope

    @get("/c", skip_session=True)
    async def has_not(request: AnyRequest) -> bool:
        return "session" in request.scope

    with client(has, has_not, plugins=[make(exclude=["/b"])]) as browser:
        assert [browser.get(path).json() for path in ("/a", "/b", "/c")] == [True, False, False]
    with client(has, has_not, plugins=[make(scopes={"websocket"}, exclude_opt_key="none")]) as browser:
        assert [browser.get(path).json() for path in ("/a", "/c")] == [False, False]
    with client(has, has_not, plugins=[make(exclude_opt_key="none")]) as browser:
        assert [browser.get(path).json() for path in ("/a", "/c")] == [True, True]


def test_what_the_configuration_says_can_be_set_until_it_is_used(make: Make) -> None:
    sessions = make(max_age=60)
    assert sessions.key == "session" and sessions.max_age == 60 and sessions.samesite == "lax"
    sessions.domain, sessions.path = "testserver.local", "/put"
    with client(put, plugins=[sessions]) as browser:
        header = browser.get("/put?n=1").headers["set-cookie"]
        assert "Domain=testserver.local" in header and "Path=/put" in header and "Max-Age=60" in header
    sessions = make(secure=True)
    assert sessions.key == "__Host-session"
    sessions.domain = "example.org"
    with pytest.raises(ConfigError, match="domain"):
        client(put, plugins=[sessions])
    with pytest.raises(ConfigError, match="database"):
        PgSessionConfig(keys=KEY)


def test_the_test_client_gets_and_sets_what_a_session_holds(make: Make) -> None:
    sessions = make()
    with TestClient(application(put, read, plugins=[sessions]), session_config=sessions) as browser:
        browser.set_session_data({"n": 1})
        assert browser.get("/read").json() == {"n": 1}
        browser.get("/put?m=2")
        assert browser.get_session_data() == {"n": 1, "m": "2"}
        browser.set_session_data({"k": []})
        assert browser.get("/read").json() == {"k": []}


# ---- what handlers do to it ----


@pytest.mark.filterwarnings("ignore:.*Inferred dependency:DeprecationWarning")  # older versions have no other
def test_guards_and_dependencies_see_it(make: Make) -> None:
    def known(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        if "name" not in connection.session:
            raise PermissionDeniedException()

    async def current(request: AnyRequest) -> LitestarSession:
        session: Any = request.session
        return session

    @get("/guarded", guards=[known], dependencies={"own": Provide(current)})
    async def guarded(own: LitestarSession) -> str:
        own["seen"] = True
        return str(own["name"])

    with client(put, read, guarded, plugins=[make()]) as browser:
        assert browser.get("/guarded").status_code == 403
        browser.get("/put?name=alice")
        assert browser.get("/guarded").text == "alice"
        assert browser.get("/read").json() == {"name": "alice", "seen": True}


def test_clear_session_ends_it_and_deletes_the_cookie(make: Make, tables: Tables) -> None:
    @get("/empty")
    async def empty(request: AnyRequest) -> None:
        request.set_session(Empty)

    with client(put, clear, read, empty, plugins=[make()]) as browser:
        for path in ("/clear", "/empty"):
            assert "set-cookie" not in browser.get(path).headers, "there is none"
            browser.get("/put?n=1")
            assert tables.count() == 1
            assert "Max-Age=0" in browser.get(path).headers["set-cookie"]
            assert tables.count() == 0 and browser.get("/read").json() == {}


@dataclass
class Cart:
    items: list[str]


def test_set_session_puts_all_in_its_place_and_gives_a_new_token(make: Make, tables: Tables) -> None:
    @get("/log_in")
    async def log_in(request: AnyRequest) -> None:
        request.set_session({"user": "alice", "cart": request.session.get("cart")})

    @get("/cart")
    async def cart(request: AnyRequest) -> None:
        request.set_session(Cart(["book"]))

    @get("/same")
    async def same(request: AnyRequest) -> None:
        request.set_session(dict(request.session))

    with client(put, log_in, cart, same, read, plugins=[make()]) as browser:
        browser.get("/put?cart=pen&old=1")
        planted = dict(browser.cookies)
        browser.get("/log_in")
        assert browser.get("/read").json() == {"user": "alice", "cart": "pen"} and tables.count() == 1
        assert "set-cookie" not in browser.get("/same").headers
        current = dict(browser.cookies)
        browser.cookies.clear()
        browser.cookies.update(planted)
        assert browser.get("/read").json() == {}, "a token of before the login is no good"
        browser.cookies.update(current)
        browser.get("/cart")
        assert browser.get("/read").json() == {"items": ["book"]} and tables.count() == 1


def test_litestar_has_no_id_of_it(make: Make) -> None:
    @get("/id")
    async def session_id(request: AnyRequest) -> list[Any]:
        session: Any = request.session
        return [request.get_session_id(), session.session_id]

    with client(put, session_id, plugins=[make()]) as browser:
        assert browser.get("/id").json() == [None, None]
        browser.get("/put?n=1")
        assert browser.get("/id").json()[1] not in (None, browser.cookies["session"])


async def named(session: dict[str, Any], _: ASGIConnection[Any, Any, Any, Any]) -> str | None:
    user: str | None = session.get("user") or getattr(session, "user_id", None)
    return None if user == "nobody" else user


@pytest.mark.parametrize("as_plugin", [False, True])
def test_session_auth(make: Make, tables: Tables, as_plugin: bool) -> None:
    @get("/log_in", exclude_from_auth=True)
    async def log_in(request: AnyRequest) -> None:
        session: Any = request.session
        session.log_in(request.query_params["name"])

    @get("/set", exclude_from_auth=True)
    async def set_in(request: AnyRequest) -> None:
        request.set_session({"user": request.query_params["name"]})

    @get("/me")
    async def me(request: AnyRequest) -> str:
        return str(request.user)

    sessions = make()
    auth = SessionAuth[str, PgSessionBackend](retrieve_user_handler=named, session_backend_config=sessions)
    plugins = [sessions] if as_plugin else []
    with client(log_in, set_in, me, clear, on_app_init=[auth.on_app_init], plugins=plugins) as browser:
        assert browser.get("/me").status_code == 401 and not browser.cookies
        for path in ("/log_in", "/set"):
            assert len(browser.get(f"{path}?name=alice").headers.get_list("set-cookie")) == 1
            assert browser.get("/me").text == "alice"
            browser.get("/clear")
            assert browser.get("/me").status_code == 401 and tables.count() == 0
        browser.get("/set?name=nobody")
        assert "Max-Age=0" in browser.get("/me").headers["set-cookie"] and tables.count() == 0


# ---- WebSockets ----


async def connect(app: Litestar, path: str, cookie: str) -> list[str]:
    """Open a WebSocket, say `hello`, and return the kinds of messages that came; the handler has ended then."""
    incoming = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "hello"}]
    sent = []

    async def receive() -> Any:
        return incoming.pop(0)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    scope: Any = {
        "type": "websocket", "path": path, "raw_path": path.encode(), "root_path": "", "query_string": b"",
        "headers": [(b"cookie", f"session={cookie}".encode())], "scheme": "ws", "http_version": "1.1",
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2), "subprotocols": [], "extensions": {},
        "asgi": {"version": "3.0", "spec_version": "2.4"},
    }  # fmt: skip
    await app(scope, receive, send)
    return sent


async def test_a_websocket_saves_at_its_end(make: Make, tables: Tables, manager: SessionManager) -> None:
    @websocket("/talk")
    async def talk(socket: AnySocket) -> None:
        await socket.accept()
        socket.session["heard"] = await socket.receive_text()
        with pytest.raises(RuntimeError, match="the WebSocket was accepted"):
            socket.session.rotate()  # type: ignore[attr-defined]
        await socket.close()

    @websocket("/replace")
    async def replace(socket: AnySocket) -> None:
        await socket.accept()
        socket.set_session({"n": 2})
        await socket.close()

    @websocket("/clear")
    async def clear(socket: AnySocket) -> None:
        await socket.accept()
        socket.clear_session()
        await socket.close()

    stored = manager.create_session(None, {"n": 1})
    cookie = str(manager.token(stored))
    app = application(talk, replace, clear, plugins=[make()])
    for path, holds in (("/talk", {"n": 1, "heard": "hello"}), ("/replace", {"n": 2})):
        assert await connect(app, path, cookie) == ["websocket.accept", "websocket.close"]
        after = manager.get_session(stored.id, refresh=True)
        assert after is not None and dict(after) == holds
    await connect(app, "/clear", cookie)
    assert tables.count() == 0


# ---- what fails ----


def test_what_fails_saves_nothing(make: Make, tables: Tables) -> None:
    @get("/fail")
    async def fail(request: AnyRequest) -> None:
        request.session["n"] = 1
        raise ValueError("no")

    @get("/refuse")
    async def refuse(request: AnyRequest) -> None:
        request.session["n"] = 1
        raise NotAuthorizedException()

    with client(fail, refuse, plugins=[make()]) as browser:
        answer = browser.get("/fail")
        assert answer.status_code == 500 and "set-cookie" not in answer.headers and tables.count() == 0
        answer = browser.get("/refuse")
        assert answer.status_code == 401 and "set-cookie" in answer.headers, "a response like others"


def test_who_was_slower_is_told(make: Make, elsewhere: SessionManager) -> None:
    @get("/slow")
    async def slow(request: AnyRequest) -> None:
        session: Any = request.session
        session["n"] = "mine"
        elsewhere.modify_session(session.session_id, lambda other: other.set("n", "theirs"))
        if "save" in request.query_params:
            await session.save()

    @get("/caught")
    async def caught(request: AnyRequest) -> None:
        session: Any = request.session
        elsewhere.modify_session(session.session_id, lambda other: other.set("n", "again"))
        session["n"] = "mine"
        with pytest.raises(SessionConflict):
            await session.save()

    @get("/log_in")
    async def log_in(request: AnyRequest) -> None:
        session: Any = request.session
        session.log_in("alice")

    with client(put, slow, caught, log_in, read, plugins=[make(on_conflict="fail")]) as browser:
        browser.get("/put?n=1")
        late = dict(browser.cookies)
        for path in ("/slow", "/slow?save=1"):
            answer = browser.get(path)
            assert answer.status_code == 409 and "set-cookie" not in answer.headers
        assert browser.get("/read").json() == {"n": "theirs"}
        assert browser.get("/caught").status_code == 200
        browser.get("/log_in")
        browser.cookies.clear()
        browser.cookies.update(late)
        answer = browser.get("/log_in")
        assert answer.status_code == 409 and "log_in" in answer.json()["detail"]


@post("/nothing", status_code=200)
async def nothing() -> None: ...


def test_a_handler_that_leaves_it_alone_has_no_headers_of_it(make: Make, tables: Tables) -> None:
    with client(put, nothing, plugins=[make()]) as browser:
        answer = browser.post("/nothing")
        assert "vary" not in answer.headers and "set-cookie" not in answer.headers and tables.count() == 0
        browser.get("/put?n=1")
        assert "vary" not in browser.post("/nothing").headers
