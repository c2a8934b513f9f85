"""Auditing compares what is cached with the database, under a rule that has no false alarm. It does no I/O.

What a node has in memory may differ from the database for a moment, rightly: somebody has just written, and the event
is under way. So first the record is taken out of memory, then the database is read, and then:

- The database has the same version of the same generation, which is random, so that it is the same row: a version
  always means the same contents (C4), so any difference is one.
- It has an older version of that generation: within an incarnation versions never go back.
- It has something else, or no session at all: whoever did that has sent an event, which may be on its way. Once one
  has been heard that proves the read (see `proofs_of_sync`), that one has been heard too; if memory still has the very
  same record, this node goes on serving what has ended. A newer version with the same owner and tokens is left out: an
  update with `notify=False` tells nobody. So is what has ended by its time: such an update may have set an earlier one,
  and the row is there until the cleanup, which tells all, comes by.

A comparison says nothing where another incarnation has answered than the record is of, where the epoch has ended, or
where the session is not live.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from pgsession._core.record import Record

Difference = Literal["contents", "version", "outdated", "ended"]

MARGIN: Final = 1_000_000
"""Microseconds: what ends by itself so soon may be over in one of the two and not in the other."""


class Suspicion(NamedTuple):
    """Holds a record that the database has outdated, perhaps by an event that is still on its way.

    Attributes:
        record: The record, as it was in memory.
        difference: What it is, if nothing comes.
        epoch: The epoch in which the database was read.
        xmax: That of the read.
    """

    record: Record
    difference: Difference
    epoch: int
    xmax: int


def compare(cached: Record, stored: Record | None, database_time: int) -> tuple[Difference | None, bool]:
    """Compare a record with what a later read has found, in the same incarnation.

    Args:
        cached: The record, as memory had it before the database was read.
        stored: What the database has; None: no such session.
        database_time: The time of the read.

    Returns:
        What differs, None: nothing does, or nobody can know; and True where that is so for certain, without waiting for
        the events of before the read.
    """
    if stored is None:
        return "ended", False
    if stored.generation != cached.generation or stored.version > cached.version:
        return (None if _owner(cached) == _owner(stored) else "outdated"), False
    if stored.version < cached.version:
        return "version", True
    return (
        None if _contents(cached, database_time) == _contents(stored, database_time) else "contents"
    ), True


def _owner(record: Record) -> tuple[object, ...]:
    """Return what no update changes without telling every node."""
    return record.user_id, record.group_id, record.generation


def _contents(record: Record, now: int) -> tuple[object, ...]:
    """Return all that a version stands for: not the accesses, and not what has ended by itself."""
    lasting = [
        attribute for attribute in record.attributes() if attribute[2] is None or attribute[2] > now + MARGIN
    ]
    return (
        *_owner(record),
        record.created_at,
        record.updated_at,
        record.expires_at,
        record.inactivity,
        record.owner_since,
        record.rotated_at,
        sorted(lasting),
    )
