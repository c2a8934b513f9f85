"""A process opens its manager when the first request needs it, and closes it when it exits."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar
from weakref import WeakSet, finalize

from pgsession import SessionManager

__all__ = ["OncePerProcess", "open_or_close"]

_T = TypeVar("_T")
AT_EXIT = 3.0  # seconds


class _Closes(Protocol):
    def close(self, timeout: float | None = ..., /) -> None:
        """Close what is open."""


class OncePerProcess(Generic[_T]):
    """Holds what each process opens for itself: not before it is needed, so that a server may fork before.

    It is closed when the process exits, or in the background once this object is dropped, as with an application that a
    test has made.

    Args:
        open: Opens and returns it; called by one thread at a time.
        close: Closes it within so many seconds; None: without a limit.
    """

    def __init__(self, open: Callable[[], _T], close: Callable[[_T, float | None], object]) -> None:
        self.opened: _T | None = None  # what is open, to look at without waiting
        self._open = open
        self._close = close
        # By process, and made when it is needed: one that a fork inherits may be taken for ever, and one that was made
        # before gevent has replaced what threads are would block all greenlets.
        self._opening: dict[int, threading.Lock] = {}
        self._end_watch: Callable[[], object] = lambda: None  # it waits for this object to be dropped
        _all.add(self)

    def get(self) -> _T:
        """Return what is open, or open it."""
        opened = self.opened
        if opened is not None:
            return opened
        with self._lock():
            if self.opened is None:
                self.opened = self._open()
                dropped = finalize(self, _close_in_background, self._close, self.opened)
                dropped.atexit = False
                self._end_watch = dropped.detach
            return self.opened

    def close(self, timeout: float | None = 30) -> None:
        """Close what is open, if anything; the next `get` opens anew.

        Args:
            timeout: For how many seconds at most; None: without a limit.
        """
        with self._lock():
            before, self.opened = self.opened, None
            self._end_watch()
        if before is not None:
            self._close(before, timeout)

    def _lock(self) -> threading.Lock:
        return self._opening.setdefault(os.getpid(), threading.Lock())


def open_or_close(manager: SessionManager) -> None:
    """Open a manager; where that fails, leave nothing of it.

    Args:
        manager: The manager.
    """
    try:
        manager.open()
    except BaseException:
        manager.close(0)
        raise


_all: WeakSet[_Closes] = WeakSet()


def _close_in_background(close: Callable[[_T, float | None], object], opened: _T) -> None:
    """Close what nobody has any more: not here, which may be in the middle of anything."""
    threading.Thread(target=close, args=(opened, AT_EXIT), name="pgsession close", daemon=True).start()


@atexit.register
def _exit() -> None:
    for each in list(_all):
        each.close(AT_EXIT)
