# Generated from src/pgsession/_async/store.py by tools/async_to_sync.py: never edit.

"""The store is the database as the shells see it.

Every statement goes through it, and each failure gets its meaning here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import msgspec
import psycopg
from psycopg import Connection

from pgsession._concurrency import Action, BackgroundTasks, sleep
from pgsession._core.record import Record
from pgsession._database.arrays import integer_array, uuid_array
from pgsession._database.connections import leads_elsewhere, lost_durability, no_answer
from pgsession._database.script import ROLL_BACK, CommitFailed, Row, Script, question
from pgsession._database.statements import NIL, NOT_LIVE, Commit, Statements, write_arguments
from pgsession._protocol import acknowledgements, events
from pgsession._protocol.batch import Batch
from pgsession._protocol.coherence import Applied, Asked, Coherence, Resync, Wanted
from pgsession._protocol.snapshots import Some, record_of, records_of, some_of
from pgsession.errors import OperationTimeout, PgSessionError, WriteOutcomeUnknown

from .lone_connections import LoneConnections
from .pool import Pool, plain_cursor
from .prober import Prober
from .stragglers import FIRST_PAUSE, LONGEST_PAUSE

# ms that a batch, a step of a walk or a heartbeat waits for what it cannot pass by, as an attribute's row or a table.
# Then its members wait by themselves, or it is tried again later.
BATCH_LOCK_TIMEOUT: Final = 100
STEP: Final = 240  # sessions for each transaction of a bulk operation
PAGE: Final = 500  # sessions that a step of the cleanup looks at, of which few have to go
# Of the time that a step took: for so long others then have the server's processors and disk for themselves.
REST: Final = 0.2
LONGEST_REST: Final = 0.1  # seconds; what takes longer waits for somebody
ATTEMPTS: Final = 3  # of what is given up to end a deadlock, or by a server that does not write any more
COMPARED: Final = 20_000  # ids for each statement of a resync
CALLERS_PART: Final = 0.05  # of `operation_timeout`: its end, in which a caller hears how it ended
# The part before that, in which the server's answer comes that it has given up, and that nothing was done.
ANSWERS_PART: Final = 0.15
# The part by which the server may take longer: to tell it each time would cost a tenth of a lone write.
SLACK: Final = 0.05

_SERVING: Final = msgspec.json.Decoder(dict[str, int])
_NAMES: Final = msgspec.json.Decoder(list[str])

OnDone: TypeAlias = Action[list[bytes], None]


class Acquired(NamedTuple):
    """Holds what the attempt to take a lock gave; its times are by the database's clock."""

    acquired: bool | None
    """True where the lock was taken; None: the session that it was to live with is gone."""
    token: int
    expires_at: int
    now: int


class Store:
    """Runs the library's statements on the connections of a pool.

    `commit` says how writes become durable (see `statements`); `operation_timeout` is in seconds; `limited` is true
    where the connections have `servers_limit` as their limit.

    Every operation has a deadline, which all of its steps share: the wait for a connection, the statement, a second
    try, the question of what became of a write. Nothing is sent after it, and a connection that has not answered by
    then is cut. The server is given a little less, so that it can say in time that it did nothing.

    Whatever uses a connection is done apart from its caller (`BackgroundTasks.call`): an exception raised into a
    thread of the user's, at whatever step, finds it waiting and nothing else.

    While the database is known to be down nothing is sent, and an answer that fails to come has the prober look.

    Every answer says which incarnation it is of. Where it has no lease, which its caller closes, it is compared here:
    one of another server than the listener's has `on_wrong_server` called. Without `coherence` there is no listener to
    compare with.
    """

    def __init__(
        self,
        pool: Pool | LoneConnections,
        statements: Statements,
        *,
        node: str,
        commit: Commit,
        operation_timeout: float,
        limited: bool,
        background: BackgroundTasks,
        prober: Prober,
        coherence: Coherence | None = None,
        on_wrong_server: Callable[[], object] = lambda: None,
    ) -> None:
        self._pool = pool
        self._coherence = coherence
        self._on_wrong_server = on_wrong_server
        self._background = background
        self._prober = prober
        self.timeout = operation_timeout
        self._limited = limited
        self._sql = statements
        self._node = node
        self._commit = commit
        self._batches = count()  # each has a mark of its own
        self._prepares = True

    def look_for_pooler(self) -> None:
        """Prepare no statements from now on where a pooler shares the server's connections between clients.

        There a prepared statement may be missing, or be another client's of the same name. Such a pooler gives its
        clients process ids of its own making.
        """
        self._apart(self._look_for_pooler, self.deadline())

    def _look_for_pooler(self, end: float) -> None:
        with self._pool.connection(end) as connection:
            cursor = plain_cursor(connection).execute("SELECT pg_catalog.pg_backend_pid()", prepare=False)
            row = cursor.fetchone()
            if row is None or row[0] != connection.info.backend_pid:
                self._prepares = self._limited = False

    def check_available(self) -> None:
        """Let a call go on to the database.

        Raises:
            DatabaseUnavailable: The database is known to be down.
        """
        if self._prober.breaker.is_open:
            self._prober.suspect()  # should nobody look any more
            raise self._prober.breaker.error()

    def _apart(self, fn: Callable[[float], Any], end: float) -> Any:
        """Do what uses a connection, and ends by itself at about `end`, apart from its caller.

        Raises:
            DatabaseUnavailable: The database is known to be down; nothing was sent.
            OperationTimeout: There was no time to begin.
        """
        self.check_available()
        try:
            return self._background.call(partial(fn, end), end)
        except (psycopg.Error, PgSessionError) as error:
            if no_answer(error):
                self._prober.suspect()
            raise

    # Reads

    def deadline(self) -> float:
        """Return the moment of `time.monotonic` by which an operation that begins now has to be over.

        It is a little before `operation_timeout` is, for its caller to hear how it ended.
        """
        return time.monotonic() + (1 - CALLERS_PART) * self.timeout

    def waits_until(self, deadline: float) -> float:
        """Return the moment of `time.monotonic` until which the caller of an operation with this deadline waits."""
        return deadline + CALLERS_PART * self.timeout

    def left(self, deadline: float) -> float:
        """Return the seconds for which the caller of an operation with this deadline waits from now on."""
        return self.waits_until(deadline) - time.monotonic()

    def read(self, key: bytes, deadline: float) -> tuple[Record | None, str | None, int, int, bool]:
        """Return one live session, or None, as one snapshot (C4); what the server says of itself; True: it is absent.

        The server says its incarnation, its time, and the snapshot's xmax. It is an absence where there is no session,
        or none any more; an inactive one is there. The `deadline` is its caller's, who may have waited for this.
        """
        incarnation, now, snapshot, xmax = self.query(self._sql.read, (key.hex(),), deadline=deadline)
        record = None if snapshot in (None, NOT_LIVE) else record_of(snapshot, incarnation)
        return record, incarnation, now, int(xmax), snapshot is None

    def read_many(self, keys: Sequence[bytes], deadline: float) -> tuple[Some, str | None, int, int]:
        """Return what there is of these sessions, as one snapshot; and what the server says of itself."""
        incarnation, now, snapshots, xmax = self.query(
            self._sql.read_many, (uuid_array(keys),), deadline=deadline
        )
        return some_of(snapshots, incarnation), incarnation, now, int(xmax)

    def list_page(
        self,
        subject: Literal["user", "group"],
        name: str,
        limit: int,
        after: tuple[int, bytes] | None,
        deadline: float,
    ) -> tuple[list[Record], str | None]:
        """Return a user's or group's live sessions, newest access first; and the server's incarnation.

        At most `limit` of them: those behind the access and the id `after`, where these are given.
        """
        accessed, key = (None, None) if after is None else (after[0], after[1].hex())
        statement = self._sql.list_user if subject == "user" else self._sql.list_group
        incarnation, _, snapshots = self._compared(
            statement, name, accessed, accessed, key, limit, deadline=deadline
        )
        return records_of(snapshots, incarnation), incarnation

    def count(self, user_id: str | None, group_id: str | None) -> int:
        """Return the number of live sessions, of a user and of a group where they are given."""
        of = (user_id, user_id, group_id, group_id)
        counted, _ = self.query(self._sql.count, of)
        return int(counted)

    def resync(self, cached: Resync) -> list[bytes] | None:
        """Return the ids of the sessions that differ from the database, None where another server answered.

        These are the ones whose version or generation in the database is another, or that are gone from it.
        """
        found: list[bytes] = []
        for start in range(0, max(len(cached.keys), 1), COMPARED):
            some = slice(start, start + COMPARED)
            asked = self._asked()
            incarnation, _, differing, xmax = self.query(
                self._sql.resync,
                (
                    uuid_array(cached.keys[some]),
                    integer_array(cached.versions[some]),
                    integer_array(cached.generations[some]),
                ),
            )
            if self._is_elsewhere(asked, incarnation, xmax):
                return None
            found += _unpacked(differing)
        return found

    def missing(self, keys: Sequence[bytes]) -> tuple[set[bytes], str | None, int]:
        """Return of which of these sessions there is no row; the server's incarnation, and the snapshot's xmax."""
        incarnation, _, missing, xmax = self.query(self._sql.missing, (uuid_array(keys),))
        return set(_unpacked(missing)), incarnation, int(xmax)

    def identity(self) -> str:
        """Return what tells these tables from all others, and stays what it is through restarts and failovers."""
        row = self.query(self._sql.identity, ())
        return " ".join(map(str, row))

    def look(self) -> tuple[int, float]:
        """Read nothing but what every answer says; return the database's time, and how full its queue is."""
        _, now, usage = self._compared(self._sql.look)
        return now, float(usage)

    def send_beacon(self, wanted: Wanted) -> int:
        """Have a beacon sent, unless another one will do; return the database's time."""
        asked = self._asked()
        now, began, *_ = self._run(self._sql.send_beacon(self._node, *wanted))
        if began and self._coherence is not None and asked is not None:
            self._coherence.beacon_began(asked, wanted)
        return int(now)

    def ping(self, timeout: float) -> None:
        """Check that the database answers.

        Raises:
            OperationTimeout: No answer came within `timeout` seconds.
            DatabaseUnavailable: The database is known to be down.
        """
        self._apart(self._ping, time.monotonic() + timeout)

    def _ping(self, end: float) -> None:
        with self._pool.connection(end) as connection:
            self._answer_of(question("SELECT 1", ()), connection)

    def notify(self, items: list[events.Item]) -> None:
        """Send these items to every node, as one event or more."""
        for texts in events.batches(items):
            self.query(self._sql.notify, (self._node, texts), again=False)

    def _compared(self, statement: str, *parameters: str | int | None, deadline: float | None = None) -> Row:
        """Return the row of a statement that only reads, without its last column."""
        asked = self._asked()
        *row, xmax = self.query(statement, parameters, deadline=deadline)
        self._is_elsewhere(asked, row[0], xmax)
        return tuple(row)

    def _asked(self) -> Asked | None:
        return None if self._coherence is None else self._coherence.asked()

    def _is_elsewhere(self, asked: Asked | None, incarnation: str | None, xmax: str | int) -> bool:
        """Compare which server has answered with the listener's; return True if it is another, or was replaced."""
        if self._coherence is None or asked is None:
            return False
        verdict = self._coherence.answered(asked, incarnation, int(xmax))
        if verdict is not None and verdict.reconnect:
            self._on_wrong_server()
        return verdict is not None

    def query(
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
                on another. Any is where the server says that it takes no writes.
            deadline: The moment of `time.monotonic` by which all of it has to be over; None: after
                `operation_timeout`.

        Raises:
            OperationTimeout: The server did not answer in time.
            DatabaseUnavailable: The database is known to be down.
        """
        end = self.deadline() if deadline is None else deadline
        return self._apart(partial(self._query_again, statement, parameters, again), end)

    def _query_again(self, statement: str, parameters: tuple[Any, ...], again: bool, end: float) -> Any:
        try:
            return self._query(statement, parameters, end)
        except psycopg.Error as error:
            # Without an SQLSTATE it was the connection that failed, not the statement.
            lost = isinstance(error, psycopg.OperationalError) and error.sqlstate is None
            refused = isinstance(error, psycopg.errors.ReadOnlySqlTransaction)  # nothing was done
            if not (refused or (again and (lost or leads_elsewhere(error)))):
                raise
        return self._query(statement, parameters, end)

    def _query(self, statement: str, parameters: tuple[Any, ...], end: float) -> Any:
        with self._pool.connection(end) as connection:
            try:
                return self._answer_of(question(statement, parameters), connection)
            except psycopg.errors.QueryCanceled as error:
                if self.is_late(end):
                    raise OperationTimeout("the database could not answer in time") from error
                raise

    # Writes

    def write(
        self, batch: Batch, end: float, *, begin: Callable[[Batch], bool], wait: bool = False
    ) -> str | None:
        """Write a batch in one transaction and one round trip; return the answer, which is for `Batch.settle`.

        Args:
            batch: The batch to write.
            end: The moment of `time.monotonic` by which all of it has to be over.
            begin: Called once there is a connection, and nothing has been sent: takes out of the batch whose callers
                have gone. False: nothing is left of it, and None is returned.
            wait: True to wait for rows that somebody else has locked. Otherwise locked sessions are answered as such,
                and other rows and tables are waited for as `BATCH_LOCK_TIMEOUT` says (psycopg's LockNotAvailable).

        Raises:
            WriteOutcomeUnknown: It was sent, and nobody can know if it was done.
            OperationTimeout, DatabaseUnavailable, psycopg.Error: It is known not to have been done.
        """
        mark = f"{self._node} {next(self._batches)}"

        def script() -> Script | None:
            if not begin(batch):
                return None
            limit, evicts = batch.limit
            arguments = write_arguments(
                wait,
                *batch.rows(),
                accesses=batch.accesses(),
                max_sessions=limit,
                evicts=evicts,
            )
            return self._sql.write(
                self._node, mark, arguments,
                commit=self._commit, lock_timeout=0 if wait else BATCH_LOCK_TIMEOUT,
            )  # fmt: skip

        row = self._apart(partial(self._run_script, script, mark), end)
        return None if row is None else str(row[0])

    def write_accesses(self, accesses: Sequence[tuple[bytes, int]]) -> set[bytes]:
        """Write last accesses; return the sessions that somebody has locked, for the next time."""
        script = self._sql.write_accesses(
            uuid_array(key for key, _ in accesses), integer_array(at for _, at in accesses)
        )
        return set(_unpacked((self._run(script))[0]))

    def delete_user(self, user_id: str, keep: bytes | None, on_done: OnDone) -> int:
        """Delete a user's sessions, any number in bounded steps, all but `keep`; return how many were deleted."""
        kept = None if keep is None else keep.hex()
        return self._walk(
            lambda after, options: self._sql.delete_user(self._node, user_id, kept, after, **options), on_done
        )

    def delete_group(self, group_id: str, on_done: OnDone) -> int:
        """Delete a group's sessions, in bounded steps; return how many were deleted."""
        return self._walk(
            lambda after, options: self._sql.delete_group(self._node, group_id, after, **options), on_done
        )

    def delete_all(self, on_done: OnDone) -> int:
        """Delete every session, in bounded steps; return how many were deleted."""
        return self._walk(lambda after, options: self._sql.delete_all(self._node, after, **options), on_done)

    def drop_attribute(self, user_id: str, key: str, on_done: OnDone) -> int:
        """Remove an attribute from a user's sessions; return how many had it."""
        return self._walk(
            lambda after, options: self._sql.drop_attribute(self._node, user_id, key, after, **options),
            on_done,
        )

    def _walk(self, script: Callable[[str, dict[str, Any]], Script], on_done: OnDone | None = None) -> int:
        """Do a bulk operation in bounded steps, a transaction each; return how many sessions it changed.

        It goes past rows that others hold, and then once more, waiting for those. `on_done` is called after each step
        with the ids that it was done for, as far as the statement tells.
        """
        changed, skipped = self._walk_once(script, on_done, {})
        if skipped:
            more, _ = self._walk_once(script, on_done, {"waiting": True}, changed)
            changed += more
        return changed

    def _walk_once(
        self,
        script: Callable[[str, dict[str, Any]], Script],
        on_done: OnDone | None,
        options: dict[str, Any],
        before: int = 0,
    ) -> tuple[int, int]:
        after: str | None = NIL
        changed = skipped = 0
        while after is not None:
            step = script(
                after,
                {"commit": self._commit, "size": STEP, "lock_timeout": BATCH_LOCK_TIMEOUT, **options},
            )
            began = time.monotonic()
            try:
                last, done, passed, ended, *_ = self._run_between_others(step)
            except OperationTimeout as error:
                raise error._after(before + changed) from error
            if on_done is not None:
                on_done(_unpacked(ended))
            after = None if last is None else last.hex
            changed += int(done)
            skipped += int(passed)
            if after is not None:
                sleep(rest_after(time.monotonic() - began))
        return changed, skipped

    def cleanup(self, what: Any, delay: int, after: str) -> tuple[str | None, int, bool]:
        """Do one bounded step of the cleanup, which leaves what has been inactive for less than `delay` microseconds.

        Returns:
            The id after which to go on, or None; the number of what was removed; and True where another node is
            cleaning up at this moment.
        """
        size = PAGE if what == "inactive" else STEP
        row = self._run(self._sql.cleanup(self._node, what, delay, after, size=size))
        last, removed, busy, *_ = row
        return None if last is None else last.hex, removed, busy

    def incarnate(self) -> str:
        """Return the incarnation of the server; make one if there is none."""
        row = self._run(self._sql.incarnate())
        return str(row[0])

    # Nodes

    def register(self, node: str, serves_for: int, *, wait: bool = True) -> tuple[int, int]:
        """Enter a node among those that serve sessions from memory; again: it is still there.

        Args:
            node: Its id: this one's, or that of the host whose processes share a cache.
            serves_for: The microseconds for which it serves them after its last proof.
            wait: False: not while somebody else has the table locked (psycopg's LockNotAvailable).

        Returns:
            How many nodes there are, and the longest that one of them serves unheard, in microseconds.
        """
        script = self._sql.register(node, serves_for, lock_timeout=BATCH_LOCK_TIMEOUT)
        count, longest, *_ = self._run_between_others(script) if wait else self._run(script)
        return int(count), int(longest)

    def unregister(self, node: str, deadline: float) -> None:
        """Remove a node by the deadline: it serves nothing any more.

        At the end of a manager there may be less time than a statement has elsewhere.
        """
        self._apart(partial(self._unregister, node), min(deadline, self.deadline()))

    def _unregister(self, node: str, end: float) -> None:
        with self._pool.connection(end) as connection:
            try:
                self._pool.run(connection, self._sql.unregister(node).run(connection.pgconn))
            except CommitFailed as failure:
                raise failure.error from None

    def acknowledge(self, node: str, applied: Applied) -> None:
        """Tell that a node has applied what was committed before a transaction, which asked for it."""
        self._run(self._sql.acknowledge(node, *applied, lock_timeout=BATCH_LOCK_TIMEOUT))

    def ask_nodes(self, deadline: float) -> acknowledgements.Asked:
        """Ask every node to acknowledge what has been committed so far; return which there are."""
        row = self.query(self._sql.ask_nodes, (self._node,), deadline=deadline)
        incarnation, xid, age, serving = row
        return acknowledgements.Asked(incarnation, int(xid), age, _SERVING.decode(serving))

    def silent_nodes(self, nodes: Sequence[str], xid: int, deadline: float) -> tuple[str | None, list[str]]:
        """Return the server's incarnation, and which of these nodes have not acknowledged the transaction."""
        incarnation, silent = self.query(
            self._sql.silent_nodes, (msgspec.json.encode(nodes).decode(), str(xid)), deadline=deadline
        )
        return incarnation, _NAMES.decode(silent)

    # Locks

    def acquire(
        self, resource: str, owner: str, lease: int, session_id: bytes | None, deadline: float | None = None
    ) -> Acquired:
        """Take a lock that is free or whose lease time is over; by the `deadline` of a call with more than one try."""
        session = None if session_id is None else session_id.hex()
        row = self._run(self._sql.acquire(resource, owner, lease, session), deadline)
        acquired, token, expires_at, now, *_ = row
        return Acquired(acquired, int(token or 0), int(expires_at or 0), int(now or 0))

    def renew(self, resource: str, owner: str, lease: int, *, wait: bool = True) -> int | None:
        """Let the lease time of a held lock end later; without `wait`, not where somebody else has its row locked.

        Returns:
            The database's time at which it ends now; None: the lock is not held any more.
        """
        lock_timeout = 0 if wait else BATCH_LOCK_TIMEOUT
        row = self._run(self._sql.renew(resource, owner, lease, lock_timeout=lock_timeout))
        return None if row is None else int(row[0])

    def release(self, resource: str, owner: str) -> bool | None:
        """Give a lock back; return True if that was in time, False if it was late, and None if it was not held."""
        row = self._run(self._sql.release(self._node, resource, owner))
        return None if row is None else bool(row[0])

    # Connections

    def _run(self, script: Script, deadline: float | None = None) -> Any:
        """Run a script in one round trip; return the row that it answers with.

        Its callers are answered only when its last statement is: the commit that is durable. The `deadline` is that of
        a call which has others too; None: it begins now.
        """
        end = self.deadline() if deadline is None else deadline
        asked = self._asked()
        row = self._apart(partial(self._run_again, script), end)
        if row is not None and asked is not None:
            self._is_elsewhere(asked, row[-2], row[-1])
        return row

    def _run_again(self, script: Script, end: float) -> Row | None:
        """Run a script; once more, on another connection, where it led to a server that takes no writes any more."""
        for _ in range(ATTEMPTS - 1):
            try:
                return self._run_script(lambda: script, None, end)
            except psycopg.errors.ReadOnlySqlTransaction:
                pass  # so nothing of it was done
        return self._run_script(lambda: script, None, end)

    def _run_between_others(self, script: Script) -> Row:
        """Run a script that waits for rows and tables for moments only; until its deadline it is tried again.

        So those who wait for what somebody else holds leave the connections to the others.
        """
        end = self.deadline()
        pause = FIRST_PAUSE
        while True:
            try:
                row: Row = self._run(script, end)
                return row
            except psycopg.errors.LockNotAvailable as error:
                if self.is_late(end - pause):
                    raise OperationTimeout(
                        "others had to be waited for too long; nothing was done"
                    ) from error
            sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _run_script(
        self, make_script: Callable[[], Script | None], mark: str | None, end: float
    ) -> Row | None:
        with self._pool.connection(end) as connection:
            if self.is_late(end):
                raise OperationTimeout("others had to be waited for too long; nothing was sent")
            script = make_script()
            if script is None:
                return None
            doubts: list[str] = []

            def notice(diagnostic: psycopg.errors.Diagnostic) -> None:
                if lost_durability(diagnostic):
                    doubts.append(diagnostic.message_primary or "")

            connection.add_notice_handler(notice)
            try:
                row = self._answer_of(self._bounded(script, end), connection)
            except CommitFailed as failure:
                self._check_outcome(connection, failure.error, mark)
                raise failure.error from None
            except psycopg.Error as error:
                if connection.closed:
                    raise WriteOutcomeUnknown(
                        f"the connection was lost before the answer came: {error}"
                    ) from error
                _roll_back(connection)
                if isinstance(error, psycopg.errors.QueryCanceled) and self.is_late(end):
                    raise OperationTimeout(
                        "the database could not do it in time; nothing was done"
                    ) from error
                raise
            finally:
                connection.remove_notice_handler(notice)
            if doubts:
                raise WriteOutcomeUnknown(
                    f"committed, but perhaps not where it was to be replicated: {doubts[0]}"
                )
            return row

    def _answer_of(self, script: Script, connection: Connection[Any]) -> Row | None:
        """Run a script with prepared statements; or without, where the connection turns out to have lost its own.

        A psycopg pool whose `prepare_threshold` is None wants none.
        """
        prepares = self._prepares and connection.prepare_threshold is not None
        try:
            return self._pool.run(connection, script.run(connection.pgconn, prepares=prepares))
        except (psycopg.errors.InvalidSqlStatementName, psycopg.errors.DuplicatePreparedStatement):
            if not prepares:
                raise
        _roll_back(connection)
        return self._pool.run(connection, script.run(connection.pgconn))

    def _bounded(self, script: Script, end: float) -> Script:
        """Return the script with a limit for the server, unless the connection's own is about the same."""
        seconds = end - time.monotonic() - ANSWERS_PART * self.timeout
        if self._limited and seconds >= servers_limit(self.timeout) - SLACK * self.timeout:
            return script
        return script.limited(seconds)

    def is_late(self, end: float) -> bool:
        """Return True where what is left until `end` is no time to have anything done."""
        return end - time.monotonic() < (CALLERS_PART + ANSWERS_PART) * self.timeout

    def _check_outcome(self, connection: Connection[Any], error: psycopg.Error, mark: str | None) -> None:
        """Return if the script is known not to have been committed, else raise `WriteOutcomeUnknown`."""
        row = _roll_back(connection)
        if connection.closed:
            raise WriteOutcomeUnknown(f"the connection was lost after an error: {error}") from error
        if mark is not None and row is not None and row[0] == mark:
            raise WriteOutcomeUnknown(f"committed, but perhaps not durable: {error}") from error


def _unpacked(packed: bytes | None) -> list[bytes]:
    """Return ids, of 16 bytes each."""
    return [] if packed is None else [packed[at : at + 16] for at in range(0, len(packed), 16)]


def rest_after(seconds: float) -> float:
    """Return for how long a bulk operation leaves the server to others after a step that took so many seconds."""
    return min(REST * seconds, LONGEST_REST)


def servers_limit(operation_timeout: float) -> float:
    """Return the seconds that the server may take for a statement, for its answer to come in time."""
    return (1 - CALLERS_PART - ANSWERS_PART) * operation_timeout


def _roll_back(connection: Connection[Any]) -> Row | None:
    """End the transaction of a script that failed; return the mark of the last batch that was committed.

    Where that fails too, the connection is closed.
    """
    try:
        with connection.lock:
            return connection.wait(ROLL_BACK.run(connection.pgconn))
    except psycopg.Error:
        connection.pgconn.finish()
        return None
