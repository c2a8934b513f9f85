"""Typed views, the current user, and what the OpenAPI document says of the cookie."""

from __future__ import annotations

from typing import Annotated, TypedDict

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx2")

import msgspec
from fastapi import Depends, FastAPI, Security, WebSocket
from starlette.testclient import TestClient

import pgsession
from pgsession.contrib.fastapi import CurrentSession, SessionMiddleware, SessionUser, session_as
from tests.tables import Tables


class Cart(msgspec.Struct, frozen=True):
    items: tuple[str, ...] = ()


class Preferences(TypedDict, total=False):
    theme: str


User = Annotated[str, Security(SessionUser())]


def make_app(dsn: str, config: pgsession.Config) -> FastAPI:
    app = FastAPI()
    app.add_middleware(SessionMiddleware, database=dsn, keys=b"k" * 32, config=config)

    @app.post("/cart/{item}")
    def add(item: str, session: CurrentSession) -> None:
        session["items"] = [*session.get("items", ()), item]

    @app.get("/cart")
    async def cart(cart: Annotated[Cart, Depends(session_as(Cart))]) -> list[str]:
        return list(cart.items)

    @app.post("/theme/{theme}")
    async def set_theme(
        theme: str, preferences: Annotated[Preferences, Depends(session_as(Preferences))]
    ) -> None:
        preferences["theme"] = theme

    @app.get("/theme")
    async def get_theme(preferences: Annotated[Preferences, Depends(session_as(Preferences))]) -> str | None:
        return preferences.get("theme")

    @app.post("/login/{name}")
    async def log_in(name: str, session: CurrentSession) -> None:
        session.log_in(name)

    @app.get("/me")
    async def me(user: User) -> str:
        return user

    @app.get("/guest")
    async def guest(user: Annotated[str | None, Security(SessionUser(auto_error=False))]) -> str | None:
        return user

    @app.websocket("/socket")
    async def socket(websocket: WebSocket, session: CurrentSession, user: User) -> None:
        await websocket.accept()
        await websocket.send_json([user, dict(session)])

    return app


@pytest.fixture
def browser(dsn: str, config: pgsession.Config, tables: Tables) -> TestClient:
    return TestClient(make_app(dsn, config), base_url="https://testserver")


def test_dependencies(browser: TestClient) -> None:
    with browser:
        assert browser.get("/cart").json() == []
        for item in ("book", "pen"):
            assert browser.post(f"/cart/{item}").status_code == 200
        assert browser.get("/cart").json() == ["book", "pen"]
        assert browser.get("/theme").json() is None
        for theme in ("dark", "light"):
            browser.post(f"/theme/{theme}")
            assert browser.get("/theme").json() == theme
        assert browser.get("/me").status_code == 401 and browser.get("/guest").json() is None
        browser.post("/login/alice")
        assert browser.get("/me").json() == browser.get("/guest").json() == "alice"
        with browser.websocket_connect("wss://testserver/socket") as connection:
            assert connection.receive_json() == ["alice", {"items": ["book", "pen"], "theme": "light"}]


def test_the_openapi_document_names_the_cookie(browser: TestClient) -> None:
    document = browser.get("/openapi.json").json()
    scheme = document["components"]["securitySchemes"]["session"]
    assert (scheme["type"], scheme["in"], scheme["name"]) == ("apiKey", "cookie", "__Host-session")
    assert document["paths"]["/me"]["get"]["security"] == [{"session": []}]
    assert "security" not in document["paths"]["/cart"]["get"]
    assert not document["paths"]["/cart"]["get"].get("parameters"), "the dependency is no parameter"
