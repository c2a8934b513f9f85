"""Log in, fill a cart, log out: an ASGI app. `uvicorn --factory asgi_app:app` in this folder runs it."""

from __future__ import annotations

import os

from common import config
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pgsession import Config
from pgsession.contrib.asgi import AsgiSession, SessionMiddleware

PASSWORDS = {"alice": "wonderland"}  # yours are hashed, and in a database


async def log_in(request: Request) -> Response:
    session: AsgiSession = request.scope["session"]
    form = await request.json()
    name = form["username"]
    if name not in PASSWORDS or PASSWORDS[name] != form["password"]:
        return JSONResponse("authentication failed", 401)
    session.log_in(name)  # a new token; what a visitor had in the cart stays there
    session.setdefault("cart", [])
    return JSONResponse("login successful")


async def log_out(request: Request) -> Response:
    session: AsgiSession = request.scope["session"]
    if session.user_id is None:
        return JSONResponse("no session", 401)
    session.log_out()
    return JSONResponse("logout successful")


async def cart(request: Request) -> Response:
    session: AsgiSession = request.scope["session"]
    if session.user_id is None:
        return JSONResponse("no session", 401)
    if request.method == "POST":
        session["cart"].append(await request.json())
    return JSONResponse(session["cart"])


def make_app(database: str, config: Config, key: bytes) -> Starlette:
    """The manager opens and closes with the app; requests of one session take turns."""
    app = Starlette(
        routes=[
            Route("/login", log_in, methods=["POST"]),
            Route("/logout", log_out, methods=["POST"]),
            Route("/cart", cart, methods=["GET", "POST"]),
        ]
    )
    app.add_middleware(
        SessionMiddleware,
        database=database,
        keys=[key],
        config=config,
        on_conflict="serial",
        samesite="strict",
    )
    return app


def app() -> Starlette:
    """From the environment, for `uvicorn --factory`."""
    return make_app(os.environ["DATABASE_URL"], config(), os.environ["SESSION_KEY"].encode())
