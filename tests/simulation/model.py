"""The model database: rows with versions, transactions that may be lost in a crash, notifications, connections.

It knows no node and no protocol. Every committed change is a `Commit` with a serial number that is never given out
twice, so that "older" has a meaning here that does not depend on versions, which a crash makes the server give out
again.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from pgsession._core.record import Record

EPOCH = 1_700_000_000_000_000
"""The database's clock at the simulation's time 0."""


class Commit:
    """One session as one transaction left it; also what a deletion left, nothing."""

    __slots__ = (
        "announced",
        "at",
        "before",
        "deleted",
        "expires_at",
        "group",
        "key",
        "lost",
        "serial",
        "user",
        "version",
    )

    def __init__(
        self,
        serial: int,
        at: int,
        key: bytes,
        version: int,
        user: str,
        group: str | None,
        expires_at: int,
        before: Commit | None,
        *,
        announced: bool = True,
        deleted: bool = False,
    ) -> None:
        self.serial = serial
        self.at = at
        self.key = key
        self.version = version
        self.user = user
        self.group = group
        self.expires_at = expires_at
        self.before = before
        self.announced = announced
        self.deleted = deleted
        self.lost = False

    def __repr__(self) -> str:
        state = "gone" if self.deleted else f"v{self.version}"
        notes = (" (lost)" if self.lost else "") + ("" if self.announced else " (not announced)")
        return f"#{self.serial} {self.key[-1]}={state}{notes}"

    def record(self, accessed: int) -> Record:
        """What a reader makes of it. The one attribute tells which commit it is."""
        content = [("serial", self.version, None, b"%d" % self.serial)]
        return Record(
            self.key,
            self.version,
            self.user,
            self.group,
            EPOCH,
            EPOCH + self.at,
            accessed,
            self.expires_at,
            False,
            content,
        )


class Notice(NamedTuple):
    """A notification in a connection: an event, or a proof (no effects). Effects: what it tells of which session."""

    payload: str
    is_proof: bool
    effects: tuple[Commit, ...] = ()


@dataclass(eq=False)
class Connection:
    """A listener's connection, from the moment when LISTEN committed."""

    server: Server
    node: str
    queue: deque[Notice] = field(default_factory=deque)
    frozen: bool = False
    """Silently dead: nothing arrives, nothing says so."""
    deaf: bool = False
    """Behind a transaction pooler: of all notifications only those that it sent itself arrive."""
    dead: bool = False
    """The server is gone, or has ended it; the client has not noticed yet."""


class Server:
    """One PostgreSQL server with the tables."""

    _numbers = itertools.count(1)

    def __init__(self, rows: dict[bytes, Commit], accessed: dict[bytes, int]) -> None:
        self.rows = rows
        self.accessed = accessed
        self.log: list[Commit] = []
        """Commits that are not flushed yet."""
        self.incarnation: str | None = None
        self.connections: list[Connection] = []
        self.ahead = 0
        """By how much its clock is ahead of the true time."""

    def identify(self) -> str:
        """The incarnation, set anew if there is none."""
        if self.incarnation is None:
            self.incarnation = f"i{next(self._numbers)}"
        return self.incarnation

    def commit(self, commit: Commit) -> Commit:
        self.rows[commit.key] = commit
        self.log.append(commit)
        return commit

    def flush(self) -> None:
        self.log.clear()

    def live(self, key: bytes, now: int) -> Commit | None:
        row = self.rows.get(key)
        return None if row is None or row.deleted or row.expires_at <= EPOCH + now + self.ahead else row

    def notify(self, payload: str, effects: tuple[Commit, ...]) -> None:
        notice = Notice(payload, False, effects)
        for connection in self.connections:
            if not connection.deaf:
                connection.queue.append(notice)

    def move(self, payload: str) -> None:
        """The secret is changed: this is the last that comes on the old channels, and nothing else says so."""
        self.notify(payload, ())
        self.connections.clear()

    def prove(self, node: str, payload: str, *, by: Connection | None) -> None:
        """A proof: sent through the pool, or by a listener's own connection."""
        for connection in self.connections:
            if connection.node == node and (not connection.deaf or connection is by):
                connection.queue.append(Notice(payload, True))

    def lose(self, count: int) -> list[Commit]:
        """Undo the latest of the commits that were not flushed."""
        lost = []
        for _ in range(min(count, len(self.log))):
            commit = self.log.pop()
            commit.lost = True
            lost.append(commit)
            if commit.before is None:
                del self.rows[commit.key]
            else:
                self.rows[commit.key] = commit.before
        self.log.clear()
        return lost

    def end_connections(self) -> None:
        for connection in self.connections:
            connection.dead = True
        self.connections.clear()
