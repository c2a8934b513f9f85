"""Turns what the database says of sessions into the records that stand for it. Does no I/O."""

from __future__ import annotations

from typing import Annotated, NamedTuple
from uuid import UUID

import msgspec

from pgsession._core.record import Record

Bigint = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Snapshot = tuple[
    UUID,
    Bigint,
    str | None,
    str | None,
    Bigint,
    Bigint,
    Bigint,
    Bigint,
    Bigint | None,
    list[tuple[str, Bigint, Bigint | None, msgspec.Raw]],
    Bigint,
    Bigint,
    tuple[Bigint | None, Bigint | None, Bigint] | None,
]
_snapshot_decoder = msgspec.json.Decoder(Snapshot)
_snapshots_decoder = msgspec.json.Decoder(list[Snapshot])
_some_decoder = msgspec.json.Decoder(list[Snapshot | UUID | int])
_UNREADABLE = (ValueError, RecursionError)  # a key twice, an id of more than 64 KiB; levels without end


def record_of(snapshot: bytes | str | msgspec.Raw, incarnation: str | None = None) -> Record:
    """Return the record that one snapshot, in the text of a database of this incarnation, stands for.

    Raises:
        msgspec.DecodeError: It is no snapshot; or an attribute has what only plain SQL can store: half of a surrogate
            pair, or more levels of nesting than msgspec goes down.
    """
    try:
        return _record(_snapshot_decoder.decode(snapshot), incarnation)
    except _UNREADABLE as error:
        raise msgspec.DecodeError(f"not a session: {error}") from error


def records_of(snapshots: bytes | str, incarnation: str | None = None) -> list[Record]:
    """Return the records that a list of snapshots stands for.

    Raises:
        msgspec.DecodeError: As in `record_of`.
    """
    try:
        return [_record(snapshot, incarnation) for snapshot in _snapshots_decoder.decode(snapshots)]
    except _UNREADABLE as error:
        raise msgspec.DecodeError(f"not sessions: {error}") from error


class Some(NamedTuple):
    """Holds what one statement has said of sessions, by their ids; it says nothing of one that is absent."""

    found: dict[bytes, Record | None]
    """None: it is there, but not live."""
    unread: list[int]
    """Of those there was no room for, the numbers among what was asked for, from 0."""


def some_of(snapshots: bytes | str, incarnation: str | None) -> Some:
    """Return what an answer about many sessions stands for.

    Raises:
        msgspec.DecodeError: As in `record_of`.
    """
    found: dict[bytes, Record | None] = {}
    unread = []
    try:
        for said in _some_decoder.decode(snapshots):
            if isinstance(said, int):
                unread.append(said - 1)
            elif isinstance(said, UUID):
                found[said.bytes] = None
            else:
                record = _record(said, incarnation)
                found[record.key] = record
    except _UNREADABLE as error:
        raise msgspec.DecodeError(f"not sessions: {error}") from error
    return Some(found, unread)


def _record(snapshot: Snapshot, incarnation: str | None) -> Record:
    key, version, user_id, group_id, created, updated, accessed, expires, inactivity, attributes, *_ = (
        snapshot
    )
    generation, owner_since, rotation = snapshot[10:]
    previous, until, rotated = rotation or (0, 0, 0)
    return Record(
        key.bytes, version, user_id, group_id, created, updated, accessed, expires, inactivity,
        [(name, at, ends, bytes(value)) for name, at, ends, value in attributes],
        generation=generation, owner_since=owner_since,
        previous_generation=previous or 0, previous_until=until or 0, rotated_at=rotated, incarnation=incarnation,
    )  # fmt: skip
