"""Combiners: one of those who wait acts for all of them, and then hands over."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Awaitable
from typing import Any, TypeVar

from pgsession.errors import ManagerClosedError

from .background import AsyncBackgroundTasks
from .shared_future import AsyncSharedFuture, SharedFuture
from .sync import async_pause, pause
from .types import LOGGER, AsyncThunk, Thunk

T = TypeVar("T")


class AsyncCombiner:
    """Acts for all who wait at the moment, one at a time: here in a task that no caller's end can cancel.

    `run(fn, future)`: the caller has put what it wants done where `fn` will find it, together with `future`. `fn` is
    called again and again, never twice at once, until every future that was given to `run` is settled; then
    nothing runs. Between two calls those who were answered get to run, and may come back with more.

    `fn` takes what waits (or a part of it, oldest first) and settles its futures; it skips what is `done` already. If
    it raises, all who wait get that error.
    """

    def __init__(self, logger: logging.Logger = LOGGER) -> None:
        self._background = AsyncBackgroundTasks(logger)
        self._waiting: deque[AsyncSharedFuture[Any]] = deque()
        self._taken = False

    def run(self, fn: AsyncThunk[None], future: AsyncSharedFuture[T]) -> Awaitable[T]:
        self._waiting.append(future)
        if not self._taken:
            self._taken = True
            self._background.run(lambda: self._lead(fn), "pgsession combiner")
        return future.wait()

    async def idle(self, timeout: float | None = None) -> bool:
        """Wait until nothing runs, and cancel what does after `timeout`; returns whether nothing was cancelled."""
        return await self._background.drain(timeout)

    async def _lead(self, fn: AsyncThunk[None]) -> None:
        try:
            while self._somebody_waits():
                await fn()
                await async_pause()
        except Exception as error:
            self._give_up(error)
        finally:
            # Nothing is awaited between the last look at who waits and this: nobody is overlooked.
            self._taken = False
            self._give_up(ManagerClosedError("closed before this was done"))

    def _somebody_waits(self) -> bool:
        while self._waiting and self._waiting[0].done:
            self._waiting.popleft()
        return bool(self._waiting)

    def _give_up(self, error: Exception) -> None:
        """After an error, or when the task is cancelled; otherwise nobody waits here."""
        while self._waiting:
            self._waiting.popleft().set_error(error)


class Combiner:
    """Acts for all who wait at the moment, one at a time: here in the thread of one of those who wait.

    `run(fn, future)`: the caller has put what it wants done where `fn` will find it, together with `future`. The
    first caller leads: it calls `fn` until its own future is settled, then hands over to the one who has waited
    longest, and so on. Everybody else sleeps until answered or called to lead: one wake-up each.

    `fn` takes what waits (or a part of it, oldest first) and settles its futures; it skips what is `done` already. If
    it raises, the caller who led gets that error and the next one leads. Each future has one waiter, its caller.
    """

    def __init__(self, logger: logging.Logger = LOGGER) -> None:
        self._guard = threading.Lock()
        self._rests = threading.Condition(self._guard)
        self._waiting: deque[SharedFuture[Any]] = deque()
        self._taken = False
        self._crowded = False  # True while somebody waited when the last leader handed over

    def run(self, fn: Thunk[None], future: SharedFuture[T]) -> T:
        if self._take(future) or self._follow(future):
            self._lead(fn, future)
        return future.wait()

    def idle(self, timeout: float | None = None) -> bool:
        """Wait until nothing runs; returns whether that is so."""
        with self._guard:
            return self._rests.wait_for(lambda: not self._taken, timeout)

    def _take(self, future: SharedFuture[Any]) -> bool:
        with self._guard:
            if self._taken:
                self._waiting.append(future)
                return False
            self._taken = True
            return True

    def _follow(self, future: SharedFuture[Any]) -> bool:
        """Sleep until answered or called to lead; returns whether to lead."""
        try:
            future._pass()
        except BaseException as interrupt:
            future.set_error(interrupt)  # withdrawn, unless a batch has it
            if self._must_lead(future):
                self._hand_over()
            raise
        return self._must_lead(future)

    def _must_lead(self, future: SharedFuture[Any]) -> bool:
        # Under the guard, so that leadership is never given to somebody who has just left.
        with self._guard:
            return future._leads

    def _lead(self, fn: Thunk[None], future: SharedFuture[Any]) -> None:
        try:
            if self._crowded:
                pause()  # those just answered come back with more: full batches instead of half full ones
            while not future.done:
                fn()
        except BaseException as error:
            future.set_error(error)  # withdrawn: nobody is left to hear the answer
            raise
        finally:
            self._hand_over()

    def _hand_over(self) -> None:
        with self._guard:
            self._crowded = bool(self._waiting)
            while self._waiting:
                successor = self._waiting.popleft()
                if not successor.done:
                    successor._leads = True
                    break
            else:
                self._taken = False
                self._rests.notify_all()
                return
        successor._open()
