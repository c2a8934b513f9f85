"""Walks the trips of the code map but for the hit, for `test_code_map.py`, with the decisions as they are written."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from tests.aio.conftest import OpenAsyncManager
from tests.docs.code_map import Trace, trips
from tests.tables import Tables

TRIPS = trips()
PATIENCE = 30
QUIET: dict[str, Any] = {"max_staleness": 3600}  # no proofs meanwhile, which the listener would deliver too


def names(trip: str) -> list[str]:
    return [step.function for step in TRIPS[trip]]


async def complete(trace: Trace, trip: str, function: str | None = None) -> None:
    """Waits until a function, or the last one of the trip, was called."""
    deadline = time.monotonic() + PATIENCE
    while (function or names(trip)[-1]) not in trace.called:
        assert time.monotonic() < deadline, f"only {trace.called} were called"
        await asyncio.sleep(0.005)


async def test_a_miss(open_manager: OpenAsyncManager) -> None:
    session = await (await open_manager(**QUIET)).create_session("alice")
    other = await open_manager(**QUIET)
    session_id = session.id
    with Trace(TRIPS["A miss"]) as trace:
        assert await other.get_session(session_id) is not None
    assert trace.called == names("A miss")


async def test_a_write(open_manager: OpenAsyncManager) -> None:
    manager = await open_manager(**QUIET)
    session = await manager.create_session("alice")
    session["role"] = "admin"
    with Trace(TRIPS["A write"]) as trace:
        await manager.update_session(session)
    assert trace.called == names("A write")


async def test_an_event(open_manager: OpenAsyncManager, tables: Tables) -> None:
    manager = await open_manager(**QUIET)
    session = await manager.create_session("alice")
    for _ in range(5):  # it may also come along with the answer to a command of the node's own
        assert await manager.get_session(session.id) is not None
        with Trace(TRIPS["An event"]) as trace:
            tables.run(
                "UPDATE {sessions} SET expires_at = expires_at + interval '1 hour' WHERE id = %s", session.id
            )
            await complete(trace, "An event")
        if trace.called == names("An event"):
            break
    assert trace.called == names("An event")


async def test_a_lock(open_manager: OpenAsyncManager) -> None:
    manager = await open_manager(**QUIET)
    with Trace(TRIPS["A lock"]) as trace:
        lock = manager.lock("rebuild-index", heartbeat_interval=0.02)
        async with lock:
            await complete(trace, "A lock", "AsyncHeldLock.renew")
        await complete(trace, "A lock")
    assert trace.called == names("A lock")
