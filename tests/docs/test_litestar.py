"""The snippets of the page about Litestar, run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("litestar")

from litestar import get
from litestar.testing import TestClient

import pgsession

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "litestar.md").read_text(encoding="utf-8")


def test_the_snippets_work(dsn: str, schema: str) -> None:
    found = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    quick_start, handlers, store = (
        text.replace('"postgresql://app@db/app"', "dsn, config=config")
        .replace("keys=", "secure=False, keys=")
        .replace("Litestar(route_handlers", "Litestar(route_handlers, logging_config=None")
        for text in found
    )
    here: dict[str, Any] = {
        "__name__": __name__, "dsn": dsn, "key": b"k" * 32,
        "config": pgsession.Config(schema_name=schema, create_schema_if_missing=True),
        "right": lambda name, password: (name, password) == ("alice", "wonderland"),
    }  # fmt: skip
    exec(handlers, here)
    exec(quick_start, here)
    with TestClient(here["app"]) as browser:
        alice = {"name": "alice", "password": "wonderland"}
        assert browser.post("/log_in", json=alice | {"password": ""}).status_code == 401
        assert browser.post("/add_to_cart", json="book").json() == ["book"]
        assert browser.post("/log_in", json=alice).text == "welcome"
        assert browser.post("/add_to_cart", json="pen").json() == ["book", "pen"]
        browser.get("/log_out")
        assert browser.post("/add_to_cart", json="pin").json() == ["pin"]
    calls = []

    @get("/slow", cache=60)
    async def slow() -> str:
        calls.append(1)
        return "done"

    here["route_handlers"] = [slow]
    exec(store, here)
    with TestClient(here["app"]) as browser:
        assert browser.get("/slow").text == browser.get("/slow").text == "done" and len(calls) == 1
