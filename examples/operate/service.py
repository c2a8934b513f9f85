"""A service with probes, run by kubernetes.yml, or here by `uvicorn --factory service:make_app`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from pgsession import AsyncSessionManager, Config, Signer
from pgsession.contrib.asgi import AsgiSession, SessionMiddleware

PROBE_SECONDS = 2
CLOSE_SECONDS = 15


async def visits(request: Request) -> JSONResponse:
    session: AsgiSession = request.scope["session"]
    session["visits"] = session.get("visits", 0) + 1
    return JSONResponse(session["visits"])


async def alive(request: Request) -> PlainTextResponse:
    """For liveness: this process answers. Nothing is asked, for a restart would mend nothing."""
    return PlainTextResponse("alive")


def make_app() -> Starlette:
    """From the environment."""
    keys = [bytes.fromhex(key) for key in os.environ["SESSION_KEYS"].split(",")]
    manager = AsyncSessionManager(os.environ["PGSESSION_DATABASE"], Config.from_env(), signer=Signer(keys))

    async def ready(request: Request) -> JSONResponse:
        """For readiness: the status goes by `ready` alone, the rest is for who looks."""
        health = await manager.check_health(timeout=PROBE_SECONDS)
        said = {"ready": health.ready, "healthy": health.healthy, "reason": health.reason}
        return JSONResponse(said, 200 if health.ready else 503)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await manager.open()
        try:
            yield
        finally:
            await manager.close(timeout=CLOSE_SECONDS)

    probes = [Route("/livez", alive), Route("/readyz", ready)]
    app = Starlette(routes=[Route("/", visits), *probes], lifespan=lifespan)
    app.add_middleware(SessionMiddleware, manager=manager)
    return app
