"""Time limits for what waits on the network: an action, such as cutting its connection, helps out who is late."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable

from .types import LOGGER


def deadline_in(seconds: float | None) -> float:
    """Return the deadline that is so many seconds away, as a moment of `time.monotonic`; None: there is none."""
    return math.inf if seconds is None else time.monotonic() + seconds


def left_until(deadline: float) -> float | None:
    """Return the seconds that are left until a deadline, 0 once it is over; None where there is none."""
    return None if deadline == math.inf else max(deadline - time.monotonic(), 0)


class AsyncDeadlines:
    """Gives time limits: `with deadlines.within(seconds, action) as limit:` calls `action` if the block takes longer.

    `limit.passed` is True afterwards if it did. An action is short, and uses no deadline itself.
    """

    def __init__(self, logger: logging.Logger = LOGGER) -> None:
        self._logger = logger

    def within(self, seconds: float | None, action: Callable[[], object]) -> AsyncLimit:
        """Return a limit of so many seconds; None: no limit."""
        return AsyncLimit(seconds, action, self._logger)

    async def close(self) -> None:
        """End what watches over the limits; those of blocks that still run are not watched any more."""


class AsyncLimit:
    """Limits the time of one block."""

    def __init__(self, seconds: float | None, action: Callable[[], object], logger: logging.Logger) -> None:
        self.passed = False
        self._seconds = seconds
        self._action = action
        self._logger = logger
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> AsyncLimit:
        if self._seconds is not None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._pass)
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _pass(self) -> None:
        self.passed = True
        _act(self._action, self._logger)


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
                    self._changed.wait(None if left == math.inf else left)
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
