# Generated from src/pgsession/_async/of_each.py by tools/async_to_sync.py: never edit.

"""Does something for several at the same time, as for all shards."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TypeVar

from pgsession._concurrency import Action, BackgroundTasks, SharedFuture

T = TypeVar("T")
R = TypeVar("R")


def of_each(
    background: BackgroundTasks, items: Iterable[T], do: Action[T, R]
) -> list[tuple[T, R | None, Exception | None]]:
    """Do something for several at the same time; return what it gave or failed with for each."""
    started: list[tuple[T, SharedFuture[R]]] = []
    for item in items:
        future: SharedFuture[R] = SharedFuture()
        background.run(partial(_settle, future, do, item), "pgsession shard")
        started.append((item, future))
    results: list[tuple[T, R | None, Exception | None]] = []
    for item, future in started:
        try:
            results.append((item, future.wait(), None))
        except Exception as error:
            results.append((item, None, error))
    return results


def _settle(future: SharedFuture[R], do: Action[T, R], item: T) -> None:
    try:
        future.set_result(do(item))
    except BaseException as error:
        future.set_error(error)
        if not isinstance(error, Exception):
            raise
