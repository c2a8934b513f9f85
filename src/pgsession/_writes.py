"""Plans batches of writes and tells each caller its own outcome. Decides; does no I/O.

Writes wait in one queue; `Queue.take` makes a batch of what waits. `Batch.settle` reads the server's answer and gives
every operation its own result or error: one caller's conflict changes nothing for the others. No batch has two
operations of one session (PostgreSQL would apply one of them silently).
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeVar
from uuid import UUID

import msgspec

from pgsession._record import Record
from pgsession.errors import (
    AttributeVersionConflict,
    SessionNotFoundError,
    SessionVersionConflict,
    TooManySessionsError,
    WriteOutcomeUnknown,
)

T = TypeVar("T")

MAX_OPERATIONS = 256
MAX_BYTES = 4 << 20

Bigint = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Snapshot = tuple[
    UUID,
    Bigint,
    str,
    str | None,
    Bigint,
    Bigint,
    Bigint,
    Bigint,
    bool,
    list[tuple[str, Bigint, Bigint | None, msgspec.Raw]],
]
_snapshot_decoder = msgspec.json.Decoder(Snapshot)
_snapshots_decoder = msgspec.json.Decoder(list[Snapshot])
_UNREADABLE = (ValueError, RecursionError)  # a key twice, an id of more than 64 KiB; levels without end


def record_of(snapshot: bytes | str | msgspec.Raw) -> Record:
    """The record that one snapshot text of the database (see `_sql`) stands for.

    Raises:
        msgspec.DecodeError: it is none; or an attribute has what only plain SQL can store: half of a surrogate pair,
            or more levels of nesting than msgspec goes down.
    """
    try:
        return _record(_snapshot_decoder.decode(snapshot))
    except _UNREADABLE as error:
        raise msgspec.DecodeError(f"not a session: {error}") from error


def records_of(snapshots: bytes | str) -> list[Record]:
    """The records that a list of snapshots stands for; raises as `record_of`."""
    try:
        return [_record(snapshot) for snapshot in _snapshots_decoder.decode(snapshots)]
    except _UNREADABLE as error:
        raise msgspec.DecodeError(f"not sessions: {error}") from error


def _record(snapshot: Snapshot) -> Record:
    key, version, user_id, group_id, created, updated, accessed, expires, inactivity, attributes = snapshot
    return Record(
        key.bytes, version, user_id, group_id, created, updated, accessed, expires, inactivity,
        [(name, at, ends, bytes(value)) for name, at, ends, value in attributes],
    )  # fmt: skip


class Answer(msgspec.Struct, array_like=True):
    """What the server's write function says of one operation (see `_sql`), by its number among those of its kind."""

    number: int
    status: str


class _TurnedAway(Answer, array_like=True):
    status: Literal["too_many", "locked"]


class _Refusal(Answer, array_like=True):
    status: Literal["gone", "session", "attributes", "locked"]
    detail: Bigint | list[str] = 0

    @property
    def version(self) -> int:
        if not isinstance(self.detail, int):
            raise LookupError(f"{self.status!r} without a version")
        return self.detail

    @property
    def keys(self) -> tuple[str, ...]:
        if isinstance(self.detail, int):
            raise LookupError(f"{self.status!r} without the keys")
        return tuple(self.detail)


class _DeleteAnswer(Answer, array_like=True):
    status: Literal["ok", "gone", "locked"]


class Answers(msgspec.Struct):
    """What the server's write function says of a batch."""

    incarnation: str | None
    turned_away: list[_TurnedAway] = []
    created_at: Bigint = 0
    written: list[int] = []
    versions: list[Bigint] = []
    updated_at: Bigint = 0
    snapshots: list[tuple[int, str]] = []
    refused: list[_Refusal] = []
    delete: list[_DeleteAnswer] = []
    evicted: list[str] = []


class Flag(enum.IntFlag):
    """What an update asks of the server's write function, where each has its name in lower case."""

    JUDGE_SESSION = 1
    """Nothing, if the session's version is not the one that this is based on."""
    JUDGE_ATTRIBUTES = 2
    """Nothing, if the version of an attribute of these is not the one that this is based on."""
    NOTIFY = 4
    """Tell all nodes. A change of group is always told."""
    NOTIFY_ON_CONFLICT = 8
    """Tell all nodes of the version that was in the way."""
    CHANGE_GROUP = 16
    CHANGE_INACTIVITY = 32
    INCLUDE_INACTIVITY = 64
    """To what it changes."""


# Plain ints: every update puts some of them together.
_NOTIFY, _NOTIFY_ON_CONFLICT = int(Flag.NOTIFY), int(Flag.NOTIFY_ON_CONFLICT)
_CHANGE_GROUP = int(Flag.CHANGE_GROUP)
_CHANGE_INACTIVITY, _INCLUDE_INACTIVITY = int(Flag.CHANGE_INACTIVITY), int(Flag.INCLUDE_INACTIVITY)
_JUDGE = {"session": int(Flag.JUDGE_SESSION), "attributes": int(Flag.JUDGE_ATTRIBUTES)}

_answers_decoder = msgspec.json.Decoder(Answers)


class Operation:
    """One caller's write on its way: what is asked, and `outcome`, where its caller waits (opaque here).

    `lease` is the write's lease on its id (see `_coherence`); `previous` the same session's operation before this one,
    `ended` where the one after it waits for `finished`; `sent`: a batch has it, or had it; `locked` counts how often a
    batch found the row locked by somebody else; `lane` is where it waits, or waited, to be sent (opaque here).
    """

    __slots__ = ("ended", "finished", "key", "lane", "lease", "locked", "outcome", "previous", "sent", "size")

    def __init__(self, key: bytes, size: int) -> None:
        self.key = key
        self.size = size
        self.locked = 0
        self.lane: Any = None
        self.lease: Any = None
        self.previous: Operation | None = None
        self.ended: Any = None
        self.sent = False
        self.finished = False
        self.outcome: Any = None

    def result(self, answer: Answer) -> Record | Exception | None:
        """What its caller gets for the server's answer: a value, or the exception to raise."""
        raise NotImplementedError


class Create(Operation):
    """A new session."""

    __slots__ = (
        "attributes",
        "expires_at",
        "group_id",
        "include_inactivity",
        "limit",
        "policy",
        "touched",
        "user_id",
    )

    def __init__(
        self,
        key: bytes,
        user_id: str,
        group_id: str | None,
        expires_at: int,
        include_inactivity: bool,
        attributes: list[tuple[str, bytes, int | None]],
        limit: int,
        policy: str,
        touched: list[tuple[bytes, int]],
    ) -> None:
        super().__init__(key, 256 + sum(len(name) + len(value) for name, value, _ in attributes))
        self.user_id = user_id
        self.group_id = group_id
        self.expires_at = expires_at
        self.include_inactivity = include_inactivity
        self.attributes = attributes
        self.limit = limit
        self.policy = policy
        self.touched = touched

    def row(self) -> tuple[Any, ...]:
        """This operation in the language of the group commit (see `_sql`)."""
        return (
            self.key.hex(), self.user_id, self.group_id, self.expires_at, self.include_inactivity,
            [(name, value.decode(), ends) for name, value, ends in self.attributes],
            [(key.hex(), at) for key, at in self.touched],
        )  # fmt: skip

    def result(self, answer: Answer) -> Exception:
        """Of one that was not done."""
        return TooManySessionsError(self.user_id, self.limit)

    def saved(self, created_at: int) -> Record:
        """The new record: what is stored is what was sent."""
        return Record(
            self.key, 1, self.user_id, self.group_id, created_at, created_at, created_at, self.expires_at,
            self.include_inactivity,
            [
                (name, 1, ends, value)
                for name, value, ends in self.attributes
                if ends is None or ends > created_at
            ],
        )  # fmt: skip


class Update(Operation):
    """Changes of one session: of its attributes, its expiry, its inactivity rule, its group."""

    __slots__ = ("deletes", "expires_at", "flags", "group_id", "record", "sets")

    def __init__(
        self,
        record: Record,
        *,
        check: str | None,
        sets: list[tuple[str, bytes, int | None, int]],
        deletes: list[tuple[str, int]],
        expires_at: int | None,
        include_inactivity: bool | None,
        group: tuple[str | None] | None,
        notify: bool,
        notify_on_conflict: bool,
    ) -> None:
        size = 128
        for name, value, _, _ in sets:
            size += len(name) + len(value)
        super().__init__(record.key, size)
        self.record = record
        self.sets = sets
        self.deletes = deletes
        self.expires_at = expires_at
        self.group_id = group[0] if group else None
        flags = _NOTIFY if notify else 0
        if notify_on_conflict:
            flags |= _NOTIFY_ON_CONFLICT
        if check is not None:
            flags |= _JUDGE[check]
        if include_inactivity is not None:
            flags |= _CHANGE_INACTIVITY | (_INCLUDE_INACTIVITY if include_inactivity else 0)
        if group is not None:
            flags |= _CHANGE_GROUP
        self.flags = flags

    def row(self) -> tuple[Any, ...]:
        """This operation in the language of the group commit (see `_sql`)."""
        sets = [(name, value.decode(), ends, base) for name, value, ends, base in self.sets]
        return (
            self.key.hex(),
            self.record.version,
            self.flags,
            self.expires_at,
            self.group_id,
            sets,
            self.deletes,
        )

    def result(self, answer: Answer) -> Exception:
        """Of one that was not done."""
        assert isinstance(answer, _Refusal)
        session_id = UUID(bytes=self.key)
        if answer.status == "session":
            return SessionVersionConflict(session_id, self.record.version, answer.version)
        if answer.status == "attributes":
            return AttributeVersionConflict(session_id, answer.keys)
        return SessionNotFoundError(session_id)

    def saved(self, version: int, updated_at: int) -> Record:
        """The new record, where the caller's copy was the newest version: then the two differ by the changes only."""
        record, flags = self.record, self.flags
        return record.changed(
            version=version,
            updated_at=updated_at,
            last_accessed=max(record.last_accessed, updated_at),
            expires_at=record.expires_at if self.expires_at is None else self.expires_at,
            include_inactivity=bool(flags & _INCLUDE_INACTIVITY)
            if flags & _CHANGE_INACTIVITY
            else record.include_inactivity,
            group_id=self.group_id if flags & _CHANGE_GROUP else record.group_id,
            sets=[(name, value, ends) for name, value, ends, _ in self.sets],
            deletes=[name for name, _ in self.deletes],
        )


class Delete(Operation):
    """The end of one session. Its result is an error where there was no such session."""

    __slots__ = ()

    def __init__(self, key: bytes) -> None:
        super().__init__(key, 64)

    def result(self, answer: Answer) -> Exception | None:
        return None if answer.status == "ok" else SessionNotFoundError(UUID(bytes=self.key))


class Settled(NamedTuple):
    """What became of a batch."""

    incarnation: str | None
    results: list[tuple[Operation, Any]]
    locked: list[Operation]
    """Their rows are somebody else's at the moment; nothing was done."""
    evicted: list[bytes]
    """The sessions that made room for created ones."""


class Batch:
    """Operations that share a transaction, no two of them of one session."""

    def __init__(self, operations: list[Operation]) -> None:
        self.operations = operations
        self._creates: list[Create] = []
        self._updates: list[Update] = []
        self._deletes: list[Delete] = []
        kinds: dict[type[Operation], list[Any]] = {
            Create: self._creates, Update: self._updates, Delete: self._deletes,
        }  # fmt: skip
        for operation in operations:
            kinds[type(operation)].append(operation)

    @property
    def limit(self) -> tuple[int, bool]:
        """How many sessions a user may have, 0: any number, and whether more push out old ones. It is its node's."""
        if not self._creates:
            return 0, True
        return self._creates[0].limit, self._creates[0].policy == "evict"

    def rows(self) -> tuple[list[Any], list[Any], list[Any]]:
        """Its creates, updates and deletes in the language of the group commit (see `_sql`)."""
        return (
            [create.row() for create in self._creates],
            [update.row() for update in self._updates],
            [delete.key.hex() for delete in self._deletes],
        )

    def settle(self, text: str | bytes) -> Settled:
        """Reads the server's answer.

        Raises:
            msgspec.DecodeError, LookupError, ValueError, RecursionError: the answer does not fit the batch; the
                server runs other functions than this version of the library. Or as `record_of`.
        """
        answers = _answers_decoder.decode(text)
        results: list[tuple[Operation, Any]] = []
        locked: list[Operation] = []
        updates = dict(enumerate(self._updates, 1))
        snapshots = dict(answers.snapshots)
        for number, version in zip(answers.written, answers.versions, strict=True):
            update = _answered(updates, number)
            if number in snapshots:
                results.append((update, _saved_elsewhere(snapshots[number])))
            else:
                results.append((update, update.saved(version, answers.updated_at)))
        creates = dict(enumerate(self._creates, 1))
        others: tuple[tuple[dict[int, Any], Sequence[Answer]], ...] = (
            (updates, answers.refused),
            (creates, answers.turned_away),
            (dict(enumerate(self._deletes, 1)), answers.delete),
        )
        for waiting, given in others:
            for answer in given:
                operation = _answered(waiting, answer.number)
                if answer.status == "locked":
                    locked.append(operation)
                else:
                    results.append((operation, operation.result(answer)))
            if waiting and waiting is not creates:
                raise LookupError(f"{len(waiting)} of {len(self.operations)} operations are not answered")
        if creates and not answers.created_at:
            raise LookupError(f"{len(creates)} creates are not answered")
        results.extend((create, create.saved(answers.created_at)) for create in creates.values())
        for operation in locked:
            operation.locked += 1
        return Settled(answers.incarnation, results, locked, [bytes.fromhex(key) for key in answers.evicted])


def _saved_elsewhere(snapshot: str) -> Record | Exception:
    """The new record, where the caller's copy was not the newest version: copy plus changes would be one that never
    was (C4). Or its own caller's error, where plain SQL has stored what cannot be read."""
    try:
        return record_of(snapshot)
    except msgspec.DecodeError as error:
        unreadable = WriteOutcomeUnknown(f"it was saved, but the session cannot be read any more: {error}")
        unreadable.__cause__ = error
        return unreadable


def _answered(waiting: dict[int, T], number: int) -> T:
    operation = waiting.pop(number, None)
    if operation is None:
        raise LookupError(f"operation {number} was not sent, or is answered twice")
    return operation


class Queue:
    """Operations that wait to be written, in order of arrival, no two of one session (its owner sees to that).

    Not safe for threads: its owner locks.
    """

    def __init__(self) -> None:
        self._waiting: deque[Operation] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, operation: Operation) -> None:
        """Lets an operation wait for its batch."""
        self._waiting.append(operation)

    def again(self, operation: Operation) -> None:
        """Puts one back in front of all others: nothing of it has been done."""
        self._waiting.appendleft(operation)

    def remove(self, operation: Operation) -> None:
        """Takes one out, if it is here."""
        try:
            self._waiting.remove(operation)
        except ValueError:
            pass

    def take(self) -> Batch:
        """The next batch: the longest-waiting operations, within the bounds of a batch. Empty if nothing waits."""
        operations: list[Operation] = []
        size = 0
        while self._waiting and len(operations) < MAX_OPERATIONS:
            if operations and size + self._waiting[0].size > MAX_BYTES:
                break
            operations.append(self._waiting.popleft())
            size += operations[-1].size
        return Batch(operations)
