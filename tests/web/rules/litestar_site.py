"""A node of Litestar's adapter: under uvicorn, a server for each setting in one process."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import anyio.to_thread
from litestar import Litestar, Request, post
from litestar.response import Stream

from pgsession import Config
from pgsession.contrib.litestar import PgSessionConfig
from tests.web.rules.asgi_site import AsgiSite, perform, serve
from tests.web.rules.contract import KEY, SETTINGS, Place, Site, meet, process

AnyRequest = Request[Any, Any, Any]


async def perform_all(request: AnyRequest) -> list[Any]:
    results = []
    actions = await request.json()
    for name, *arguments in actions:
        if name == "meet":
            results.append(await anyio.to_thread.run_sync(meet, *arguments))
        elif [name] == actions[-1] == ["log_out"]:
            results.append(request.clear_session())
        else:
            session: Any = request.session
            results.append(perform(session, name, *arguments))
    return results


@post("/do", status_code=200)
async def do(request: AnyRequest) -> list[Any]:
    return await perform_all(request)


@post("/stream", status_code=200)
async def stream(request: AnyRequest) -> Stream:
    results = await perform_all(request)
    port = int(request.query_params["port"])

    async def lines() -> AsyncIterator[str]:
        yield json.dumps(results) + "\n"
        await anyio.to_thread.run_sync(meet, port)
        yield "end\n"

    return Stream(lines())


def make_app(place: Place, setting: str) -> Litestar:
    config = Config(schema_name=place.schema)
    sessions = PgSessionConfig(place.dsn, keys=[KEY.encode()], config=config, **SETTINGS[setting])
    return Litestar([do, stream], plugins=[sessions], openapi_config=None)


@contextmanager
def litestar(place: Place) -> Iterator[Site]:
    """Two nodes."""
    with process(__spec__.name, *place) as here, process(__spec__.name, *place) as there:
        yield AsgiSite([here, there])


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(serve(Place(*sys.argv[1:]), make_app))
