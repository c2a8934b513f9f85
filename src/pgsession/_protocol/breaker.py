"""A breaker knows whether the database is down, so that nobody waits to find out what is known.

It is the circuit breaker of M. Nygard, "Release It!" (2007), with one difference: no count of failures opens it, but
the failure of two probes, which are connections made for nothing else. A call that got no answer makes it suspicious,
and a suspicion is looked into by one probe at a time; a connection that was cut, or a pool that is busy, opens nothing.
While it is open, nothing is sent, and probes go on, with pauses, until one finds a server that can write.

It decides; it does no I/O. Safe for threads.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final

from pgsession.errors import DatabaseUnavailable

FIRST_PAUSE: Final = 0.1  # seconds between two probes, before the jitter; doubled each time
LONGEST_PAUSE: Final = 2.0
TRUST: Final = 1.0  # seconds after a probe that found the database, in which nothing is suspicious


class Breaker:
    """Tells whether calls may be sent, and when to probe."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._clock = clock
        self._jitter = jitter
        self._reason: str | None = None  # why it is open
        self._since = 0.0
        self._pause = FIRST_PAUSE
        self._found_at = -TRUST
        self._failures = 0  # in a row
        self._at_rest = [True]  # popping it is what makes one caller the one that probes

    @property
    def is_open(self) -> bool:
        """Return True while the database is known to be down."""
        return self._reason is not None

    def error(self) -> DatabaseUnavailable:
        """Return the error for a call that is not sent; a new one for each caller."""
        down = self._clock() - self._since
        return DatabaseUnavailable(f"the database has been down for {down:.1f} s: {self._reason}")

    def suspect(self) -> bool:
        """Return True for the caller who is to probe now; False: somebody does, or has just found the database."""
        if self._clock() - self._found_at < TRUST:
            return False
        try:
            return self._at_rest.pop()
        except IndexError:
            return False

    def failed(self, error: Exception) -> float:
        """Note that a probe found no server that can write; return the seconds to wait before the next.

        One that failed may have been cut by accident; the second in a row opens the breaker.
        """
        self._failures += 1
        if self._failures == 1:
            return 0
        if self._reason is None:
            self._since, self._pause = self._clock(), FIRST_PAUSE
        self._reason = str(error).strip() or type(error).__name__
        pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
        return self._jitter(0.5, 1.0) * pause

    def found(self) -> None:
        """Note that a probe found the database; calls pass again."""
        self._found_at, self._failures = self._clock(), 0
        self.rest()
        self._reason = None

    def rest(self) -> None:
        """Let the next suspicion be looked into: whoever was to probe does not go on."""
        self._at_rest[:] = [True]
