"""Decides which lines go into the log, so that a long outage, or a short one again and again, makes few of them.

Whatever writes them does no more than ask. The names that their fields have are in docs/monitoring.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, NamedTuple

A_MINUTE: Final = 60.0
AT_ONCE: Final = 5  # times that a state is told to be lost in a row; then once a minute


class Seldom:
    """Admits one line a minute, and counts the others; for lines of one kind."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._admitted: float | None = None
        self._others = 0

    def admit(self) -> str | None:
        """Return what to add to the line, of those that were left out before it; None: leave it out."""
        now = self._clock()
        if self._admitted is not None and now - self._admitted < A_MINUTE:
            self._others += 1
            return None
        self._admitted, others, self._others = now, self._others, 0
        return f" (and {others:,} such since the last line)" if others else ""


class Change(NamedTuple):
    """Says what to tell of a state.

    Attributes:
        well: True where it is well again.
        seconds: How long it was not, where it is well again; else 0.
        unheard: How often it was lost meanwhile, without a line.
    """

    well: bool
    seconds: float
    unheard: int


class States:
    """Tells when a state is lost, and when it is back, a line each; who flaps is told at a bounded rate.

    A line that it is back comes only after one that it was lost. However fast it changes, the last state is told in the
    end.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told = True
        self._is_well = True
        self._lost_at = 0.0
        self._unheard = 0
        self._left = float(AT_ONCE)
        self._filled = clock()

    @property
    def quiet(self) -> bool:
        """Return True where a state that is well needs no line."""
        return self._told and self._is_well

    def note(self, well: bool) -> Change | None:
        """Return what to tell, None: nothing. To be called at each change, and now and then."""
        now = self._clock()
        if self._is_well and not well:
            self._lost_at = now
            self._unheard += 1
        self._is_well = well
        if well == self._told:
            return None
        if well:
            self._told = True
            return Change(True, now - self._lost_at, self._take())
        self._left = min(float(AT_ONCE), self._left + (now - self._filled) / A_MINUTE)
        self._filled = now
        if self._left < 1:
            return None
        self._left -= 1
        self._told = False
        self._unheard -= 1  # this one is heard
        return Change(False, 0.0, self._take())

    def _take(self) -> int:
        unheard, self._unheard = self._unheard, 0
        return unheard


def times(unheard: int) -> str:
    """Return what to add to a line of a `Change`."""
    return f"; that happened {unheard:,} more times since the last such line" if unheard else ""
