"""Proofs of sync tell until when a node may answer from memory, and what time it is in the database (C6, C8).

A *proof* is a notification that the node sends to itself. PostgreSQL delivers notifications in the order of commits, so
when a proof comes back, every event committed before the proof was *sent* has been delivered. That says nothing about
where the data comes from, so a second thing is proved: the *tie* between the pool and the listener. A proof sent
through the pool ties them, and once one did, so does each read or write whose incarnation is the listener's. Memory is
in sync until `max_staleness` after the older of the newest proof and the newest tie: a pool that follows a failover
while the listener stays behind, with a server that is still alive, is noticed although every proof comes back.

Nothing here locks: `Coherence` does.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Nodes", "Offset", "Proof", "Proofs"]


class Proof(NamedTuple):
    """A proof is sent as a notification to this node's own channel.

    Attributes:
        payload: The payload of the notification.
        through_pool: True where a connection of the pool sends it; else the listener's own does, which needs no other.
    """

    payload: str
    through_pool: bool


class _Sent(NamedTuple):
    at: int
    through_pool: bool


class Proofs:
    """Tells from the proofs of one node until when memory is in sync; every time is node time, in microseconds."""

    def __init__(self, max_staleness: int) -> None:
        self._max_staleness = max_staleness
        self._sequence = 0
        self._outstanding: dict[str, _Sent] = {}
        self._established = False
        self._proved = 0
        self._tied = 0
        self.proved_until = 0
        """The end of the latest period in sync of any epoch, from which `stale_if_error` counts."""

    def start(self) -> None:
        """Begin a new epoch: proofs under way prove nothing any more."""
        self._outstanding.clear()
        self._established = False
        self._proved = self._tied = 0

    def send(self, now: int, interval: int, epoch: int) -> Proof:
        """Return the proof to send now; it goes through the pool where the newest tie is an `interval` old."""
        through_pool = not self._established or now - self._tied >= interval
        self._sequence += 1
        payload = f"{epoch}.{self._sequence}"
        self._outstanding[payload] = _Sent(now, through_pool)
        return Proof(payload, through_pool)

    def drop(self, proof: Proof) -> None:
        """Drop a proof that could not be sent."""
        self._outstanding.pop(proof.payload, None)

    def returned(self, payload: str) -> bool:
        """Note that a proof came back; return True where it is of this epoch.

        When it was sent is what counts, however late it comes back.
        """
        sent = self._outstanding.pop(payload, None)
        if sent is None:
            return False
        self._proved = max(self._proved, sent.at)
        if sent.through_pool:
            self._established = True
            self._tied = max(self._tied, sent.at)
        return True

    def tie(self, began: int) -> bool:
        """Note that a read or write which began at this moment came from the listener's incarnation.

        Before a proof came through the pool that says little: behind a transaction pooler the incarnation is right, the
        listener's own proofs return, and events do not arrive.

        Returns:
            True where that lengthens the period in sync. Most of the time it does not: the newest proof is the older of
            the two that bound it.
        """
        if not self._established or began <= self._tied:
            return False
        lengthens = self._tied < self._proved
        self._tied = began
        return lengthens

    def in_sync_until(self) -> int:
        """Return the node time until which memory is in sync; 0 before the first proof of this epoch."""
        if not self._established:
            return 0
        until = min(self._proved, self._tied) + self._max_staleness
        self.proved_until = max(self.proved_until, until)
        return until

    def silent(self, now: int) -> bool:
        """Return True where a proof has been under way for so long that the connection must be dead."""
        oldest = min((sent.at for sent in self._outstanding.values()), default=now)
        return now - oldest > self._max_staleness

    def age(self, now: int) -> int | None:
        """Return how long ago the newest proof of this epoch was sent, None before the first."""
        return now - self._proved if self._proved else None


class Nodes:
    """Counts the nodes that share the database, by the origins of events."""

    _REMEMBERED = 600 * 1_000_000
    _MOST = 1024

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def saw(self, origin: str, now: int) -> None:
        """Note that an event of this node was heard now."""
        if origin in self._seen or len(self._seen) < self._MOST:
            self._seen[origin] = now

    def count(self, now: int) -> int:
        """Return the number of nodes that were heard of in the last ten minutes."""
        for origin in [origin for origin, at in self._seen.items() if now - at > self._REMEMBERED]:
            del self._seen[origin]
        return len(self._seen)


class Offset:
    """Decides which samples of the database's clock to believe.

    A sample is wrong by at most half its round trip, and what is believed grows worse as the clocks drift apart. So a
    sample replaces the one before if its bound is the better one by now.
    """

    _DRIFT = 5_000  # one part in 5,000: four times what NTP calls a broken clock

    def __init__(self) -> None:
        self._error: int | None = None
        self._at = 0

    def doubt(self, now: int) -> int:
        """Return by how much the offset may be wrong; 0 where nothing was sampled."""
        return 0 if self._error is None else self._error + (now - self._at) // self._DRIFT

    def start(self) -> None:
        """Believe nothing of what was sampled: another server may have another clock."""
        self._error = None

    def sample(self, asked: int, answered: int, database_time: int, *, longest: int) -> int | None:
        """Return the offset of the database's clock from the node's, or None if this sample is not to be used.

        Args:
            asked: When the question was sent, in node time.
            answered: When the answer was here, in node time.
            database_time: The answer, in microseconds since the Unix epoch.
            longest: The longest round trip, in microseconds, of a first sample that is believed.
        """
        error = (answered - asked) // 2
        known = longest // 2 if self._error is None else self.doubt(answered)
        if error > known:
            return None
        self._error, self._at = error, answered
        return database_time - (asked + error)
