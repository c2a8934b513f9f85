"""A process opens its manager when the first request needs it, and closes it when it exits."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar
from weakref import WeakSet, finalize

from pgsession import SessionManager
from pgsession.contrib._first_use import FirstUse

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
        self._close = close
        self._first_use = FirstUse(open)
        finalize(self, _close_in_background, close, self._first_use).atexit = False
        _all.add(self)

    @property
    def opened(self) -> _T | None:
        """Return what is open, or None, without waiting."""
        return self._first_use.made

    def get(self) -> _T:
        """Return what is open, or open it."""
        opened = self._first_use.made
        return self._first_use.get() if opened is None else opened

    def close(self, timeout: float | None = 30) -> None:
        """Close what is open, if anything; the next `get` opens anew.

        Args:
            timeout: For how many seconds at most; None: without a limit.
        """
        before = self._first_use.take()
        if before is not None:
            self._close(before, timeout)


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


def _close_in_background(close: Callable[[_T, float | None], object], first_use: FirstUse[_T]) -> None:
    """Close what nobody has any more: not here, which may be in the middle of anything."""
    opened = first_use.made
    if opened is not None:
        threading.Thread(target=close, args=(opened, AT_EXIT), name="pgsession close", daemon=True).start()


@atexit.register
def _exit() -> None:
    for each in list(_all):
        each.close(AT_EXIT)
