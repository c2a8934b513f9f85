# Generated from src/pgsession/_async/group_commit.py by tools/async_to_sync.py: never edit.

"""Group commit lets writes that wait at the same moment share a transaction and a round trip."""

from __future__ import annotations

import copy
import logging
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import psycopg
from psycopg import errors as pg

from pgsession._concurrency import Combiner, Deadlines, SharedFuture, left_until
from pgsession._core.record import Record
from pgsession._counted import counted
from pgsession._database.connections import may_be_one_members
from pgsession._protocol import events
from pgsession._protocol.answers import Settled
from pgsession._protocol.audit_log import AuditLog
from pgsession._protocol.batch import Batch, Queue
from pgsession._protocol.coherence import Coherence
from pgsession._protocol.meter import Meter
from pgsession._protocol.operations import Create, Operation
from pgsession.errors import (
    ConflictError,
    DatabaseUnavailable,
    ManagerClosedError,
    OperationTimeout,
    PgSessionError,
    SessionExistsError,
    SessionNotFoundError,
    WriteOutcomeUnknown,
)

from .pool import MOST_WAITING
from .section import Section
from .store import ATTEMPTS, Store
from .stragglers import Stragglers

# Operations that wait for one lane when the second one opens. With half of them in each of two lanes a write costs a
# third more, here and on the server.
CROWD = 64

_TRANSIENT = (pg.DeadlockDetected, pg.SerializationFailure, pg.ReadOnlySqlTransaction)


class GroupCommit:
    """Takes writes one by one and makes them in batches.

    There is one batch at a time, for what waits meanwhile makes the next one fuller. But where a crowd waits, a second
    lane writes too: the server works on one batch while this process answers the callers of the other.

    Nothing runs while nobody writes: a lane ends when nothing waits. A session's operations are done one after the
    other, in the order they came; different sessions' in any order.

    A caller does two things: it puts its operation into `_incoming`, and it waits. All else is done by the lanes, in
    tasks or threads of their own, so that however a caller's wait ends, and at whatever step, each operation is brought
    to its end exactly once, and its lease closed.
    """

    def __init__(
        self,
        store: Store,
        coherence: Coherence,
        on_wrong_server: Callable[[], None],
        logger: logging.Logger,
        *,
        deadlines: Deadlines,
        most_stragglers: int,
        audit: AuditLog,
        meter: Meter | None = None,
    ) -> None:
        self._store = store
        self._deadlines = deadlines
        self._coherence = coherence
        self._section = Section(coherence)
        self._on_wrong_server = on_wrong_server
        self._logger = logger
        self._audit = audit
        self._meter = Meter(None, logger) if meter is None else meter
        self._incoming: deque[Operation] = deque()
        self._guard = threading.Lock()  # for the following
        self._queue = Queue()
        self._behind: dict[bytes, deque[Operation] | None] = {}  # of each session with an operation under way
        self._waiting: set[Operation] = set()  # those whose callers wait
        # Else the only connection is for all, and a straggler looks again.
        self._holds_connections = most_stragglers > 0
        self._stragglers = Stragglers(self._write_alone, max(most_stragglers, 1), logger)
        self._lanes = (
            Combiner(partial(self._write_next, 1), "pgsession writes", logger),
            Combiner(partial(self._write_next, CROWD + 1), "pgsession writes", logger),
        )
        self._closed = False
        self._ended = False
        self.batches = 0
        self.writes = 0
        self.conflicts = 0
        self.failures = 0

    def __len__(self) -> int:
        return len(self._incoming) + len(self._queue)

    @property
    def oldest_waiting(self) -> float | None:
        """Return for how many seconds the write that has waited longest has waited; None: none waits."""
        deadlines = [operation.deadline for operation in list(self._waiting)]
        return self._store.deadline() - min(deadlines) if deadlines else None

    def write(self, operation: Operation, deadline: float | None = None) -> Any:
        """Bring one operation to the database; return its result, or raise its error.

        Args:
            operation: The operation.
            deadline: The moment of `time.monotonic` until which its caller waits; None: after `operation_timeout`.

        Raises:
            WriteOutcomeUnknown: The connection was lost between sending and answer, or the answer did not come in time.
            OperationTimeout: It was not done in time, and will not be.
            DatabaseUnavailable: The database is known to be down, or too many writes wait; it was not done.
            psycopg.Error: The operation was not done.
            ManagerClosedError: The manager is closed, or was closed before this was written.
        """
        if self._closed:
            raise ManagerClosedError("the manager is closed")
        self._store.check_available()  # the lanes may be busy until their deadline, with what was sent before
        if len(self._waiting) >= MOST_WAITING:
            raise DatabaseUnavailable(f"{MOST_WAITING} writes wait for the database already")
        operation.deadline = self._store.deadline() if deadline is None else deadline
        future: SharedFuture[Any] = SharedFuture()
        operation.future = future
        try:
            self._waiting.add(operation)
            self._incoming.append(operation)
            self._wake()
            if self._ended:
                self._refuse_rest()
            return future.wait_until(self._store.waits_until(operation.deadline), self._deadlines)
        except TimeoutError:
            if future.done:  # it is the answer that is such an error
                raise
            raise self._too_late(operation) from None
        finally:
            # If its caller is gone: what is not sent yet is not sent any more; what is sent comes to its end.
            if not future.done:
                self._give_up(operation)
            elif not future.succeeded:
                # The frames of the error have the operation: with the error it would all stay until a collection.
                operation.future = SharedFuture()
            self._waiting.discard(operation)
            del future

    def _too_late(self, operation: Operation) -> Exception:
        """Give up an operation whose caller has waited long enough; return what to tell him."""
        with self._section:
            if self._give_up(operation):
                return OperationTimeout("others had to be waited for too long; nothing was done")
            self._coherence.drop(events.Deleted(operation.key))
            return WriteOutcomeUnknown(
                "the database did not answer in time; this may be done, or still be done"
            )

    def _give_up(self, operation: Operation, error: Exception | None = None) -> bool:
        """Have an operation not sent any more, and answer its caller with the error; False: it may be done."""
        with self._guard:
            unsent = not operation.sent
            if unsent and error is not None:
                operation.future.set_error(error)
            operation.given_up = True
        self._wake()
        return unsent

    def refuse_waiting(self, error: Callable[[], Exception]) -> None:
        """Answer all who wait with an error of their own, but for those whose operation may have been done."""
        for operation in list(self._waiting):
            self._give_up(operation, error())

    def close(self, deadline: float) -> None:
        """Wait until what was accepted is done, and refuse what comes later, and what is not begun by the deadline."""
        self._closed = True
        for lane in self._lanes:
            lane.idle(left_until(deadline))
        self._stragglers.close(left_until(deadline))
        self._ended = True
        self._refuse_rest()

    def _wake(self) -> None:
        first, second = self._lanes
        first.wake()
        if len(self._incoming) > CROWD:
            second.wake()

    def _refuse_rest(self) -> None:
        with self._guard:
            rest = self._take_rest()
        rest += self._stragglers.take_rest()
        self._fail(rest, ManagerClosedError("the manager was closed before this was written"))

    def _take_rest(self) -> list[Operation]:
        self._admit()
        rest: list[Operation] = []
        while len(self._queue):
            rest.extend(self._queue.take().operations)
        for behind in self._behind.values():
            rest.extend(behind or ())
        self._behind.clear()
        return rest

    # In the lanes

    def _write_next(self, least: int) -> bool:
        """Write one batch; return True while at least `least` operations wait."""
        try:
            batch, given_up = self._take()
        except Exception as error:
            with self._guard:
                rest = self._take_rest()
            self._fail(rest, error)
            raise
        self._fail(given_up, _given_up())
        if batch.operations:
            self._run(batch)
        return len(self) >= least

    def _take(self) -> tuple[Batch, list[Operation]]:
        """Return the next batch, and the operations whose callers have given up."""
        with self._guard:
            self._admit()
            # Of a crowd, half is for the other lane.
            batch = self._queue.take(max(CROWD, (len(self._queue) + 1) // 2))
            return batch, batch.leave_out_given_up()

    def _begin(self, batch: Batch) -> bool:
        """Leave out whose callers have gone; the others count as sent from now on. False: there are none."""
        with self._guard:
            given_up = batch.leave_out_given_up()
            for operation in batch.operations:
                operation.sent = True
        self._fail(given_up, _given_up())
        return bool(batch.operations)

    def _not_sent(self, operations: list[Operation]) -> None:
        """Note that these are known not to have been done."""
        with self._guard:
            for operation in operations:
                operation.sent = False

    def _open_leases(self, batch: Batch) -> None:
        for operation in batch.operations:
            if operation.lease is None:
                creates = isinstance(operation, Create)
                operation.lease = self._coherence.open_write(operation.key, creates=creates)

    def _admit(self) -> None:
        """Put what has come into the queue: of each session only the oldest operation; the others wait behind it."""
        while self._incoming:
            operation = self._incoming.popleft()
            if operation.key not in self._behind:
                self._behind[operation.key] = None
                self._queue.add(operation)
                continue
            behind = self._behind[operation.key]
            if behind is None:
                behind = self._behind[operation.key] = deque()
            behind.append(operation)

    def _run(self, batch: Batch) -> None:
        """Write one batch: every operation in it ends, or waits to be written again."""
        try:
            with self._section:
                self._open_leases(batch)
            answer = self._send(batch)
        except psycopg.Error as error:
            if not may_be_one_members(error):
                self._fail_in_section(batch.operations, error)
            elif len(batch.operations) > 1:
                # What one member has caused, by its values or by rows that somebody holds, must not fail the others.
                for operation in batch.operations:
                    self._run(Batch([operation]))
            elif isinstance(error, pg.LockNotAvailable):
                self._stragglers.add(batch.operations[0])
            else:
                self._fail_in_section(batch.operations, error)
        except Exception as error:
            self._fail_in_section(batch.operations, _known(error))
        except BaseException as error:
            self._fail(batch.operations, _known(error))
            raise
        else:
            if answer is not None:
                with self._section:
                    self._settle(batch, answer)

    def _send(self, batch: Batch, *, wait: bool = False) -> str | None:
        """Send a batch; return its answer, or None where all callers have gone and nothing was sent."""
        end = batch.deadline
        for attempt in range(ATTEMPTS):
            try:
                if not self._meter.active:
                    return self._store.write(batch, end, begin=self._begin, wait=wait)
                with self._meter.watch("write", len(batch.operations)):
                    return self._store.write(batch, end, begin=self._begin, wait=wait)
            except WriteOutcomeUnknown:
                raise
            except (psycopg.Error, PgSessionError) as error:
                self._not_sent(batch.operations)
                if not isinstance(error, _TRANSIENT) or attempt + 1 == ATTEMPTS:
                    raise
                self._logger.info(
                    "a batch of %s is tried again: %s", counted(len(batch.operations), "write"), error
                )
        raise AssertionError("unreachable")

    def _settle(self, batch: Batch, answer: str) -> None:
        settled = self._read(batch, answer)
        if settled is not None:
            self._try_locked_again(settled.locked)

    def _read(self, batch: Batch, answer: str) -> Settled | None:
        """Give each operation its result, but for those whose rows are locked.

        Returns:
            What became of the batch; None: the answer cannot be read, and every operation has ended with that error.
        """
        try:
            settled = batch.settle(answer)
        except Exception as error:
            doubt = WriteOutcomeUnknown(f"committed, but the answer cannot be read: {error}")
            doubt.__cause__ = error
            self._fail(batch.operations, doubt)
            return None
        self.batches += 1
        self._check_origin(batch, settled.incarnation, settled.xmax)
        self._audit.settled(settled.results, settled.evicted)
        for key in settled.evicted:  # also one that was created here, and evicted by a later one of its user
            self._coherence.drop(events.Deleted(key))
        for operation, result in settled.results:
            self._finish(operation, result, settled.incarnation)
        return settled

    def _check_origin(self, batch: Batch, incarnation: str | None, xmax: int) -> None:
        """Compare, once for all operations, which server has answered with the one that is listened to."""
        lease = batch.operations[0].lease
        if lease is not None:
            verdict = self._coherence.answered(lease, incarnation, xmax)
            if verdict is not None and verdict.reconnect:
                self._on_wrong_server()

    def _try_locked_again(self, locked: list[Operation]) -> None:
        """Put operations whose rows are locked back into the queue; have those wait apart that were put back before.

        So nobody waits for a row that somebody else holds, but those who want that very row.
        """
        self._not_sent(locked)
        for operation in reversed(locked):
            if operation.locked > 1:
                self._stragglers.add(operation)
            else:
                with self._guard:
                    self._queue.again(operation)
        if locked:
            self._wake()  # a lane for crowds ends without them

    def _write_alone(self, operation: Operation) -> bool:
        """Write an operation whose row somebody holds, waiting for it; return False if that has to be tried again."""
        if operation.given_up:
            self._fail([operation], _given_up())
            return True
        batch = Batch([operation])
        tries = operation.locked
        try:
            answer = self._send(batch, wait=self._holds_connections)
        except pg.LockNotAvailable:
            return False
        except Exception as error:
            self._fail_in_section(batch.operations, _known(error))
            return True
        except BaseException as error:
            self._fail(batch.operations, _known(error))
            raise
        with self._section:
            settled = None if answer is None else self._read(batch, answer)
        if settled is None or operation.locked == tries:
            return True
        self._not_sent([operation])
        return False

    def _fail_in_section(self, operations: list[Operation], error: Exception) -> None:
        with self._section:
            self._fail(operations, error)

    def _fail(self, operations: list[Operation], error: Exception) -> None:
        for number, operation in enumerate(operations):
            # Each caller raises one of his own.
            self._finish(operation, _copied(error) if number else error, None)

    def _finish(self, operation: Operation, result: Any, incarnation: str | None) -> None:
        """Close the operation's lease, let the same session's next one go, and answer the caller."""
        failed = isinstance(result, Exception)
        if failed:
            self._count_failure(result)
        else:
            self.writes += 1
        self._close_lease(operation, result, incarnation)
        self._waiting.discard(operation)
        with self._guard:
            operation.finished = True
            behind = self._behind.get(operation.key)
            if behind:
                self._queue.add(behind.popleft())
            else:
                self._behind.pop(operation.key, None)
        if failed:
            operation.future.set_error(result)
        else:
            operation.future.set_result(result)
        if behind is not None:
            self._wake()

    def _count_failure(self, error: Exception) -> None:
        if isinstance(error, ConflictError):
            self.conflicts += 1
        elif isinstance(error, psycopg.Error | WriteOutcomeUnknown):
            self.failures += 1

    def _close_lease(self, operation: Operation, result: Any, incarnation: str | None) -> None:
        lease, coherence = operation.lease, self._coherence
        if lease is None:
            return  # it was never sent
        if isinstance(result, Record):
            # A lease of today's may stand behind one of before a failover, by which the batch was compared.
            if coherence.write_saved(lease, result, incarnation).reconnect:
                self._on_wrong_server()
        elif result is None or isinstance(result, SessionNotFoundError):
            coherence.write_gone(lease)
        elif isinstance(result, ConflictError | SessionExistsError):
            coherence.write_conflicted(lease)
        elif isinstance(result, WriteOutcomeUnknown):
            coherence.write_unknown(lease)
        else:
            coherence.write_failed(lease)


def _copied(error: Exception) -> Exception:
    another = copy.copy(error)
    another.__cause__ = error.__cause__
    return another


def _given_up() -> Exception:
    return OperationTimeout("given up before it was sent")


def _known(error: BaseException) -> Exception:
    """Return the error for each operation of a failed batch: the database's own, or that the outcome is unknown."""
    if isinstance(error, psycopg.Error | PgSessionError):
        return error
    doubt = WriteOutcomeUnknown(f"interrupted while this was written: {type(error).__name__}: {error}")
    doubt.__cause__ = error
    return doubt
