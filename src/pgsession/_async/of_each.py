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
    started = [(item, _started(background(item), do, item)) for item in items]
    return [(item, *await _outcome(future, until)) for item, future in started]


def _started(
    background: AsyncBackgroundTasks, do: AsyncAction[T, R], item: T
) -> AsyncSharedFuture[tuple[R | None, Exception | None]]:
    future: AsyncSharedFuture[tuple[R | None, Exception | None]] = AsyncSharedFuture()
    background.run(partial(_settle, future, do, item), "pgsession shard")
    return future


async def _outcome(
    future: AsyncSharedFuture[tuple[R | None, Exception | None]], until: float | None
) -> tuple[R | None, Exception | None]:
    if until is not None:
        try:
            return await future.wait(max(until - time.monotonic(), 0))
        except TimeoutError:
            if future.begin():
                return None, OperationTimeout("others had to be waited for too long; nothing was sent")
    return await future.wait()


async def _settle(
    future: AsyncSharedFuture[tuple[R | None, Exception | None]], do: AsyncAction[T, R], item: T
) -> None:
    """Answer with an error as with a result: raised where it is waited for, it would keep all that is there."""
    try:
        if future.begin():
            future.set_result((await do(item), None))
    except Exception as error:
        future.set_result((None, error))
    except BaseException:
        # Nobody has cancelled who waits.
        future.set_result((None, ManagerClosedError("it was closed before this was done")))
        raise
    finally:
        del future  # which keeps this frame, where it has an error
