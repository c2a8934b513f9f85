"""What threads and asyncio do differently, in pairs of one shape.

`AsyncX` and `X` have the same constructor and the same methods, those that wait being coroutines on the `AsyncX`
side. So the shells in `_async/` become the ones in `_sync/` by renaming alone: `async def` -> `def`, `await ` ->
nothing, `AsyncX` -> `X`, `async_x` -> `x`.

An `AsyncX` belongs to one event loop and is used from that loop only; an `X` may be used from any thread.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeAlias, TypeVar, cast

from .errors import ManagerClosedError

T = TypeVar("T")

AsyncThunk: TypeAlias = Callable[[], Coroutine[Any, Any, T]]
Thunk: TypeAlias = Callable[[], T]

LOGGER = logging.getLogger("pgsession")


# -- events, mutexes, time -------------------------------------------------------------------------------------


class AsyncEvent(asyncio.Event):
    """A flag to wait for; `wait` tells whether it is set, as that of threads does."""

    async def wait(self, timeout: float | None = None) -> bool:  # type: ignore[override]
        if self.is_set():
            return True
        try:
            async with asyncio.timeout(timeout):
                await super().wait()
        except TimeoutError:
            pass
        return self.is_set()


class Event(threading.Event):
    """A flag to wait for."""


class AsyncMutex(asyncio.Lock):
    """Mutual exclusion, fair, by `async with`."""


class Mutex:
    """Mutual exclusion, by `with`."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def locked(self) -> bool:
        return self._lock.locked()


class AsyncSemaphore(asyncio.Semaphore):
    """Room for so many at once, by `async with`."""


class Semaphore(threading.BoundedSemaphore):
    """Room for so many at once, by `with`."""


async def async_sleep(seconds: float) -> None:
    await asyncio.sleep(seconds)


def sleep(seconds: float) -> None:
    time.sleep(seconds)


async def async_pause() -> None:
    """Let everybody who can run do so before going on."""
    await asyncio.sleep(0)


def pause() -> None:
    """Let others have the interpreter before going on."""
    time.sleep(0)


async def async_call(function: Callable[..., object], *args: object) -> None:
    """Call a plain function or a coroutine function of the user's; whatever it raises is an `Exception`."""
    try:
        result = function(*args)
        if inspect.isawaitable(result):
            await result
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise RuntimeError("cancelled from inside") from error  # something it awaited; nobody cancelled us


def call(function: Callable[..., object], *args: object) -> None:
    """Call a function of the user's; whatever it raises is an `Exception`."""
    try:
        function(*args)
    except Exception:
        raise
    except BaseException as error:  # such as sys.exit(), which in a thread would end only the thread
        raise RuntimeError(f"{type(error).__name__} raised in a thread") from error


class AsyncAlarm:
    """`with` block after whose `seconds` `action` is called, once, unless the block ended before."""

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
    """`with` block after whose `seconds` `action` is called, once, in a thread, unless the block ended before."""

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


# -- work that goes on by itself -------------------------------------------------------------------------------


class AsyncWorker:
    """One long-lived task: the body of a loop that its owner tells to end, and then stops."""

    def __init__(self, logger: logging.Logger = LOGGER) -> None:
        self._logger = logger
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        return self._task is not None and not self._task.done()

    def is_current(self) -> bool:
        """Whether the caller runs inside this worker."""
        return self._task is not None and asyncio.current_task() is self._task

    def start(self, fn: AsyncThunk[None], name: str) -> None:
        if self.running:
            raise RuntimeError(f"{name} is already running")
        self._task = asyncio.create_task(self._guarded(fn, name), name=name, context=contextvars.Context())

    async def stop(self, timeout: float | None = None) -> bool:
        """Wait for the end, which the owner has already asked for; cancel what is not over by then.

        Returns whether it ended by itself. Called from the worker itself it does not wait.
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


class Worker:
    """One long-lived daemon thread: the body of a loop that its owner tells to end, and then stops."""

    def __init__(self, logger: logging.Logger = LOGGER) -> None:
        self._logger = logger
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def is_current(self) -> bool:
        """Whether the caller runs inside this worker."""
        return self._thread is not None and threading.current_thread() is self._thread

    def start(self, fn: Thunk[None], name: str) -> None:
        if self.running:
            raise RuntimeError(f"{name} is already running")
        self._thread = threading.Thread(target=self._guarded, args=(fn, name), name=name, daemon=True)
        self._thread.start()

    def stop(self, timeout: float | None = None) -> bool:
        """Wait for the end, which the owner has already asked for.

        Returns whether it has ended; a thread cannot be cancelled. Called from the worker itself it does not wait.
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


class AsyncWork:
    """Pieces of work that outlive the request that asked for them: a cancelled caller cancels none."""

    def __init__(self, logger: logging.Logger = LOGGER) -> None:
        self._logger = logger
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self, fn: AsyncThunk[None], name: str) -> None:
        """Start `fn` in a task of its own; it answers through `Outcome`s, also when it fails."""
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


class Work:
    """Pieces of work that other threads may be waiting for; each runs in the thread that asked for it first."""

    def __init__(self, logger: logging.Logger = LOGGER) -> None:
        self._logger = logger
        self._changed = threading.Condition()
        self._running = 0

    def run(self, fn: Thunk[None], name: str) -> None:
        """Run `fn`; it answers through `Outcome`s, also when it fails."""
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


# -- one answer, many who wait for it --------------------------------------------------------------------------


class AsyncOutcome(Generic[T]):
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
            if timeout is None:
                await self._settled()
            else:
                async with asyncio.timeout(timeout):
                    await self._settled()
        return _answer(self)

    async def _settled(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._waiters is None:
            self._waiters = {}
        self._waiters[waiter] = None
        try:
            await waiter
        finally:
            if self._waiters is not None:
                del self._waiters[waiter]


class Outcome(Generic[T]):
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
        self._leads = False  # Turn: its waiter is to lead
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


def _answer(outcome: AsyncOutcome[T] | Outcome[T]) -> T:
    if outcome._error is None:
        return cast(T, outcome._result)
    try:
        # Each waiter raises it: without going back to where it was, its traceback would grow with every one.
        raise outcome._error.with_traceback(outcome._traceback)
    finally:
        del outcome  # a frame in the traceback must not keep its own exception alive


# -- taking turns at work that answers many ---------------------------------------------------------------------


class AsyncTurn:
    """Work done for all who wait at the moment, by one at a time: here a task that no caller's end can cancel.

    `run(fn, outcome)`: the caller has put what it wants done where `fn` will find it, together with `outcome`. `fn` is
    called again and again, never twice at once, until every outcome that was given to `run` is settled; then the turn
    rests, and nothing runs. Between two calls those who were answered get to run, and may come back with more.

    `fn` takes what waits (or a part of it, oldest first) and settles its outcomes; it skips what is `done` already. If
    it raises, all who wait get that error.
    """

    def __init__(self, logger: logging.Logger = LOGGER) -> None:
        self._work = AsyncWork(logger)
        self._waiting: deque[AsyncOutcome[Any]] = deque()
        self._taken = False

    async def run(self, fn: AsyncThunk[None], outcome: AsyncOutcome[T]) -> T:
        self._waiting.append(outcome)
        if not self._taken:
            self._taken = True
            self._work.run(lambda: self._lead(fn), "pgsession turn")
        return await outcome.wait()

    async def idle(self, timeout: float | None = None) -> bool:
        """Wait until nothing runs, and cancel what does after `timeout`; returns whether nothing was cancelled."""
        return await self._work.drain(timeout)

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


class Turn:
    """Work done for all who wait at the moment, by one at a time: here the thread of one of those who wait.

    `run(fn, outcome)`: the caller has put what it wants done where `fn` will find it, together with `outcome`. The
    first caller leads: it calls `fn` until its own outcome is settled, then hands over to the one who has waited
    longest, and so on. Everybody else sleeps until answered or called to lead: one wake-up each.

    `fn` takes what waits (or a part of it, oldest first) and settles its outcomes; it skips what is `done` already. If
    it raises, the caller who led gets that error and the next one leads. Each outcome has one waiter, its caller.
    """

    def __init__(self, logger: logging.Logger = LOGGER) -> None:
        self._guard = threading.Lock()
        self._rests = threading.Condition(self._guard)
        self._waiting: deque[Outcome[Any]] = deque()
        self._taken = False
        self._crowded = False  # whether the last leader had followers

    def run(self, fn: Thunk[None], outcome: Outcome[T]) -> T:
        if self._take(outcome) or self._follow(outcome):
            self._lead(fn, outcome)
        return outcome.wait()

    def idle(self, timeout: float | None = None) -> bool:
        """Wait until nothing runs; returns whether that is so."""
        with self._guard:
            return self._rests.wait_for(lambda: not self._taken, timeout)

    def _take(self, outcome: Outcome[Any]) -> bool:
        with self._guard:
            if self._taken:
                self._waiting.append(outcome)
                return False
            self._taken = True
            return True

    def _follow(self, outcome: Outcome[Any]) -> bool:
        """Sleep until answered or called to lead; returns whether to lead."""
        try:
            outcome._pass()
        except BaseException as interrupt:
            outcome.set_error(interrupt)  # withdrawn, unless a batch has it
            if self._must_lead(outcome):
                self._hand_over()
            raise
        return self._must_lead(outcome)

    def _must_lead(self, outcome: Outcome[Any]) -> bool:
        # Under the guard, so that leadership is never given to somebody who has just left.
        with self._guard:
            return outcome._leads

    def _lead(self, fn: Thunk[None], outcome: Outcome[Any]) -> None:
        try:
            if self._crowded:
                pause()  # those just answered come back with more: full batches instead of half full ones
            while not outcome.done:
                fn()
        except BaseException as error:
            outcome.set_error(error)  # withdrawn: nobody is left to hear the answer
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


# -- waiting for a socket or for each other ---------------------------------------------------------------------


class AsyncSocketWaiter:
    """Waits until a socket has something to read, or somebody calls `wake`, or time is up."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """End the present `wait`, or else the next one at once."""
        self._woken.set()

    async def wait(self, fileno: int | None, timeout: float | None = None) -> bool:
        """Whether the socket can be read; without one, wait only for `wake`. One waiter at a time."""
        readable = False

        def on_readable() -> None:
            nonlocal readable
            readable = True
            self._woken.set()

        loop = asyncio.get_running_loop()
        if fileno is not None:
            loop.add_reader(fileno, on_readable)
        try:
            async with asyncio.timeout(timeout):
                await self._woken.wait()
        except TimeoutError:
            pass
        finally:
            if fileno is not None:
                loop.remove_reader(fileno)
        self._woken.clear()
        return readable

    def close(self) -> None:
        pass


class SocketWaiter:
    """Waits until a socket has something to read, or somebody calls `wake`, or time is up."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._ear, self._mouth = socket.socketpair()
        self._ear.setblocking(False)
        self._mouth.setblocking(False)
        # The system's best: plain select() fails for descriptors above 1,023.
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._ear, selectors.EVENT_READ)

    def wake(self) -> None:
        """End the present `wait`, or else the next one at once; harmless after `close`."""
        with self._guard:  # against a descriptor that `close` gave back and somebody else got
            try:
                self._mouth.send(b"!")
            except OSError:
                pass  # full: it wakes anyway; or closed

    def wait(self, fileno: int | None, timeout: float | None = None) -> bool:
        """Whether the socket can be read; without one, wait only for `wake`. One waiter at a time."""
        if fileno is not None:
            self._selector.register(fileno, selectors.EVENT_READ)
        try:
            ready = {key.fd for key, _ in self._selector.select(timeout)}
        finally:
            if fileno is not None:
                self._selector.unregister(fileno)
        if self._ear.fileno() in ready:
            self._hear()
        return fileno in ready

    def _hear(self) -> None:
        try:
            while self._ear.recv(4096):
                pass
        except BlockingIOError:
            pass

    def close(self) -> None:
        with self._guard:
            self._selector.close()
            self._ear.close()
            self._mouth.close()
