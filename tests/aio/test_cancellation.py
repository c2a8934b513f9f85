# asyncio only
"""Cancelled tasks: they concern nobody else, and leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import random

import psycopg
import pytest

from pgsession._async.listener import AsyncListener
from pgsession._concurrency import (
    AsyncBackgroundLoop,
    AsyncBackgroundTasks,
    AsyncCombiner,
    AsyncSharedFuture,
    async_call,
)
from pgsession.errors import ListenerError

from .test_concurrency import AsyncDoubler
from .test_listener import PATIENCE, AsyncRecorder, notify


async def cancelled(task: asyncio.Task[object]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_cancelled_waiter_concerns_no_other() -> None:
    future: AsyncSharedFuture[int] = AsyncSharedFuture()
    tasks = [asyncio.create_task(future.wait()) for _ in range(10)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        await cancelled(task)
    future.set_result(1)
    assert await asyncio.gather(*tasks[1::2]) == [1] * 5
    assert not future._waiters


async def test_waiters_that_give_up_leave_nothing() -> None:
    future: AsyncSharedFuture[int] = AsyncSharedFuture()
    for _ in range(10):
        with pytest.raises(TimeoutError):
            await future.wait(0.0001)
    assert not future._waiters


@pytest.mark.parametrize("seed", range(5))
async def test_a_storm_of_cancellations(seed: int) -> None:
    """Whoever is not cancelled is answered; what was queued is done; nothing runs afterwards."""
    print(f"seed {seed}")
    choice = random.Random(seed)
    doubler = AsyncDoubler(bound=7)

    async def double_often(first: int) -> int:
        for number in range(first, first + 20):
            assert await doubler.double(number) == 2 * number
        return first

    tasks = [asyncio.create_task(double_often(first)) for first in range(60)]
    victims = set(choice.sample(range(60), 40))
    for number in victims:
        await asyncio.sleep(choice.choice([0, 0, 0.0005]))
        tasks[number].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for number, result in enumerate(results):
        assert result == number or (number in victims and isinstance(result, asyncio.CancelledError))
    assert await doubler.combiner.idle(PATIENCE)
    assert not doubler.queue


async def test_the_first_caller_does_not_take_the_others_down() -> None:
    doubler = AsyncDoubler()
    first = asyncio.create_task(doubler.double(1))
    await asyncio.sleep(0)
    second = asyncio.create_task(doubler.double(2))
    await asyncio.sleep(0)
    await cancelled(first)
    assert await second == 4
    assert sum(doubler.sizes) == 2  # also the cancelled one was done: its queue must not keep it for later


async def test_work_that_was_cancelled_is_begun_again() -> None:
    hangs, done = True, asyncio.Event()

    async def work() -> bool:
        if hangs:
            await asyncio.Event().wait()
        done.set()
        return False

    combiner = AsyncCombiner(work, "hangs")
    combiner.wake()
    assert not await combiner.idle(0.001)
    hangs = False
    combiner.wake()
    async with asyncio.timeout(PATIENCE):
        await done.wait()


async def test_answered_callers_queue_again_before_the_next_batch() -> None:
    doubler = AsyncDoubler()

    async def double_often() -> None:
        for number in range(10):
            await doubler.double(number)

    await asyncio.gather(*(double_often() for _ in range(20)))
    assert doubler.sizes[1:] in ([20] * 9, [20] * 10)


async def test_a_worker_that_does_not_end_is_cancelled() -> None:
    loop = AsyncBackgroundLoop()
    loop.start(asyncio.Event().wait, "for ever")  # type: ignore[arg-type]
    assert not await loop.stop(0.001)
    assert not loop.running


async def test_work_that_does_not_end_is_cancelled() -> None:
    work = AsyncBackgroundTasks()
    work.run(asyncio.Event().wait, "for ever")  # type: ignore[arg-type]
    assert not await work.drain(0.001)
    assert await work.drain(0)


async def test_a_callback_that_was_cancelled_inside_is_an_error_like_any_other() -> None:
    async def wait_for_a_cancelled_task() -> None:
        task = asyncio.create_task(asyncio.sleep(3600))
        task.cancel()
        await task

    with pytest.raises(RuntimeError, match="cancelled"):
        await async_call(wait_for_a_cancelled_task)
    outer = asyncio.create_task(async_call(asyncio.sleep, 3600))
    await asyncio.sleep(0)
    outer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await outer


async def test_a_cancelled_open_leaves_nothing(dsn: str) -> None:
    for rounds in range(12):
        listener = AsyncListener(dsn)
        task = asyncio.create_task(listener.open())
        for _ in range(rounds):
            await asyncio.sleep(0)
        await cancelled(task)
        await listener.close()
        assert not listener.connected


@pytest.mark.parametrize("seed", range(3))
async def test_a_storm_of_cancelled_requests_to_the_listener(dsn: str, seed: int) -> None:
    print(f"seed {seed}")
    choice = random.Random(seed)
    recorder = AsyncRecorder()
    async with AsyncListener(dsn) as listener:
        await listener.listen("news", recorder.on_notification)

        async def request(number: int) -> None:
            await listener.listen(f"c{number}", recorder.on_notification)
            assert await listener.execute("SELECT %s::int", [number]) == [(number,)]
            await listener.unlisten(f"c{number}")

        tasks = [asyncio.create_task(request(number)) for number in range(60)]
        for task in tasks[::2]:
            await asyncio.sleep(choice.choice([0, 0, 0.0005]))
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[1::2] == [None] * 30
        assert [result for result in results if isinstance(result, Exception)] == []
        notify(dsn, "news", "end")
        await recorder.until("end")
        pid = listener.pid
        assert await listener.execute("SELECT pg_backend_pid()") == [(pid,)]


async def test_coroutine_functions_as_callbacks(dsn: str) -> None:
    recorder = AsyncRecorder()

    async def note(*arguments: object) -> None:
        await asyncio.sleep(0)
        recorder.note(arguments[0].payload if isinstance(arguments[0], psycopg.Notify) else arguments[0])

    async with AsyncListener(dsn) as listener:
        await listener.listen("news", note, on_out_of_sync=note, on_error=note, on_done=note)
        notify(dsn, "news", "1")
        await recorder.until("1")
        listener.reconnect()
        await recorder.until("news", 2)
    assert recorder.seen == ["1", "news", "news", "news"]


async def test_close_does_not_wait_for_a_callback_for_ever(dsn: str) -> None:
    recorder = AsyncRecorder()

    async def hang(notification: psycopg.Notify) -> None:
        recorder.on_notification(notification)
        try:
            await asyncio.Event().wait()
        finally:
            recorder.note("cancelled")

    listener = AsyncListener(dsn)
    await listener.open()
    await listener.listen("news", hang, on_done=recorder.on_done)
    notify(dsn, "news", "1")
    await recorder.until("1")
    waiting = asyncio.create_task(listener.execute("SELECT 1", timeout=3600))
    await asyncio.sleep(0)
    await listener.close(timeout=0.01)
    assert recorder.seen == ["1", "cancelled", ("done", "news")]
    with pytest.raises(ListenerError):
        await waiting


def test_under_uvloop(dsn: str) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        recorder = AsyncRecorder()
        async with AsyncListener(dsn) as listener:
            await listener.listen("news", recorder.on_notification, on_out_of_sync=recorder.on_out_of_sync)
            for times in range(1, 4):
                listener.reconnect()
                await recorder.until(("out of sync", "news"), times)
                await listener.notify("news", str(times))
                await recorder.until(str(times))

    uvloop.run(main())
