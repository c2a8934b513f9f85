"""Work that may hang in the system, as that with a disk, is done in a thread of its own here, for asyncio too."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from .shared_future import AsyncSharedFuture, SharedFuture

T = TypeVar("T")


def async_in_own_thread(fn: Callable[[], T], name: str) -> AsyncSharedFuture[T]:
    """Begin to do `fn` in a thread of this name, which ends with the process; return what waits for its answer."""
    future: AsyncSharedFuture[T] = AsyncSharedFuture()
    loop = asyncio.get_running_loop()

    def tell(answer: Callable[[], bool]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(answer)

    def run() -> None:
        try:
            tell(partial(future.set_result, fn()))
        except Exception as error:
            tell(partial(future.set_error, error))

    _start(run, name, future)
    return future


def in_own_thread(fn: Callable[[], T], name: str) -> SharedFuture[T]:
    """Begin to do `fn` in a thread of this name, which ends with the process; return what waits for its answer."""
    future: SharedFuture[T] = SharedFuture()

    def run() -> None:
        try:
            future.set_result(fn())
        except Exception as error:
            future.set_error(error)

    _start(run, name, future)
    return future


def _start(run: Callable[[], None], name: str, future: AsyncSharedFuture[T] | SharedFuture[T]) -> None:
    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError as error:  # there are too many, or the interpreter exits
        future.set_error(error)
