"""Does something for several at the same time, as for all shards."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

from pgsession._concurrency import AsyncAction, AsyncBackgroundTasks, AsyncSharedFuture
from pgsession.errors import ManagerClosedError, OperationTimeout

T = TypeVar("T")
R = TypeVar("R")


async def of_each(
    background: Callable[[T], AsyncBackgroundTasks],
    items: Iterable[T],
    do: AsyncAction[T, R],
    until: float | None = None,
) -> list[tuple[T, R | None, Exception | None]]:
    """Do something for several at the same time; return what it gave or failed with for each.

    Args:
        background: What runs it, for which of them: those of one server have one of their own, so that who waits for
            one that is silent is in the way of its others only.
        items: The several.
        do: What is done for each.
        until: The moment of `time.monotonic` by which it has to be begun; None: whenever there is a thread.
    """
    started: list[tuple[T, AsyncSharedFuture[R]]] = [
        (item, _started(background(item), do, item)) for item in items
    ]
    results = []
    for item, future in started:
        outcome = await _outcome(item, future, until)
        results.append(outcome)
    return results


def _started(background: AsyncBackgroundTasks, do: AsyncAction[T, R], item: T) -> AsyncSharedFuture[R]:
    future: AsyncSharedFuture[R] = AsyncSharedFuture()
    background.run(partial(_settle, future, do, item), "pgsession shard")
    return future


async def _outcome(
    item: T, future: AsyncSharedFuture[R], until: float | None
) -> tuple[T, R | None, Exception | None]:
    result: R | None = None
    failure: Exception | None = None
    try:
        result = await _wait(future, until)
    except Exception as error:
        failure = error
    try:
        return item, result, failure
    finally:
        del future, failure  # an error keeps this frame


async def _wait(future: AsyncSharedFuture[R], until: float | None) -> R:
    try:
        if until is not None:
            try:
                return await future.wait(max(until - time.monotonic(), 0))
            except TimeoutError:
                if future.begin():
                    raise OperationTimeout("others had to be waited for too long; nothing was sent") from None
        return await future.wait()
    finally:
        del future


async def _settle(future: AsyncSharedFuture[R], do: AsyncAction[T, R], item: T) -> None:
    try:
        if future.begin():
            future.set_result(await do(item))
    except Exception as error:
        future.set_error(error)
    except BaseException:
        # Nobody has cancelled who waits.
        future.set_error(ManagerClosedError("it was closed before this was done"))
        raise
    finally:
        del future
