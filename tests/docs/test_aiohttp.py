"""The snippets of the page about aiohttp, run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp_session")

from aiohttp import CookieJar, web
from aiohttp.test_utils import TestClient, TestServer

import pgsession

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "aiohttp.md").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore:It is recommended to use web.RequestKey::aiohttp_session")
async def test_the_snippets_work(dsn: str, schema: str) -> None:
    quick_start, handlers = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    here: dict[str, Any] = {
        "app": web.Application(), "dsn": dsn, "key": b"k" * 32,
        "config": pgsession.Config(schema_name=schema, create_schema_if_missing=True),
        "right": lambda name, password: (name, password) == ("alice", "wonderland"),
    }  # fmt: skip
    exec(
        quick_start.replace('"postgresql://app@db/app"', "dsn").replace(
            "keys=", "config=config, secure=False, keys="
        ),
        here,
    )
    exec(handlers, here)
    here["app"].add_routes(
        [web.post(f"/{name}", here[name]) for name in ("log_in", "add_to_cart", "log_out")]
    )
    async with TestClient(TestServer(here["app"]), cookie_jar=CookieJar(unsafe=True)) as client:

        async def post(path: str, body: object) -> Any:
            async with client.post(path, json=body) as response:
                return (await response.json()) if response.status == 200 else response.status

        assert await post("/log_in", {"name": "alice", "password": ""}) == 403
        assert await post("/add_to_cart", "book") == ["book"]
        assert await post("/log_in", {"name": "alice", "password": "wonderland"}) == "welcome"
        assert await post("/add_to_cart", "pen") == ["book", "pen"]
        assert await post("/log_out", None) == "bye"
        assert await post("/add_to_cart", "pin") == ["pin"]
