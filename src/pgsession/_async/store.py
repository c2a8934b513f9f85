"""The store is the database as the shells see it.

Every statement goes through it, and each failure gets its meaning here.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import PoolTimeout

from pgsession._concurrency import AsyncBackgroundTasks, AsyncDeadlines
from pgsession._core.record import Record
from pgsession._database.arrays import integer_array, uuid_array
from pgsession._database.connections import cut, leads_elsewhere, lost_durability
from pgsession._database.script import Script
from pgsession._database.statements import NIL, Commit, Statements, write_arguments
from pgsession._protocol import events
from pgsession._protocol.batch import Batch
from pgsession._protocol.snapshots import record_of, records_of
from pgsession.errors import OperationTimeout, WriteOutcomeUnknown

from .pool import AsyncPool, plain_cursor

LOCK_TIMEOUT: Final = 10_000  # ms that a write waits for a row which somebody else has locked
# ms that a batch does for what it cannot pass by (an attribute's row, a table), or half of the operation timeout
BATCH_LOCK_TIMEOUT: Final = 500
PATIENCE: Final = 6  # operation timeouts for a step of a bulk operation, and for comparing all that is cached
STEP: Final = 2_000  # sessions for each transaction of a bulk operation


class Acquired(NamedTuple):
    """Holds what the attempt to take a lock gave; its times are by the database's clock."""

    acquired: bool | None
    """True where the lock was taken; None: the session that it was to live with is gone."""
    token: int
    expires_at: int
    now: int


class AsyncStore:
    """Runs the library's statements on the connections of a pool.

    `commit` says how writes become durable (see `statements`); `inactivity` is in microseconds, `operation_timeout` in
    seconds: then the connection of a statement that is not answered is cut.

    Whatever uses a connection is done apart from its caller (`AsyncBackgroundTasks.call`): an exception raised into a
    thread of the user's, at whatever step, finds it waiting and nothing else.
    """

    def __init__(
        self,
        pool: AsyncPool,
        statements: Statements,
        *,
        node: str,
        inactivity: int,
        commit: Commit,
        operation_timeout: float,
        background: AsyncBackgroundTasks,
        deadlines: AsyncDeadlines,
    ) -> None:
        self._pool = pool
        self._background = background
        self._deadlines = deadlines
        self._timeout = operation_timeout
        self._batch_lock_timeout = max(1, min(BATCH_LOCK_TIMEOUT, int(operation_timeout * 1000 / 2)))
        self._sql = statements
        self._node = node
        self._inactivity = inactivity
        self._commit = commit
        self._prepare: bool | None = None  # as psycopg sees fit

    async def look_for_pooler(self) -> None:
        """Prepare no statements from now on where a pooler shares the server's connections between clients.

        There a prepared statement may be missing, or be another client's of the same name. Such a pooler gives its
        clients process ids of its own making.
        """
        await self._background.call(self._look_for_pooler)

    async def _look_for_pooler(self) -> None:
        async with self._pool.connection() as connection:
            with self._deadlines.within(self._timeout, partial(cut, connection.pgconn)):
                cursor = await plain_cursor(connection).execute(
                    "SELECT pg_catalog.pg_backend_pid()", prepare=False
                )
                row = await cursor.fetchone()
            self._prepare = None if row is not None and row[0] == connection.info.backend_pid else False

    @property
    def _waiting_timeout(self) -> float:
        """Seconds for what may wait for a row that somebody else has locked."""
        return LOCK_TIMEOUT / 1000 + self._timeout

    # Reads

    def deadline(self) -> float:
        """Return the moment of `time.monotonic` by which an operation that begins now has to be over."""
        return time.monotonic() + self._timeout

    async def read(self, key: bytes, deadline: float) -> tuple[Record | None, str | None]:
        """Return one live session, or None, as one snapshot (C4); and the server's incarnation.

        The `deadline` is its caller's, who may have waited for this to begin.
        """
        incarnation, _, snapshot = await self.query(
            self._sql.read, (key.hex(), self._inactivity), deadline=deadline
        )
        return None if snapshot is None else record_of(snapshot), incarnation

    async def list_user(self, user_id: str) -> tuple[list[Record], str | None]:
        """Return a user's live sessions, newest access first; and the server's incarnation."""
        incarnation, _, snapshots = await self.query(self._sql.list_user, (user_id, self._inactivity))
        return records_of(snapshots), incarnation

    async def list_group(self, group_id: str) -> tuple[list[Record], str | None]:
        """Return a group's live sessions, newest access first; and the server's incarnation."""
        incarnation, _, snapshots = await self.query(self._sql.list_group, (group_id, self._inactivity))
        return records_of(snapshots), incarnation

    async def resync(self, keys: Sequence[bytes], versions: Sequence[int]) -> tuple[list[bytes], str | None]:
        """Return the ids of the sessions that differ from the database; and the server's incarnation.

        These are the ones whose version in the database is another, or that are gone from it.
        """
        incarnation, _, differing = await self.query(
            self._sql.resync,
            (uuid_array(keys), integer_array(versions)),
            deadline=time.monotonic() + PATIENCE * self._timeout,
        )
        packed = bytes(differing or b"")
        return [packed[start : start + 16] for start in range(0, len(packed), 16)], incarnation

    async def prove(self, payload: str) -> tuple[int, str | None]:
        """Send a proof to this node's listener through the pool; return the database's time and the incarnation."""
        now, incarnation = await self.query(self._sql.proof, (self._node, payload), again=False)
        return now, incarnation

    async def ping(self, timeout: float) -> None:
        """Check that the database answers.

        Raises:
            psycopg.OperationalError: No answer came within `timeout` seconds; the connection is given up.
        """
        await self._background.call(partial(self._ping, timeout, time.monotonic() + timeout))

    async def _ping(self, timeout: float, end: float) -> None:
        async with self._pool.connection(_left(end)) as connection:
            limit = self._deadlines.within(_left(end), partial(cut, connection.pgconn))
            try:
                with limit:
                    await plain_cursor(connection).execute("SELECT 1")
            except psycopg.OperationalError as error:
                if limit.passed:
                    raise psycopg.OperationalError(f"no answer within {timeout} s") from error
                raise

    async def notify(self, items: list[events.Item]) -> None:
        """Send these items to every node, as one event or more."""
        for payload in events.payloads(self._node, items):
            await self.query(self._sql.notify, (payload,), again=False)

    async def query(
        self,
        statement: str,
        parameters: tuple[Any, ...],
        *,
        again: bool = True,
        deadline: float | None = None,
    ) -> Any:
        """Return the one row that a statement gives.

        Args:
            statement: The statement, with `%s` for each parameter.
            parameters: The parameters.
            again: True for one that only reads: where the connection is lost or leads elsewhere, it is run once more,
                on another.
            deadline: The moment of `time.monotonic` by which all of it has to be over; None: after
                `operation_timeout`.

        Raises:
            OperationTimeout: The server did not answer in time.
        """
        end = self.deadline() if deadline is None else deadline
        return await self._background.call(partial(self._query_again, statement, parameters, again, end))

    async def _query_again(self, statement: str, parameters: tuple[Any, ...], again: bool, end: float) -> Any:
        try:
            return await self._query(statement, parameters, end)
        except PoolTimeout:
            raise
        except psycopg.Error as error:
            # Without an SQLSTATE it was the connection that failed, not the statement.
            lost = isinstance(error, psycopg.OperationalError) and error.sqlstate is None
            if not again or not (lost or leads_elsewhere(error)) or time.monotonic() >= end:
                raise
        return await self._query(statement, parameters, end)

    async def _query(self, statement: str, parameters: tuple[Any, ...], end: float) -> Any:
        async with self._pool.connection(_left(end)) as connection:
            cursor = plain_cursor(connection)
            _refuse_late(end)
            limit = self._deadlines.within(_left(end), partial(cut, connection.pgconn))
            try:
                with limit:
                    return await (
                        await cursor.execute(statement, parameters, prepare=self._prepare)
                    ).fetchone()
            except psycopg.OperationalError as error:
                if limit.passed:
                    raise OperationTimeout("the database did not answer in time") from error
                raise

    # Writes

    async def write(self, batch: Batch, *, wait: bool = False) -> str:
        """Write a batch in one transaction and one round trip; return the answer, which is for `Batch.settle`.

        Args:
            batch: The batch to write.
            wait: True to wait for rows that somebody else has locked, for each `LOCK_TIMEOUT` at most. Otherwise
                locked sessions are answered as such, and for other rows, and tables, it waits for `BATCH_LOCK_TIMEOUT`.

        Raises:
            WriteOutcomeUnknown: It was sent, and nobody can know if it was done.
            psycopg.Error: It is known not to have been done.
        """
        mark = secrets.token_hex(8)
        limit, evicts = batch.limit
        arguments = write_arguments(self._inactivity, wait, *batch.rows(), max_sessions=limit, evicts=evicts)
        script = self._sql.write(
            self._node, mark, arguments,
            commit=self._commit, lock_timeout=LOCK_TIMEOUT if wait else self._batch_lock_timeout,
        )  # fmt: skip
        row = await self._run(script, mark, self._waiting_timeout if wait else None)
        return str(row[0])

    async def write_accesses(self, accesses: Sequence[tuple[bytes, int]]) -> set[bytes]:
        """Write last accesses; return the sessions that somebody has locked, for the next time."""
        script = self._sql.write_accesses(
            uuid_array(key for key, _ in accesses), integer_array(at for _, at in accesses)
        )
        packed = (await self._run(script))[0] or b""
        return {packed[start : start + 16] for start in range(0, len(packed), 16)}

    async def delete_user(self, user_id: str, keep: bytes | None) -> int:
        """Delete a user's sessions, any number in bounded steps, all but `keep`; return how many were deleted."""
        kept = None if keep is None else keep.hex()
        return await self._walk(
            lambda after, options: self._sql.delete_user(self._node, user_id, kept, after, **options)
        )

    async def delete_group(self, group_id: str) -> int:
        """Delete a group's sessions, in bounded steps; return how many were deleted."""
        return await self._walk(
            lambda after, options: self._sql.delete_group(self._node, group_id, after, **options)
        )

    async def delete_all(self) -> int:
        """Delete every session, in bounded steps; return how many were deleted."""
        return await self._walk(lambda after, options: self._sql.delete_all(self._node, after, **options))

    async def drop_attribute(self, user_id: str, key: str) -> int:
        """Remove an attribute from a user's sessions; return how many had it."""
        return await self._walk(
            lambda after, options: self._sql.drop_attribute(self._node, user_id, key, after, **options)
        )

    async def _walk(self, script: Callable[[str, dict[str, Any]], Script]) -> int:
        """Do a bulk operation in bounded steps, a transaction each; return how many sessions it changed.

        It goes past rows that others hold, and then once more, waiting for those.
        """
        changed, skipped = await self._walk_once(script, {})
        if skipped:
            more, _ = await self._walk_once(script, {"waiting": True, "lock_timeout": LOCK_TIMEOUT})
            changed += more
        return changed

    async def _walk_once(
        self, script: Callable[[str, dict[str, Any]], Script], options: dict[str, Any]
    ) -> tuple[int, int]:
        after: str | None = NIL
        changed = skipped = 0
        while after is not None:
            last, done, passed, *_ = await self._run(
                script(after, {"commit": self._commit, "size": STEP, **options}),
                timeout=PATIENCE * self._timeout,
            )
            after = None if last is None else last.hex
            changed += int(done)
            skipped += int(passed)
        return changed, skipped

    async def cleanup(self, what: Any, after: str) -> tuple[str | None, int, bool]:
        """Do one bounded step of the cleanup.

        Returns:
            The id after which to go on, or None; the number of what was removed; and True where another node is
            cleaning up at this moment.
        """
        row = await self._run(self._sql.cleanup(self._node, what, self._inactivity, after, size=STEP))
        last, removed, busy, *_ = row
        return None if last is None else last.hex, removed, busy

    async def incarnate(self) -> str:
        """Return the incarnation of the server; make one if there is none."""
        row = await self._run(self._sql.incarnate())
        return str(row[0])

    # Locks

    async def acquire(self, resource: str, owner: str, lease: int, session_id: bytes | None) -> Acquired:
        """Take a lock that is free or whose lease time is over."""
        session = None if session_id is None else session_id.hex()
        row = await self._run(self._sql.acquire(resource, owner, lease, session, self._inactivity))
        acquired, token, expires_at, now, *_ = row
        return Acquired(acquired, int(token or 0), int(expires_at or 0), int(now or 0))

    async def renew(self, resource: str, owner: str, lease: int, *, timeout: float) -> int | None:
        """Let the lease time of a held lock end later.

        Returns:
            The database's time at which it ends now; None: the lock is not held any more.
        """
        row = await self._run(self._sql.renew(resource, owner, lease), timeout=timeout)
        return None if row is None else int(row[0])

    async def release(self, resource: str, owner: str) -> bool | None:
        """Give a lock back; return True if that was in time, False if it was late, and None if it was not held."""
        row = await self._run(self._sql.release(self._node, resource, owner))
        return None if row is None else bool(row[0])

    # Connections

    async def _run(self, script: Script, mark: str | None = None, timeout: float | None = None) -> Any:
        """Run a script in one round trip; return the row that it answers with.

        Its callers are answered only when its last statement is: the commit that is durable. After `timeout` seconds
        (None: `operation_timeout`) the connection is given up.
        """
        end = time.monotonic() + (timeout or self._timeout)
        return await self._background.call(partial(self._run_script, script, mark, end))

    async def _run_script(self, script: Script, mark: str | None, end: float) -> Any:
        async with self._pool.connection(_left(end)) as connection:
            doubts: list[str] = []
            _refuse_late(end)

            def notice(diagnostic: psycopg.errors.Diagnostic) -> None:
                if lost_durability(diagnostic):
                    doubts.append(diagnostic.message_primary or "")

            connection.add_notice_handler(notice)
            try:
                with self._deadlines.within(_left(end), partial(cut, connection.pgconn)):
                    async with connection.lock:
                        row = await connection.wait(script.run(connection.pgconn))
            except psycopg.Error as error:
                with self._deadlines.within(self._timeout, partial(cut, connection.pgconn)):
                    await self._check_outcome(connection, error, mark)
                raise
            finally:
                connection.remove_notice_handler(notice)
            if doubts:
                raise WriteOutcomeUnknown(
                    f"committed, but perhaps not where it was to be replicated: {doubts[0]}"
                )
            return row

    async def _check_outcome(
        self, connection: AsyncConnection[Any], error: psycopg.Error, mark: str | None
    ) -> None:
        """Return if the script is known not to have been committed, else raise `WriteOutcomeUnknown`."""
        if connection.closed:
            raise WriteOutcomeUnknown(f"the connection was lost before the answer came: {error}") from error
        try:
            cursor = await plain_cursor(connection).execute(
                "ROLLBACK; SELECT pg_catalog.current_setting('pgsession.batch', true)", prepare=False
            )
            cursor.nextset()
            row = await cursor.fetchone()
        except psycopg.Error:
            raise WriteOutcomeUnknown(f"the connection was lost after an error: {error}") from error
        if mark is not None and row is not None and row[0] == mark:
            raise WriteOutcomeUnknown(f"committed, but perhaps not durable: {error}") from error


def _left(end: float) -> float:
    """Return the seconds that are left until a moment of `time.monotonic`; at least a millisecond."""
    return max(end - time.monotonic(), 0.001)


def _refuse_late(end: float) -> None:
    """Refuse what had to wait for too long: sent now, it would be cut at once, and a good connection with it."""
    if time.monotonic() >= end:
        raise psycopg.OperationalError("no connection was to be had in time; nothing was sent")
