# Generated from src/pgsession/_async/listener_connection.py by tools/async_to_sync.py: never edit.

"""A listener connection keeps what arrives, in order, and can be given up from any thread."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, LiteralString

import psycopg
from psycopg import Notify, sql
from psycopg.pq import ConnStatus
from psycopg.pq.abc import PGconn

from pgsession._concurrency import Alarm
from pgsession._database.connections import ADAPTERS

Command = LiteralString | bytes | sql.Composed
Row = tuple[Any, ...]


class ListenerConnection:
    """Holds a connection of the listener's own, in autocommit, which one task or thread uses.

    Notifications are taken from libpq's queue both while a command runs (by psycopg, through `notify_handler`) and in
    between (`receive`), into one queue, so they are neither lost nor re-ordered. psycopg's `notifies()` is not used: it
    cannot be interrupted in a thread, and it misses what arrives during a command.
    """

    def __init__(self, connection: psycopg.Connection[Row]) -> None:
        self.given_up = False  # by its owner, who wants another
        self._connection = connection
        self._libpq: PGconn = connection.pgconn
        self._arrived: deque[Any] = deque()
        self._libpq.notify_handler = self._arrived.append
        # A second descriptor for the same socket: psycopg neither closes it, which `abort` must never touch then, nor
        # has it watched.
        self._handle = socket.fromfd(self._libpq.socket, socket.AF_INET, socket.SOCK_STREAM)
        self._guard = threading.Lock()
        self.busy = False

    @classmethod
    def connect(cls, connections: type[psycopg.Connection[Any]], **parameters: Any) -> ListenerConnection:
        """Connect, within the parameter connect_timeout for each host, by a connection of this class."""
        return cls(
            connections.connect(**parameters, autocommit=True, prepare_threshold=None, context=ADAPTERS)
        )

    @property
    def alive(self) -> bool:
        """Return True while the connection is not known to be broken."""
        return not self._connection.closed and self._libpq.status == ConnStatus.OK

    @property
    def fileno(self) -> int:
        """Return a descriptor of the connection's socket, to wait at."""
        return self._handle.fileno()

    @property
    def pid(self) -> int:
        """Return the id of the server's process that serves this connection."""
        return self._libpq.backend_pid

    @property
    def conninfo(self) -> str:
        """Return what the connection was made with, without its password."""
        return self._connection.info.dsn

    @property
    def in_recovery(self) -> bool:
        """Return True where the connection leads to a standby (servers before 14 do not say)."""
        return self._libpq.parameter_status(b"in_hot_standby") == b"on"

    def execute(self, query: Command, params: Sequence[Any] | None, timeout: float | None) -> list[Row]:
        """Run a command and return its rows.

        Raises:
            TimeoutError: There was no answer within `timeout` seconds; the connection is given up.
            psycopg.Error: The command failed, or the connection is lost.
        """
        alarm = Alarm(timeout, self.abort)
        self.busy = True
        try:
            with alarm:
                cursor = self._connection.execute(query, params)
                return cursor.fetchall() if cursor.description else []
        except psycopg.OperationalError as error:
            if alarm.rang:
                raise TimeoutError(f"the server did not answer the listener within {timeout} s") from error
            raise
        finally:
            self.busy = False

    def receive(self) -> None:
        """Read what has arrived.

        Raises:
            psycopg.OperationalError: The connection is lost.
        """
        try:
            self._libpq.consume_input()
        finally:  # what came before the end still counts
            while notification := self._libpq.notifies():
                self._arrived.append(notification)

    def take(self) -> Notify | None:
        """Return the oldest notification that nobody took yet, None if there is none."""
        if not self._arrived:
            return None
        raw = self._arrived.popleft()
        return Notify(raw.relname.decode(errors="replace"), raw.extra.decode(errors="replace"), raw.be_pid)

    def abort(self) -> None:
        """Cut the connection at this end, from any thread: whoever waits for it gets an error at once."""
        try:
            with self._guard:
                self._handle.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # cut, or closed, already

    def finish(self) -> None:
        """Close the connection where nobody can wait any more."""
        self.abort()
        with self._guard:
            self._handle.close()
        self._libpq.finish()

    def close(self) -> None:
        """Close the connection, without waiting for the server."""
        with self._guard:
            self._handle.close()
        self._connection.close()
