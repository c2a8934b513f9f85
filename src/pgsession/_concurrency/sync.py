"""Events, mutexes, pauses, alarms and the calls of what the user gave us stand here in pairs."""

from __future__ import annotations

import _thread
import asyncio
import contextvars
import inspect
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from pgsession.errors import EventLoopError

from .types import AsyncThunk, Thunk


class AsyncEvent(asyncio.Event):
    """An event is a flag to wait for. `wait` returns True where it is set, as that of threads does."""

    async def wait(self, timeout: float | None = None) -> bool:  # type: ignore[override]
        """Wait for at most `timeout` seconds; return True where the flag is set."""
        if self.is_set():
            return True
        try:
            async with asyncio.timeout(timeout):
                await super().wait()
        except TimeoutError:
            pass
        return self.is_set()


class Event:
    """An event is a flag to wait for.

    That of `threading` has a lock which stays locked if an exception is raised into `set` at the wrong moment. Here
    each waiter sleeps at a gate of its own (a lock that it has closed), as those of a `SharedFuture` do.
    """

    def __init__(self) -> None:
        self._flag = False
        self._gates: list[threading.Lock] = []

    def is_set(self) -> bool:
        """Return True while the flag is set."""
        return self._flag

    def set(self) -> None:
        """Set the flag, and wake who waits; the next call makes good what an interrupted one has left out."""
        self._flag = True
        for gate in list(self._gates):
            try:
                gate.release()
            except RuntimeError:
                pass  # it is open

    def clear(self) -> None:
        """Take the flag back."""
        self._flag = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for at most `timeout` seconds; return True where the flag is set, or was meanwhile."""
        if self._flag:
            return True
        gate = threading.Lock()
        gate.acquire()
        self._gates.append(gate)
        try:
            # Who sets the flag after this sees the gate.
            return (
                self._flag or gate.acquire(timeout=-1 if timeout is None else max(timeout, 0)) or self._flag
            )
        finally:
            self._gates.remove(gate)


class AsyncMutex(asyncio.Lock):
    """Lets one task at a time into a block, in the order in which they came, by `async with`."""


Mutex = threading.Lock
"""Lets one thread at a time into a block, by `with`.

It is compiled all the way: an `__enter__` of ours could be interrupted (Ctrl-C, a time limit of a framework) between
having the lock and returning, and nobody would ever give it back.
"""


async_may_wait: Final = False
"""False: what waits would stop the event loop."""
may_wait: Final = True
"""True: a thread may wait."""


async def async_sleep(seconds: float) -> None:
    """Let so many seconds pass."""
    await asyncio.sleep(seconds)


def sleep(seconds: float) -> None:
    """Let so many seconds pass."""
    time.sleep(seconds)


async def async_pause() -> None:
    """Let everybody who can run do so before going on."""
    await asyncio.sleep(0)


def pause() -> None:
    """Let others have the interpreter before going on."""
    time.sleep(0)


async def async_call(function: Callable[..., Any], *args: object) -> Any:
    """Return what a plain function or a coroutine function of the user's returns; what it raises is an `Exception`."""
    try:
        result = function(*args)
        return await result if inspect.isawaitable(result) else result
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise RuntimeError("cancelled from inside") from error  # something it awaited; nobody cancelled us


def call(function: Callable[..., Any], *args: object) -> Any:
    """Return what a function of the user's returns; whatever it raises is an `Exception`."""
    try:
        return function(*args)
    except Exception:
        raise
    except BaseException as error:  # such as sys.exit(), which in a thread would end only the thread
        raise RuntimeError(f"{type(error).__name__} raised in a thread") from error


class AsyncSignal:
    """An event that any thread may set, for who waits in an event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = AsyncEvent()

    def set(self) -> None:
        """Set it, and wake who waits."""
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._event.set)

    def clear(self) -> None:
        """Take it back."""
        self._event.clear()

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait for at most `timeout` seconds; return True where it is set."""
        return await self._event.wait(timeout)


class Signal(Event):
    """An event that any thread may set, for threads."""


class AsyncHome:
    """Stands for the event loop in which something lives, which may not be used from another one.

    Raises:
        EventLoopError: psycopg cannot work in this kind of event loop.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        if isinstance(self._loop, getattr(asyncio, "ProactorEventLoop", ())):
            raise EventLoopError(
                "psycopg cannot work in Windows' ProactorEventLoop: run the program in another one, as by "
                "asyncio.Runner(loop_factory=asyncio.SelectorEventLoop), or use what is for threads"
            )
        self._ending: asyncio.Task[None] | None = None

    def here(self) -> bool:
        """Return True where the caller runs in that event loop."""
        return asyncio._get_running_loop() is self._loop

    def check(self) -> None:
        """Refuse a call from another event loop.

        Raises:
            EventLoopError: The caller runs in another event loop than the one in which this was made.
        """
        if not self.here():
            raise EventLoopError(
                "the manager belongs to the event loop that opened it, and this is another one: open a manager in each "
                "loop, or use SessionManager, which any thread and loop may call"
            )

    def end(self, close: AsyncThunk[None], otherwise: Callable[[], None], ended: Callable[[], None]) -> bool:
        """Begin to close what lives here and was dropped, in a task; if that cannot be, do what else is possible.

        Args:
            close: Closes it.
            otherwise: Called where the event loop is closed, or cancels the task.
            ended: Called at the end.

        Returns:
            False: at the interpreter's exit the task is not waited for, since an event loop does not go on by itself.
        """

        def over(task: asyncio.Task[None] | None) -> None:
            self._ending = None
            if task is None or task.cancelled() or task.exception() is not None:
                otherwise()
            ended()

        def begin() -> None:
            self._ending = self._loop.create_task(close(), context=contextvars.Context())
            self._ending.add_done_callback(over)

        try:
            if self.here():
                begin()
            else:
                self._loop.call_soon_threadsafe(begin)
        except RuntimeError:  # it is closed
            over(None)
        return False

    def at_exit(self, close: AsyncThunk[None]) -> None:
        """Leave it to the process's end: there is no event loop that could run this."""


class Home:
    """Stands for the home of what may be used from any thread."""

    def here(self) -> bool:
        """Return True: it is at home everywhere."""
        return True

    def check(self) -> None:
        """Accept every caller."""

    def end(self, close: Thunk[None], otherwise: Callable[[], None], ended: Callable[[], None]) -> bool:
        """Begin to close what was dropped, in a thread; if that cannot be, do what else is possible.

        Args:
            close: Closes it.
            otherwise: Called where no thread can be started, since the interpreter exits.
            ended: Called at the end.

        Returns:
            True: that thread goes on by itself.
        """

        def run() -> None:
            try:
                close()
            finally:
                ended()

        def start() -> None:
            try:
                threading.Thread(target=run, name="pgsession unclosed", daemon=True).start()
            except RuntimeError:
                otherwise()
                ended()

        try:
            # The collector may have come in the middle of `Thread.start`, which holds a lock of its module.
            _thread.start_new_thread(start, ())
        except RuntimeError:
            otherwise()
            ended()
        return True

    def at_exit(self, close: Thunk[None]) -> None:
        """Close it, which starts no thread."""
        close()


class AsyncAlarm:
    """Calls `action`, once, if a `with` block takes longer than `seconds`; `rang` is True then. None: no limit."""

    def __init__(self, seconds: float | None, action: Callable[[], object]) -> None:
        self.rang = False
        self._seconds = seconds
        self._action = action
        self._timer: asyncio.TimerHandle | None = None

    def _ring(self) -> None:
        self.rang = True
        self._action()

    def __enter__(self) -> None:
        if self._seconds is not None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._ring)

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()


class Alarm:
    """Calls `action`, once and in a thread, if a `with` block takes longer than `seconds`; None: no limit.

    `rang` is True then.
    """

    def __init__(self, seconds: float | None, action: Callable[[], object]) -> None:
        self.rang = False
        self._action = action
        self._timer = None if seconds is None else threading.Timer(seconds, self._ring)

    def _ring(self) -> None:
        self.rang = True
        self._action()

    def __enter__(self) -> None:
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()
