# Generated from src/pgsession/_async/conflict_retry.py by tools/async_to_sync.py: never edit.

"""A change that conflicted with somebody else's is made again, based on what the other has saved."""

from __future__ import annotations

import time
from typing import TypeVar

from pgsession._concurrency import Thunk
from pgsession.errors import ConflictError

from .keyed_mutex import KeyedMutex

T = TypeVar("T")


class ConflictRetry:
    """Makes attempts until one has no conflict: the first at once, the others one caller after the other.

    Those who were too fast for each other go on in a row for each session, each based on what the last one has saved.
    """

    def __init__(self) -> None:
        self._mutexes = KeyedMutex()

    def __len__(self) -> int:
        return len(self._mutexes)

    def run(self, key: bytes, attempt: Thunk[T], retries: int, deadline: float | None = None) -> T:
        """Return what the first attempt without a conflict returns.

        Args:
            key: The session that is changed.
            attempt: Reads the session anew, changes and saves it.
            retries: How many attempts there may be after the first.
            deadline: The moment of `time.monotonic` after which none begins.

        Raises:
            ConflictError: Others were faster each time.
            OperationTimeout: The turn did not come in time; nothing was done.
        """
        try:
            return attempt()
        except ConflictError:
            if not retries:
                raise
        with self._mutexes.hold(key, deadline):
            while True:
                retries -= 1
                try:
                    return attempt()
                except ConflictError:
                    if not retries or (deadline is not None and time.monotonic() >= deadline):
                        raise
