"""Log in, fill a cart, log out: an ASGI app. `uvicorn --factory asgi_app:app` in this folder runs it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from common import config
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pgsession import AsyncSessionManager, Config, ConflictError, Session, Signer

PASSWORDS = {"alice": "wonderland"}  # yours are hashed, and in a database


class App:
    """The handlers, and what they work with."""

    def __init__(self, database: str, config: Config, signer: Signer) -> None:
        self.sessions = AsyncSessionManager(database, config, signer=signer)

    async def session(self, request: Request) -> Session | None:
        return await self.sessions.get_session_by_token(request.cookies.get("session", ""))

    def set_cookie(self, response: Response, session: Session) -> None:
        """After a change too: with the version in it, each node shows the user at least this change."""
        token = self.sessions.token(session)
        if token is not None:
            response.set_cookie("session", token, httponly=True, secure=True, samesite="strict")

    async def log_in(self, request: Request) -> Response:
        form = await request.json()
        name = form["username"]
        if name not in PASSWORDS or PASSWORDS[name] != form["password"]:
            return JSONResponse("authentication failed", 401)
        session = await self.sessions.create_session(name, {"name": name, "cart": []})
        response = JSONResponse("login successful")
        self.set_cookie(response, session)
        return response

    async def log_out(self, request: Request) -> Response:
        session = await self.session(request)
        if session is None:
            return JSONResponse("no session", 401)
        await self.sessions.delete_session(session.id)
        response = JSONResponse("logout successful")
        response.delete_cookie("session", httponly=True, secure=True, samesite="strict")
        return response

    async def cart(self, request: Request) -> Response:
        session = await self.session(request)
        if session is None:
            return JSONResponse("no session", 401)
        return JSONResponse(session["cart"])

    async def add_to_cart(self, request: Request) -> Response:
        session = await self.session(request)
        if session is None:
            return JSONResponse("no session", 401)
        item = await request.json()

        def add(session: Session) -> None:
            session["cart"].append(item)

        try:
            session = await self.sessions.modify_session(session.id, add, retries=5)
        except ConflictError:
            return JSONResponse("too many requests at once: repeat this one", 409)
        response = JSONResponse(session["cart"])
        self.set_cookie(response, session)
        return response


def make_app(database: str, config: Config, signer: Signer) -> Starlette:
    """The manager opens and closes with the app, in the app's own event loop."""
    app = App(database, config, signer)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with app.sessions:
            yield

    return Starlette(
        routes=[
            Route("/login", app.log_in, methods=["POST"]),
            Route("/logout", app.log_out, methods=["POST"]),
            Route("/cart", app.cart),
            Route("/cart", app.add_to_cart, methods=["POST"]),
        ],
        lifespan=lifespan,
    )


def app() -> Starlette:
    """From the environment, for `uvicorn --factory`."""
    return make_app(os.environ["DATABASE_URL"], config(), Signer(os.environ["SESSION_KEY"].encode()))
