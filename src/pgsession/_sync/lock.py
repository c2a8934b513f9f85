# Generated from src/pgsession/_async/lock.py by tools/async_to_sync.py: never edit.

"""A distributed lock has one holder at a time among all nodes, for as long as it is renewed."""

from __future__ import annotations

import time
import uuid
import weakref
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Self

import psycopg

from pgsession._concurrency import Event, SharedFuture, Thunk
from pgsession._core.clock import Clock
from pgsession._protocol import rules
from pgsession._short_names import shown
from pgsession.errors import (
    LockError,
    LockExpiredError,
    LockNotAcquiredError,
    LockNotHeldError,
    OperationTimeout,
    PgSessionError,
    SessionNotFoundError,
)

from .held_lock import SECOND, HeldLock, Lost
from .lock_renewal import LockRenewal
from .store import Acquired

_LONGEST_POLL = 0.5  # seconds between two looks while waiting for a notification


class Lock:
    """Locks a resource: `manager.lock("rebuild-index")` as the head of a `with` block holds the lock for the block.

    `SessionManager.lock` makes it. Each lock object is an owner of its own: two objects never share a lock, and
    none can release another's. It is not re-entrant.

    While it is held, it is renewed in the background. Where that fails for the whole lease time, or the lock is ended
    before that, it is `lost`, which may be a moment after another has taken it: `lost` says when, and for how long.
    `token` is a fencing token (M. Kleppmann, "How to do distributed locking", 2016): it grows with each hand-over, for
    ever, so that a store that remembers the highest one it has seen can refuse a holder who has lost the lock without
    knowing.

    Keep the object while you need the lock. One that is dropped without `release` gives a `ResourceWarning`, is renewed
    no longer, and its lock ends after its lease time.
    """

    def __init__(
        self,
        opened: Thunk[LockRenewal],
        clock: Clock,
        resource: str,
        session_id: bytes | None,
        *,
        lease: int,
        heartbeat: int,
        max_retries: int | None,
        retry_delay: float,
    ) -> None:
        self._opened = opened
        self._renewal: LockRenewal  # since the first try
        self._clock = clock
        self._resource = resource
        self._session_id = session_id
        self._lease = lease
        self._heartbeat = heartbeat
        self._max_retries = max_retries
        self._retry_delay = retry_delay
        self._owner = uuid.uuid4().hex
        self._held: HeldLock | None = None  # the last holding
        # Ends the renewal if this object goes.
        self._unheld: weakref.finalize[[HeldLock], Lock] | None = None
        self._never_lost = Lost(clock)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {shown(self._resource)} {'held' if self.locked else 'not held'}>"

    @property
    def resource(self) -> str:
        """Return the name of the resource that is locked."""
        return self._resource

    @property
    def locked(self) -> bool:
        """Return True while this object holds the lock, as far as its clock can tell."""
        held = self._holding()
        return held is not None and not held.lost.is_set()

    @property
    def token(self) -> int | None:
        """Return the fencing token of the held lock, None before the first acquisition and after the release."""
        held = self._holding()
        return None if held is None else held.token

    @property
    def lost(self) -> Lost:
        """Return what is shaped like an event and set once the lock is lost.

        A lock whose lease time was over is lost before anybody else can have it. One that was ended before that may be
        another's already when this is set: its session ended, its row was deleted or truncated, or the database's
        clock stepped forward. Of the first two a notification tells at once. Where that does not arrive, and of a step
        of the clock, the next heartbeat does, `heartbeat_interval` after the last one; while this node does not reach
        the database, it is set `lease_time` after the last heartbeat that did (or when `extend` ended, if that is
        later). Where two holders must not write, not even for a moment, let the store compare `token`.
        """
        return self._never_lost if self._held is None else self._held.lost

    def _holding(self) -> HeldLock | None:
        return None if self._held is None or self._held.released else self._held

    def acquire(self, blocking: bool = True, timeout: timedelta | float | None = None) -> bool:
        """Take the lock; return True if that succeeded.

        Args:
            blocking: False: one try.
            timeout: Seconds (or a timedelta) to wait for it, woken by its release; None: `max_retries` more tries,
                `retry_delay` apart.

        Raises:
            LockNotAcquiredError: This object has taken the lock already.
            SessionNotFoundError: The session that it is tied to is not live.
            WriteOutcomeUnknown: The connection was lost at the wrong moment. If the lock was taken, nobody holds it,
                and it is free again after the lease time. (A cancelled call gives back what it took.)
            psycopg.Error: The database failed. Never taken for success.
        """
        rules.boolean("blocking", blocking)
        patience = rules.timeout("timeout", timeout)
        if self._holding() is not None:
            raise LockNotAcquiredError(
                f"this object has taken the lock on {shown(self._resource)} already: release it first"
            )
        try:
            self._renewal = self._opened()
            with self._renewal.meter.watch("acquire_lock"):
                return self._acquire(blocking, patience)
        except BaseException:
            if self._holding() is not None:
                self._abandon(self._owner)
            raise

    def _acquire(self, blocking: bool, patience: float | None) -> bool:
        end = None if patience is None else time.monotonic() + patience
        # A wait that was asked for is not bounded by it; then each try is.
        counted = end is None and self._max_retries is not None
        deadline = self._renewal.store.deadline() if counted else None
        acquired = self._try(deadline)
        if acquired.acquired or not blocking:
            return bool(acquired.acquired)
        released = Event()
        self._renewal.await_release(self._resource, released)
        try:
            return self._keep_trying(acquired, released, end, deadline)
        finally:
            self._renewal.stop_waiting(self._resource, released)

    def _keep_trying(
        self, acquired: Acquired, released: Event, end: float | None, deadline: float | None
    ) -> bool:
        tries = 0
        delay = self._retry_delay
        while True:
            if end is None:
                if self._max_retries is not None and tries >= self._max_retries:
                    return False
                pause = delay
                if self._max_retries is None:
                    delay = min(delay * 2, _LONGEST_POLL)
            else:
                left = end - time.monotonic()
                if left <= 0:
                    return False
                pause = min(left, delay, max(0.0, (acquired.expires_at - acquired.now) / SECOND) + 0.001)
                delay = min(delay * 2, _LONGEST_POLL)
            released.wait(pause)
            released.clear()
            tries += 1
            acquired = self._try(deadline)
            if acquired.acquired:
                return True

    def _try(self, deadline: float | None) -> Acquired:
        sent = self._clock.now()
        owner = self._owner
        future: SharedFuture[Acquired] = SharedFuture()
        try:
            self._renewal.background.run(partial(self._ask, owner, future, deadline), "pgsession lock")
            store = self._renewal.store
            acquired = future.wait(store.timeout if deadline is None else store.left(deadline))
            if acquired.acquired:
                self._hold(owner, acquired.token, sent)
        except BaseException as error:
            # If it is taken after this, `_ask` gives it back.
            late = isinstance(error, TimeoutError) and not future.done
            if not future.set_error(error) and future.succeeded:
                self._abandon(owner)
            self._owner = uuid.uuid4().hex
            if late:
                raise OperationTimeout(
                    f"nobody said in time whether {shown(self._resource)} is free"
                ) from None
            raise
        finally:
            del future  # which keeps this frame, where it has an error
        if acquired.acquired is None:
            assert self._session_id is not None
            raise SessionNotFoundError(uuid.UUID(bytes=self._session_id))
        return acquired

    def _hold(self, owner: str, token: int, sent: int) -> None:
        self._held = HeldLock(
            self._resource, owner, token,
            since=sent, lease=self._lease, heartbeat=self._heartbeat,
            clock=self._clock, store=self._renewal.store, background=self._renewal.background,
        )  # fmt: skip
        # An object that nobody has any more, say of a block that was interrupted at its end, is not renewed.
        if self._unheld is not None:
            self._unheld.detach()
        self._unheld = weakref.finalize(self, self._renewal.on_dropped, self._held)
        self._unheld.atexit = False
        self._renewal.hold(self._held)

    def _abandon(self, owner: str) -> None:
        """Give back what was taken for a caller who does not hear of it."""
        held, self._held = self._held, None
        self._owner = uuid.uuid4().hex
        if held is not None:
            self._renewal.let_go(held)
        self._renewal.background.run(partial(self._give_back, owner), "pgsession lock")

    def _ask(self, owner: str, future: SharedFuture[Acquired], deadline: float | None) -> None:
        """Ask the database for the lock; where the caller was cancelled meanwhile, give back what was taken."""
        try:
            acquired = self._renewal.store.acquire(
                self._resource, owner, self._lease, self._session_id, deadline
            )
            if not future.set_result(acquired) and acquired.acquired:
                self._give_back(owner)
        except Exception as error:
            future.set_error(error)
        finally:
            del future

    def _give_back(self, owner: str) -> None:
        try:
            self._renewal.store.release(self._resource, owner)
        except (psycopg.Error, PgSessionError) as error:
            others = self._renewal.kept.admit()
            if others is not None:
                self._renewal.logger.warning(
                    "the lock on %s could not be given back: %s%s", shown(self._resource), error, others,
                    extra={"pgsession_event": "lock_kept"},
                )  # fmt: skip

    def release(self) -> None:
        """Give the lock back, and wake who waits for it.

        Raises:
            LockNotHeldError: This object does not hold it.
            LockExpiredError: It was lost before; whatever was done since was done without it.
            psycopg.Error: The database failed: the lock ends after its lease time. Calling this again is possible.
        """
        held = self._needed()
        self._renewal.let_go(held)
        held.release()

    def _needed(self) -> HeldLock:
        held = self._holding()
        if held is None:
            raise LockNotHeldError(f"this object does not hold the lock on {shown(self._resource)}")
        return held

    def extend(self, seconds: timedelta | float) -> None:
        """Let the lock last for at least this long from now; the renewal goes on as before.

        Args:
            seconds: How long, in seconds or as a timedelta.

        Raises:
            LockNotHeldError: This object does not hold the lock.
            LockExpiredError: It was lost before.
            psycopg.Error: The database failed; the lock lasts as long as it did.
        """
        length = rules.microseconds("seconds", seconds)
        held = self._needed()
        if not held.lost.is_set():
            held.renew(length)
        if held.lost.is_set():
            raise LockExpiredError(f"the lock on {shown(self._resource)} was lost before it was extended")

    def __enter__(self) -> Self:
        try:
            if not self.acquire():
                raise LockNotAcquiredError(f"somebody else holds the lock on {shown(self._resource)}")
            return self
        except BaseException:
            if self._holding() is not None:
                self._abandon(self._owner)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._holding() is None:
            return  # released in the block
        try:
            self.release()
        except LockError:
            if error is None:
                raise
