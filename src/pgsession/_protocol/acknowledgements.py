"""Acknowledgements tell who ended something when no node serves it any more (C13).

Every node is in a table before it listens, and stays there for as long as it may answer from memory: it says at least
every `SIGN_OF_LIFE` that it is there, ends to serve where for `SERVES_UNHEARD` it could not, and its row is not removed
before `SILENCE` is over, and `serves_for` after that, in which an answer may be served although the database fails.

Who has ended something, and waits, asks after his commit: with an event, and for the nodes that there are. Commits that
notify arrive in their order. So a node that hears the question has heard of all that was committed before; where what
it had cached was compared with the database, it acknowledges. What a node has proved, it has proved by reads: one that
has not heard of the end proved nothing after that, and serves no longer than `serves_for` from then. A node that enters
later reads what has been committed. Those that were there before a crash or failover are in no table: they have proved
nothing since, and one that reads from the new server registers there within `serves_for`; so long may what it has read
be shared.

So nothing is paid where nobody waits. Nothing here locks, or does I/O.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple

__all__ = ["SERVES_UNHEARD", "SIGN_OF_LIFE", "SILENCE", "Acknowledgements", "Asked"]

SIGN_OF_LIFE: Final = 60
"""Seconds from one word of a node that it is there to the next."""
SERVES_UNHEARD: Final = 240
"""Seconds after the last of them for which it answers from memory."""
SILENCE: Final = 300
"""Seconds after the last of them, and beyond `serves_for`, at which its row may be removed."""

_DRIFT: Final = 1000  # two clocks that are slewed by 500 ppm each: one part in so many


class Asked(NamedTuple):
    """Holds what the database answers to the question.

    Attributes:
        incarnation: That of the server.
        xid: The transaction that asked.
        age: The microseconds since this incarnation began.
        serving: The nodes, each with the microseconds for which it may serve unheard.
    """

    incarnation: str
    xid: int
    age: int
    serving: dict[str, int]


class Acknowledgements:
    """Decides when no node serves any more what was ended before this was made.

    Every time is node time, in microseconds.

    Args:
        ended: When that was: it is committed.
        longest: The longest that a node is known to serve unheard, for those that are in no table any more.
    """

    def __init__(self, ended: int, longest: int) -> None:
        self._ended = ended
        self._longest = longest
        self._asked: Asked | None = None
        self._until: dict[str, int] = {}  # of each node that has not acknowledged
        self._before = ended  # until when those may serve that were there before this incarnation

    def asked(self, now: int, answer: Asked) -> None:
        """Take the answer to a question, which came at this moment; of several only the first counts."""
        if self._asked is not None:
            return
        self._asked = answer
        self._longest = max(self._longest, *answer.serving.values(), 0)
        self._until = {node: self._ended + _slow(serves) for node, serves in answer.serving.items()}
        began = now - answer.age
        self._before = min(began + self._longest, self._ended) + _slow(self._longest)

    @property
    def waited_for(self) -> tuple[list[str], int] | None:
        """Return the nodes that have not acknowledged, and the transaction that they should; None: ask first."""
        return None if self._asked is None else (list(self._until), self._asked.xid)

    def looked(self, incarnation: str | None, silent: Collection[str]) -> None:
        """Take the answer who has not acknowledged; it says nothing where the table was emptied meanwhile."""
        if self._asked is not None and incarnation == self._asked.incarnation:
            self._until = {node: self._until[node] for node in silent}

    @property
    def certain_at(self) -> int:
        """Return when nobody serves it any more, also where nobody acknowledges.

        As long as nobody could be asked, that counts on no node serving for longer than it is known of.
        """
        if self._asked is None:
            return self._ended + _slow(self._longest)
        return max(self._before, *self._until.values(), self._ended)

    def confirmed(self, now: int) -> bool:
        """Return True where it is certain at this moment."""
        return self._asked is not None and now >= self.certain_at


def _slow(duration: int) -> int:
    """Return how long that may take by the clock of another host."""
    return duration + duration // _DRIFT
