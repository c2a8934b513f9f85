"""Bounds longer than the default, on a clock that skips the waiting: none is passed by more than noise."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable

import pytest
from psycopg import AsyncConnection

import pgsession
from tests.aio import test_bounds as bounds
from tests.fault_proxy import FaultProxy

from . import virtual_time

LIMIT = 60.0  # seconds, so that the real time, which passes too, is little to it
NOISE = 0.1 * LIMIT


@pytest.mark.skipif(sys.platform == "win32", reason="psycopg needs a selector event loop of its own there")
@pytest.mark.parametrize("trouble", ["silent", "used up", "tables held"])
def test_no_call_passes_its_bound(
    trouble: str, dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "LIMIT", LIMIT)
    took: dict[str, float] = {}

    async def timed(name: str, call: bounds.Call, it: bounds.Subjects) -> None:
        began = time.monotonic()
        try:
            await call(it)
        except Exception as error:
            print(f"{name}: {type(error).__name__}")
        took[name] = time.monotonic() - began

    async def everything(jump: Callable[[bool], None]) -> None:
        with FaultProxy(dsn) as way, FaultProxy(dsn) as listening:
            listener = pgsession.AsyncListener(
                listening.conninfo, command_timeout=LIMIT, reconnect_delay=LIMIT
            )
            config = pgsession.Config(
                create_schema_if_missing=True,
                schema_name=schema,
                operation_timeout=LIMIT,
                max_sessions=2,
                max_staleness=600,
            )
            manager = pgsession.AsyncSessionManager(
                way.conninfo, config, listener=listener, signer=bounds.SIGNER
            )
            async with listener, manager, await AsyncConnection.connect(dsn, autocommit=True) as console:
                for _ in range(2):
                    session = await manager.create_session("u", {"n": 1}, group_id="g")
                locks = [manager.lock(name, lease_time=10 * LIMIT) for name in ("held", "released")]
                for lock in locks:
                    assert await lock.acquire()
                await listener.listen("known", print)
                it = bounds.Subjects(manager, listener, session, locks)
                ways = bounds.Ways(way, listening, console, schema)
                async with bounds.TROUBLES[trouble](ways, it):
                    jump(True)
                    await asyncio.gather(*(timed(name, call, it) for name, call in bounds.CALLS.items()))
                    began = time.monotonic()
                    await manager.close(LIMIT)
                    took["close"] = time.monotonic() - began
                    jump(False)

    virtual_time.run(everything, monkeypatch)
    assert set(took) == {*bounds.CALLS, "close"}
    late = {name: seconds for name, seconds in took.items() if seconds > LIMIT + NOISE}
    assert not late, late
    assert max(took.values()) > LIMIT / 2, took
