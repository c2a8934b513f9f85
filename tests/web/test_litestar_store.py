"""The store for Litestar: values by key, with an end, in namespaces; and what Litestar itself keeps in one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

pytest.importorskip("litestar")

from litestar import Litestar, Request, get
from litestar.config.response_cache import ResponseCacheConfig
from litestar.middleware.rate_limit import RateLimitConfig
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.stores.registry import StoreRegistry
from litestar.testing import TestClient

import pgsession
from pgsession import Config, ConfigError, SessionManager
from pgsession.contrib.litestar import PgSessionStore
from tests.tables import Tables


@pytest.fixture
async def store(dsn: str, config: Config, tables: Tables) -> AsyncIterator[PgSessionStore]:
    opened = PgSessionStore(dsn, config=config)
    async with opened:
        yield opened


async def test_a_value_is_what_was_set_last(
    store: PgSessionStore, elsewhere: SessionManager, tables: Tables
) -> None:
    there = PgSessionStore(manager=elsewhere)
    assert await store.get("key") is None and not await store.exists("key")
    for value, stored in ((b"\0\xff", b"\0\xff"), ("é", "é".encode()), ("", b"")):
        await store.set("key", value)
        assert await store.get("key") == stored and await store.exists("key")
        assert await there.get("key") == stored
    await there.delete("key")
    await there.delete("key")
    assert not await there.exists("key")
    assert await store.get("key") in (None, b""), "it hears of it"
    for key in ("", "../x", "\0", "a\0b", "é" * 1000, "\ud800"):
        await store.set(key, key.encode(errors="replace"))
        assert await store.get(key) == key.encode(errors="replace")
    assert not tables.run("SELECT 1 FROM {sessions} WHERE group_id <> 'litestar:LITESTAR'")


async def test_a_value_lasts_as_long_as_it_was_told(store: PgSessionStore, tables: Tables) -> None:
    assert await store.expires_in("key") is None
    await store.set("key", "value")
    assert await store.expires_in("key") == -1
    assert await store.get("key", renew_for=10) == b"value" and await store.expires_in("key") == -1
    for lasts in (100, timedelta(seconds=100)):
        await store.set("key", "value", expires_in=lasts)
        left = await store.expires_in("key")
        assert left is not None and 50 < left <= 100
    for lasts in (1000, timedelta(seconds=1000)):
        assert await store.get("key", renew_for=lasts) == b"value"
        left = await store.expires_in("key")
        assert left is not None and 500 < left <= 1000
        await store.set("key", "value", expires_in=100)
    for lasts in (0, -1):
        await store.set("key", "value", expires_in=lasts)
        assert not await store.exists("key")
    await store.set("key", "value", expires_in=timedelta(microseconds=1))
    assert await store.get("key", renew_for=100) is None and await store.expires_in("key") is None


async def test_a_namespace_is_deleted_with_that_around_it(
    store: PgSessionStore, elsewhere: SessionManager, tables: Tables
) -> None:
    inner = store.with_namespace("a")
    innermost = inner.with_namespace("b")
    beside = store.with_namespace("c")
    assert innermost.namespace == "LITESTAR_a_b"
    stores = (store, inner, innermost, beside)
    for each in stores:
        await each.set("key", each.namespace)
    assert [await each.get("key") for each in stores] == [each.namespace.encode() for each in stores]
    await PgSessionStore(manager=elsewhere).with_namespace("a").delete_all()
    assert [await each.exists("key") for each in stores] == [True, False, False, True]
    await innermost.set("key", "again")
    await PgSessionStore(manager=elsewhere).delete_all()
    assert not any([await each.exists("key") for each in stores])
    await PgSessionStore(manager=elsewhere, namespace="OTHER").delete_all()


async def test_a_store_opens_with_the_first_and_closes_with_the_last_who_enters_it(
    dsn: str, config: Config, manager: SessionManager
) -> None:
    def nodes() -> int:
        return len(pgsession.Admin(dsn, config).nodes())

    before, root = nodes(), PgSessionStore(dsn, config=config)
    async with root:
        async with root.with_namespace("a"):
            assert nodes() == before + 1
        assert nodes() == before + 1
        await root.set("key", "value")
    assert nodes() == before
    for wrong in ({}, {"database": dsn, "manager": manager}):
        with pytest.raises(ConfigError, match="database"):
            PgSessionStore(**wrong)  # type: ignore[arg-type]


def test_what_litestar_keeps_in_one(dsn: str, config: Config, tables: Tables) -> None:
    @get("/cached", cache=60)
    async def cached() -> str:
        return str(uuid4())

    @get("/limited", middleware=[RateLimitConfig(rate_limit=("day", 2)).middleware])
    async def limited() -> None: ...

    @get("/count")
    async def count(request: Request[Any, Any, Any]) -> int:
        request.session["n"] = request.session.get("n", 0) + 1
        n: int = request.session["n"]
        return n

    root = PgSessionStore(dsn, config=config)
    names = ("response_cache", "rate_limit", "sessions")
    app = Litestar(
        [cached, limited, count],
        stores=StoreRegistry({name: root.with_namespace(name) for name in names}),
        middleware=[ServerSideSessionConfig().middleware],
        response_cache_config=ResponseCacheConfig(),
        logging_config=None,
    )
    with TestClient(app) as browser:
        assert browser.get("/cached").text == browser.get("/cached").text
        assert [browser.get("/limited").status_code for _ in range(3)] == [200, 200, 429]
        assert [browser.get("/count").json() for _ in range(3)] == [1, 2, 3]
        key = browser.cookies["session"]
    assert {
        row[0] for row in tables.run("SELECT DISTINCT group_id FROM {sessions} WHERE group_id IS NOT NULL")
    } == {f"litestar:LITESTAR_{name}" for name in names}
    assert not tables.run("SELECT 1 FROM {sessions} WHERE replace(id::text, '-', '') = %s", key[:32])
