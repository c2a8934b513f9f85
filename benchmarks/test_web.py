"""What a session costs a request of an ASGI application, in process: one endpoint behind the middleware, no server."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from time import perf_counter, thread_time
from typing import Any

from .race import Contender, Race, Round, Sample
from .stage import Stage

REQUESTS = 1000
FEW = 20  # are made at a time, so that their headers are as near to the processor as where a server has just read them
VISITORS = 100
KEY = b"benchmark" * 4
NONE = "no session"
UNTOUCHED = "pgsession, the session left alone"
READ = "pgsession, one value read"
SIGNED = "Starlette's signed cookie, one value read"
CHANGED = "pgsession, one value changed"
VALUES = {"user": "alice", "role": "admin", "theme": "dark", "cart": ["book", "pen"]}

race = Race("web", "A request of an ASGI application (Starlette), computing", baseline=NONE)
stores = Race(
    "web-stores", "A request of an ASGI application (Starlette), with all that it waits for", baseline=READ
)

App = Any
_numbers = itertools.count()


def _starlette() -> App:
    """An application that leaves its session alone, reads one value of it, changes one, or fills it."""
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def alone(_: Any) -> Any:
        return PlainTextResponse("done")

    async def read(request: Any) -> Any:
        assert request.scope["session"]["role"] == "admin"
        return PlainTextResponse("done")

    async def change(request: Any) -> Any:
        request.scope["session"]["visits"] = next(_numbers)
        return PlainTextResponse("done")

    async def fill(request: Any) -> Any:
        request.scope["session"].update(VALUES)
        return PlainTextResponse("done")

    return Starlette(routes=[Route(f"/{each.__name__}", each) for each in (alone, read, change, fill)])


def _pgsession(stage: Stage) -> App:
    from pgsession import Config
    from pgsession.contrib.asgi import SessionMiddleware

    app = _starlette()
    app.add_middleware(
        SessionMiddleware,
        database=stage.new_database(),
        keys=[KEY],
        config=Config(create_schema_if_missing=True),
    )
    return app


def _signed(_: Stage) -> App:
    from starlette.middleware.sessions import SessionMiddleware

    app = _starlette()
    app.add_middleware(SessionMiddleware, secret_key=KEY.decode())
    return app


def _starsessions(stage: Stage) -> App:
    import redis.asyncio
    from starsessions import SessionAutoloadMiddleware, SessionMiddleware
    from starsessions.stores.redis import RedisStore

    app = _starlette()
    store = RedisStore(connection=redis.asyncio.Redis.from_url(stage.redis))
    app.add_middleware(SessionAutoloadMiddleware)
    app.add_middleware(SessionMiddleware, store=store, lifetime=30 * 86400)
    return app


def _contender(
    make: Callable[[Stage], App], path: str, clock: Callable[[], float], requests: int = REQUESTS
) -> Contender:
    """Rounds of requests, one after the other, each with headers that are fresh objects."""

    def contender(stage: Stage) -> Iterator[Round]:
        app = make(stage)

        async def walk() -> float:
            spent = 0.0
            for group in range(0, requests, FEW):
                scopes = [_scope(path, cookies[number % VISITORS]) for number in range(group, group + FEW)]
                began = clock()
                for scope in scopes:
                    await app(scope, _receive, _ignore)
                spent += clock() - began
            return spent

        def take_turn() -> Sample:
            return Sample(
                stage.loop.run(walk()) / requests, operations=requests if clock is perf_counter else 0
            )

        with _living(stage, app):
            cookies = stage.loop.run(_visitors(app))
            yield take_turn

    return contender


async def _visitors(app: App) -> list[bytes]:
    """The cookies of visitors whose sessions were filled; without sessions, any."""
    found = []
    for number in range(VISITORS):
        sent: list[Any] = []

        async def send(message: Any, sent: list[Any] = sent) -> None:
            sent.append(message)

        if app.user_middleware:
            await app(_scope("/fill", b"theme=dark"), _receive, send)
        given = dict(sent[0]["headers"]).get(b"set-cookie") if sent else b"other=%d" % number
        found.append(b"theme=dark; " + given.partition(b";")[0])
    return found


async def _receive() -> Any:
    return {"type": "http.request"}


async def _ignore(_: Any) -> None:
    pass


def _scope(path: str, cookies: bytes) -> dict[str, Any]:
    headers = [
        (b"host", b"example.org"), (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64)"), (b"accept", b"text/html"),
        (b"accept-language", b"en"), (b"accept-encoding", b"gzip"), (b"cookie", bytes(bytearray(cookies))),
    ]  # fmt: skip
    return {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "root_path": "", "query_string": b"",
        "scheme": "https", "http_version": "1.1", "headers": headers, "client": ("::1", 1), "server": ("::1", 443),
    }  # fmt: skip


@contextmanager
def _living(stage: Stage, app: App) -> Iterator[None]:
    """The application between its start and its stop, as servers tell them."""
    life = _lifespan(app)
    stage.loop.run(life.__aenter__())
    try:
        yield
    finally:
        stage.loop.run(life.__aexit__(None, None, None))


@asynccontextmanager
async def _lifespan(app: App) -> AsyncIterator[None]:
    told: asyncio.Queue[Any] = asyncio.Queue()
    done: asyncio.Queue[Any] = asyncio.Queue()
    life = asyncio.create_task(app({"type": "lifespan", "asgi": {"version": "3.0"}}, told.get, done.put))
    await told.put({"type": "lifespan.startup"})
    assert (await done.get())["type"] == "lifespan.startup.complete"
    yield
    await told.put({"type": "lifespan.shutdown"})
    await life


race.contender(NONE)(_contender(lambda _: _starlette(), "/alone", thread_time))
race.contender(UNTOUCHED)(_contender(_pgsession, "/alone", thread_time))
race.contender(READ)(_contender(_pgsession, "/read", thread_time))
race.contender(SIGNED)(_contender(_signed, "/read", thread_time))

for name, make, path in (
    (READ, _pgsession, "/read"),
    (CHANGED, _pgsession, "/change"),
    (SIGNED, _signed, "/read"),
    ("Starlette's signed cookie, one value changed", _signed, "/change"),
    ("starsessions (Redis), the session left alone", _starsessions, "/alone"),
    ("starsessions (Redis), one value read", _starsessions, "/read"),
    ("starsessions (Redis), one value changed", _starsessions, "/change"),
):
    stores.contender(name)(_contender(make, path, perf_counter, 200))

test_web = race.test()
test_stores = stores.test()
