"""A node of the ASGI adapter: Starlette under uvicorn, a server for each setting in one process."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from typing import Any

import anyio.to_thread
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from pgsession import Config
from pgsession.contrib.asgi import AsgiSession, SessionMiddleware
from pgsession.web import WebSession
from tests.web.rules.contract import KEY, SETTINGS, Place, Site, end_with_stdin, meet, process


def perform(session: WebSession, name: str, *arguments: Any) -> Any:
    """What an action of the contract is for a `WebSession`; but for `meet`."""
    match name, *arguments:
        case "read", key:
            return deepcopy(session.get(key))  # as it is now
        case ["all"]:
            return dict(session)
        case "set", key, value:
            session[key] = value
        case "append", key, value:
            session[key].append(value)
        case "delete", key:
            del session[key]
        case "log_in", user, remember:
            session.log_in(user, remember=remember)
        case ["user"]:
            return session.user_id
        case "flash", message:
            session.flash(message)
        case ["flashes"]:
            return [message for _, message in session.flashes()]
        case "expire", seconds:
            session.expire(seconds)
        case ["log_out" | "rotate"]:
            getattr(session, name)()
        case _:
            raise ValueError(name)
    return None


async def perform_all(request: Request) -> list[Any]:
    session: AsgiSession = request.scope["session"]
    results = []
    for name, *arguments in await request.json():
        if name == "meet":
            results.append(await anyio.to_thread.run_sync(meet, *arguments))
        else:
            results.append(perform(session, name, *arguments))
    return results


async def do(request: Request) -> Response:
    return JSONResponse(await perform_all(request))


async def stream(request: Request) -> Response:
    results = await perform_all(request)

    async def lines() -> AsyncIterator[str]:
        yield json.dumps(results) + "\n"
        await anyio.to_thread.run_sync(meet, int(request.query_params["port"]))
        yield "end\n"

    return StreamingResponse(lines())


def make_app(place: Place, setting: str) -> Starlette:
    app = Starlette(routes=[Route("/do", do, methods=["POST"]), Route("/stream", stream, methods=["POST"])])
    app.add_middleware(
        SessionMiddleware,
        database=place.dsn,
        keys=[KEY.encode()],
        config=Config(schema_name=place.schema),
        **SETTINGS[setting],
    )
    return app


class AsgiSite:
    cookie_name = "__Host-session"
    conflict_status = 409
    dropped_status = 200
    lacks: frozenset[str] = frozenset()

    def __init__(self, ports: list[list[int]]) -> None:
        self._ports = ports

    def nodes(self, setting: str) -> tuple[str, str]:
        place = list(SETTINGS).index(setting)
        here, there = (f"http://127.0.0.1:{ports[place]}" for ports in self._ports)
        return here, there


@contextmanager
def asgi(place: Place) -> Iterator[Site]:
    """Two nodes."""
    with ExitStack() as stack:
        yield AsgiSite([stack.enter_context(process(__spec__.name, *place)) for _ in range(2)])


async def serve(place: Place, make_app: Callable[[Place, str], Any] = make_app) -> None:
    servers, listening = [], []
    for setting in SETTINGS:
        listening.append(socket.create_server(("127.0.0.1", 0), backlog=100))
        config = uvicorn.Config(make_app(place, setting), lifespan="on", log_level="warning")
        servers.append(uvicorn.Server(config))

    def end() -> None:
        for server in servers:
            server.should_exit = True

    end_with_stdin(end)
    print(*(each.getsockname()[1] for each in listening), flush=True)
    await asyncio.gather(
        *(server.serve(sockets=[each]) for server, each in zip(servers, listening, strict=True))
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(serve(Place(*sys.argv[1:])))
