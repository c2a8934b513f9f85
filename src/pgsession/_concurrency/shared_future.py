"""A shared future is one result or error, set once, for any number who wait."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

if TYPE_CHECKING:
    from .deadlines import AsyncDeadlines, Deadlines

T = TypeVar("T")

_SETTING: Final = 1.0  # seconds; one who was interrupted while he set a result never ends


class AsyncSharedFuture(Generic[T]):
    """Holds one result or error, set once, for any number of waiters; cancelling a waiter concerns nobody else."""

    __slots__ = ("_done", "_error", "_result", "_traceback", "_unbegun", "_waiters", "handed_over")

    def __init__(self) -> None:
        self._done = False
        self._result: T | None = None
        self._error: BaseException | None = None
        self._traceback: Any = None
        self._waiters: dict[asyncio.Future[None], None] | None = None
        self.handed_over = False  # for its users: somebody is certain to `begin`
        self._unbegun = [True]  # popping it is what makes one `begin` the first one

    @property
    def done(self) -> bool:
        """Return True once there is a result or an error."""
        return self._done

    @property
    def succeeded(self) -> bool:
        """Return True once there is a result."""
        return self._done and self._error is None

    def begin(self) -> bool:
        """Return True for the first who is about to do the work that this stands for, and False for all others."""
        try:
            return self._unbegun.pop()
        except IndexError:
            return False

    def set_result(self, result: T) -> bool:
        """Answer everybody; change nothing and return False where that was done before."""
        return self._settle(result, None)

    def set_error(self, error: BaseException) -> bool:
        """Raise `error` for everybody; change nothing and return False where the answer was given before."""
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
        """Wait for the result and return it, or raise the error.

        Raises:
            TimeoutError: There is neither within `timeout` seconds.
        """
        if not self._done:
            waiter = self._waiter()
            timer = None if timeout is None else waiter.get_loop().call_later(timeout, _wake, waiter)
            try:
                await waiter
            finally:
                if timer is not None:
                    timer.cancel()
                if self._waiters is not None:
                    del self._waiters[waiter]
            if not self._done:
                raise TimeoutError
        try:
            return _answer(self)
        finally:
            del self  # a frame in the error's traceback must not keep the error alive

    async def wait_until(self, moment: float, deadlines: AsyncDeadlines) -> T:
        """Wait until a moment of `time.monotonic` for the result and return it, or raise the error.

        Many may do so: one timer of the `deadlines` is for all.

        Raises:
            TimeoutError: There is neither at that moment.
        """
        if not self._done:
            waiter = self._waiter()
            deadlines.watch(waiter, moment)
            try:
                await waiter
            finally:
                deadlines.unwatch(waiter)
                if self._waiters is not None:
                    del self._waiters[waiter]
            if not self._done:
                raise TimeoutError
        try:
            return _answer(self)
        finally:
            del self  # a frame in the error's traceback must not keep the error alive

    def _waiter(self) -> asyncio.Future[None]:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._waiters is None:
            self._waiters = {}
        self._waiters[waiter] = None
        return waiter


class SharedFuture(Generic[T]):
    """Holds one result or error, set once, for any number of waiting threads.

    Each waiter sleeps at a gate of its own (a lock that it has closed), and the setter opens all gates: whatever
    becomes of a waiter, an exception raised into it included, no other depends on it.
    """

    __slots__ = (
        "_done",
        "_error",
        "_gates",
        "_result",
        "_traceback",
        "_unbegun",
        "_unclaimed",
        "handed_over",
    )

    def __init__(self) -> None:
        self._done = False
        self._result: T | None = None
        self._error: BaseException | None = None
        self._traceback: Any = None
        self._unclaimed = [True]  # popping it is what makes one setter the only one
        self._gates: list[Any] = []
        self.handed_over = False  # for its users: somebody is certain to `begin`
        self._unbegun = [True]  # popping it is what makes one `begin` the first one

    @property
    def done(self) -> bool:
        """Return True once there is a result or an error."""
        return self._done

    @property
    def succeeded(self) -> bool:
        """Return True once there is a result; whoever is just setting one is waited for, for a moment."""
        end = time.monotonic() + _SETTING
        while not self._done and not self._unclaimed and time.monotonic() < end:
            time.sleep(0)
        return self._done and self._error is None

    def begin(self) -> bool:
        """Return True for the first who is about to do the work that this stands for, and False for all others."""
        try:
            return self._unbegun.pop()
        except IndexError:
            return False

    def set_result(self, result: T) -> bool:
        """Answer everybody; change nothing and return False where that was done before."""
        return self._settle(result, None)

    def set_error(self, error: BaseException) -> bool:
        """Raise `error` for everybody; change nothing and return False where the answer was given before."""
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
        # A waiter that adds its gate after this has seen the last one looks at `_done` after it.
        while self._gates:
            try:
                self._gates.pop().release()
            except IndexError:
                break  # a waiter has taken its own away
        return True

    def wait(self, timeout: float | None = None) -> T:
        """Wait for the result and return it, or raise the error.

        Raises:
            TimeoutError: There is neither within `timeout` seconds.
        """
        if not self._done:
            gate = threading.Lock()
            gate.acquire()
            self._gates.append(gate)
            try:
                if not self._done:
                    gate.acquire(timeout=-1 if timeout is None else max(timeout, 0))
            finally:
                if not self._done:
                    self._remove_gate(gate)
            if not self._done:
                raise TimeoutError
        try:
            return _answer(self)
        finally:
            del self  # a frame in the error's traceback must not keep the error alive

    def wait_until(self, moment: float, deadlines: Deadlines) -> T:
        """Wait until a moment of `time.monotonic` for the result and return it, or raise the error.

        Raises:
            TimeoutError: There is neither at that moment.
        """
        try:
            return self.wait(moment - time.monotonic())
        finally:
            del self

    def _remove_gate(self, gate: Any) -> None:
        try:
            self._gates.remove(gate)
        except ValueError:
            pass  # the setter has it


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _answer(future: AsyncSharedFuture[T] | SharedFuture[T]) -> T:
    if future._error is None:
        return future._result  # type: ignore[return-value]  # one that is done has one
    try:
        # Each waiter raises it: without going back to where it was, its traceback would grow with every one.
        raise future._error.with_traceback(future._traceback)
    finally:
        del future  # a frame in the traceback must not keep its own exception alive
