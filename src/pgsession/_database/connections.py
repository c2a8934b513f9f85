"""Tells what can be known of a PostgreSQL connection without asking the server, and has the library's cursors."""

from __future__ import annotations

import select
import socket
import sys
from typing import Any, Final

import psycopg
from psycopg import AsyncCursor, Cursor, pq
from psycopg.adapt import AdaptersMap
from psycopg.postgres import register_default_adapters, register_default_types
from psycopg.types import TypesRegistry

from pgsession.errors import OperationTimeout, WriteOutcomeUnknown

__all__ = [
    "ADAPTERS",
    "AsyncPlainCursor",
    "PlainCursor",
    "in_recovery",
    "is_stale",
    "leads_elsewhere",
    "lost_durability",
    "may_be_one_members",
    "no_answer",
    "shut",
]

_FATAL: Final = frozenset({"FATAL", "PANIC"})
_SERVERS_OWN: Final = ("53", "58", "XX")  # classes: out of resources, system and internal errors
# Ended or not let in, as the server goes down or starts; too many connections; read-only.
_NOT_THERE: Final = ("57P", "53300", "25006")


def _adapters() -> AdaptersMap:
    types = TypesRegistry()
    register_default_types(types)
    adapters = AdaptersMap(types=types)
    register_default_adapters(adapters)
    return adapters


ADAPTERS: Final = _adapters()
"""The adapters of the library's own values: psycopg's defaults, whatever a program has registered since."""


class AsyncPlainCursor(AsyncCursor[Any]):
    """Sends and reads values by psycopg's defaults, whatever its connection's owner has registered."""

    @property
    def adapters(self) -> AdaptersMap:
        """Return the library's adapters, not those of the connection."""
        return ADAPTERS


class PlainCursor(Cursor[Any]):
    """Sends and reads values by psycopg's defaults, whatever its connection's owner has registered."""

    @property
    def adapters(self) -> AdaptersMap:
        """Return the library's adapters, not those of the connection."""
        return ADAPTERS


def is_stale(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    """Return True if the server has ended an idle connection, so that nothing may be sent on it.

    A write that was sent on it would have an unknown outcome; found out beforehand, nothing happened. An idle
    connection may also have notices, changed settings or notifications to read: all that has arrived is read, since
    the end comes behind it, and so does the message that announces the end.
    """
    libpq = connection.pgconn
    if libpq.status != pq.ConnStatus.OK:
        return True
    if not _readable(libpq.socket):
        return False
    fatal: list[str | None] = []

    def notice(diagnostic: psycopg.errors.Diagnostic) -> None:
        if diagnostic.severity_nonlocalized in _FATAL:
            fatal.append(diagnostic.sqlstate)

    connection.add_notice_handler(notice)
    try:
        while libpq.status == pq.ConnStatus.OK and _readable(libpq.socket):
            libpq.consume_input()
            libpq.is_busy()  # has libpq parse what it has read, and report the notices in it
    except psycopg.Error:
        return True
    finally:
        connection.remove_notice_handler(notice)
    return bool(fatal) or libpq.status != pq.ConnStatus.OK


def in_recovery(connection: pq.abc.PGconn) -> bool:
    """Return True if the connection is known to lead to a standby (servers before 14 do not say)."""
    return connection.parameter_status(b"in_hot_standby") == b"on"


def leads_elsewhere(error: psycopg.Error) -> bool:
    """Return True if this error says that its connection leads to a server that cannot write, or is going away.

    Its SQLSTATE is "read-only transaction", "not supported" (a standby's answer to BEGIN READ WRITE), or of the
    classes "connection exception" and "operator intervention" (but for a cancelled query).
    """
    state = error.sqlstate or ""
    return state in ("25006", "0A000") or state.startswith(("08", "57P0"))


def may_be_one_members(error: psycopg.Error) -> bool:
    """Return True for an error of a statement for many that one of them can have caused, whatever its SQLSTATE.

    Users' triggers and constraints have SQLSTATEs of their own, and so have time limits of the role.
    """
    return (
        error.sqlstate is not None
        and not leads_elsewhere(error)
        and not error.sqlstate.startswith(_SERVERS_OWN)
    )


def no_answer(error: BaseException) -> bool:
    """Return True for an error after which the database may be down: nobody answered, or a server that cannot write.

    What a server says of locks, cancelled queries, deadlocks or data is an answer.
    """
    if isinstance(error, WriteOutcomeUnknown | OperationTimeout):
        return error.__cause__ is not None and no_answer(error.__cause__)
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError)
    return error.sqlstate.startswith(_NOT_THERE)


def shut(handle: socket.socket) -> None:
    """End a connection at this end, by a descriptor of its socket: whoever waits for its answer gets an error."""
    try:
        handle.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it has ended by itself


if sys.platform == "win32":

    def _readable(socket: int) -> bool:
        return bool(select.select([socket], [], [], 0)[0])

else:

    def _readable(socket: int) -> bool:
        poll = select.poll()  # select() fails for descriptors above 1,023
        poll.register(socket, select.POLLIN)
        return bool(poll.poll(0))


def lost_durability(diagnostic: psycopg.errors.Diagnostic) -> bool:
    """Return True if this notice says that a commit stopped waiting for its synchronous standbys.

    The server then reports success with a warning, in its own language; the function that speaks is the same in all.
    """
    return diagnostic.source_function == "SyncRepWaitForLSN"
