"""A clock lets time pass, as far as sessions can tell: all times that are stored of them are moved into the past."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable
from datetime import timedelta
from typing import Final, NamedTuple

import psycopg
from psycopg.sql import Composed

from pgsession.testing import _nodes
from pgsession.testing._nodes import Tables

__all__ = ["Clock"]

_SECOND: Final = 1_000_000
_MOVE = (
    "SET LOCAL lock_timeout = '10 s'",
    "LOCK TABLE {sessions}, {attributes} IN SHARE ROW EXCLUSIVE MODE",
    # Not as plain SQL, which would change the attributes' versions: nobody has changed what they hold.
    "SET LOCAL pgsession.own = 'on'",
    "UPDATE {attributes} SET expires_at = expires_at - moved.by FROM @moved WHERE expires_at IS NOT NULL",
    # As plain SQL: the triggers raise the versions, for one version has the same times everywhere, and tell the nodes.
    "SET LOCAL pgsession.own = ''",
    "UPDATE {sessions} SET created_at = created_at - moved.by, updated_at = updated_at - moved.by,"
    " last_accessed = last_accessed - moved.by, expires_at = expires_at - moved.by,"
    " previous_until = previous_until - moved.by, rotated_at = rotated_at - moved.by FROM @moved",
)
_OTHERS = "SELECT n.node FROM {nodes} n WHERE n.node <> ALL (%s)"
_ASK = "SELECT a.xid, a.serving FROM {ask_nodes}({plain}) a"
_SILENT = "SELECT s.silent FROM {silent_nodes}(%s, %s::text::xid8) s"


class _Asked(NamedTuple):
    xid: str
    serving: dict[str, int]  # for how many microseconds each, unheard


class Clock:
    """Lets time pass for the sessions of all managers that are open in this process, whoever opened them.

    It is the fixture `pgsession_clock`. What `advance` moves into the past, in one transaction:

    - of each session `created_at`, `updated_at`, `last_accessed`, `expires_at`, and the ends of what a rotation has
      superseded; accesses that were only noted so far are written first;
    - the `expires_at` of attributes.

    Every node has emptied its memory when it returns, also those of other processes. So whatever depends on how long
    ago something was comes out as if that time had passed: idle timeouts, expiration, the renewal of a cookie's
    lifetime, the grace after a rotation. Tokens stay; the sessions' versions rise by one.

    It does not move: the times of a `Session` that was read before (read it again before you save it with
    `check="session"`), locks (a lock that is held would
    have been renewed meanwhile), `max_staleness` and other bounds of what a node may have cached, the clocks of Python
    and PostgreSQL, and the expiry of cookies in a test client. It runs no cleanup: that is
    `manager.delete_expired_sessions()`.
    """

    def advance(self, duration: timedelta | float) -> None:
        """Let time pass. Not while requests are under way, or they may count as of before or after.

        Args:
            duration: How much, a timedelta or seconds.

        Raises:
            TypeError, ValueError: It is no duration, not more than 0, or more than 36,500 days.
            RuntimeError: No manager is open in this process; or the event loop of one runs in this thread (see
                `async_advance`).
            TimeoutError, psycopg.OperationalError: The database is not reached.
        """
        micros = _nodes.microseconds("duration", duration)
        nodes = _nodes.some_nodes()
        if _nodes.here(nodes):
            raise RuntimeError(
                "an event loop cannot wait for itself: use `await pgsession_clock.async_advance(...)`"
            )
        for node in nodes:
            if not node.write_accesses():
                raise TimeoutError("accesses that were noted could not be written: is the database there?")
        ids = [node.id for node in nodes]
        asked = {tables: _move(tables, micros, ids) for tables in {node.tables for node in nodes}}
        for node in nodes:
            node.drop_all()
        unheard = {node.id for node in nodes if not node.in_sync}
        for tables, answer in asked.items():
            if answer is not None:
                _wait_for(tables, answer, answer.serving.keys() - unheard)

    async def async_advance(self, duration: timedelta | float) -> None:
        """Do what `advance` does, in a thread, so that this event loop can go on meanwhile."""
        await asyncio.to_thread(self.advance, duration)


def _move(tables: Tables, micros: int, ours: list[str]) -> _Asked | None:
    """Move all times; where there are nodes of other processes, ask all to acknowledge, and return what to wait for."""
    by = f"(SELECT {micros} * interval '1 microsecond' AS by) moved"
    with psycopg.connect(tables.conninfo) as connection:
        for statement in _MOVE:
            connection.execute(tables.render(statement.replace("@moved", by)))
        if not connection.execute(tables.render(_OTHERS), (ours,)).fetchall():
            return None
        row = connection.execute(tables.render(_ASK)).fetchone()
        assert row is not None
        return _Asked(row[0], json.loads(row[1]))


def _wait_for(tables: Tables, asked: _Asked, nodes: Iterable[str]) -> None:
    """Return once these nodes have heard of it, or cannot serve any more what they had."""
    silent = list(nodes)
    end = time.monotonic() + max((asked.serving[node] for node in silent), default=0) / _SECOND
    with psycopg.connect(tables.conninfo, autocommit=True) as connection:
        while silent and time.monotonic() < end:
            silent = _silent(connection, tables.render(_SILENT), silent, asked.xid)
            time.sleep(0.002)


def _silent(connection: psycopg.Connection, query: Composed, nodes: list[str], xid: str) -> list[str]:
    row = connection.execute(query, (json.dumps(nodes), xid)).fetchone()
    assert row is not None
    found: list[str] = json.loads(row[0])
    return found
