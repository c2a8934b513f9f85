"""A node of the storage for aiohttp-session: aiohttp's own server, one for each setting, in one process."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import anyio.to_thread
from aiohttp import web

from pgsession import Config
from pgsession.contrib.aiohttp import PgSessionStorage, get_session, setup
from tests.web.rules.asgi_site import AsgiSite, perform
from tests.web.rules.contract import KEY, SETTINGS, Place, Site, end_with_stdin, meet, process


async def perform_all(request: web.Request) -> list[Any]:
    results = []
    for name, *arguments in await request.json():
        if name == "meet":
            results.append(await anyio.to_thread.run_sync(meet, *arguments))
        else:
            results.append(perform(await get_session(request), name, *arguments))
    return results


async def do(request: web.Request) -> web.Response:
    return web.json_response(await perform_all(request))


async def stream(request: web.Request) -> web.StreamResponse:
    results = await perform_all(request)
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(json.dumps(results).encode() + b"\n")
    await anyio.to_thread.run_sync(meet, int(request.query["port"]))
    await response.write(b"end\n")
    return response


def make_app(place: Place, setting: str) -> web.Application:
    app = web.Application()
    config = Config(schema_name=place.schema)
    setup(app, PgSessionStorage(place.dsn, keys=[KEY.encode()], config=config, **SETTINGS[setting]))
    app.add_routes([web.post("/do", do), web.post("/stream", stream)])
    return app


@contextmanager
def aiohttp(place: Place) -> Iterator[Site]:
    """Two nodes."""
    with process(__spec__.name, *place) as here, process(__spec__.name, *place) as there:
        yield AsgiSite([here, there])


async def serve(place: Place) -> None:
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    end_with_stdin(lambda: loop.call_soon_threadsafe(ended.set))
    async with AsyncExitStack() as stack:
        ports = []
        for setting in SETTINGS:
            runner = web.AppRunner(make_app(place, setting))
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0, backlog=100).start()
            ports.append(runner.addresses[0][1])
        print(*ports, flush=True)
        await ended.wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(serve(Place(*sys.argv[1:])))
