"""Who wants the mutex of a key, and when he has it."""

from __future__ import annotations

import asyncio

import pytest

from pgsession._async.keyed_mutex import AsyncKeyedMutex
from pgsession.errors import OperationTimeout


async def test_one_at_a_time_in_the_order_in_which_they_came() -> None:
    mutexes = AsyncKeyedMutex()
    seen: list[tuple[str, int]] = []

    async def enter(number: int) -> None:
        async with mutexes.hold(b"key"):
            seen.append(("in", number))
            await asyncio.sleep(0)
            seen.append(("out", number))

    await asyncio.gather(*(enter(number) for number in range(5)))
    assert seen == [(what, number) for number in range(5) for what in ("in", "out")]
    assert not len(mutexes)


async def test_other_keys_are_not_waited_for_and_nobody_waits_without_an_end() -> None:
    mutexes = AsyncKeyedMutex()
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def stay() -> None:
        async with mutexes.hold(b"key"):
            entered.set()
            await go_on.wait()

    staying = asyncio.create_task(stay())
    await entered.wait()
    async with mutexes.hold(b"other"):
        pass
    with pytest.raises(OperationTimeout):
        async with mutexes.hold(b"key", deadline=0):
            pass
    go_on.set()
    await staying
    assert not len(mutexes)
