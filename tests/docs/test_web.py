"""The snippets of the page about web applications, run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx2")

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

import pgsession

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "web.md").read_text(encoding="utf-8")
KEY = b"k" * 32


def client(app: Any) -> TestClient:
    return TestClient(app, base_url="https://testserver")


def test_the_snippets_work(dsn: str, schema: str) -> None:
    quick_start, handlers, dependencies, wrap, greet = re.findall(
        r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE
    )
    config = pgsession.Config(schema_name=schema, create_schema_if_missing=True)
    quick_start = quick_start.replace('"postgresql://app@db/app"', "dsn").replace(
        "keys=", "config=config, keys="
    )
    here: dict[str, Any] = {
        "dsn": dsn, "key": KEY, "config": config, "JSONResponse": JSONResponse,
        "right": lambda name, password: (name, password) == ("alice", "wonderland"),
    }  # fmt: skip
    exec(handlers, here)
    names = ("log_in", "add_to_cart", "log_out")
    here["app"] = Starlette(routes=[Route(f"/{name}", here[name], methods=["POST"]) for name in names])
    exec(quick_start, here)
    with client(here["app"]) as browser:
        alice = {"name": "alice", "password": "wonderland"}
        assert browser.post("/log_in", json=alice | {"password": ""}).status_code == 401
        assert browser.post("/add_to_cart", json="book").json() == ["book"]
        remembered = browser.post("/log_in", json=alice | {"remember": True})
        assert "Max-Age=2592000" in remembered.headers["set-cookie"]
        assert browser.post("/add_to_cart", json="pen").json() == ["book", "pen"]
        browser.post("/log_out", json=None)
        assert browser.post("/add_to_cart", json="pin").json() == ["pin"]
    here["app"] = FastAPI()
    exec(dependencies, here)
    exec(quick_start, here)
    with client(here["app"]) as browser:
        browser.post("/cart/book")
        assert browser.get("/cart").json() == ["book"] and browser.get("/me").status_code == 401
    exec(greet, here)
    exec(wrap.replace('"postgresql://app@db/app"', "dsn").replace("keys=", "config=config, keys="), here)
    told: list[Any] = []
    [body] = here["app"]({}, lambda *given: told.extend(given))
    assert body == b"You have been here 1 times." and "Set-Cookie" in dict(told[1])
    here["app"]._manager.__self__.close()
