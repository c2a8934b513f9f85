# Generated from src/pgsession/_async/stragglers.py by tools/async_to_sync.py: never edit.

"""Stragglers are writes of sessions whose rows somebody else holds; they wait apart from all others."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from pgsession._concurrency import BackgroundTasks, sleep
from pgsession._protocol.operations import Operation

from . import store

FIRST_PAUSE: Final = 0.02  # seconds before another try; doubled each time
LONGEST_PAUSE: Final = 1.0


class Stragglers:
    """Writes operations one by one, a bounded number at a time, since each holds a connection while it waits.

    `write_alone(operation, last)` returns False if the operation could not be done and has to be tried again, which is
    done with pauses for as long as a write may wait for a row; the last try is told that it is the last.
    """

    def __init__(
        self, write_alone: Callable[[Operation, bool], Any], most: int, logger: logging.Logger
    ) -> None:
        self._write_alone = write_alone
        self._most = most
        self._waiting: deque[Operation] = deque()
        self._running = 0
        self._closing = False
        self._background = BackgroundTasks(logger)

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, operation: Operation) -> None:
        """Have the operation written apart from the others; only the lanes call this."""
        self._waiting.append(operation)
        if self._running < self._most:
            self._running += 1
            self._background.run(self._write_all, "pgsession straggler")

    def close(self, timeout: float | None) -> bool:
        """Wait until all are done; return True if they are."""
        self._closing = True
        return self._background.drain(timeout)

    def _write_all(self) -> None:
        try:
            while self._waiting:
                try:
                    operation = self._waiting.popleft()
                except IndexError:
                    break  # another one has taken it
                self._write(operation)
        finally:
            self._running -= 1

    def _write(self, operation: Operation) -> None:
        end = time.monotonic() + store.LOCK_TIMEOUT / 1000
        pause = FIRST_PAUSE
        while not self._write_alone(operation, self._closing or time.monotonic() >= end):
            sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
