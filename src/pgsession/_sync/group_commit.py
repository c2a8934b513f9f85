# Generated from src/pgsession/_async/group_commit.py by tools/async_to_sync.py: never edit.

"""Group commit: writes that wait at the same moment share a transaction and a round trip."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import psycopg
from psycopg import errors as pg

from pgsession._concurrency import BackgroundLoop, Combiner, Semaphore, SharedFuture
from pgsession._core.record import Record
from pgsession._protocol import events
from pgsession._protocol.batch import Batch, Queue
from pgsession._protocol.coherence import Coherence
from pgsession._protocol.operations import Operation
from pgsession.errors import ConflictError, ManagerClosedError, SessionNotFoundError, WriteOutcomeUnknown

from .store import Store

MAX_QUEUED = 8192
CROWD = 64  # operations that wait for one lane when the second one opens
ATTEMPTS = 3  # of a batch that the server gave up to end a deadlock

_TRANSIENT = (pg.DeadlockDetected, pg.SerializationFailure)
# What one member of a batch can cause by its content: values, constraints and triggers of the user's.
_MEMBERS_OWN = (psycopg.DataError, psycopg.IntegrityError, pg.RaiseException, pg.ProgramLimitExceeded)


class Lane:
    """Operations that wait, and the turn that writes them batch by batch."""

    def __init__(self, logger: logging.Logger) -> None:
        self.queue = Queue()
        self.combiner = Combiner(logger)


class GroupCommit:
    """Takes writes one by one and makes them in batches.

    One batch at a time, for what waits meanwhile makes the next one fuller. But where a crowd waits, a second lane
    writes too: the server works on one batch while this process answers the callers of the other.

    Nothing idles while nobody writes: the batches run as a turn that ends when nothing waits. A session's operations
    are done one after the other, in the order they came; different sessions' in any order. However a caller's wait
    ends, the operation itself is brought to its end, and its lease closed, by the batch that has it.
    """

    def __init__(
        self,
        store: Store,
        coherence: Coherence,
        on_wrong_server: Callable[[], None],
        logger: logging.Logger,
    ) -> None:
        self._store = store
        self._coherence = coherence
        self._on_wrong_server = on_wrong_server
        self._logger = logger
        self._guard = threading.Lock()
        self._last: dict[bytes, Operation] = {}  # of each session with one under way, the newest
        self._room = Semaphore(MAX_QUEUED)
        self._lanes = (Lane(logger), Lane(logger))
        self._stragglers: set[BackgroundLoop] = set()
        self._closed = False
        self.batches = 0
        self.writes = 0
        self.conflicts = 0
        self.failures = 0

    def __len__(self) -> int:
        return sum(len(lane.queue) for lane in self._lanes)

    def write(self, operation: Operation) -> Any:
        """Brings one operation to the database; returns its result, or raises its error.

        Raises:
            WriteOutcomeUnknown: the connection was lost between sending and answer.
            psycopg.Error: the operation was not done.
        """
        future = operation.future = SharedFuture()
        try:
            with self._room:
                if self._takes_its_place(operation):
                    self._after_previous(operation)
                with self._guard:
                    lane = operation.lane = self._lane()
                    lane.queue.add(operation)
                result = lane.combiner.run(partial(self._write_batch, lane), future)
                return result.wait() if isinstance(result, SharedFuture) else result
        except BaseException:
            self._withdraw(operation)
            raise

    def _lane(self) -> Lane:
        first, second = self._lanes
        waiting = len(first.queue)
        return first if waiting < CROWD or waiting <= len(second.queue) else second

    def _withdraw(self, operation: Operation) -> None:
        """Its caller is gone. What is not sent yet is not sent any more; what is sent comes to its end."""
        with self._guard:
            if operation.sent or operation.finished:
                return
            if operation.lane is not None:
                operation.lane.queue.remove(operation)
        self._finish(operation, ManagerClosedError("given up before it was sent"), None)

    def close(self, timeout: float | None) -> None:
        """Waits until what was accepted is done; refuses what comes later."""
        self._closed = True
        for lane in self._lanes:
            lane.combiner.idle(timeout)
        for straggler in list(self._stragglers):
            straggler.stop(timeout)

    def _takes_its_place(self, operation: Operation) -> bool:
        """Among the same session's operations; whether there is one before it."""
        if self._closed:
            raise ManagerClosedError("the manager is closed")
        with self._guard:
            operation.previous = self._last.get(operation.key)
            self._last[operation.key] = operation
        return operation.previous is not None

    def _after_previous(self, operation: Operation) -> None:
        """Waits until the same session's earlier operations have ended, well or not."""
        previous = operation.previous
        while previous is not None:
            ended = self._end_of(previous)
            if ended is not None:
                ended.wait()
            # A caller that gave up while it waited ended before the one that it waited for.
            previous = previous.previous
        operation.previous = None

    def _end_of(self, operation: Operation) -> SharedFuture[None] | None:
        with self._guard:
            if operation.finished:
                return None
            if operation.ended is None:
                operation.ended = SharedFuture()
            ended: SharedFuture[None] = operation.ended
            return ended

    def _write_batch(self, lane: Lane) -> None:
        with self._guard:
            batch = lane.queue.take()
            for operation in batch.operations:
                operation.sent = True
        if batch.operations:
            self._run(batch)

    def _run(self, batch: Batch) -> None:
        """One batch: every operation in it ends, or waits in the queue again."""
        try:
            answer = self._send(batch)
        except _MEMBERS_OWN as error:
            self._one_by_one(batch, error)
        except Exception as error:
            self._fail(batch.operations, error)
        except BaseException:
            self._fail(batch.operations, WriteOutcomeUnknown("the manager was closed while this was written"))
            raise
        else:
            self._settle(batch, answer)

    def _send(self, batch: Batch, *, wait: bool = False) -> str:
        for attempt in range(ATTEMPTS):
            try:
                return self._store.write(batch, wait=wait)
            except _TRANSIENT as error:
                if attempt + 1 == ATTEMPTS:
                    raise
                self._logger.info("a batch of %d writes is tried again: %s", len(batch.operations), error)
        raise AssertionError("unreachable")

    def _one_by_one(self, batch: Batch, error: Exception) -> None:
        """One value that the server refuses must fail its own caller only."""
        if len(batch.operations) == 1:
            self._fail(batch.operations, error)
            return
        for operation in batch.operations:
            self._run(Batch([operation]))

    def _settle(self, batch: Batch, answer: str) -> None:
        try:
            settled = batch.settle(answer)
        except Exception as error:
            doubt = WriteOutcomeUnknown(f"committed, but the answer cannot be read: {error}")
            doubt.__cause__ = error
            self._fail(batch.operations, doubt)
            return
        self.batches += 1
        for key in settled.evicted:  # also one that was created here, and evicted by a later one of its user
            self._coherence.drop(events.Deleted(key))
        for operation, result in settled.results:
            self._finish(operation, result, settled.incarnation)
        self._try_locked_again(settled.locked)

    def _try_locked_again(self, locked: list[Operation]) -> None:
        """Nobody waits for a row that somebody else holds, but those who want that very row."""
        for operation in reversed(locked):
            if operation.locked > 1:
                self._run_alone(operation)
            else:
                with self._guard:
                    operation.lane.queue.again(operation)

    def _run_alone(self, operation: Operation) -> None:
        """From now on the operation has a task of its own, and its caller waits for that."""
        promise = operation.future
        operation.future = SharedFuture()
        worker = BackgroundLoop(self._logger)

        def alone() -> None:
            try:
                self._run_locked(operation)
            finally:
                self._stragglers.discard(worker)

        self._stragglers.add(worker)
        worker.start(alone, "pgsession straggler")
        promise.set_result(operation.future)

    def _run_locked(self, operation: Operation) -> None:
        batch = Batch([operation])
        try:
            answer = self._send(batch, wait=True)
        except Exception as error:
            self._fail([operation], error)
        except BaseException:
            self._fail([operation], WriteOutcomeUnknown("the manager was closed while this was written"))
            raise
        else:
            self._settle(batch, answer)

    def _fail(self, operations: list[Operation], error: Exception) -> None:
        for operation in operations:
            self._finish(operation, error, None)

    def _finish(self, operation: Operation, result: Any, incarnation: str | None) -> None:
        """Closes the operation's lease, lets the same session's next one go, and answers the caller."""
        failed = isinstance(result, Exception)
        if failed:
            self._count_failure(result)
        else:
            self.writes += 1
        self._close_lease(operation, result, incarnation)
        with self._guard:
            operation.finished = True
            if self._last.get(operation.key) is operation:
                del self._last[operation.key]
        if operation.ended is not None:
            operation.ended.set_result(None)
        if failed:
            operation.future.set_error(result)
        else:
            operation.future.set_result(result)

    def _count_failure(self, error: Exception) -> None:
        if isinstance(error, ConflictError):
            self.conflicts += 1
        elif isinstance(error, psycopg.Error | WriteOutcomeUnknown):
            self.failures += 1

    def _close_lease(self, operation: Operation, result: Any, incarnation: str | None) -> None:
        lease, coherence = operation.lease, self._coherence
        if isinstance(result, Record):
            if coherence.write_saved(lease, result, incarnation).reconnect:
                self._on_wrong_server()
        elif result is None or isinstance(result, SessionNotFoundError):
            coherence.write_gone(lease)
        elif isinstance(result, ConflictError):
            coherence.write_conflicted(lease)
        elif isinstance(result, WriteOutcomeUnknown):
            coherence.write_unknown(lease)
        else:
            coherence.write_failed(lease)
