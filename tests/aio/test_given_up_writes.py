# asyncio only: threads are not cancelled
"""A caller that is cancelled concerns nobody else, and blocks nothing."""

from __future__ import annotations

import asyncio

import pytest
from psycopg import AsyncConnection, sql

import pgsession
from tests.tables import Tables

from .helpers import eventually


async def test_a_cancelled_caller_leaves_the_rest_untouched(
    manager: pgsession.AsyncSessionManager, dsn: str, schema: str, tables: Tables
) -> None:
    created = await manager.create_session("u", {"n": 0})
    copies = [await manager.get_session(created.id) for _ in range(4)]
    tasks = []
    async with await AsyncConnection.connect(dsn) as foreign:
        await foreign.execute(
            sql.SQL("SELECT id FROM {}.sessions WHERE id = %s FOR UPDATE").format(sql.Identifier(schema)),
            (created.id,),
        )
        for number, copy in enumerate(copies):
            assert copy is not None
            copy[f"k{number}"] = number
            tasks.append(asyncio.create_task(manager.update_session(copy)))
            await asyncio.sleep(0)
        tasks[1].cancel()  # waits for its session's first operation: not sent, and never will be
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]

        async def waits() -> bool:
            return bool(tables.one("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))

        await eventually(waits)
        tasks[0].cancel()  # is sent: comes to its end without its caller
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        await foreign.rollback()
    async with asyncio.timeout(20):
        await asyncio.gather(*tasks[2:])
        last = await manager.get_session(created.id)
    assert last is not None
    assert dict(last) == {"n": 0, "k0": 0, "k2": 2, "k3": 3}
    fresh = await manager.get_session(created.id, refresh=True)
    assert fresh is not None and dict(fresh) == dict(last)


async def test_a_timeout_leaves_memory_right(manager: pgsession.AsyncSessionManager) -> None:
    sessions = [await manager.create_session(f"u{number}", {"n": 0}) for number in range(20)]

    async def update(session: pgsession.Session, delay: float) -> None:
        session["n"] = 1
        try:
            await asyncio.wait_for(manager.update_session(session), delay)
        except TimeoutError:
            pass

    await asyncio.gather(*(update(session, number * 0.0005) for number, session in enumerate(sessions)))
    await manager.create_session("barrier")  # waits behind all that was sent
    for session in sessions:
        cached = await manager.get_session(session.id)
        fresh = await manager.get_session(session.id, refresh=True)
        assert cached is not None and fresh is not None and dict(cached) == dict(fresh)
