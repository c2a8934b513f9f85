"""What can be told of a PostgreSQL connection without asking the server."""

from __future__ import annotations

import select
import socket
import sys

import psycopg
from psycopg import pq

__all__ = ["cut", "is_stale", "lost_durability"]


def is_stale(connection: pq.abc.PGconn) -> bool:
    """Whether an idle connection has been ended by the server, so that nothing should be sent on it.

    A write that was sent on it would have an unknown outcome; found out beforehand, nothing happened. An idle
    connection has nothing to read, unless that is its end.
    """
    if connection.status != pq.ConnStatus.OK:
        return True
    if not _readable(connection.socket):
        return False
    try:
        connection.consume_input()
    except psycopg.Error:
        return True
    return connection.status != pq.ConnStatus.OK


def cut(connection: pq.abc.PGconn) -> None:
    """Ends a connection at this end while somebody waits for its answer, who gets an error at once."""
    with socket.fromfd(connection.socket, socket.AF_INET, socket.SOCK_STREAM) as handle:
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
    """Whether this notice says that a commit stopped waiting for its synchronous standbys.

    The server then reports success with a warning, in its own language; the function that speaks is the same in all.
    """
    return diagnostic.source_function == "SyncRepWaitForLSN"
