"""Managers and listeners that are dropped unclosed: there is a warning, and nothing is left."""

from __future__ import annotations

import gc
from collections.abc import Callable
from datetime import datetime
from typing import Any

import psycopg
import pytest

import pgsession
from pgsession._concurrency import async_sleep
from tests.leftovers import Leftovers
from tests.tables import Tables

from .helpers import eventually


async def ended(left: Leftovers) -> None:
    """Until nothing runs any more; an event loop has to have its turn for that."""

    async def nothing_runs() -> bool:
        return not left.running() and not left.backends()

    await eventually(nothing_runs)


async def test_managers_that_are_dropped_end_and_write_accesses(
    dsn: str, schema: str, tables: Tables
) -> None:
    config = pgsession.Config(create_schema_if_missing=True, schema_name=schema)
    with Leftovers(dsn) as left:
        managers = [pgsession.AsyncSessionManager(left.conninfo, config) for _ in range(5)]
        for manager in managers:
            await manager.open()
        session = await managers[0].create_session("u")
        before: datetime = tables.one("SELECT last_accessed FROM {sessions}")
        await async_sleep(0.001)
        assert await managers[0].get_session(session.id) is not None
        name = type(manager).__name__
        del manager
        with pytest.warns(ResourceWarning, match=f"a {name} was not closed: call close") as warned:
            managers.clear()
        assert len(warned) == 5
        await ended(left)
    assert tables.one("SELECT last_accessed FROM {sessions}") > before


async def test_a_manager_that_is_used_is_not_dropped(dsn: str, schema: str) -> None:
    """Calls that are under way, and locks, hold it."""
    config = pgsession.Config(create_schema_if_missing=True, schema_name=schema)
    manager = pgsession.AsyncSessionManager(dsn, config)
    await manager.open()
    lock, close = manager.lock("r"), manager.close
    del manager
    gc.collect()
    assert await lock.acquire()
    await lock.release()
    await close()


async def test_listeners_that_are_dropped_end(dsn: str) -> None:
    heard: list[Any] = []

    def on_done(channel: str) -> None:
        heard.append(channel)

    with Leftovers(dsn) as left:
        listeners = [pgsession.AsyncListener(left.conninfo) for _ in range(3)]
        for listener in listeners:
            await listener.open()
            await listener.listen("news", heard.append, on_done=on_done)
        name = type(listener).__name__
        del listener
        with pytest.warns(ResourceWarning, match=f"a {name} was not closed: call close") as warned:
            listeners.clear()
        assert len(warned) == 3
        await ended(left)
    assert heard == ["news"] * 3


async def test_what_was_closed_or_never_opened_warns_of_nothing(
    dsn: str, schema: str, recwarn: pytest.WarningsRecorder
) -> None:
    config = pgsession.Config(create_schema_if_missing=True, schema_name=schema)
    made: list[Callable[[], Any]] = [
        lambda: pgsession.AsyncSessionManager(dsn, config),
        lambda: pgsession.AsyncListener(dsn),
    ]
    for make in made:
        make()
        async with make():
            pass
    async with pgsession.AsyncListener(dsn) as shared:
        async with pgsession.AsyncSessionManager(dsn, config, listener=shared):
            pass
    with pytest.raises(psycopg.OperationalError):
        await pgsession.AsyncSessionManager("host=/nowhere", config).open()
    with pytest.raises(psycopg.OperationalError):
        await pgsession.AsyncListener("host=/nowhere").open()
    gc.collect()
    assert [str(warning.message) for warning in recwarn] == []
