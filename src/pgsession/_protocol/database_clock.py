"""Tells what time it can be in the database, from what its answers say of that (C8).

An answer that holds the database's time `d`, to a question that was sent at `asked` and whose answer was here at
`answered`, bounds the offset of the database's clock from the node's: it is between `d - answered` and `d - asked`,
however the round trip is divided. So a slow answer says little, and takes nothing away from what a fast one said: what
is believed is what all answers have in common. Between answers it grows wider, as far as two clocks can drift apart.

An answer that has nothing in common with what is believed shows that the database's clock was stepped; then that answer
alone is believed.

Nothing here locks: `Coherence` does.
"""

from __future__ import annotations

from typing import Final

__all__ = ["Offset", "drift"]

DRIFT: Final = 1_000  # one part in so many: ntpd and adjtime slew a clock by 500 ppm, and there are two


class Offset:
    """Bounds the offset of the database's clock from the node's; every time is in microseconds."""

    def __init__(self) -> None:
        self._lowest = self._highest = 0
        self._at: int | None = None  # the node time for which they hold; None: nothing is known
        self._since = 0

    def start(self, now: int) -> None:
        """Believe nothing of what was asked for before: another server has another clock."""
        self._at = None
        self._since = now

    def sample(self, asked: int, answered: int, database_time: int) -> int:
        """Learn from an answer; return by how far the clock must have been stepped, 0: it was not.

        Args:
            asked: When the question was sent, in node time.
            answered: When the answer was here, in node time.
            database_time: The answer, in microseconds since the Unix epoch.
        """
        if asked < self._since:
            return 0  # perhaps it is from before a step, or from another server
        at = answered if self._at is None else max(answered, self._at)
        error = 1 + drift(at - asked)  # 1: all three times are rounded
        lowest, highest = database_time - answered - error, database_time - asked + error
        step = 0
        if self._at is not None:
            error = drift(at - self._at)
            known_lowest, known_highest = self._lowest - error, self._highest + error
            step = max(0, lowest - known_highest) + min(0, highest - known_lowest)
            if step:
                self._since = answered  # what was asked for by then may be from either side of the step
            else:
                lowest, highest = max(lowest, known_lowest), min(highest, known_highest)
        self._lowest, self._highest, self._at = lowest, highest, at
        return step

    def bounds(self, now: int) -> tuple[int, int] | None:
        """Return the smallest and the largest offset possible at this node time, None where nothing is known."""
        if self._at is None:
            return None
        error = drift(max(now - self._at, 0))
        return self._lowest - error, self._highest + error


def drift(duration: int) -> int:
    """Return by how much two clocks may come to differ in this time."""
    return -(duration // -DRIFT)
