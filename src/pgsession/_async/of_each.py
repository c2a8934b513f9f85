"""Does something for several at the same time, as for all shards."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TypeVar

from pgsession._concurrency import AsyncAction, AsyncBackgroundTasks, AsyncSharedFuture

T = TypeVar("T")
R = TypeVar("R")


async def of_each(
    background: AsyncBackgroundTasks, items: Iterable[T], do: AsyncAction[T, R]
) -> list[tuple[T, R | None, Exception | None]]:
    """Do something for several at the same time; return what it gave or failed with for each."""
    started: list[tuple[T, AsyncSharedFuture[R]]] = []
    for item in items:
        future: AsyncSharedFuture[R] = AsyncSharedFuture()
        background.run(partial(_settle, future, do, item), "pgsession shard")
        started.append((item, future))
    results: list[tuple[T, R | None, Exception | None]] = []
    for item, future in started:
        try:
            results.append((item, await future.wait(), None))
        except Exception as error:
            results.append((item, None, error))
    return results


async def _settle(future: AsyncSharedFuture[R], do: AsyncAction[T, R], item: T) -> None:
    try:
        future.set_result(await do(item))
    except BaseException as error:
        future.set_error(error)
        if not isinstance(error, Exception):
            raise
