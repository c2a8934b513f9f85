"""Things that are dropped unclosed, or still open when the interpreter exits, are reported and ended here."""

from __future__ import annotations

import atexit
import os
import warnings
import weakref
from collections.abc import Callable
from typing import Final

from .deadlines import deadline_in, left_until
from .sync import Event

__all__ = ["Unclosed"]

PATIENCE: Final = 3.0  # seconds at the interpreter's exit, for all together


class Unclosed:
    """Watches over something that is open: if its owner goes, that is reported, and it is ended.

    `dropped` and `at_exit` must not hold its owner.

    Args:
        owner: Who is watched, and has to close it.
        name: What the warning calls it.
        dropped: Called when the owner is gone, perhaps in the middle of anything: begins to end what is open, without
            waiting, and calls its argument once that is done. Returns True if this goes on by itself.
        at_exit: Called when the interpreter exits, after the last moment at which a thread can be started, with the
            deadline by which to end.
    """

    def __init__(
        self,
        owner: object,
        name: str,
        *,
        dropped: Callable[[Callable[[], None]], bool],
        at_exit: Callable[[float], None],
    ) -> None:
        self._name = name
        self._dropped = dropped
        self._at_exit = at_exit
        self._process = os.getpid()
        self._ended = Event()
        self._goes_on = False
        self._finalizer = weakref.finalize(owner, self._drop)
        self._finalizer.atexit = False
        _unclosed.add(self)

    def closed(self) -> None:
        """Watch no longer: it was closed."""
        self._finalizer.detach()
        self._end()

    def _end(self) -> None:
        _unclosed.discard(self)
        self._ended.set()

    def _drop(self) -> None:
        if self._process == os.getpid():  # else it is the parent's
            try:
                self._warn()
            finally:
                self._goes_on = self._dropped(self._end)

    def _exit(self, deadline: float) -> None:
        if self._process != os.getpid():
            return
        try:
            if self._finalizer.detach() is not None:
                self._warn()
        finally:
            if not (self._goes_on and self._ended.wait(left_until(deadline))):
                self._at_exit(deadline)

    def _warn(self) -> None:
        warnings.warn(
            f"{self._name} was not closed: call close(), or use it in a with block",
            ResourceWarning,
            stacklevel=3,
        )


_unclosed: set[Unclosed] = set()


@atexit.register
def _exit() -> None:
    deadline = deadline_in(PATIENCE)
    for unclosed in list(_unclosed):
        unclosed._exit(deadline)
