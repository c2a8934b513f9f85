"""What a session costs a request of an ASGI application, in process: one endpoint behind the middleware, no server."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from time import thread_time
from typing import Any

from .race import Race, Round, Sample
from .stage import Stage
from .test_get import async_node

REQUESTS = 1000
KEY = b"benchmark" * 4
NONE = "no session"
UNTOUCHED = "pgsession, the session left alone"
READ = "pgsession, one value read"
SIGNED = "Starlette's signed cookie, one value read"
VALUES = {"user": "alice", "role": "admin", "theme": "dark", "cart": ["book", "pen"]}

race = Race("web", "A request of an ASGI application", baseline=NONE)


async def _alone(_: Any) -> Any:
    return _answer()


async def _reading(request: Any) -> Any:
    assert request.scope["session"]["role"] == "admin"
    return _answer()


def _answer() -> Any:
    from starlette.responses import PlainTextResponse

    return PlainTextResponse("done")


def _starlette(endpoint: Any) -> Any:
    from starlette.applications import Starlette
    from starlette.routing import Route

    return Starlette(routes=[Route("/", endpoint)])


def _requests(stage: Stage, app: Any, cookies: Callable[[], list[str]]) -> Round:
    """Rounds of requests, one after the other, each with a cookie that is a fresh object."""

    async def walk(scopes: list[dict[str, Any]]) -> float:
        async def receive() -> Any:
            return {"type": "http.request"}

        async def send(_: Any) -> None:
            pass

        began = thread_time()
        for scope in scopes:
            await app(scope, receive, send)
        return thread_time() - began

    def take_turn() -> Sample:
        scopes = [_scope(cookie) for cookie in cookies()]
        return Sample(stage.loop.run(walk(scopes)) / len(scopes))

    return take_turn


def _scope(cookie: str) -> dict[str, Any]:
    headers = [
        (b"host", b"example.org"), (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64)"), (b"accept", b"text/html"),
        (b"accept-language", b"en"), (b"accept-encoding", b"gzip"), (b"cookie", f"theme=dark; {cookie}".encode()),
    ]  # fmt: skip
    return {
        "type": "http", "method": "GET", "path": "/", "raw_path": b"/", "root_path": "", "query_string": b"",
        "scheme": "https", "http_version": "1.1", "headers": headers, "client": ("::1", 1), "server": ("::1", 443),
    }  # fmt: skip


def _ours(endpoint: Any) -> Callable[[Stage], Iterator[Round]]:
    def contender(stage: Stage) -> Iterator[Round]:
        from pgsession.contrib.asgi import SessionMiddleware

        manager = stage.once(async_node)

        async def tokens() -> list[str]:
            found = [await manager.create_session(f"web {number}", VALUES) for number in range(100)]
            return [manager.token(session) or "" for session in found]

        given = stage.loop.run(tokens())
        app = _starlette(endpoint)
        app.add_middleware(SessionMiddleware, manager=manager)
        yield _requests(
            stage, app, lambda: [f"__Host-session={given[n % len(given)]}" for n in range(REQUESTS)]
        )

    return contender


race.contender(UNTOUCHED)(_ours(_alone))
race.contender(READ)(_ours(_reading))


@race.contender(NONE)
def _none(stage: Stage) -> Iterator[Round]:
    yield _requests(stage, _starlette(_alone), lambda: ["other=1"] * REQUESTS)


@race.contender(SIGNED)
def _signed(stage: Stage) -> Iterator[Round]:
    from itsdangerous import TimestampSigner
    from starlette.middleware.sessions import SessionMiddleware

    app = _starlette(_reading)
    app.add_middleware(SessionMiddleware, secret_key=KEY.decode())
    value = TimestampSigner(KEY.decode()).sign(base64.b64encode(json.dumps(VALUES).encode())).decode()
    yield _requests(stage, app, lambda: [f"session={value}"] * REQUESTS)


test_web = race.test()
