"""Time limits for what waits on the network: an action, such as cutting its connection, helps out who is late."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Final

from .types import LOGGER

_BETWEEN_TWO: Final = 0.01  # seconds, at least, where many who wait are late one after the other


def deadline_in(seconds: float | None) -> float:
    """Return the deadline that is so many seconds away, as a moment of `time.monotonic`; None: there is none."""
    return math.inf if seconds is None else time.monotonic() + seconds


def left_until(deadline: float) -> float | None:
    """Return the seconds that are left until a deadline, 0 once it is over; None where no thread waits for so long."""
    left = max(deadline - time.monotonic(), 0)
    return None if left > threading.TIMEOUT_MAX else left


class AsyncDeadlines:
    """Gives time limits: `with deadlines.within(seconds, action) as limit:` calls `action` if the block takes longer.

    `limit.passed` is True afterwards if it did. An action is short, and uses no deadline itself.

    One timer serves all limits. It is set for the earliest that it knows of: a limit that is kept, as nearly all are,
    costs a dictionary's insertion and removal, and sets no timer.
    """

    def __init__(self, logger: logging.Logger = LOGGER) -> None:
        self._logger = logger
        self._due: dict[AsyncLimit | asyncio.Future[None], float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = math.inf

    def within(self, seconds: float | None, action: Callable[[], object]) -> AsyncLimit:
        """Return a limit of so many seconds; None: no limit."""
        return AsyncLimit(self, seconds, action)

    async def close(self) -> None:
        """End what watches over the limits; those of blocks that still run are not watched any more."""
        for waits in [waits for waits in self._due if isinstance(waits, AsyncLimit)]:
            del self._due[waits]
        if self._timer is not None and not self._due:
            self._timer.cancel()
            self._timer, self._rings_at = None, math.inf

    def watch(self, waits: AsyncLimit | asyncio.Future[None], until: float) -> None:
        """Call the action of a limit, or set a future, at this moment of `time.monotonic`; or shortly after it."""
        self._due[waits] = until
        if until < self._rings_at:
            self._set_timer(until)

    def unwatch(self, waits: AsyncLimit | asyncio.Future[None]) -> None:
        """Let this limit, or future, be."""
        self._due.pop(waits, None)

    def _set_timer(self, moment: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = moment
        self._timer = asyncio.get_running_loop().call_later(moment - time.monotonic(), self._ring)

    def _ring(self) -> None:
        now = time.monotonic()
        for waits in [waits for waits, until in self._due.items() if until <= now]:
            del self._due[waits]
            if isinstance(waits, AsyncLimit):
                waits.passed = True
                _act(waits.action, self._logger)
            elif not waits.done():
                waits.set_result(None)
        self._timer, self._rings_at = None, math.inf
        if self._due:
            self._set_timer(max(min(self._due.values()), now + _BETWEEN_TWO))


class AsyncLimit:
    """Limits the time of one block."""

    def __init__(
        self, deadlines: AsyncDeadlines, seconds: float | None, action: Callable[[], object]
    ) -> None:
        self.passed = False
        self.action = action
        self._seconds = seconds
        self._deadlines = deadlines

    def __enter__(self) -> AsyncLimit:
        if self._seconds is not None:
            self._deadlines.watch(self, time.monotonic() + self._seconds)
        return self

    def __exit__(self, *_: object) -> None:
        self._deadlines.unwatch(self)


class Deadlines:
    """Gives time limits: `with deadlines.within(seconds, action) as limit:` calls `action` if the block takes longer.

    `limit.passed` is True afterwards if it did. An action is short, and uses no deadline itself.

    One thread watches over all limits. It starts with the first one, and wakes when the earliest that it knows is over:
    a limit that is kept, as nearly all are, costs a set's insertion and removal, and wakes nobody.
    """

    def __init__(self, logger: logging.Logger = LOGGER) -> None:
        self._logger = logger
        self._changed = threading.Condition(threading.Lock())
        self._limits: set[Limit] = set()
        self._wakes_at = math.inf  # the thread looks again then, if not earlier
        self._thread: threading.Thread | None = None
        self._closed = False

    def within(self, seconds: float | None, action: Callable[[], object]) -> Limit:
        """Return a limit of so many seconds; None: no limit."""
        return Limit(self, seconds, action)

    def close(self) -> None:
        """End what watches over the limits; those of blocks that still run are not watched any more."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _add(self, limit: Limit) -> None:
        with self._changed:
            self._limits.add(limit)
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._watch, name="pgsession deadlines", daemon=True)
                self._thread.start()
            elif limit.at < self._wakes_at:
                self._changed.notify()

    def _remove(self, limit: Limit) -> None:
        # Under the lock: after this the limit's action is not running, and will not.
        with self._changed:
            self._limits.discard(limit)

    def _watch(self) -> None:
        with self._changed:
            while not self._closed:
                self._wakes_at = min((limit.at for limit in self._limits), default=math.inf)
                left = self._wakes_at - time.monotonic()
                if left > 0:
                    self._changed.wait(None if left > threading.TIMEOUT_MAX else left)
                    continue
                for limit in [limit for limit in self._limits if limit.at <= self._wakes_at]:
                    self._limits.discard(limit)
                    limit.passed = True
                    _act(limit.action, self._logger)


class Limit:
    """Limits the time of one block."""

    def __init__(self, deadlines: Deadlines, seconds: float | None, action: Callable[[], object]) -> None:
        self.passed = False
        self.action = action
        self.at = math.inf
        self._seconds = seconds
        self._deadlines = deadlines

    def __enter__(self) -> Limit:
        if self._seconds is not None:
            self.at = time.monotonic() + self._seconds
            self._deadlines._add(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self._seconds is not None:
            self._deadlines._remove(self)


def _act(action: Callable[[], object], logger: logging.Logger) -> None:
    try:
        action()
    except Exception:
        logger.exception("a time limit was passed, and what should end the wait failed")
