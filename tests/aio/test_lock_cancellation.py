# asyncio only
"""Cancelled callers of locks: what they took is given back, what they gave back is free."""

from __future__ import annotations

import asyncio

import pytest

import pgsession
from tests.tables import Tables

from .conftest import OpenAsyncManager
from .helpers import eventually


async def free(manager: pgsession.AsyncSessionManager, tables: Tables) -> None:
    async def nobody_has_it() -> bool:
        return tables.run("SELECT * FROM {session_locks}") == []

    await eventually(nobody_has_it)


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 8, 20])
async def test_a_cancelled_acquire_takes_nothing(open_manager: OpenAsyncManager, steps: int) -> None:
    manager = await open_manager()
    lock = manager.lock("r")
    task = asyncio.create_task(lock.acquire())
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        assert not lock.locked
    else:
        assert lock.locked
        await lock.release()
    assert await lock.acquire(timeout=20), "long before the lease of 60 s is over"
    await lock.release()


async def test_an_acquire_cancelled_while_it_is_answered_takes_nothing(
    open_manager: OpenAsyncManager, tables: Tables
) -> None:
    manager = await open_manager()
    store = manager._open_runtime().store
    acquire = store.acquire
    task: asyncio.Task[bool] | None = None

    async def cancelled_in_the_end(*arguments: object) -> object:
        result = await acquire(*arguments)  # type: ignore[arg-type]
        assert task is not None
        task.cancel()
        return result

    store.acquire = cancelled_in_the_end  # type: ignore[method-assign, assignment]
    task = asyncio.create_task(manager.lock("r").acquire())
    with pytest.raises(asyncio.CancelledError):
        await task
    await free(manager, tables)


async def test_a_cancelled_release_releases(open_manager: OpenAsyncManager, tables: Tables) -> None:
    manager = await open_manager()
    lock = manager.lock("r")
    assert await lock.acquire()
    task = asyncio.create_task(lock.release())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not lock.locked
    await free(manager, tables)
    assert await lock.acquire()
    await lock.release()


async def test_a_cancelled_block_gives_the_lock_back(open_manager: OpenAsyncManager, tables: Tables) -> None:
    manager = await open_manager()
    inside = asyncio.Event()

    async def hold() -> None:
        async with manager.lock("r"):
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await free(manager, tables)
