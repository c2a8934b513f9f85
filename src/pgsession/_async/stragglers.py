"""Stragglers are writes of sessions whose rows somebody else holds; they wait apart from all others."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from pgsession._concurrency import AsyncBackgroundTasks, AsyncEvent
from pgsession._protocol.operations import Operation

FIRST_PAUSE: Final = 0.02  # seconds before another try; doubled each time
LONGEST_PAUSE: Final = 1.0
# Of a create with a chosen id, which waits for no bucket: others who log its user in do not leave it free for long.
LONGEST_PAUSE_OF_CLAIMS: Final = 0.1


class AsyncStragglers:
    """Writes operations one by one, a bounded number at a time, since each holds a connection while it waits.

    `write_alone(operation)` returns False if the operation could not be done and has to be tried again, which is done
    with pauses until its deadline.
    """

    def __init__(self, write_alone: Callable[[Operation], Any], most: int, logger: logging.Logger) -> None:
        self._write_alone = write_alone
        self._most = most
        self._guard = threading.Lock()  # for the two that follow, which more than one lane changes
        self._waiting: deque[Operation] = deque()
        self._running = 0
        self._closing = AsyncEvent()
        self._background = AsyncBackgroundTasks(logger)

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, operation: Operation) -> None:
        """Have the operation written apart from the others; only the lanes call this."""
        with self._guard:
            self._waiting.append(operation)
            if self._running >= self._most:
                return
            self._running += 1
        self._background.run(self._write_all, "pgsession straggler")

    async def close(self, timeout: float | None) -> bool:
        """Wait until all are done; return True if they are."""
        self._closing.set()
        return await self._background.drain(timeout)

    def take_rest(self) -> list[Operation]:
        """Take out what waits. After `close`, that is what it had no time for."""
        with self._guard:
            rest = list(self._waiting)
            self._waiting.clear()
        return rest

    async def _write_all(self) -> None:
        while (operation := self._next()) is not None:
            try:
                await self._write(operation)
            except BaseException:
                with self._guard:
                    if not operation.finished:
                        self._waiting.appendleft(operation)
                    self._running -= 1
                raise

    def _next(self) -> Operation | None:
        """Return the next operation; None: there is none, and the caller does not count as running any more."""
        with self._guard:
            if self._waiting:
                return self._waiting.popleft()
            self._running -= 1
            return None

    async def _write(self, operation: Operation) -> None:
        pause = FIRST_PAUSE
        while not await self._write_alone(operation):
            # Whoever waits for it gives it up at its deadline.
            left = operation.deadline - time.monotonic()
            if self._closing.is_set() or left <= 0:
                operation.given_up = True
                continue
            await self._closing.wait(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE_OF_CLAIMS if operation.claims_id else LONGEST_PAUSE)
