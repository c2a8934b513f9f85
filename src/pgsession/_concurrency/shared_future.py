"""One answer, and many who wait for it."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")


class AsyncSharedFuture(Generic[T]):
    """One result or error, set once, for any number of waiters; cancelling a waiter concerns nobody else."""

    __slots__ = ("_done", "_error", "_result", "_traceback", "_waiters")

    def __init__(self) -> None:
        self._done = False
        self._result: T | None = None
        self._error: BaseException | None = None
        self._traceback: Any = None
        self._waiters: dict[asyncio.Future[None], None] | None = None

    @property
    def done(self) -> bool:
        return self._done

    def set_result(self, result: T) -> bool:
        """Answer everybody; False, and nothing changes, when that was done before."""
        return self._settle(result, None)

    def set_error(self, error: BaseException) -> bool:
        """Raise `error` for everybody; False, and nothing changes, when the answer was given before."""
        return self._settle(None, error)

    def _settle(self, result: T | None, error: BaseException | None) -> bool:
        if self._done:
            return False
        self._result, self._error = result, error
        if error is not None:
            self._traceback = error.__traceback__
        self._done = True
        if self._waiters is not None:
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)
            self._waiters = None
        return True

    async def wait(self, timeout: float | None = None) -> T:
        """The result, or its error raised; `TimeoutError` if there is none in `timeout` seconds."""
        if not self._done:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            if self._waiters is None:
                self._waiters = {}
            self._waiters[waiter] = None
            try:
                if timeout is None:
                    await waiter
                else:
                    async with asyncio.timeout(timeout):
                        await waiter
            finally:
                if self._waiters is not None:
                    del self._waiters[waiter]
        return _answer(self)


class SharedFuture(Generic[T]):
    """One result or error, set once, for any number of waiting threads.

    The gate is a lock that is closed (held, by nobody in particular) until the answer is there. Whoever gets through
    opens it for the next one, so setting an answer costs one wake-up whatever the number of waiters.
    """

    __slots__ = ("_done", "_error", "_gate", "_leads", "_result", "_traceback", "_unclaimed")

    def __init__(self) -> None:
        self._done = False
        self._result: T | None = None
        self._error: BaseException | None = None
        self._traceback: Any = None
        self._unclaimed = [True]  # popping it is what makes one setter the only one
        self._leads = False  # Combiner: its waiter is to lead
        self._gate = threading.Lock()
        self._gate.acquire()

    @property
    def done(self) -> bool:
        return self._done

    def set_result(self, result: T) -> bool:
        """Answer everybody; False, and nothing changes, when that was done before."""
        return self._settle(result, None)

    def set_error(self, error: BaseException) -> bool:
        """Raise `error` for everybody; False, and nothing changes, when the answer was given before."""
        return self._settle(None, error)

    def _settle(self, result: T | None, error: BaseException | None) -> bool:
        try:
            self._unclaimed.pop()
        except IndexError:
            return False
        self._result, self._error = result, error
        if error is not None:
            self._traceback = error.__traceback__
        self._done = True
        self._open()
        return True

    def _open(self) -> None:
        try:
            self._gate.release()
        except RuntimeError:
            pass  # open already

    def _pass(self, timeout: float | None = None) -> None:
        """Wait until the gate opens. It stays open for good once the answer is there."""
        try:
            self._gate.acquire(timeout=-1 if timeout is None else max(timeout, 0))
        finally:
            if self._done:
                self._open()

    def wait(self, timeout: float | None = None) -> T:
        """The result, or its error raised; `TimeoutError` if there is none in `timeout` seconds."""
        if not self._done:
            self._pass(timeout)
            if not self._done:
                raise TimeoutError
        return _answer(self)


def _answer(future: AsyncSharedFuture[T] | SharedFuture[T]) -> T:
    if future._error is None:
        return cast(T, future._result)
    try:
        # Each waiter raises it: without going back to where it was, its traceback would grow with every one.
        raise future._error.with_traceback(future._traceback)
    finally:
        del future  # a frame in the traceback must not keep its own exception alive
