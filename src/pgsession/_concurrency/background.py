"""Loops and tasks in the background, owned by somebody who ends them."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading

from .types import LOGGER, AsyncThunk, Thunk


class AsyncBackgroundLoop:
    """One long-lived task: the body of a loop that its owner tells to end, and then stops."""

    def __init__(self, logger: logging.Logger = LOGGER) -> None:
        self._logger = logger
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        return self._task is not None and not self._task.done()

    def is_current(self) -> bool:
        """Return True where the caller runs inside this loop."""
        return self._task is not None and asyncio.current_task() is self._task

    def start(self, fn: AsyncThunk[None], name: str) -> None:
        if self.running:
            raise RuntimeError(f"{name} is already running")
        self._task = asyncio.create_task(self._guarded(fn, name), name=name, context=contextvars.Context())

    async def stop(self, timeout: float | None = None) -> bool:
        """Wait for the end, which the owner has already asked for; cancel what is not over by then.

        Returns whether it ended by itself. Called from the loop itself it does not wait.
        """
        task = self._task
        if task is None or task is asyncio.current_task():
            return task is None
        done, _ = await asyncio.wait({task}, timeout=timeout)
        if not done:
            task.cancel()
            await asyncio.wait({task})
        return bool(done)

    async def _guarded(self, fn: AsyncThunk[None], name: str) -> None:
        try:
            await fn()
        except Exception:
            self._logger.exception("%s ended with an error", name)


class BackgroundLoop:
    """One long-lived daemon thread: the body of a loop that its owner tells to end, and then stops."""

    def __init__(self, logger: logging.Logger = LOGGER) -> None:
        self._logger = logger
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def is_current(self) -> bool:
        """Return True where the caller runs inside this loop."""
        return self._thread is not None and threading.current_thread() is self._thread

    def start(self, fn: Thunk[None], name: str) -> None:
        if self.running:
            raise RuntimeError(f"{name} is already running")
        self._thread = threading.Thread(target=self._guarded, args=(fn, name), name=name, daemon=True)
        self._thread.start()

    def stop(self, timeout: float | None = None) -> bool:
        """Wait for the end, which the owner has already asked for.

        Returns whether it has ended; a thread cannot be cancelled. Called from the loop itself it does not wait.
        """
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return thread is None
        thread.join(timeout)
        return not thread.is_alive()

    def _guarded(self, fn: Thunk[None], name: str) -> None:
        try:
            fn()
        except Exception:
            self._logger.exception("%s ended with an error", name)


class AsyncBackgroundTasks:
    """Tasks that outlive the request that asked for them: a cancelled caller cancels none."""

    def __init__(self, logger: logging.Logger = LOGGER) -> None:
        self._logger = logger
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self, fn: AsyncThunk[None], name: str) -> None:
        """Start `fn` in a task of its own; it answers through `SharedFuture`s, also when it fails."""
        task = asyncio.create_task(self._guarded(fn, name), name=name, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self, timeout: float | None = None) -> bool:
        """Wait until all that runs has ended, and cancel what has not by then; returns whether nothing was."""
        if not self._tasks:
            return True
        _, late = await asyncio.wait(set(self._tasks), timeout=timeout)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
        return not late

    async def _guarded(self, fn: AsyncThunk[None], name: str) -> None:
        try:
            await fn()
        except Exception:
            self._logger.exception("%s ended with an error", name)


class BackgroundTasks:
    """Calls that other threads may be waiting for; each runs in the thread that asked for it first."""

    def __init__(self, logger: logging.Logger = LOGGER) -> None:
        self._logger = logger
        self._changed = threading.Condition()
        self._running = 0

    def run(self, fn: Thunk[None], name: str) -> None:
        """Run `fn`; it answers through `SharedFuture`s, also when it fails."""
        with self._changed:
            self._running += 1
        try:
            fn()
        except Exception:
            self._logger.exception("%s ended with an error", name)
        finally:
            with self._changed:
                self._running -= 1
                if not self._running:
                    self._changed.notify_all()

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until all that runs has ended; returns whether it has."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, timeout)
