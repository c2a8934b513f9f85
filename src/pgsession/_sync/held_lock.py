# Generated from src/pgsession/_async/held_lock.py by tools/async_to_sync.py: never edit.

"""A held lock knows until when it lasts, how it is renewed, and how it ends."""

from __future__ import annotations

import time
from datetime import timedelta
from functools import partial

from pgsession._concurrency import BackgroundTasks, Event, SharedFuture
from pgsession._core.clock import Clock
from pgsession._protocol import rules
from pgsession._protocol.database_clock import drift
from pgsession._short_names import shown
from pgsession.errors import LockExpiredError, WriteOutcomeUnknown

from .store import Store

SECOND = 1_000_000


class Lost:
    """Tells the holder of a lock that it has lost it; shaped like an event.

    `is_set` is computed from the clock when it is asked, so that a process that was stopped and resumed is told before
    it acts. The lease time is counted here from before it was asked for, on a clock that goes on while the host
    sleeps, and less by how much slower than the database's that can be: so it is over here first. A lock that ends
    earlier may be another's already when this is set (`Lock.lost`). What is lost stays lost; a lock that was
    released in time never was.
    """

    def __init__(self, clock: Clock, deadline: int | None = None) -> None:
        self._clock = clock
        self._deadline = deadline  # by the node's clock; None: not held
        self._over = False
        self._changed = Event()

    def is_set(self) -> bool:
        """Return True once the lock is lost."""
        if self._deadline is not None and self._clock.now() >= self._deadline:
            self._over = True
        return self._over

    def wait(self, timeout: timedelta | float | None = None) -> bool:
        """Wait until the lock is lost, or released, or the time is over; return True if it is lost.

        Args:
            timeout: Seconds (or a timedelta) to wait at most; None: no limit.
        """
        patience = rules.timeout("timeout", timeout)
        end = None if patience is None else time.monotonic() + patience
        while not self.is_set() and self._deadline is not None:
            left = (self._deadline - self._clock.now()) / SECOND
            if end is not None:
                left = min(left, end - time.monotonic())
                if left <= 0:
                    break
            self._changed.wait(left)
        return self.is_set()

    def _end(self) -> None:
        """Say that it is lost, whatever the clock says."""
        self._over = True
        self._changed.set()

    def _release(self) -> None:
        """Say that it was given back: no time will make it lost any more."""
        self._deadline = None
        self._changed.set()


class HeldLock:
    """Stands for one holding of the lock on a resource, from its acquisition to its end.

    Args:
        resource: The name of what is locked.
        owner: Who holds it; no two holders have the same.
        token: The fencing token.
        since: When it was asked for, in node time.
        lease: The lease time, in microseconds.
        heartbeat: Microseconds from one renewal to the next.
        clock: The clock of the node.
        store: Renews and releases it in the database.
        background: Runs a release that goes on when its caller is cancelled.
    """

    def __init__(
        self,
        resource: str,
        owner: str,
        token: int,
        *,
        since: int,
        lease: int,
        heartbeat: int,
        clock: Clock,
        store: Store,
        background: BackgroundTasks,
    ) -> None:
        self.resource = resource
        self.token = token
        self.released = False
        self.renew_at = since + heartbeat
        self.lost = Lost(clock, since + lease - drift(lease))
        self._owner = owner
        self._lease = lease
        self._heartbeat = heartbeat
        self._clock = clock
        self._store = store
        self._background = background

    def end(self) -> None:
        """Note that somebody has ended it, or that its time was up."""
        self.lost._end()

    def postpone(self) -> None:
        """Put the next renewal off for a moment, after one that failed."""
        self.renew_at = self._clock.now() + self._heartbeat // 4

    def renew(self, length: int | None = None) -> None:
        """Renew the lock for `length` microseconds from now; None: for the lease time, as a heartbeat.

        A heartbeat does not wait for a row that somebody else has locked: the node's other locks need theirs.

        Raises:
            psycopg.Error: The database failed; the lock lasts as long as it did.
        """
        heartbeat = length is None
        length = self._lease if length is None else length
        sent, lost = self._clock.now(), self.lost
        if lost._deadline is None or lost.is_set():
            return  # released meanwhile, or nobody counts on it any more
        ends = self._store.renew(self.resource, self._owner, length, wait=not heartbeat)
        if lost.is_set() or lost._deadline is None:
            return  # too late for the holder, who has been told, or has released it
        if ends is None:
            self.end()
            return
        lost._deadline = max(lost._deadline, sent + length - drift(length))
        self.renew_at = sent + self._heartbeat

    def release(self) -> None:
        """Give the lock back. A cancelled call goes on by itself.

        Raises:
            LockExpiredError: It was lost before.
            psycopg.Error: The database failed: the lock ends after its lease time. Calling this again is possible.
        """
        lost = self.lost.is_set()
        future: SharedFuture[bool | None] = SharedFuture()
        try:
            self._background.run(partial(self._give_back, future), "pgsession lock")
            future.handed_over = True
            in_time = future.wait(self._store.timeout)
        except BaseException as error:
            if not future.handed_over:
                self._background.run(partial(self._give_back, future), "pgsession lock")
            late = isinstance(error, TimeoutError) and not future.done
            if future.succeeded or not future.done:  # its caller is gone: it goes on by itself
                self._over()
            if late:
                raise WriteOutcomeUnknown(
                    f"the lock on {shown(self.resource)} is still being released"
                ) from None
            raise
        self._over()
        if lost or not in_time:
            self.end()
            raise LockExpiredError(f"the lock on {shown(self.resource)} was lost before it was released")

    def give_back(self) -> None:
        """Give the lock back for a holder who does not ask for it.

        Raises:
            psycopg.Error: The database failed: the lock ends after its lease time.
        """
        self._store.release(self.resource, self._owner)
        self._over()

    def _give_back(self, future: SharedFuture[bool | None]) -> None:
        try:
            future.set_result(self._store.release(self.resource, self._owner))
        except Exception as error:
            future.set_error(error)

    def _over(self) -> None:
        self.released = True
        self.lost._release()
