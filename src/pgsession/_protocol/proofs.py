"""Proofs of sync: until when a node may answer from memory, and what time it is in the database (C6, C8).

A *proof* is a notification that the node sends to itself. PostgreSQL delivers notifications in the order of
commits, so when a proof comes back, every event committed before the proof was *sent* has been delivered.
That says nothing about where the data comes from, so a second thing is proved: the *tie* between the pool and
the listener. A proof sent through the pool ties them, and once one did, so does each read or write whose
incarnation is the listener's. Memory is in sync until `max_staleness` after the older of the newest proof
and the newest tie: a pool that follows a failover while the listener stays behind, with a server that is
still alive, is noticed although every proof comes back.

Nothing here locks: `Coherence` does.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Nodes", "Offset", "Proof", "Proofs"]


class Proof(NamedTuple):
    """One proof to send: as a notification with this payload, to this node's own channel.

    `through_pool` says through which connection: one of the pool, or the listener's own, which needs no
    other.
    """

    payload: str
    through_pool: bool


class _Sent(NamedTuple):
    at: int
    through_pool: bool


class Proofs:
    """The proofs of one node."""

    def __init__(self, max_staleness: int) -> None:
        self._max_staleness = max_staleness
        self._sequence = 0
        self._outstanding: dict[str, _Sent] = {}
        self._established = False
        self._proved = 0
        self._tied = 0
        self.proved_until = 0
        """The end of the latest period in sync of any epoch: what `stale_if_error` counts from."""

    def start(self) -> None:
        """A new epoch: proofs under way prove nothing any more."""
        self._outstanding.clear()
        self._established = False
        self._proved = self._tied = 0

    def send(self, now: int, interval: int, epoch: int) -> Proof:
        through_pool = not self._established or now - self._tied >= interval
        self._sequence += 1
        payload = f"{epoch}.{self._sequence}"
        self._outstanding[payload] = _Sent(now, through_pool)
        return Proof(payload, through_pool)

    def drop(self, proof: Proof) -> None:
        """It could not be sent."""
        self._outstanding.pop(proof.payload, None)

    def returned(self, payload: str) -> bool:
        """Whether this was a proof of this epoch. What counts is when it was sent, however late it comes
        back.
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
        """A read or write that began at this moment came from the listener's incarnation. Whether that lengthens
        the period in sync: most of the time the last proof is the older of the two that bound it.

        Before a proof came through the pool that says little: behind a transaction pooler the incarnation is
        right, the listener's own proofs return, and events do not arrive.
        """
        if not self._established or began <= self._tied:
            return False
        lengthens = self._tied < self._proved
        self._tied = began
        return lengthens

    def in_sync_until(self) -> int:
        """Node time; 0 before the first proof of this epoch."""
        if not self._established:
            return 0
        until = min(self._proved, self._tied) + self._max_staleness
        self.proved_until = max(self.proved_until, until)
        return until

    def silent(self, now: int) -> bool:
        """Whether a proof has been under way for so long that the connection must be dead, without having
        said so.
        """
        oldest = min((sent.at for sent in self._outstanding.values()), default=now)
        return now - oldest > self._max_staleness

    def age(self, now: int) -> int | None:
        """How long ago the newest proof of this epoch was sent."""
        return now - self._proved if self._proved else None


class Nodes:
    """How many nodes share the database, checked by the origins of events."""

    _REMEMBERED = 600 * 1_000_000
    _MOST = 1024

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def saw(self, origin: str, now: int) -> None:
        if origin in self._seen or len(self._seen) < self._MOST:
            self._seen[origin] = now

    def count(self, now: int) -> int:
        """Nodes other than those that kept silent for ten minutes."""
        for origin in [origin for origin, at in self._seen.items() if now - at > self._REMEMBERED]:
            del self._seen[origin]
        return len(self._seen)


class Offset:
    """Which samples of the database's clock to believe.

    A sample is wrong by at most half its round trip, and what is believed grows worse as the clocks drift
    apart. So a sample replaces the one before if its bound is the better one by now.
    """

    _DRIFT = 5_000  # one part in 5,000: four times what NTP calls a broken clock

    def __init__(self) -> None:
        self._error: int | None = None
        self._at = 0

    def start(self) -> None:
        """Another server may have another clock."""
        self._error = None

    def sample(self, asked: int, answered: int, database_time: int, *, longest: int) -> int | None:
        """The offset of the database's clock from the node's, or None if this sample is not to be used."""
        error = (answered - asked) // 2
        known = longest // 2 if self._error is None else self._error + (answered - self._at) // self._DRIFT
        if error > known:
            return None
        self._error, self._at = error, answered
        return database_time - (asked + error)
