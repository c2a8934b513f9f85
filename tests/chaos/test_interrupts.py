"""Interrupts hit calls and nothing else, and what becomes of one is told."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
from typing import Any

import pytest

from tests.chaos.interrupts import Interrupted, Misdirected, TaskTarget, ThreadTarget

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are sent to threads")
CHANCE = random.Random(1)


class Target(TaskTarget):
    """One that is interrupted as soon as its call waits."""

    async def run(self, work: Any) -> Any:
        asyncio.get_running_loop().call_soon(self.interrupt, CHANCE)
        return await super().run(work)


async def wait() -> None:
    await asyncio.sleep(60)


async def test_a_cancelled_call_is_interrupted_and_its_task_goes_on() -> None:
    with pytest.raises(Interrupted):
        await Target().run(wait())
    await asyncio.sleep(0)  # is not cancelled


async def test_a_cancellation_that_does_not_come_out_is_noticed() -> None:
    async def swallow() -> None:
        try:
            await wait()
        except asyncio.CancelledError:
            pass

    async def translate() -> None:
        try:
            await wait()
        except asyncio.CancelledError:
            raise ValueError from None

    for work in (swallow, translate):
        with pytest.raises(Misdirected):
            await Target().run(work())


async def test_a_cancellation_by_nobody_is_noticed() -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(Misdirected):
        await TaskTarget().run(cancelled())


async def test_what_is_not_interrupted_ends_as_it_does() -> None:
    async def fail() -> None:
        raise ValueError("of its own")

    assert await TaskTarget().run(asyncio.sleep(0, 1)) == 1
    with pytest.raises(ValueError, match="of its own"):
        await TaskTarget().run(fail())


def finish(work: Any) -> Any:
    with pytest.raises(StopIteration) as end:
        work.send(None)
    return end.value.value


def in_a_thread(target_runs: Any) -> list[Any]:
    """What comes of it in a thread that another one may interrupt."""
    came: list[Any] = []

    def run() -> None:
        try:
            came.append(target_runs(ThreadTarget()))
        except Exception as error:
            came.append(type(error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    return came


def test_a_thread_is_interrupted_inside_of_a_call_only() -> None:
    async def interrupted_by_another(target: ThreadTarget) -> None:
        started = threading.Event()

        def interrupt() -> None:
            started.wait(10)
            target.interrupt(CHANCE)

        other = threading.Thread(target=interrupt)
        with target.spared():
            other.start()
        started.set()
        other.join(10)
        for _ in range(1_000_000):  # it comes between two instructions
            pass

    def inside(target: ThreadTarget) -> Any:
        return finish(target.run(interrupted_by_another(target)))

    def outside(target: ThreadTarget) -> str:
        target.interrupt(CHANCE)
        return "nothing"

    assert in_a_thread(outside) == ["nothing"]
    assert in_a_thread(inside) == [Interrupted]


def test_what_is_aimed_at_a_call_that_has_ended_is_taken_back() -> None:
    async def last_moment(target: ThreadTarget) -> str:
        return "done"

    def aimed_too_late(target: ThreadTarget) -> list[Any]:
        results = []
        stop = threading.Event()

        def interrupt() -> None:
            while not stop.is_set():
                target.interrupt(CHANCE)

        other = threading.Thread(target=interrupt)
        other.start()
        for _ in range(2_000):
            try:
                results.append(finish(target.run(last_moment(target))))
            except Interrupted:
                results.append("interrupted")
        stop.set()
        other.join()
        return results

    (results,) = in_a_thread(aimed_too_late)
    assert len(results) == 2_000
    assert set(results) <= {"done", "interrupted"}
