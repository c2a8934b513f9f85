"""Exceptions from outside into callers: cancelled tasks, signals, and those that one thread raises in another.

They come at random moments, but only inside of a call of the library's, and one at most into each: what is tested is
the library, not the bookkeeping around it. A target says that the call was interrupted by raising `Interrupted`.
"""

from __future__ import annotations

import asyncio
import ctypes
import random
import signal
import threading
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.fault.interrupts import Interrupt, SoftLimit

LONGEST_PAUSE = 0.02
"""Seconds between two interrupts."""


class Interrupted(Exception):
    """The call ended by an exception from outside, which was meant for it."""


class Misdirected(Exception):
    """The call ended by an exception that was not meant for it; or the one that was did not come out of it."""


class TaskTarget:
    """A task whose calls may be cancelled."""

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self._inside = False
        self._aimed = False

    def interrupt(self, chance: random.Random) -> None:
        """Cancel the call that is under way, if there is one."""
        if self._inside and not self._aimed and self._task is not None:
            self._aimed = True
            self._task.cancel()

    async def run(self, work: Awaitable[Any]) -> Any:
        self._aimed, self._inside = False, True
        try:
            result = await work
        except asyncio.CancelledError:
            if not self._aimed:
                raise Misdirected("cancelled, and nobody had asked for it") from None
            raise Interrupted from None
        except BaseException as error:
            if self._aimed:
                raise Misdirected(f"cancelled, and {type(error).__name__} came out: {error}") from error
            raise
        finally:
            self._inside = False
            if self._aimed and self._task is not None:
                self._task.uncancel()
        if self._aimed:
            raise Misdirected("cancelled, and it went on")
        return result


class ThreadTarget:
    """A thread, whose calls may get an exception from another thread, or, in the main one, by a signal's handler."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._guard = threading.Lock()
        self._inside = False
        self._aimed = False
        self._takes_signals = threading.current_thread() is threading.main_thread()
        if self._takes_signals:
            signal.signal(signal.SIGUSR2, self._on_signal)

    def interrupt(self, chance: random.Random) -> None:
        """Raise an exception in the call that is under way, if there is one."""
        if self._takes_signals and chance.random() < 0.7:
            signal.pthread_kill(self._thread, signal.SIGUSR2)
            return
        with self._guard:
            if self._inside and not self._aimed:
                self._aimed = True
                _raise_in(self._thread, chance.choice([Interrupt, SoftLimit]))

    def _on_signal(self, *_: Any) -> None:
        if not self._inside or self._aimed or not self._guard.acquire(blocking=False):
            return
        self._aimed = True
        self._guard.release()
        raise Interrupt

    async def run(self, work: Awaitable[Any]) -> Any:
        """Like that of tasks; here the work never waits."""
        try:
            self._aimed = False
            self._inside = True
            try:
                return await work
            finally:
                self._leave()
        except (Interrupt, SoftLimit) as error:
            self._leave()
            if not self._aimed:
                raise Misdirected(f"{type(error).__name__}, and nobody had raised it here") from error
            raise Interrupted from None

    @contextmanager
    def spared(self) -> Iterator[None]:
        """Let no exception come from another thread in this block.

        While a thread starts another one, CPython knows both by the same id, and the newborn may be hit: before it
        has said that it runs, which its parent waits for.
        """
        inside = self._inside
        with self._guard:
            self._inside = False
        try:
            yield
        finally:
            self._inside = inside

    def _leave(self) -> None:
        """Let nothing be raised any more, and nothing be pending: not even what was aimed a moment ago."""
        with self._guard:
            self._inside = False
            _raise_in(self._thread, None)


def spare_threads_that_start_others(targets: dict[int, ThreadTarget]) -> None:
    """See `ThreadTarget.spared`; the targets are known by their threads' ids."""
    start = threading.Thread.start

    def spared_start(thread: threading.Thread) -> None:
        target = targets.get(threading.get_ident())
        if target is None:
            start(thread)
        else:
            with target.spared():
                start(thread)

    threading.Thread.start = spared_start  # type: ignore[method-assign, assignment]


def _raise_in(thread: int, exception: type[BaseException] | None) -> None:
    """Have an exception raised in a thread; None: take back what is not raised yet."""
    given = None if exception is None else ctypes.py_object(exception)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), given)


class Interrupts:
    """Interrupts targets at random until a moment."""

    def __init__(self, chance: random.Random) -> None:
        self._random = chance
        self.targets: dict[str, TaskTarget | ThreadTarget] = {}
        self._until = 0.0

    def last(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    def strike(self) -> float:
        """Interrupt one, if it is time; return the seconds after which to come again."""
        if time.monotonic() >= self._until or not self.targets:
            return 0.05
        self._random.choice(list(self.targets.values())).interrupt(self._random)
        return self._random.random() * LONGEST_PAUSE
