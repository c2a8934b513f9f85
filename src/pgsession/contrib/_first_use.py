"""A first use makes what takes a while to make: one of those who want it does so, and the others wait for it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from copy import copy
from typing import Generic, TypeVar

__all__ = ["FirstUse"]

_T = TypeVar("_T")


class FirstUse(Generic[_T]):
    """Makes something when it is first asked for. Those who wait for an attempt that fails fail likewise.

    Else each would try in its turn while the database is down, and the last of a hundred wait a hundred times as long.

    Args:
        make: Returns it, or raises.

    Attributes:
        made: What was made, or None.
    """

    def __init__(self, make: Callable[[], _T]) -> None:
        self.made: _T | None = None
        self._make = make
        # By process, and made when it is needed: one that a fork inherits may be taken for ever, and one that was made
        # before gevent has replaced what threads are would block all greenlets.
        self._locks: dict[int, threading.Lock] = {}
        self._failures = 0
        self._failure: Exception | None = None

    def get(self) -> _T:
        """Return what was made, or make it."""
        failures = self._failures
        with self._lock():
            if self.made is not None:
                return self.made
            if self._failure is not None and self._failures != failures:
                raise copy(self._failure)
            try:
                self.made = self._make()
            except Exception as error:
                self._failures += 1
                self._failure = copy(error)  # without what its traceback holds
                raise
            return self.made

    def take(self) -> _T | None:
        """Return what was made, if anything, to be made anew when it is asked for again."""
        with self._lock():
            made, self.made = self.made, None
        return made

    def _lock(self) -> threading.Lock:
        return self._locks.setdefault(os.getpid(), threading.Lock())
