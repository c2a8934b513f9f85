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
from pgsession._protocol import events

EPOCH = 1_700_000_000_000_000
"""The database's clock at the simulation's time 0."""


class Identity(NamedTuple):
    """Whose session it is, and which tokens are good. The serial numbers are for the oracle: no node sees them."""

    generation: int
    drawn: int
    """The serial number of the commit that drew the generation."""
    owner_since: int
    """The version at which the session became its user's."""
    tenure: int
    """The serial number of the commit of that version."""
    previous: int = 0
    previous_drawn: int = 0
    previous_until: int = 0
    rotated_at: int = 0


class Commit:
    """One session as one transaction left it; also what a deletion left, nothing."""

    __slots__ = (
        "announced",
        "at",
        "before",
        "deleted",
        "expires_at",
        "group",
        "identity",
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
        user: str | None,
        group: str | None,
        expires_at: int,
        identity: Identity,
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
        self.identity = identity
        self.before = before
        self.announced = announced
        self.deleted = deleted
        self.lost = False

    def __repr__(self) -> str:
        state = "gone" if self.deleted else f"v{self.version}"
        notes = (" (lost)" if self.lost else "") + ("" if self.announced else " (not announced)")
        return f"#{self.serial} {self.key[-1]}={state}{notes}"

    def record(self, accessed: int, incarnation: str | None) -> Record:
        """What a reader makes of it. One attribute tells which commit it is, the other whose the session is."""
        identity = self.identity
        content = [
            ("serial", self.version, None, b"%d" % self.serial),
            ("tenure", identity.owner_since, None, b"%d" % identity.tenure),
        ]
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
            generation=identity.generation,
            owner_since=identity.owner_since,
            previous_generation=identity.previous,
            previous_until=identity.previous_until,
            rotated_at=identity.rotated_at,
            incarnation=incarnation,
        )

    def shown_by(self, record: Record) -> bool:
        """Return True where a record is what this commit left."""
        identity = self.identity
        return not self.deleted and (
            (record.key, record.version, record.user_id, record.group_id, record.expires_at)
            == (self.key, self.version, self.user, self.group, self.expires_at)
            and (record.generation, record.owner_since, record.rotated_at)
            == (identity.generation, identity.owner_since, identity.rotated_at)
            and (record.previous_generation, record.previous_until)
            == (identity.previous, identity.previous_until)
            and record.attributes()[1][3] == b"%d" % identity.tenure
        )


class Notice(NamedTuple):
    """A notification in a connection. Effects: what it tells of which session; a beacon tells nothing."""

    payload: str
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
    """Behind a transaction pooler: nothing arrives, for it sends nothing itself."""
    dead: bool = False
    """The server is gone, or has ended it; the client has not noticed yet."""


class Server:
    """One PostgreSQL server with the tables."""

    _numbers = itertools.count(1)

    def __init__(self, rows: dict[bytes, Commit], accessed: dict[bytes, int], xid: int = 100) -> None:
        self.rows = rows
        self.accessed = accessed
        self.next_xid = xid
        self.completed = xid - 1
        """The highest transaction id that was committed or aborted."""
        self.marker = 0
        self.marker_is_locked = False
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

    # What it decides under a row's lock

    def saves(self, row: Commit, base: int, owner_since: int) -> bool:
        """Return True for an update of what was read since the session is its present owner's."""
        return owner_since == row.identity.owner_since

    def rotates(self, row: Commit, base: int) -> bool:
        """Return True for who comes from the current generation: of two rotations one is done."""
        return row.identity.generation == base

    def generation(self, row: Commit | None, drawn: int) -> int:
        """Return the new generation: that which was drawn."""
        return drawn

    def version_rotated(self, row: Commit, clock: int) -> int:
        """Return the version of a session that is rotated: above all that were given out, also those that were lost."""
        return max(row.version + 1, clock)

    def version_again(self, row: Commit, clock: int) -> int:
        """Return the first version of a session that replaces another one of its id."""
        return max(row.version + 1, clock)

    def differs(self, row: Commit | None, version: int, generation: int) -> bool:
        """Return True where a cached record is not the row's, as the resync compares them."""
        return row is None or (row.version, row.identity.generation) != (version, generation)

    # Transactions: an id at the beginning, or later; visible, and announced, at once when they commit.

    def begin(self) -> int:
        self.next_xid += 1
        return self.next_xid - 1

    def complete(self, xid: int) -> None:
        """Committed, or aborted; what a crash has ended is not known any more."""
        if xid < self.next_xid:
            self.completed = max(self.completed, xid)

    def xmax(self) -> int:
        """Of a snapshot that is taken now."""
        return self.completed + 1

    def notify(self, origin: str, xid: int, items: str = "", effects: tuple[Commit, ...] = ()) -> None:
        notice = Notice(events.payload(origin, xid, items), effects)
        for connection in self.connections:
            if not connection.deaf:
                connection.queue.append(notice)

    def move(self, origin: str) -> None:
        """The secret is changed: this is the last that comes on the old channel, and nothing else says so."""
        xid = self.begin()
        self.notify(origin, xid, events.encode(events.Moved()))
        self.complete(xid)
        self.connections.clear()

    def begin_beacon(self, since: int, *, insists: bool) -> tuple[bool, int]:
        """What the statement that sends a beacon decides: whether one began already, and its own id if it sends one."""
        began = self.marker >= since
        if insists or not (began or self.marker_is_locked):
            return True, self.begin()
        return began, 0

    def send_beacon(self, origin: str, xid: int) -> None:
        self.notify(origin, xid)
        self.marker = max(self.marker, xid)
        self.complete(xid)

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

    def crash(self, count: int, ids: int) -> list[Commit]:
        """Recover from a crash: the ids of what is lost, other programs' too, are given out again."""
        lost = self.lose(count)
        self.completed = max(self.completed - len(lost) - ids, 1)
        self.next_xid = self.completed + 1
        self.marker, self.marker_is_locked = 0, False
        self.incarnation = None
        self.end_connections()
        return lost

    def end_connections(self) -> None:
        for connection in self.connections:
            connection.dead = True
        self.connections.clear()
