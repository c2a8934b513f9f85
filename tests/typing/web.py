"""The names for web applications as mypy and pyright see them; never run."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, assert_type
from uuid import UUID

import msgspec
from fastapi import Depends, FastAPI, Security
from starlette.applications import Starlette
from starlette.requests import Request

from pgsession import SessionManager
from pgsession.contrib.asgi import AsgiSession, SessionMiddleware
from pgsession.contrib.fastapi import CurrentSession, SessionUser, session_as
from pgsession.web import CookiePolicy, SessionRules, WebSession, derive_key, run


class Cart(msgspec.Struct, frozen=True):
    items: tuple[str, ...] = ()


async def handler(request: Request) -> None:
    session: AsgiSession = request.scope["session"]
    assert_type(session["anything"], Any)
    assert_type(session.get("cart", type=Cart), Cart | None)
    assert_type(session.get("n", 0, type=int), int)
    assert_type(session.as_type(Cart), Cart)
    assert_type(session.user_id, str | None)
    assert_type(session.session_id, UUID | None)
    assert_type(session.flashes(), list[tuple[str, Any]])
    session.log_in(7, remember=timedelta(days=1))
    session.rotate(grace=0)
    session.expire(None)
    await session.save()
    session.log_in(None)  # type: ignore[arg-type]
    session["n"] = 1
    session[1] = 1  # type: ignore[index]


def applications(key: bytes) -> None:
    for app in (Starlette(), FastAPI()):
        app.add_middleware(
            SessionMiddleware,
            database="postgresql:///app",
            keys=[key],
            on_conflict="serial",
            samesite="strict",
        )
        app.add_middleware(SessionMiddleware, database="", keys=key, on_conflict="last")  # type: ignore[arg-type]
        app.add_middleware(SessionMiddleware, database="", keys=key, same_site="lax")  # type: ignore[call-arg]


def dependency(
    cart: Annotated[Cart, Depends(session_as(Cart))],
    session: CurrentSession,
    user: Annotated[str, Security(SessionUser())],
) -> None:
    assert_type(cart, Cart)
    assert_type(session, AsgiSession)
    assert_type(user, str)


def adapters(manager: SessionManager) -> None:
    assert_type(derive_key("secret"), bytes)
    rules = SessionRules(CookiePolicy(max_age=3600), on_conflict="fail")
    session = WebSession(rules.cookie, manager.token)
    run(manager, rules.saving(session))
    assert_type(rules.headers(session), list[tuple[str, str]])
    assert_type(rules.tokens(""), list[str])
