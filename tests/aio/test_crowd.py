# asyncio only: how many threads wait at one moment is the system's affair
"""Where a crowd waits, the server works on one batch while the callers of another are answered."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import pgsession
from pgsession._async.group_commit import CROWD
from pgsession._async.store import AsyncStore
from tests.versions import changes


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
