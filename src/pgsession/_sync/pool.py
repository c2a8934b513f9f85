# Generated from src/pgsession/_async/pool.py by tools/async_to_sync.py: never edit.

"""A pool lends connections that are fit for use.

It takes them from a psycopg pool, looks at them, and gives them back or throws them away.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

import psycopg
from psycopg import Connection, pq
from psycopg.rows import tuple_row
from psycopg_pool import ConnectionPool, PoolTimeout

from pgsession._concurrency import (
    BackgroundTasks,
    Deadlines,
    RoundTrips,
    SharedFuture,
    Steps,
)
from pgsession._database.connections import (
    PlainCursor,
    in_recovery,
    is_stale,
    leads_elsewhere,
    shut,
)
from pgsession.errors import DatabaseUnavailable, OperationTimeout, PgSessionError

T = TypeVar("T")

# Seconds that a connection is kept; then the psycopg pool has it back: it replaces old ones, and closes idle ones.
KEPT_FOR: Final = 60.0
MOST_WAITING: Final = 10_000  # callers, for whom memory is kept
_RESTORE: Final = 1.0  # seconds for making a caller's connection as it was
_ENCODING: Final = b"UTF8"
_IDLE: Final = pq.TransactionStatus.IDLE
_OPEN_TRANSACTION: Final = (pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR)


class _Member(NamedTuple):
    """Holds what is known of a connection that the psycopg pool gave.

    Attributes:
        came: The time at which it came, by `time.monotonic`.
        handle: A second descriptor of its socket, so that `cut` never touches one that was closed and given to others.
        round_trips: What sends and receives on it.
    """

    came: float
    handle: socket.socket
    round_trips: RoundTrips

    def part(self) -> None:
        """Give back what is used for it here."""
        self.round_trips.close()
        self.handle.close()


class _Kept(NamedTuple):
    """Holds a connection that waits here for its next use, and since when it does, by `time.monotonic`."""

    connection: Connection[Any]
    since: float


def _no(connection: Connection[Any]) -> bool:
    return False


def _itself(connection: Connection[Any], error: psycopg.Error) -> psycopg.Error:
    return error


class Pool:
    """Lends the connections of a psycopg pool, each in autocommit mode, alive, and not leading to a standby.

    A psycopg pool hands out the connection that rested longest. With `keeps`, which is for a psycopg pool that nobody
    else uses, what comes back is kept here and is the first to go out again: a lone caller stays with one server
    process, which has the library's plans and pages in its caches. While anybody waits in the psycopg pool's queue,
    nothing is kept: what comes back goes to whoever has waited longest. A pool of the caller's is used as it is.
    `on_unfit` is called for each connection that is dead, leads to a standby, or is `superseded`: leads to a former
    primary. `meant` says what an error on a connection means where that is not what it says.
    """

    def __init__(
        self,
        pool: ConnectionPool[Any],
        *,
        keeps: bool,
        deadlines: Deadlines,
        logger: logging.Logger,
        on_unfit: Callable[[], None],
        superseded: Callable[[Connection[Any]], bool] = _no,
        meant: Callable[[Connection[Any], psycopg.Error], psycopg.Error] = _itself,
    ) -> None:
        self._pool = pool
        self._keeps = keeps
        self._deadlines = deadlines
        self._on_unfit = on_unfit
        self._superseded = superseded
        self._meant = meant
        self._guard = threading.Lock()
        self._kept: list[_Kept] = []  # the last one was used last; empty while `_asking`
        self._asking = 0  # callers that wait for the psycopg pool
        self._members: dict[Connection[Any], _Member] = {}  # all that are lent or kept
        self._cut = False
        # For a psycopg pool whose owner has its connections checked.
        checks = getattr(pool, "_check", None) is not None
        self._background = BackgroundTasks(logger, most=pool.max_size) if checks else None

    @contextmanager
    def connection(self, end: float, *, patience: float | None = None) -> Iterator[Connection[Any]]:
        """Lend a connection for the block, and cut it if the block is not over in time.

        After an error of psycopg's or the library's own the connection is given back, unless the error says that it
        leads to the wrong server. After any other exception (a cancelled task, an interrupt, a time limit of the
        caller's framework) nobody knows what state it is in: it is closed, nothing is sent on it, and the exception
        passes through unchanged.

        Args:
            end: The moment of `time.monotonic` by which the block is to be over.
            patience: Seconds to wait for a connection, 0 to take only one that is idle; None: until `end`.

        Raises:
            DatabaseUnavailable: Too many callers wait for one already.
            OperationTimeout: There was none to be had in time, or the connection was cut; the latter has psycopg's
                error as its cause.
            psycopg.OperationalError: All connections lead to a standby.
        """
        connection = self._take_fit(end, patience)
        handle = self._members[connection].handle
        limit = self._deadlines.within(end - time.monotonic(), partial(shut, handle))
        theirs: tuple[bool, bytes] | None = None
        try:
            with limit:
                theirs = _adapt(connection)
                yield connection
        except psycopg.Error as error:
            meant = self._meant(connection, error)
            if leads_elsewhere(meant):
                connection.pgconn.finish()
            if limit.passed and error.sqlstate is None:
                raise OperationTimeout("the database did not answer in time") from error
            if meant is not error:
                raise meant from error
            raise
        except PgSessionError:
            raise
        except BaseException:
            connection.pgconn.finish()
            raise
        finally:
            try:
                if theirs is not None:
                    with self._deadlines.within(_RESTORE, partial(shut, handle)):
                        _restore(connection, *theirs)
            finally:
                self._give_back(connection)

    def run(self, connection: Connection[Any], steps: Steps[T]) -> T:
        """Return what one of psycopg's generators returns that uses a connection which is lent."""
        return self._members[connection].round_trips.run(steps)

    def close(self) -> None:
        """Give the psycopg pool back what is kept of it, and keep nothing any more."""
        with self._guard:
            self._keeps = False
            kept, self._kept = self._kept, []
        for connection, _ in kept:
            self._return(connection)
        if self._background is not None:
            self._background.drain(0)

    def cut(self) -> None:
        """Cut the connections that are in use, and lend no others: whoever waits for an answer gets an error."""
        with self._guard:
            self._cut = True
            kept = {connection for connection, _ in self._kept}
            for connection, member in self._members.items():
                if connection not in kept:
                    shut(member.handle)

    def finish(self) -> None:
        """Close the connections of one whose event loop is gone."""
        with self._guard:
            self._cut = True
            members, self._members = self._members, {}
        for connection, member in members.items():
            member.part()
            connection.pgconn.finish()

    def _take_fit(self, end: float, patience: float | None) -> Connection[Any]:
        # Each one that is thrown away makes room for a new one: more than a poolful of them is no accident.
        for _ in range(self._pool.max_size + 2):
            try:
                connection = self._take(end - time.monotonic() if patience is None else patience)
            except PoolTimeout as error:
                raise OperationTimeout("no connection was to be had in time; nothing was sent") from error
            if not (is_stale(connection) or in_recovery(connection.pgconn) or self._superseded(connection)):
                if time.monotonic() < end:
                    return connection
                # Sent now, it would be cut at once, and a good connection with it.
                self._give_back(connection)
                raise OperationTimeout("a connection was to be had too late; nothing was sent")
            self._on_unfit()
            connection.pgconn.finish()
            self._return(connection)
        raise psycopg.OperationalError(
            "the pool's connections lead to a standby, or end at once: the conninfo must name the primary"
        )

    def _take(self, timeout: float) -> Connection[Any]:
        with self._guard:
            if self._cut:
                raise _closed()
            if self._kept:
                return self._kept.pop().connection
            if self._asking >= MOST_WAITING:
                raise DatabaseUnavailable(f"{MOST_WAITING} calls wait for a connection already")
            self._asking += 1
        try:
            connection = self._get(max(timeout, 0.001))
        finally:
            with self._guard:
                self._asking -= 1
        try:
            handle = socket.fromfd(connection.pgconn.socket, socket.AF_INET, socket.SOCK_STREAM)
        except BaseException:
            self._pool.putconn(connection)
            raise
        if not self._register(connection, handle):
            self._return(connection)
            raise _closed()
        return connection

    def _register(self, connection: Connection[Any], handle: socket.socket) -> bool:
        """Note what is known of a connection that has come; return False where it came too late."""
        with self._guard:
            self._members[connection] = _Member(time.monotonic(), handle, RoundTrips(connection, handle))
            return not self._cut

    def _get(self, timeout: float) -> Connection[Any]:
        """Take a connection out of the psycopg pool.

        Its `timeout` does not bound the round trip of a check of the caller's, which a dead network never answers.
        """
        if self._background is None:
            connection: Connection[Any] = self._pool.getconn(timeout)
            return connection
        future: SharedFuture[Connection[Any]] = SharedFuture()
        self._background.run(partial(self._get_checked, future, timeout), "pgsession connection")
        try:
            return future.wait(timeout)
        except BaseException as error:
            if not future.set_error(error) and future.succeeded:
                self._pool.putconn(future.wait())
            if isinstance(error, TimeoutError):
                raise PoolTimeout(f"no connection has passed the pool's check in {timeout:.2f} s") from None
            raise

    def _get_checked(self, future: SharedFuture[Connection[Any]], timeout: float) -> None:
        try:
            connection: Connection[Any] = self._pool.getconn(timeout)
        except Exception as error:
            future.set_error(error)
            return
        if not future.set_result(connection):
            self._pool.putconn(connection)

    def _give_back(self, connection: Connection[Any]) -> None:
        now = time.monotonic()
        with self._guard:
            if not self._may_keep(connection, now):
                surplus = connection
            else:
                self._kept.append(_Kept(connection, now))
                if now - self._kept[0].since < KEPT_FOR:
                    return
                surplus = self._kept.pop(0).connection
        self._return(surplus)

    def _may_keep(self, connection: Connection[Any], now: float) -> bool:
        return (
            self._keeps
            and not self._asking
            and connection.pgconn.transaction_status == _IDLE
            and now - self._members[connection].came < KEPT_FOR
        )

    def _return(self, connection: Connection[Any]) -> None:
        with self._guard:
            self._members.pop(connection).part()
        self._pool.putconn(connection)


def _closed() -> psycopg.OperationalError:
    return psycopg.OperationalError("the manager is closed; nothing was sent")


def plain_cursor(connection: Connection[Any]) -> PlainCursor:
    """Return a cursor of the library's kind, whatever cursors, rows and adapters the connection's owner likes."""
    return PlainCursor(connection, row_factory=tuple_row)


def _adapt(connection: Connection[Any]) -> tuple[bool, bytes] | None:
    """Let a connection of the caller's pool work in the library's way; return how it was, if otherwise."""
    encoding = connection.pgconn.parameter_status(b"client_encoding") or _ENCODING
    if connection.autocommit and encoding == _ENCODING:
        return None
    theirs = connection.autocommit, encoding
    try:
        connection.set_autocommit(True)
        if encoding != _ENCODING:
            plain_cursor(connection).execute(b"SET client_encoding TO " + _ENCODING)
    except BaseException:
        connection.pgconn.finish()  # half adapted
        raise
    return theirs


def _restore(connection: Connection[Any], autocommit: bool, encoding: bytes) -> None:
    """Make a connection of the caller's pool as it was, or close it: what its user has done stands in any case."""
    status = connection.pgconn.transaction_status
    try:
        if status in _OPEN_TRANSACTION:
            plain_cursor(connection).execute("ROLLBACK")
        elif status != _IDLE:
            connection.pgconn.finish()
            return
        if encoding != _ENCODING:
            plain_cursor(connection).execute(b"SET client_encoding TO " + encoding)
        connection.set_autocommit(autocommit)
    except psycopg.Error:
        connection.pgconn.finish()
    except BaseException:
        connection.pgconn.finish()
        raise
