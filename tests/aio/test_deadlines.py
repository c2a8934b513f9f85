"""Time limits: the action comes once, when it is time, and never to somebody who was in time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import AsyncIterator

import pytest

from pgsession._concurrency import AsyncDeadlines, AsyncEvent, AsyncSharedFuture, async_pause

from .helpers import AsyncCrew

PATIENCE = 20


@pytest.fixture
async def deadlines() -> AsyncIterator[AsyncDeadlines]:
    made = AsyncDeadlines(logging.getLogger("pgsession"))
    yield made
    await made.close()


def watchers() -> int:
    return sum(thread.name == "pgsession deadlines" for thread in threading.enumerate())


async def test_who_is_late_is_helped_out_once(deadlines: AsyncDeadlines) -> None:
    helped = AsyncEvent()
    calls: list[int] = []

    def action() -> None:
        calls.append(1)
        helped.set()

    began = time.monotonic()
    with deadlines.within(0.05, action) as limit:
        assert await helped.wait(PATIENCE)
    assert limit.passed and calls == [1]
    assert time.monotonic() - began >= 0.05


async def test_who_is_in_time_hears_nothing(deadlines: AsyncDeadlines) -> None:
    later = AsyncEvent()
    calls: list[int] = []
    with deadlines.within(0.02, lambda: calls.append(1)) as kept:
        pass
    with deadlines.within(None, lambda: calls.append(1)) as endless:
        with deadlines.within(0.06, later.set):
            assert await later.wait(PATIENCE)
    assert not kept.passed and not endless.passed and calls == []


async def test_a_shorter_limit_does_not_wait_for_a_longer_one(deadlines: AsyncDeadlines) -> None:
    short = AsyncEvent()
    with deadlines.within(3600, short.set), deadlines.within(3600, short.set) as long:
        with deadlines.within(0.02, short.set) as limit:
            assert await short.wait(PATIENCE)
    assert limit.passed and not long.passed


async def test_an_action_that_fails_ends_nothing(
    deadlines: AsyncDeadlines, caplog: pytest.LogCaptureFixture
) -> None:
    helped = AsyncEvent()

    def fail() -> None:
        raise OSError("gone")

    with deadlines.within(0.01, fail), deadlines.within(0.03, helped.set):
        assert await helped.wait(PATIENCE)
    assert "time limit" in caplog.text


async def test_many_at_once_each_by_its_own_time(deadlines: AsyncDeadlines) -> None:
    async def one(number: int) -> bool:
        over = AsyncEvent()
        with deadlines.within(0.01 * (number % 5 + 1), over.set) as limit:
            return await over.wait(PATIENCE) and limit.passed

    async with AsyncCrew() as crew:
        for number in range(40):
            crew.start(one, number)
        assert await crew.join() == [True] * 40


async def test_waits_end_at_their_own_times(deadlines: AsyncDeadlines) -> None:
    never: AsyncSharedFuture[int] = AsyncSharedFuture()

    async def wait(seconds: float) -> float:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            await never.wait_until(began + seconds, deadlines)
        return time.monotonic() - began

    async with AsyncCrew() as crew:
        crew.start(wait, 0.03)
        for seconds in (0.02, 0, -1):  # the earliest comes last
            crew.start(wait, seconds)
        for waited, seconds in zip(await crew.join(), (0.03, 0.02, 0, 0), strict=True):
            assert seconds <= waited < PATIENCE


async def test_whoever_is_answered_hears_of_no_limit(deadlines: AsyncDeadlines) -> None:
    future: AsyncSharedFuture[str] = AsyncSharedFuture()
    over = AsyncEvent()

    async def wait() -> str:
        return await future.wait_until(time.monotonic() + PATIENCE, deadlines)

    async with AsyncCrew() as crew:
        for _ in range(5):
            crew.start(wait)
        with deadlines.within(0.01, over.set):
            assert await over.wait(PATIENCE)
        future.set_result("done")
        assert await crew.join() == ["done"] * 5
    assert await future.wait_until(0, deadlines) == "done"


async def test_a_wait_ends_in_time_also_after_close(deadlines: AsyncDeadlines) -> None:
    future: AsyncSharedFuture[int] = AsyncSharedFuture()

    async def wait() -> None:
        with pytest.raises(TimeoutError):
            await future.wait_until(time.monotonic() + 0.05, deadlines)

    async with AsyncCrew() as crew:
        crew.start(wait)
        await async_pause()
        await deadlines.close()


async def test_nothing_is_left_after_close() -> None:
    before = watchers()
    made = AsyncDeadlines(logging.getLogger("pgsession"))
    for _ in range(100):
        with made.within(10, lambda: None):
            pass
    assert watchers() - before <= 1
    await made.close()
    assert watchers() == before
