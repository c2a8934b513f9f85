"""Background loops go on until their owner ends them; background tasks end by themselves."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import threading
import time
from collections import deque
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

from pgsession.errors import OperationTimeout

from .shared_future import AsyncSharedFuture, SharedFuture
from .sync import Event
from .types import LOGGER, AsyncThunk, Thunk

T = TypeVar("T")

MOST_THREADS: Final = 8  # that do the pieces of work of one owner, where it does not say
LINGER: Final = 1.0  # seconds that a thread waits for more
_LAST_STEPS: Final = 1.0  # seconds for a thread whose work has ended
GRACE: Final = 1.0  # seconds to end in, for what was cancelled, or whose connection was cut

_OURS = threading.local()  # has a `thread` that is True in threads that belong to the library

_JOINED = 0.02  # seconds to wait for a thread to end before all are told once more


class AsyncBackgroundLoop:
    """Runs a background loop in one long-lived task: its owner tells the loop to end, and then stops it."""

    def __init__(self, logger: logging.Logger = LOGGER) -> None:
        self._logger = logger
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Return True from the start of the loop to its end."""
        return self._task is not None and not self._task.done()

    def is_current(self) -> bool:
        """Return True where the caller runs inside this loop."""
        return self._task is not None and asyncio.current_task() is self._task

    def start(self, fn: AsyncThunk[None], name: str) -> None:
        """Start the loop whose body is `fn`, in a task of this name.

        Raises:
            RuntimeError: It is running already.
        """
        if self.running:
            raise RuntimeError(f"{name} is already running")
        self._task = asyncio.create_task(self._guarded(fn, name), name=name, context=contextvars.Context())

    async def stop(self, timeout: float | None = None) -> bool:
        """Wait for the end, which the owner has already asked for; cancel what is not over by then.

        Called from the loop itself it does not wait, and for what does not end when cancelled no longer than `GRACE`.

        Returns:
            True if it ended by itself, or was never started.
        """
        task = self._task
        if task is None or task is asyncio.current_task():
            return task is None
        done, _ = await asyncio.wait({task}, timeout=timeout)
        if not done:
            await _cancel({task}, self._logger)
        return bool(done)

    async def _guarded(self, fn: AsyncThunk[None], name: str) -> None:
        try:
            await fn()
        except Exception:
            self._logger.exception("%s ended with an error", name)


class BackgroundLoop:
    """Runs a background loop in one long-lived daemon thread: its owner tells the loop to end, and then stops it."""

    def __init__(self, logger: logging.Logger = LOGGER) -> None:
        self._logger = logger
        self._thread: threading.Thread | None = None
        # `Thread.is_alive` would do, but one that is interrupted takes the thread for ended from then on.
        self._ended = Event()

    @property
    def running(self) -> bool:
        """Return True from the start of the loop to its end."""
        return self._thread is not None and not self._ended.is_set()

    def is_current(self) -> bool:
        """Return True where the caller runs inside this loop."""
        return self._thread is not None and threading.current_thread() is self._thread

    def start(self, fn: Thunk[None], name: str) -> None:
        """Start the loop whose body is `fn`, in a thread of this name.

        Raises:
            RuntimeError: It is running already.
        """
        if self.running:
            raise RuntimeError(f"{name} is already running")
        self._ended = ended = Event()
        self._thread = threading.Thread(target=self._guarded, args=(fn, name, ended), name=name, daemon=True)
        try:
            self._thread.start()
        except BaseException:
            if self._thread.ident is None:
                ended.set()  # it never began
            raise

    def stop(self, timeout: float | None = None) -> bool:
        """Wait for the end, which the owner has already asked for.

        Called from the loop itself it does not wait.

        Returns:
            True if it has ended, or was never started; a thread cannot be cancelled.
        """
        thread = self._thread
        if thread is None or thread.ident is None or thread is threading.current_thread():
            return thread is None  # one that is just being started sees for itself that it has to end
        if not self._ended.wait(timeout):
            return False
        thread.join(_LAST_STEPS)
        return True

    def _guarded(self, fn: Thunk[None], name: str, ended: Event) -> None:
        _OURS.thread = True
        try:
            fn()
        except Exception:
            self._logger.exception("%s ended with an error", name)
        finally:
            ended.set()


class AsyncBackgroundTasks:
    """Runs background tasks, which outlive the request that asked for them: a cancelled caller cancels none.

    `most` is for threads, and bounds nothing here: tasks that wait cost next to nothing.
    """

    def __init__(self, logger: logging.Logger = LOGGER, *, most: int = MOST_THREADS) -> None:
        self._logger = logger
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self, fn: AsyncThunk[None], name: str) -> None:
        """Start `fn` in a task of its own; it answers through `SharedFuture`s, also when it fails."""
        self._run(fn, name, contextvars.Context())

    def _run(self, fn: AsyncThunk[None], name: str, context: contextvars.Context) -> None:
        task = asyncio.create_task(self._guarded(fn, name), name=name, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def call(self, fn: AsyncThunk[T], until: float | None = None) -> T:
        """Return what `fn` returns or raise what it raises; cancelling the caller cancels it.

        `until` is for threads: a task of its own never waits for others to begin.
        """
        return await fn()

    async def complete(self, fn: AsyncThunk[T], name: str, timeout: float | None = None) -> T:
        """Return what `fn` returns or raise what it raises; it is done to its end, whatever becomes of the caller.

        It has the caller's context variables, as whatever he awaits.

        Raises:
            TimeoutError: It has not ended within `timeout` seconds; it goes on.
        """
        future: AsyncSharedFuture[T] = AsyncSharedFuture()
        try:
            self._run(partial(_async_settle, future, fn), name, contextvars.copy_context())
            return await future.wait(timeout)
        finally:
            del future

    async def drain(self, timeout: float | None = None) -> bool:
        """Wait until all that runs has ended, and cancel what has not by then; return True if nothing was."""
        if not self._tasks:
            return True
        _, late = await asyncio.wait(set(self._tasks), timeout=timeout)
        if late:
            await _cancel(late, self._logger)
        return not late

    async def _guarded(self, fn: AsyncThunk[None], name: str) -> None:
        try:
            await fn()
        except Exception:
            self._logger.exception("%s ended with an error", name)


async def _async_settle(future: AsyncSharedFuture[T], fn: AsyncThunk[T]) -> None:
    try:
        future.set_result(await fn())
    except BaseException as error:
        future.set_error(error)
        if not isinstance(error, Exception):
            raise
    finally:
        del future  # which keeps this frame, where it has an error


async def _cancel(tasks: set[asyncio.Task[None]], logger: logging.Logger) -> None:
    for task in tasks:
        task.cancel()
    _, late = await asyncio.wait(tasks, timeout=GRACE)
    for task in late:
        logger.warning("%s goes on although it was cancelled", task.get_name())


class _Piece:
    """Holds a piece of work that waits for a thread, or is being done."""

    __slots__ = ("_unclaimed", "fn", "name")

    def __init__(self, fn: Thunk[None], name: str) -> None:
        self.fn = fn
        self.name = name
        self._unclaimed = [True]  # popping it is what makes one thread the only one that does it

    def claim(self) -> bool:
        """Return True for the first who is about to do this, or sees to it that nobody will."""
        try:
            return self._unclaimed.pop()
        except IndexError:
            return False


class BackgroundTasks:
    """Runs background tasks, which outlive the request that asked for them, in threads of the owner's own.

    An exception raised into the thread that asked (Ctrl-C, a time limit of a framework) reaches nothing that others
    depend on. A thread is started where all are busy, up to `most`; one without work ends after `LINGER` seconds.

    Where the system, or an interpreter that exits, lets none be started, work waits for one that is there, or for the
    next attempt; but what a caller waits for he then does himself.
    """

    def __init__(self, logger: logging.Logger = LOGGER, *, most: int = MOST_THREADS) -> None:
        self._logger = logger
        self._most = most
        self._pieces: deque[_Piece] = deque()  # that wait for a thread
        self._unfinished: set[_Piece] = set()
        self._finished = Event()  # set whenever nothing is unfinished
        self._threads: set[threading.Thread] = set()
        # Each idle thread sleeps at a gate of its own (a lock that it has closed), the last one for the shortest time.
        # At one for all, each piece of work would wake all of them, one after the other.
        self._idle: list[threading.Lock] = []
        self._lingers = True  # a thread without work waits for more; not once this was drained
        self._refused = False  # no thread could be started at the last attempt

    def run(self, fn: Thunk[None], name: str) -> None:
        """Have `fn` done by a thread; it answers through `SharedFuture`s, also when it fails."""
        self._run(_Piece(fn, name))

    def _run(self, piece: _Piece) -> bool:
        """Have a piece done; return False where no thread is there to do it."""
        try:
            self._lingers = True
            self._unfinished.add(piece)
            self._pieces.append(piece)
            return self._have_threads()
        except BaseException:
            self._pieces.append(piece)  # perhaps a second time: it is done once
            self._have_threads()
            raise

    def call(self, fn: Thunk[T], until: float | None = None) -> T:
        """Return what `fn` returns or raise what it raises; it is done by a thread, to its end.

        A thread that belongs to the library does it itself.

        Args:
            fn: What to do; once begun, it ends by itself.
            until: The moment of `time.monotonic` until which it may wait for a thread; None: any time.

        Raises:
            OperationTimeout: No thread was free in time; `fn` was not and will not be called.
        """
        if getattr(_OURS, "thread", False):
            return fn()
        future: SharedFuture[T] = SharedFuture()
        piece = _Piece(partial(_settle, future, fn), "pgsession call")
        try:
            if not self._run(piece):
                self._do(piece)
            if until is not None:
                try:
                    return future.wait(max(until - time.monotonic(), 0))
                except TimeoutError:
                    if piece.claim():
                        self._finish(piece)
                        raise OperationTimeout(
                            "others had to be waited for too long; nothing was sent"
                        ) from None
            return future.wait()
        finally:
            del future, piece  # an error in it keeps this frame, and those of its callers with what they hold

    def complete(self, fn: Thunk[T], name: str, timeout: float | None = None) -> T:
        """Return what `fn` returns or raise what it raises; it is done to its end, whatever becomes of the caller.

        It has the caller's context variables. A thread that belongs to the library does it itself.

        Raises:
            TimeoutError: It has not ended within `timeout` seconds; it goes on.
        """
        if getattr(_OURS, "thread", False):
            return fn()
        future: SharedFuture[T] = SharedFuture()
        piece = _Piece(partial(contextvars.copy_context().run, _settle, future, fn), name)
        try:
            if not self._run(piece):
                self._do(piece)
            return future.wait(timeout)
        finally:
            del future, piece

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until all that runs has ended, and its threads with it; return True if all that ran has ended.

        A thread that is only just begun may be missed: it finds nothing to do, and ends by itself.
        """
        end = None if timeout is None else time.monotonic() + timeout
        done = self._wait_until_finished(end)
        self._lingers = False
        while threads := self._others():
            for thread in threads:
                self._wake_idle()
                while thread.is_alive() and (left := math.inf if end is None else end - time.monotonic()) > 0:
                    thread.join(min(left, _JOINED))
                    self._lingers = False  # somebody may have brought more meanwhile
                    self._wake_idle()
            if end is not None and time.monotonic() >= end:
                break
        return done

    def _others(self) -> list[threading.Thread]:
        """Return the threads that live, without the caller's: of a fork's parent none does."""
        me = threading.current_thread()
        return [thread for thread in list(self._threads) if thread is not me and thread.is_alive()]

    def _wake_idle(self) -> None:
        while self._idle:
            with suppress(IndexError):  # somebody else was faster
                gate = self._idle.pop()
                gate.release()

    def _wait_until_finished(self, end: float | None) -> bool:
        while self._unfinished:
            self._finished.clear()
            left = None if end is None else end - time.monotonic()
            if self._unfinished and not self._finished.wait(left):
                return not self._unfinished
        return True

    def _have_threads(self) -> bool:
        """Wake the thread that has been idle for the shortest time, or start one, where something waits.

        Returns:
            False: something waits, and there is no thread.
        """
        try:
            if self._pieces:
                self._idle.pop().release()
        except IndexError:
            # Whichever ends its piece first looks for more.
            return len(self._threads) >= self._most or self._start_thread() or bool(self._threads)
        return True

    def _start_thread(self) -> bool:
        try:
            threading.Thread(target=self._work, name="pgsession background", daemon=True).start()
        except RuntimeError as error:  # there are too many, or the interpreter exits
            if not self._refused:
                self._logger.warning("no thread can be started (%s): what is to be done waits for one", error)
            self._refused = True
            return False
        self._refused = False
        return True

    def _work(self) -> None:
        _OURS.thread = True
        has_to_stay = True
        while has_to_stay:
            self._threads.add(threading.current_thread())
            try:
                while (piece := self._next()) is not None:
                    self._have_threads()  # for what somebody has brought who was interrupted before he came to this
                    self._do(piece)
                    del piece  # it holds what it was about, which may be dropped while this thread waits
            finally:
                self._threads.discard(threading.current_thread())
                has_to_stay = not self._have_threads()  # for what came while this thread was still counted

    def _next(self) -> _Piece | None:
        while True:
            try:
                return self._pieces.popleft()
            except IndexError:
                pass
            gate = threading.Lock()
            gate.acquire()
            self._idle.append(gate)
            # Who brings something, or drains, after this sees the gate.
            woken = bool(self._pieces) or (self._lingers and gate.acquire(timeout=LINGER))
            try:
                self._idle.remove(gate)
            except ValueError:
                continue  # somebody counts on this thread
            if not woken and not self._pieces:
                return None

    def _do(self, piece: _Piece) -> None:
        if not piece.claim():
            return
        try:
            piece.fn()
        except BaseException:
            self._logger.exception("%s ended with an error", piece.name)
        finally:
            self._finish(piece)
            del piece

    def _finish(self, piece: _Piece) -> None:
        self._unfinished.discard(piece)
        if not self._unfinished:
            self._finished.set()


def _settle(future: SharedFuture[T], fn: Thunk[T]) -> None:
    try:
        future.set_result(fn())
    except BaseException as error:
        future.set_error(error)
    finally:
        del future  # which keeps this frame, where it has an error
