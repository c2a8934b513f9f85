"""Turns what the database says of sessions into the records that stand for it. Does no I/O."""

from __future__ import annotations

from typing import Annotated
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
