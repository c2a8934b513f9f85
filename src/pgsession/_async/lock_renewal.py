"""The lock renewal renews the locks that this node holds, and hears what became of others'."""

from __future__ import annotations

import logging
import math
import threading
import warnings
from functools import partial
from typing import Final

import psycopg

from pgsession._concurrency import AsyncBackgroundLoop, AsyncBackgroundTasks, AsyncEvent, left_until
from pgsession._core.clock import Clock
from pgsession._counted import counted
from pgsession._protocol.audit_log import AuditLog
from pgsession._protocol.coherence import LockChanges
from pgsession._protocol.log_rate import Seldom
from pgsession._protocol.meter import Meter
from pgsession._short_names import shown
from pgsession.errors import PgSessionError

from .held_lock import SECOND, AsyncHeldLock
from .store import AsyncStore

_LINGER: Final = SECOND  # microseconds for which the loop is not woken for a lock that is due later


class AsyncLockRenewal:
    """Renews all locks held through a manager, in one background loop, which waits while there are none."""

    def __init__(
        self,
        store: AsyncStore,
        clock: Clock,
        logger: logging.Logger,
        *,
        audit: AuditLog,
        meter: Meter | None = None,
    ) -> None:
        self._audit = audit
        self.meter = Meter(None, logger) if meter is None else meter
        self.store = store
        self.clock = clock
        self.logger = logger
        self.background = AsyncBackgroundTasks(logger)
        self._failures = Seldom()  # to renew a lock
        self.kept = Seldom()  # locks that could not be given back
        self._held: set[AsyncHeldLock] = set()
        self._waiting: dict[str, set[AsyncEvent]] = {}
        self._loop = AsyncBackgroundLoop(logger)
        self._guard = threading.Lock()  # so that one loop is started
        self._wake = AsyncEvent()
        self._looks_at: float = (
            math.inf
        )  # by the clock: when the loop looks again; while it looks everybody wakes it
        self._stopping = False

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, lock: AsyncHeldLock) -> None:
        """Renew a lock from now on."""
        self._held.add(lock)
        if lock.renew_at < self._looks_at:  # one that ends the wait for nothing would cost a lock a tenth
            self._wake.set()
        if not self._loop.running:
            # Not here: whoever is interrupted while he starts a thread cannot know whether it runs.
            self.background.run(self._have_loop, "pgsession lock")

    async def _have_loop(self) -> None:
        with self._guard:
            if not self._loop.running and not self._stopping:
                self._loop.start(self._renew_all, "pgsession locks")

    def let_go(self, lock: AsyncHeldLock) -> None:
        """Stop renewing a lock."""
        self._held.discard(lock)

    def on_dropped(self, lock: AsyncHeldLock) -> None:
        """Stop renewing a lock whose object nobody has any more; called in the middle of anything."""
        if lock not in self._held:
            return  # it was released, or given up with a word
        self.let_go(lock)
        if not lock.lost.is_set():
            warnings.warn(
                f"the lock on {shown(lock.resource)} was not released: call release(), or use it in a with block; "
                "it ends after its lease time",
                ResourceWarning,
                stacklevel=2,
            )

    def await_release(self, resource: str, event: AsyncEvent) -> None:
        """Have an event set whenever a lock on the resource is released or ended."""
        self._waiting.setdefault(resource, set()).add(event)

    def stop_waiting(self, resource: str, event: AsyncEvent) -> None:
        """Stop setting an event that was given to `await_release`."""
        events = self._waiting.get(resource)
        if events is not None:
            events.discard(event)
            if not events:
                self._waiting.pop(resource, None)

    def on_lock_changes(self, changes: LockChanges) -> None:
        """Do what a notification says of locks: end those of ours, and wake who waits for one."""
        for resource, token in changes.ended:
            for lock in list(self._held):
                if lock.resource == resource and lock.token == token:
                    lock.end()
                    self._lose(lock, "ended")
        for resource in (*changes.released, *(resource for resource, _ in changes.ended)):
            for event in list(self._waiting.get(resource, ())):
                event.set()

    def on_locks_missed(self) -> None:
        """Wake whoever waits for a lock: which ones became free was not heard."""
        for events in list(self._waiting.values()):
            for event in list(events):
                event.set()

    def disown(self) -> None:
        """Hold nothing any more in the child of a fork: the locks are the parent's."""
        for lock in list(self._held):
            lock.end()
        self._held.clear()
        self._stopping = True

    async def close(self, deadline: float) -> None:
        """Stop the loop and give back all that is held, at the same time and by the deadline.

        What cannot be given back ends after its lease time.
        """
        self._stopping = True
        self._wake.set()
        await self._loop.stop(left_until(deadline))
        await self.background.drain(left_until(deadline))
        held, self._held = self._held, set()
        for lock in held:
            self.background.run(partial(self._give_back, lock), "pgsession lock")
        await self.background.drain(left_until(deadline))
        kept = [lock.resource for lock in held if not lock.released]
        for lock in held:
            lock.end()
        if kept:
            self.logger.warning(
                "%s could not be given back, and will end after the lease time: %s",
                counted(len(kept), "lock"),
                ", ".join(map(shown, kept[:10])),
                extra={"pgsession_event": "lock_kept"},
            )

    async def _give_back(self, lock: AsyncHeldLock) -> None:
        try:
            await lock.give_back()
        except (psycopg.Error, PgSessionError) as error:
            self.logger.debug("the lock on %s could not be given back: %s", shown(lock.resource), error)

    async def _renew_all(self) -> None:
        woken = True
        while not self._stopping:
            self._wake.clear()
            self._looks_at = math.inf
            now = self.clock.now()
            for lock in [
                lock for lock in list(self._held) if lock.renew_at <= now
            ]:  # others change the set meanwhile
                await self._renew(lock)
            due = min((lock.renew_at for lock in list(self._held)), default=None)
            if due is None and woken:  # the lock that has woken it is released already; others may follow
                due = self.clock.now() + _LINGER
            if due is not None:
                self._looks_at = due
            woken = await self._wake.wait(None if due is None else max(0, due - self.clock.now()) / SECOND)

    async def _renew(self, lock: AsyncHeldLock) -> None:
        try:
            await lock.renew()
        except (psycopg.Error, PgSessionError) as error:
            lock.postpone()
            others = self._failures.admit()
            if others is not None:
                self.logger.warning(
                    "the lock on %s could not be renewed yet: %s%s", shown(lock.resource), error, others,
                    extra={"pgsession_event": "lock_not_renewed"},
                )  # fmt: skip
        if lock.lost.is_set():
            self._lose(lock, "expired")

    def _lose(self, lock: AsyncHeldLock, reason: str) -> None:
        """Stop renewing a lock that is lost; tell of it once."""
        if lock in self._held:
            self._audit.lock_lost(lock.resource, reason)
            self.let_go(lock)
