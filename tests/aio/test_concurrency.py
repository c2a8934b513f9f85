"""What holds for tasks and threads alike."""

from __future__ import annotations

import logging
import socket
import traceback
from collections import deque

import pytest

from pgsession._concurrency import (
    AsyncAlarm,
    AsyncBackgroundLoop,
    AsyncBackgroundTasks,
    AsyncCombiner,
    AsyncEvent,
    AsyncMutex,
    AsyncSharedFuture,
    AsyncSocketWaiter,
    async_call,
    async_pause,
    async_sleep,
)
from tests.crew import AsyncCrew

PATIENCE = 20

# -- events, mutexes, time -----------------------------------------------------------------------------------


async def test_event() -> None:
    event = AsyncEvent()
    assert not await event.wait(0)
    assert not await event.wait(0.001)
    async with AsyncCrew() as crew:
        for _ in range(5):
            crew.start(event.wait, PATIENCE)
        event.set()
        assert await crew.join() == [True] * 5
    assert await event.wait()
    event.clear()
    assert not event.is_set()
    assert not await event.wait(0)


async def test_mutex() -> None:
    mutex = AsyncMutex()
    inside: list[int] = []
    most = 0

    async def enter() -> None:
        nonlocal most
        async with mutex:
            inside.append(1)
            most = max(most, len(inside))
            await async_sleep(0)
            inside.pop()

    async with AsyncCrew() as crew:
        for _ in range(20):
            crew.start(enter)
    assert most == 1
    assert not mutex.locked()


async def test_alarm() -> None:
    rang = AsyncEvent()
    alarm = AsyncAlarm(0.001, rang.set)
    with alarm:
        assert await rang.wait(PATIENCE)
    assert alarm.rang
    for seconds in (60, None):
        alarm = AsyncAlarm(seconds, rang.set)
        with alarm:
            pass
        assert not alarm.rang


async def test_call() -> None:
    seen: list[int] = []

    async def append(number: int) -> None:
        seen.append(number)

    await async_call(seen.append, 1)
    await async_call(append, 2)
    assert seen == [1, 2]


# -- background loops ----------------------------------------------------------------------------------------


async def test_a_worker_runs_until_told_to_end() -> None:
    loop = AsyncBackgroundLoop()
    ask, ended = AsyncEvent(), AsyncEvent()
    inside: list[bool] = []

    async def body() -> None:
        inside.append(loop.is_current())
        await ask.wait()
        inside.append(await loop.stop())  # from inside: does not wait for itself
        ended.set()

    assert not loop.running
    assert await loop.stop()
    loop.start(body, "body")
    assert loop.running
    assert not loop.is_current()
    with pytest.raises(RuntimeError, match="already running"):
        loop.start(body, "body")
    ask.set()
    assert await loop.stop(PATIENCE)
    assert ended.is_set()
    assert inside == [True, False]
    assert not loop.running
    loop.start(body, "again")
    assert await loop.stop(PATIENCE)


async def test_a_worker_does_not_die_silently(caplog: pytest.LogCaptureFixture) -> None:
    loop = AsyncBackgroundLoop()

    async def body() -> None:
        raise LookupError("unexpected")

    loop.start(body, "the loop's name")
    assert await loop.stop(PATIENCE)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "the loop's name" in caplog.text
    assert "unexpected" in caplog.text


async def test_work_can_be_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    work = AsyncBackgroundTasks()
    future: AsyncSharedFuture[str] = AsyncSharedFuture()

    async def answer() -> None:
        await async_sleep(0.001)
        future.set_result("done")
        raise LookupError("too late to tell anybody")

    assert await work.drain()
    work.run(answer, "answer")
    assert await future.wait(PATIENCE) == "done"
    assert await work.drain(PATIENCE)
    assert "too late" in caplog.text


# -- futures ------------------------------------------------------------------------------------------------


async def test_an_outcome_answers_all_who_wait_and_all_who_come_later() -> None:
    future: AsyncSharedFuture[str] = AsyncSharedFuture()
    async with AsyncCrew() as crew:
        for _ in range(50):
            crew.start(future.wait, PATIENCE)
        await async_pause()
        assert future.set_result("done")
        assert await crew.join() == ["done"] * 50
    assert future.done
    assert await future.wait() == "done"
    assert await future.wait(0) == "done"


async def test_only_the_first_answer_counts() -> None:
    future: AsyncSharedFuture[int] = AsyncSharedFuture()
    assert future.set_result(1)
    assert not future.set_result(2)
    assert not future.set_error(LookupError())
    assert await future.wait() == 1


async def test_waiting_for_an_outcome_is_bounded() -> None:
    future: AsyncSharedFuture[int] = AsyncSharedFuture()
    for seconds in (0, 0.001, -1):
        with pytest.raises(TimeoutError):
            await future.wait(seconds)
    future.set_result(1)
    assert await future.wait(0) == 1


async def test_an_error_is_raised_for_everybody_and_does_not_grow() -> None:
    future: AsyncSharedFuture[int] = AsyncSharedFuture()
    try:
        raise LookupError("once")
    except LookupError as error:
        future.set_error(error)
    lengths = []
    for _ in range(3):
        with pytest.raises(LookupError, match="once") as caught:
            await future.wait()
        lengths.append(len(traceback.extract_tb(caught.value.__traceback__)))
    assert lengths[0] == lengths[2]


# -- combiners ---------------------------------------------------------------------------------------------------


class AsyncDoubler:
    """Doubles numbers in batches, as the group commit writes."""

    def __init__(self, bound: int = 1000) -> None:
        self.bound = bound
        self.combiner = AsyncCombiner(self._batch, "doubler")
        self.queue: deque[tuple[int, AsyncSharedFuture[int]]] = deque()
        self.sizes: list[int] = []
        self.at_work = 0

    async def double(self, number: int) -> int:
        future: AsyncSharedFuture[int] = AsyncSharedFuture()
        self.queue.append((number, future))
        self.combiner.wake()
        return await future.wait()

    async def _batch(self) -> bool:
        self.at_work += 1
        assert self.at_work == 1
        batch = [self.queue.popleft() for _ in range(min(len(self.queue), self.bound))]
        self.sizes.append(len(batch))
        await async_sleep(0.001)
        for number, future in batch:
            if number < 0:
                future.set_error(ValueError(number))
            else:
                future.set_result(2 * number)
        self.at_work -= 1
        return bool(self.queue)


async def test_alone_a_turn_is_a_batch_of_one() -> None:
    doubler = AsyncDoubler()
    for number in range(5):
        assert await doubler.double(number) == 2 * number
    assert doubler.sizes == [1] * 5
    assert await doubler.combiner.idle(PATIENCE)


async def test_together_they_share_batches() -> None:
    doubler = AsyncDoubler()

    async def double_often(first: int) -> list[int]:
        return [await doubler.double(first + number) for number in range(20)]

    async with AsyncCrew() as crew:
        for first in range(30):
            crew.start(double_often, first)
        results = await crew.join()
    assert results == [[2 * (first + number) for number in range(20)] for first in range(30)]
    assert sum(doubler.sizes) == 600
    assert len(doubler.sizes) < 300
    assert await doubler.combiner.idle(PATIENCE)
    assert not doubler.queue


async def test_a_bounded_batch_leaves_nobody_behind() -> None:
    doubler = AsyncDoubler(bound=3)
    async with AsyncCrew() as crew:
        for number in range(50):
            crew.start(doubler.double, number)
        assert await crew.join() == [2 * number for number in range(50)]
    assert max(doubler.sizes) == 3


async def test_one_error_is_one_callers() -> None:
    doubler = AsyncDoubler()

    async def double(number: int) -> int:
        if number % 10:
            return await doubler.double(number)
        with pytest.raises(ValueError, match=str(-number - 1)):
            await doubler.double(-number - 1)
        return 2 * number

    async with AsyncCrew() as crew:
        for number in range(50):
            crew.start(double, number)
        assert await crew.join() == [2 * number for number in range(50)]


async def test_work_that_raises_is_told_and_called_again(caplog: pytest.LogCaptureFixture) -> None:
    works, done = AsyncEvent(), AsyncEvent()

    async def work() -> bool:
        if not works.is_set():
            raise LookupError("the work itself is broken")
        done.set()
        return False

    combiner = AsyncCombiner(work, "the work's name")
    combiner.wake()
    assert await combiner.idle(PATIENCE)
    assert "the work's name" in caplog.text
    assert "is broken" in caplog.text
    works.set()
    combiner.wake()
    assert await done.wait(PATIENCE)
    assert await combiner.idle(PATIENCE)


async def test_work_begins_once() -> None:
    future: AsyncSharedFuture[int] = AsyncSharedFuture()
    assert future.begin()
    assert not future.begin()
    assert not future.done and not future.succeeded
    future.set_result(1)
    assert future.succeeded


async def test_a_call_gives_what_its_function_gives() -> None:
    work = AsyncBackgroundTasks()

    async def answer() -> int:
        await async_sleep(0)
        return 1

    async def fail() -> int:
        raise LookupError("none")

    assert await work.call(answer) == 1
    with pytest.raises(LookupError, match="none"):
        await work.call(fail)
    assert await work.drain(PATIENCE)


# -- sockets -------------------------------------------------------------------------------------------------


class Source:
    """A socket of which a byte is read each time."""

    def __init__(self, ours: socket.socket) -> None:
        self._ours = ours
        self.read: list[bytes] = []

    @property
    def fileno(self) -> int:
        return self._ours.fileno()

    def receive(self) -> None:
        self.read.append(self._ours.recv(1))
        if self.read[-1] == b"!":
            raise OSError("gone")


async def test_socket_waiter() -> None:
    ours, theirs = socket.socketpair()
    waiter = AsyncSocketWaiter()
    with ours, theirs:
        source = Source(ours)
        assert not await waiter.wait(source, 0)
        assert not await waiter.wait(source, 0.001)
        theirs.send(b"xy")
        assert await waiter.wait(source, PATIENCE)
        assert await waiter.wait(source, PATIENCE)  # there is still something to read
        assert not await waiter.wait(source, 0)
        theirs.send(b"!")
        with pytest.raises(OSError, match="gone"):
            await waiter.wait(source, PATIENCE)
        theirs.close()
        assert await waiter.wait(source, PATIENCE)  # the end is something to read too
        assert source.read == [b"x", b"y", b"!", b""]
        waiter.leave()
    waiter.close()


async def test_socket_waiter_leaves_unread_what_comes_while_nobody_waits() -> None:
    ours, theirs = socket.socketpair()
    waiter = AsyncSocketWaiter()
    with ours, theirs:
        source = Source(ours)
        for _ in range(2):
            assert not await waiter.wait(source, 0)
            theirs.send(b"x")
            for _ in range(3):
                await async_sleep(0)
            assert source.read == []
            assert await waiter.wait(source, PATIENCE)
            source.read.clear()
        waiter.leave()
        theirs.send(b"x")
        assert not await waiter.wait(None, 0.001)
    waiter.close()


async def test_socket_waiter_goes_from_source_to_source() -> None:
    waiter = AsyncSocketWaiter()
    for _ in range(3):  # the descriptors are the same ones each time
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.send(b"x")
            assert await waiter.wait(Source(ours), PATIENCE)
            assert not await waiter.wait(Source(ours), 0)
            waiter.leave()
    waiter.close()


async def test_socket_waiter_is_woken() -> None:
    ours, theirs = socket.socketpair()
    waiter = AsyncSocketWaiter()
    with ours, theirs:
        for source in (None, Source(ours)):
            for _ in range(100_000):  # more than a pipe holds
                waiter.wake()
            assert not await waiter.wait(source, PATIENCE)
            assert not await waiter.wait(source, 0)  # all those were one
            async with AsyncCrew() as crew:
                crew.start(waiter.wait, source)
                await async_sleep(0.001)
                waiter.wake()
                assert await crew.join() == [False]
        waiter.leave()
    waiter.close()
    waiter.wake()


async def test_socket_waiter_takes_high_descriptors() -> None:
    resource, fcntl = pytest.importorskip("resource"), pytest.importorskip("fcntl")
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 2100:
        pytest.skip("too few descriptors are allowed")
    ours, theirs = socket.socketpair()
    waiter = AsyncSocketWaiter()
    with ours, theirs:
        high = socket.socket(fileno=fcntl.fcntl(ours.fileno(), fcntl.F_DUPFD, 2050))
        with high:
            theirs.send(b"x")
            assert await waiter.wait(Source(high), PATIENCE)
            waiter.leave()
    waiter.close()
