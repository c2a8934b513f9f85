# asyncio only: how many threads wait at one moment is the system's affair
"""Where a crowd waits, the server works on one batch while the callers of another are answered."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

import pgsession
from pgsession._async.group_commit import CROWD
from pgsession._async.store import AsyncStore
from pgsession._protocol.batch import Batch
from tests.versions import changes

from .conftest import OpenAsyncManager
from .test_stragglers import lock_sessions


async def test_a_crowd_is_written_in_two_lanes(
    manager: pgsession.AsyncSessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    callers = 3 * CROWD
    sessions = await asyncio.gather(*(manager.create_session(f"u{n}", {"n": 0}) for n in range(callers)))
    write, started, second = AsyncStore.write, 0, asyncio.Event()

    async def held_up(store: AsyncStore, *arguments: Any, **options: Any) -> str:
        nonlocal started
        started += 1
        if started == 2:
            second.set()
        await second.wait()  # for ever, if there were one lane only
        return await write(store, *arguments, **options)

    monkeypatch.setattr(AsyncStore, "write", held_up)
    async with asyncio.timeout(20):
        await asyncio.gather(*(_count(manager, session) for session in sessions))
        await asyncio.gather(*(_count(manager, session) for session in sessions for _ in range(2)))
    for session in sessions:
        fresh = await manager.get_session(session.id, refresh=True)
        assert fresh is not None and fresh["n"] == changes(fresh) == 3


async def test_few_callers_share_one_lane(
    manager: pgsession.AsyncSessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = await asyncio.gather(*(manager.create_session(f"u{n}", {"n": 0}) for n in range(CROWD // 2)))
    write, under_way = AsyncStore.write, 0

    async def alone(store: AsyncStore, *arguments: Any, **options: Any) -> str:
        nonlocal under_way
        assert under_way == 0
        under_way += 1
        try:
            return await write(store, *arguments, **options)
        finally:
            under_way -= 1

    monkeypatch.setattr(AsyncStore, "write", alone)
    for _ in range(3):
        await asyncio.gather(*(_count(manager, session) for session in sessions))


async def _count(manager: pgsession.AsyncSessionManager, session: pgsession.Session) -> None:
    await manager.modify_session(session.id, _one_more)


def _one_more(session: pgsession.Session) -> None:
    session["n"] = session["n"] + 1


async def test_what_the_second_lane_puts_back_is_written_by_the_first(
    open_manager: OpenAsyncManager, dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second lane ends where no crowd waits: what somebody else had locked is not left lying there."""
    manager = await open_manager(operation_timeout=5)
    users = [*(f"u{n}" for n in range(2 * CROWD)), "locked"]
    sessions = await asyncio.gather(*(manager.create_session(user, {"n": 0}) for user in users))
    last = sessions[-1].id.bytes
    at_rest = asyncio.Event()
    write, batches = AsyncStore.write, 0

    async def in_order(store: AsyncStore, batch: Batch, *arguments: Any, **options: Any) -> str | None:
        """Have the second lane's batch answered once the first lane is at rest, while a row of it is locked."""
        nonlocal batches
        batches += 1
        if batches > 2 or last not in [operation.key for operation in batch.operations]:
            return await write(store, batch, *arguments, **options)
        await at_rest.wait()
        async with await psycopg.AsyncConnection.connect(dsn) as foreign:
            await lock_sessions(foreign, schema)
            return await write(store, batch, *arguments, **options)

    monkeypatch.setattr(AsyncStore, "write", in_order)
    writes = [asyncio.create_task(_count(manager, session)) for session in sessions]
    async with asyncio.timeout(20):
        await asyncio.gather(*writes[: CROWD // 2])
        await manager._open_runtime().group_commit._lanes[0].idle()
        at_rest.set()
        await asyncio.gather(*writes)
