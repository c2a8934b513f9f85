"""A node of Quart's adapter: under uvicorn, a server for each setting in one process."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import anyio.to_thread
from quart import Quart, jsonify, request, session

from pgsession.contrib.quart import PgSession
from tests.web.rules.asgi_site import AsgiSite, perform, serve
from tests.web.rules.contract import Place, Site, meet, process
from tests.web.rules.wsgi_apps import configure


async def perform_all(actions: list[list[Any]]) -> list[Any]:
    results = []
    for name, *arguments in actions:
        if name == "meet":
            results.append(await anyio.to_thread.run_sync(meet, *arguments))
        else:
            results.append(perform(session, name, *arguments))  # type: ignore[arg-type]
    return results


def make_app(place: Place, setting: str) -> Quart:
    app = Quart(__name__)
    is_lasting = configure(app, place, setting)
    PgSession(app)

    @app.post("/do")
    async def do() -> Any:
        actions = await request.get_json()
        if is_lasting and actions:
            session.permanent = True
        return jsonify(await perform_all(actions))

    @app.post("/stream")
    async def stream() -> Any:
        results = json.dumps(await perform_all(await request.get_json()))
        port = int(request.args["port"])

        async def lines() -> AsyncIterator[str]:
            yield results + "\n"
            await anyio.to_thread.run_sync(meet, port)
            yield "end\n"

        return lines()

    _ = do, stream  # Quart has them
    return app


@contextmanager
def quart(place: Place) -> Iterator[Site]:
    """Two nodes."""
    with process(__spec__.name, *place) as here, process(__spec__.name, *place) as there:
        yield AsgiSite([here, there])


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(serve(Place(*sys.argv[1:]), make_app))
