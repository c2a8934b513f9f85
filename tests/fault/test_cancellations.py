"""Tasks that are cancelled, at each await in turn: nobody else hears of it, nothing hangs, nothing is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from typing import Any

import psycopg
import pytest

import pgsession
from tests.crew import AsyncCrew
from tests.fault.storm import ASYNC_ACTS
from tests.leftovers import Leftovers

PATIENCE = 20
MOST_STEPS = 500

Act = Callable[[pgsession.AsyncSessionManager, pgsession.Session], Awaitable[None]]


class CancelledAt:
    """Awaits a coroutine in a task that is cancelled when it waits for the `step`-th time."""

    def __init__(self, step: int, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._left = step
        self._coroutine = coroutine
        self.cancelled = False

    async def run(self) -> None:
        task = asyncio.create_task(self._run())
        done, _ = await asyncio.wait({task}, timeout=PATIENCE)
        assert done, f"whoever is cancelled hangs: {task.get_stack()}"
        if not task.cancelled():
            task.result()

    async def _run(self) -> None:
        await self

    def __await__(self) -> Generator[Any, Any, Any]:
        error: BaseException | None = None
        while True:
            try:
                waits_for = self._coroutine.send(None) if error is None else self._coroutine.throw(error)
            except StopIteration:
                return
            if self._left == 0:
                self.cancelled = True
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            self._left -= 1
            error = None
            try:
                yield waits_for
            except BaseException as raised:
                error = raised


@pytest.mark.parametrize("act", ASYNC_ACTS)
async def test_a_cancellation_at_each_await_concerns_its_task_alone(dsn: str, schema: str, act: Act) -> None:
    config = pgsession.Config(
        create_schema_if_missing=True, schema_name=schema, max_staleness=60, max_sessions=0
    )
    with Leftovers(dsn) as left:
        async with pgsession.AsyncSessionManager(left.conninfo, config) as manager:
            session = await manager.create_session("u", {"n": 0})

            async def run(manager: pgsession.AsyncSessionManager = manager) -> None:
                await act(manager, session)

            for step in range(MOST_STEPS):
                victim = CancelledAt(step, run())
                async with AsyncCrew() as crew:  # whatever these raise fails the test
                    for _ in range(2):
                        crew.start(run)
                    await victim.run()
                    await crew.join(PATIENCE)
                if not victim.cancelled:
                    break
            assert 0 < step < MOST_STEPS, "each await has had its turn"
            runtime = manager._open_runtime()
            async with asyncio.timeout(PATIENCE):
                await runtime.lock_renewal.background.drain(PATIENCE)
                await manager._background.drain(PATIENCE)
                await runtime.listener.unlisten("news")  # whose `unlisten` was cancelled before it was sent
                await run()
            assert not len(manager._coherence._leases)
            assert not len(runtime.group_commit) and not runtime.group_commit._behind
            assert len(runtime.connections._members) == len(runtime.connections._kept), "none is lent"
            heard = [runtime.synchronizer._events.channel]
            assert list(runtime.listener._loop._subscriptions) == heard


async def manager_by_hand(manager: pgsession.AsyncSessionManager) -> None:
    await manager.open()
    await manager.close(PATIENCE)


async def manager_in_a_block(manager: pgsession.AsyncSessionManager) -> None:
    async with manager:
        pass


@pytest.mark.parametrize("act", [manager_by_hand, manager_in_a_block])
async def test_a_cancelled_open_or_close_of_a_manager_leaves_nothing(
    dsn: str, schema: str, act: Callable[[pgsession.AsyncSessionManager], Coroutine[Any, Any, None]]
) -> None:
    config = pgsession.Config(create_schema_if_missing=True, schema_name=schema)
    async with pgsession.AsyncSessionManager(dsn, config):
        pass
    with Leftovers(dsn) as left:
        for step in range(MOST_STEPS):
            manager = pgsession.AsyncSessionManager(left.conninfo, config)
            victim = CancelledAt(step, act(manager))
            await victim.run()
            if not victim.cancelled:
                break
            if act is manager_by_hand:
                await manager.close(PATIENCE)
        assert 3 < step < MOST_STEPS, "each await has had its turn"
        left.nothing_runs()


async def test_a_cancelled_open_or_close_of_a_listener_leaves_nothing(dsn: str) -> None:
    with Leftovers(dsn) as left:
        for step in range(MOST_STEPS):
            listener = pgsession.AsyncListener(left.conninfo)

            async def open_and_close(listener: pgsession.AsyncListener = listener) -> None:
                await listener.open()
                await listener.close()

            victim = CancelledAt(step, open_and_close())
            await victim.run()
            if not victim.cancelled:
                break
            await listener.close()
        assert 0 < step < MOST_STEPS, "each await has had its turn"
        left.nothing_runs()


async def test_a_cancelled_listen_is_as_if_never_asked(dsn: str) -> None:
    def hear(notification: psycopg.Notify) -> None:
        pass

    async with pgsession.AsyncListener(dsn) as listener:
        for step in range(MOST_STEPS):
            victim = CancelledAt(step, listener.listen("news", hear))
            with suppress(psycopg.Error):
                await victim.run()
            if not victim.cancelled:
                break
            await listener.execute("SELECT 1")
            assert not listener._loop._subscriptions
        assert 0 < step < MOST_STEPS, "each await has had its turn"
