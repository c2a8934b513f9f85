"""Maintenance is what a node does from time to time: it writes noted accesses and deletes what has ended."""

from __future__ import annotations

import logging
import random
import time
from typing import Final

import psycopg

from pgsession._concurrency import (
    AsyncBackgroundLoop,
    AsyncEvent,
    AsyncMutex,
    async_pause,
    deadline_in,
    left_until,
)
from pgsession._core.cache import Cache
from pgsession._counted import counted
from pgsession._database.statements import NIL
from pgsession._protocol.audit_log import AuditLog
from pgsession._protocol.log_rate import Seldom
from pgsession._protocol.meter import Meter
from pgsession.errors import OperationTimeout, PgSessionError

from .store import STEP, AsyncStore, rest_after

_PAUSE: Final = 1.0  # seconds after accesses could not be written, whoever asks for it; more each time,
_LONGEST_PAUSE: Final = 30.0  # up to this
_KINDS: Final = ("expired", "inactive", "attributes", "locks", "nodes")


class AsyncMaintenance:
    """Writes accesses and cleans up, in two background loops.

    Args:
        store: The database.
        cache: The cache that notes the accesses.
        access_interval: Seconds from one writing of accesses to the next.
        access_batch: The most accesses in one statement.
        cleanup_interval: Seconds from one cleanup to the next; 0: none by this node.
        audit: Takes what was deleted.
        meter: Takes how long a cleanup took.
        logger: Takes what an operator should know.
    """

    def __init__(
        self,
        store: AsyncStore,
        cache: Cache,
        *,
        access_interval: float,
        access_batch: int,
        cleanup_interval: float,
        audit: AuditLog,
        meter: Meter | None = None,
        logger: logging.Logger,
    ) -> None:
        self._store = store
        self._cache = cache
        self._access_interval = access_interval
        self._delay = int(access_interval * 1_000_000)
        self._access_batch = access_batch
        self._cleanup_interval = cleanup_interval
        self._audit = audit
        self._meter = Meter(None, logger) if meter is None else meter
        self._logger = logger
        self._stopping = AsyncEvent()
        self._urgent = AsyncEvent()
        self._all_of_them = False
        self._flushing = AsyncMutex()
        self._access_writer = AsyncBackgroundLoop(logger)
        self._cleaner = AsyncBackgroundLoop(logger)
        self._failures = Seldom()
        self.written_accesses = 0
        self.failed_access_batches = 0
        self.cleanups = 0
        self.deleted_sessions = 0

    def start(self) -> None:
        """Start the loops."""
        self._access_writer.start(self._access_loop, "pgsession last access")
        if self._cleanup_interval:
            self._cleaner.start(self._cleanup_loop, "pgsession cleanup")

    async def stop(self, deadline: float) -> None:
        """End the loops, and write what was noted, by the deadline."""
        self._stopping.set()
        self._urgent.set()
        await self._access_writer.stop(left_until(deadline))
        await self._cleaner.stop(left_until(deadline))

    def write_accesses_soon(self) -> None:
        """Write the noted accesses at once: there are many."""
        self._all_of_them = True
        self._urgent.set()

    def plan_anew(self) -> None:
        """Look again when to write accesses.

        Another node could find a session inactive before the next of the usual times.
        """
        self._urgent.set()

    async def _access_loop(self) -> None:
        next_time, patience = deadline_in(self._access_interval), _PAUSE
        while not self._stopping.is_set():
            await self._urgent.wait(max(0, min(next_time - time.monotonic(), self._cache.due_in())))
            self._urgent.clear()
            due = not (self._stopping.is_set() or self._all_of_them or time.monotonic() >= next_time)
            if not due:
                self._all_of_them = False
                next_time = deadline_in(self._access_interval)
                while self._cache.expire(1000):
                    await async_pause()
            if await self.write_accesses(due=due):
                patience = _PAUSE
            else:
                await self._stopping.wait(min(self._access_interval, patience))
                patience = min(2 * patience, _LONGEST_PAUSE)

    async def write_accesses(self, *, due: bool = False) -> bool:
        """Write the noted accesses, in batches, or those that are due; return False where some could not be written.

        Those are kept for the next time; nothing moves back (C11).
        """
        async with self._flushing:
            while accesses := self._cache.take_accesses(self._access_batch, due):
                try:
                    skipped = await self._store.write_accesses(accesses)
                except (psycopg.Error, PgSessionError) as error:
                    self._cache.restore_accesses(accesses)
                    self.failed_access_batches += 1
                    others = self._failures.admit()
                    if others is not None:
                        self._logger.warning(
                            "%s could not be written yet: %s%s",
                            counted(len(accesses), "last access", "last accesses"),
                            error,
                            others,
                            extra={"pgsession_event": "accesses_not_written"},
                        )
                    return False
                except BaseException:
                    self._cache.restore_accesses(accesses)
                    raise
                written = [access for access in accesses if access[0] not in skipped]
                self._cache.confirm_accesses(written)
                self.written_accesses += len(written)
                if skipped:
                    self._cache.restore_accesses([access for access in accesses if access[0] in skipped])
                    return False
        return True

    async def _cleanup_loop(self) -> None:
        # Nodes that started together need not all try at the same moment.
        while not await self._stopping.wait(self._cleanup_interval * random.uniform(0.9, 1.1)):
            try:
                await self.clean_up()
            except (psycopg.Error, PgSessionError) as error:
                self._logger.warning(
                    "the cleanup failed and is tried again later: %s",
                    error,
                    extra={"pgsession_event": "cleanup_failed"},
                )

    async def delete_expired(self) -> int:
        """Delete sessions that have ended, in bounded steps; return how many.

        Where another node is at it, the rest is left to that.
        """
        deleted = 0
        try:
            for what in ("expired", "inactive"):
                after: str | None = NIL
                while after is not None:
                    began = time.monotonic()
                    after, removed, busy = await self._store.cleanup(what, self._delay, after)
                    deleted += removed
                    self.deleted_sessions += removed
                    self._audit.ended(what, count=removed)
                    if busy:
                        return deleted
                    if what == "expired":
                        after = NIL if removed >= STEP else None
                    await self._rest(after, began)
        except OperationTimeout as error:
            raise error._after(deleted) from error
        return deleted

    async def clean_up(self) -> bool:
        """Delete what has ended, in bounded steps; return False if another node is at it."""
        with self._meter.watch("cleanup"):
            return await self._clean_up()

    async def _clean_up(self) -> bool:
        for what in _KINDS:
            after: str | None = NIL
            while after is not None and not self._stopping.is_set():
                began = time.monotonic()
                after, removed, busy = await self._store.cleanup(what, self._delay, after)
                if busy:
                    return False
                if what in ("expired", "inactive"):
                    self.deleted_sessions += removed
                    self._audit.ended(what, count=removed)
                if what != "inactive":
                    after = NIL if removed >= STEP else None
                await self._rest(after, began)
        self.cleanups += 1
        return True

    async def _rest(self, after: str | None, began: float) -> None:
        """Leave the server to others after a step that began at this moment, if another one follows."""
        if after is not None:
            await self._stopping.wait(rest_after(time.monotonic() - began))
