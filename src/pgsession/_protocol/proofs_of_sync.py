"""Proofs of sync tell until when a node may answer from memory (C6).

A node *reads* the database through its pool: whatever it asks, the answer also has the incarnation and the `xmax` of
the statement's snapshot, the first transaction id that nobody had completed then. An event carries the id of the
transaction that sent it. One that is at or above the xmax had not committed when the snapshot was taken; commits that
notify are serial, and arrive in their order. So when it arrives, all that was visible to the read, and to everybody
before the read was sent, has arrived: memory is in sync until `max_staleness` after the moment at which the read was
sent. That is a *proof*, and it ties the listener to where the data comes from: a read of another incarnation than the
listener's ends the epoch, and events of another server prove nothing.

On a busy system every event proves something. Where none comes, one of the nodes sends a *beacon*, an event without
items, for all of them: the statement that would send it finds out on the server whether another began since the
sender's read. So what proofs cost grows with the number of nodes, not with its square. Each node reads every quarter of
`max_staleness`, and asks for a beacon once a read has waited that long; after another quarter it insists on one of
its own, whatever the server says. So one that is lost costs nothing.

The incarnation is compared with the life of the server and the place of the tables where it is read, so what it names
is one server from one start to the next. In there ids, of 64 bits, only rise. A crash or a failover may give one out
again, but ends the incarnation, and with it the epoch.

What was read in an older epoch could not hurt: the resync, by which an epoch begins to serve, has compared everything
after it. What was *heard* then could: it would prove reads whose events a new connection has not brought.

Nothing here locks: `Coherence` does.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

__all__ = ["Proofs", "Wanted"]


class Wanted(NamedTuple):
    """Says that a beacon is wanted.

    Attributes:
        since: The xmax of the read that it is to prove.
        insists: True where one is to be sent whatever others have sent.
    """

    since: int
    insists: bool


class _Read(NamedTuple):
    """A read that is not proved yet, in place of those that it outdates.

    Attributes:
        xmax: What proves it is at or above this.
        at: When it was sent.
        first: When the oldest of those that it stands for was sent.
    """

    xmax: int
    at: int
    first: int


class Proofs:
    """Tells from the reads of one node, and from what it hears, until when memory is in sync.

    Every time is node time, in microseconds.
    """

    _STEPS = 64  # of `max_staleness`: of what is read in one of them only the oldest need be kept

    def __init__(self, max_staleness: int) -> None:
        self._max_staleness = max_staleness
        self._step = max_staleness // self._STEPS
        self.interval = max_staleness // 4
        """The time from one read to the next, where no caller reads: of two beacons in a row one may be lost."""
        self.proved_until = 0
        """The end of the latest period in sync of any epoch, from which `stale_if_error` counts."""
        self.start()

    def start(self) -> None:
        """Begin a new epoch: what was read and heard before proves nothing any more."""
        self._unproved: list[
            _Read
        ] = []  # both the xmax and the time rise: no other read is proved sooner and later
        self._heard = 0
        self._proved = 0
        self._began: int | None = None

    def read(self, at: int, xmax: int) -> bool:
        """Note a read of the listener's incarnation that was sent at this moment; return True where it is proved.

        What proves it may have arrived before its answer.
        """
        if xmax <= self._heard:
            return self._prove(at)
        reads = self._unproved
        place = bisect_right(reads, xmax, key=_xmax)
        if at <= self._proved or (place and at < reads[place - 1].at + self._step):
            return False  # another is proved at least as soon, and is newer, or hardly older
        start = place - 1 if place and reads[place - 1].xmax == xmax else place
        end = bisect_right(reads, at, lo=place, key=_at)
        outdated = reads[start:end]
        reads[start:end] = [_Read(xmax, at, min([at, *(read.first for read in outdated)]))]
        if reads[0].at + self._max_staleness <= at:
            del reads[0]  # its proof would be over
        return False

    def heard(self, xid: int) -> bool:
        """Note that an event of this transaction has arrived; return True where it proves a read."""
        self._began = None
        if xid <= self._heard:
            return False
        self._heard = xid
        count = bisect_right(self._unproved, xid, key=_xmax)
        if not count:
            return False
        newest = self._unproved[count - 1].at
        del self._unproved[:count]
        return self._prove(newest)

    def has_heard(self, xmax: int) -> bool:
        """Return True where all that a read with this xmax has seen was heard, if the read is of this epoch."""
        return xmax <= self._heard

    def _prove(self, at: int) -> bool:
        if at <= self._proved:
            return False
        self._proved = at
        return True

    def wanted(self, now: int) -> Wanted | None:
        """Return what to ask for beside the next read; None: what was read is proved, or young.

        The first proof of an epoch is waited for, so it is asked for at once.
        """
        if not self._unproved:
            return None
        oldest = self._unproved[0]
        age = now - oldest.first
        if self._proved and age < self.interval * 3 // 4:  # a timer may be early
            return None
        return Wanted(oldest.xmax, age >= self.interval * 7 // 4)

    def began(self, wanted: Wanted, now: int) -> None:
        """Note that a beacon as it was wanted is committed: it has to arrive, or has arrived already."""
        if self._began is None and wanted.since > self._heard:
            self._began = now

    def in_sync_until(self, limit: int) -> int:
        """Return until when memory is in sync, in node time, `limit` at most; 0 before the first proof of an epoch."""
        if not self._proved:
            return 0
        until = min(self._proved + self._max_staleness, limit)
        self.proved_until = max(self.proved_until, until)
        return until

    def silent(self, now: int) -> bool:
        """Return True where beacons began, and nothing was heard for so long that the connection must be dead."""
        return self._began is not None and now - self._began > self._max_staleness

    def age(self, now: int) -> int | None:
        """Return how long ago the newest proved read of this epoch was sent, None before the first."""
        return now - self._proved if self._proved else None


def _xmax(read: _Read) -> int:
    return read.xmax


def _at(read: _Read) -> int:
    return read.at
