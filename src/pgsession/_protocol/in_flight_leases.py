"""Leases tell what is on its way into the cache, and what forbids it to enter (C1, C2, C3, C7, C10).

A fill (a database read) and an own write each hold a lease on their session id while they are under way. An event, or
the close of another lease of that id, *stamps* the lease with the version that is now known to exist: a record of a
lower version must not enter the cache any more. A deletion stamps with `GONE`, which no version reaches. What concerns
a user, a group or everything cannot be matched by id before the record is read, so it outdates every open lease at
once, and so does a new epoch: both are counters whose values a lease holds.

Nothing here locks: `Coherence` does.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["GONE", "Fill", "Lease", "Leases"]

GONE: Final = 1 << 63
"""The stamp of a deletion is above every version."""


class Lease:
    """A lease is the permission to put one record of one session into the cache, unless something happens meanwhile.

    Attributes:
        key: The session's key.
        opened: When it was opened, in node time.
        epoch: The epoch in which it was opened.
        wide: How many events about users, groups or everything there had been by then.
        stamp: The version that is known to exist; what is older may not enter.
    """

    __slots__ = ("epoch", "key", "opened", "stamp", "wide")

    def __init__(self, key: bytes, opened: int, epoch: int, wide: int) -> None:
        self.key = key
        self.opened = opened
        self.epoch = epoch
        self.wide = wide
        self.stamp = 0


class Fill(Lease):
    """A fill is the lease of a database read. Its callers wait for `future`; only the shell knows what that is.

    It is `early` as long as nobody has asked for the session.
    """

    __slots__ = ("early", "future")

    def __init__(self, key: bytes, opened: int, epoch: int, wide: int, future: Any) -> None:
        super().__init__(key, opened, epoch, wide)
        self.early = False
        self.future = future


class Leases:
    """Holds all open leases of one node."""

    def __init__(self) -> None:
        self.epoch = 0
        self._wide = 0
        self._open: dict[bytes, list[Lease]] = {}

    def open_write(self, key: bytes, now: int) -> Lease:
        """Open the lease of an own write."""
        lease = Lease(key, now, self.epoch, self._wide)
        self._open.setdefault(key, []).append(lease)
        return lease

    def open_fill(self, key: bytes, now: int, future: Any) -> Fill:
        """Open the lease of a database read for whose result its callers wait with `future`."""
        fill = Fill(key, now, self.epoch, self._wide, future)
        self._open.setdefault(key, []).append(fill)
        return fill

    def close(self, lease: Lease) -> bool:
        """Close a lease; return True where it was open. A second close, or one from before a fork, changes nothing."""
        leases = self._open.get(lease.key)
        if leases is None or lease not in leases:
            return False
        leases.remove(lease)
        if not leases:
            del self._open[lease.key]
        return True

    def withdraw(self, key: bytes, future: Any) -> None:
        """Close the fill that was opened with this future, if it was opened at all."""
        for lease in list(self._open.get(key, ())):
            if isinstance(lease, Fill) and lease.future is future:
                self.close(lease)

    def joinable(self, key: bytes, opened_after: int) -> Fill | None:
        """Return the fill that a new caller may wait for, None if there is none that began after `opened_after`.

        Only the newest fill of an id is ever joined (C10), and only while nothing is known that it may not have seen: a
        caller that began after that became known must not get less (C2, C3).
        """
        for lease in reversed(self._open.get(key, ())):
            if isinstance(lease, Fill):
                return lease if self.undisturbed(lease) and lease.opened > opened_after else None
        return None

    def any_of(self, key: bytes) -> bool:
        """Return True while a lease of this session is open."""
        return key in self._open

    @property
    def opened(self) -> dict[bytes, list[Lease]]:
        """Return the open leases by session; do not change them."""
        return self._open

    @property
    def sessions(self) -> int:
        """Return of how many sessions there are open leases."""
        return len(self._open)

    def fills(self) -> list[Fill]:
        """Return all open fills."""
        return [lease for leases in self._open.values() for lease in leases if isinstance(lease, Fill)]

    def stamp(self, key: bytes, version: int) -> None:
        """Note that a version of this session is known to exist; what is older must not enter the cache (C1, C2)."""
        for lease in self._open.get(key, ()):
            if lease.stamp < version:
                lease.stamp = version

    def void(self, key: bytes) -> None:
        """Note that the session is gone, or that nobody can say which version it has (C7)."""
        self.stamp(key, GONE)

    def void_all(self) -> None:
        """Note that something happened to sessions that are not known by id."""
        self._wide += 1

    def allow(self, lease: Lease, version: int) -> bool:
        """Return True where a record of this version may enter the cache."""
        return self._is_of_today(lease) and version >= lease.stamp

    def undisturbed(self, lease: Lease) -> bool:
        """Return True where nothing has happened to the session since, as far as is known."""
        return lease.stamp == 0 and self._is_of_today(lease)

    def _is_of_today(self, lease: Lease) -> bool:
        return lease.epoch == self.epoch and lease.wide == self._wide

    def __len__(self) -> int:
        return sum(map(len, self._open.values()))

    def clear(self) -> None:
        """Drop the parent's leases after a fork; closing one of them does nothing."""
        self._open.clear()
        self.epoch += 1
