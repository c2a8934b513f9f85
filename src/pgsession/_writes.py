"""Plans batches of writes and tells each caller its own outcome. Decides; does no I/O.

Writes wait in one queue; `Queue.take` makes a batch of what waits. `Batch.settle` reads the server's answer and gives
every operation its own result or error: one caller's conflict changes nothing for the others. No batch has two
operations of one session (PostgreSQL would apply one of them silently).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

import msgspec

from pgsession._record import Record
from pgsession.errors import (
    AttributeVersionConflict,
    SessionNotFoundError,
    SessionVersionConflict,
    TooManySessionsError,
)

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
    """What the server's write function says of one operation (see `_sql`)."""

    index: int
    status: str


class _CreateAnswer(Answer, array_like=True):
    status: Literal["ok", "too_many", "locked"]
    created: msgspec.Raw = msgspec.Raw(b"null")


class _UpdateAnswer(Answer, array_like=True):
    status: Literal["ok", "gone", "session", "attributes", "locked"]
    detail: Bigint | list[str] = 0
    updated_at: Bigint = 0
    last_accessed: Bigint = 0
    expires_at: Bigint = 0
    snapshot: msgspec.Raw = msgspec.Raw(b"null")

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
    now: int
    create: list[_CreateAnswer] = []
    update: list[_UpdateAnswer] = []
    delete: list[_DeleteAnswer] = []
    evicted: list[str] = []

    def each(self) -> Iterator[tuple[str, Answer]]:
        """Every answer, with the kind of operation that it is to."""
        for kind in ("create", "update", "delete"):
            for answer in getattr(self, kind):
                yield kind, answer


_answers_decoder = msgspec.json.Decoder(Answers)


class Operation:
    """One caller's write on its way: what is asked, and `outcome`, where its caller waits (opaque here).

    `lease` is the write's lease on its id (see `_coherence`); `previous` the same session's operation before this one,
    `ended` where the one after it waits for `finished`; `sent`: a batch has it, or had it; `locked` counts how often a
    batch found the row locked by somebody else; `lane` is where it waits, or waited, to be sent (opaque here).
    """

    kind = ""
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

    def item(self, index: int) -> list[Any]:
        """This operation in the language of the server's write function."""
        raise NotImplementedError

    def result(self, answer: Answer) -> Record | Exception | None:
        """What its caller gets for the server's answer: a value, or the exception to raise."""
        raise NotImplementedError


class Create(Operation):
    """A new session."""

    kind = "create"
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

    def item(self, index: int) -> list[Any]:
        return [
            index, self.key.hex(), self.user_id, self.group_id, self.expires_at, self.include_inactivity,
            [(name, value.decode(), ends) for name, value, ends in self.attributes],
            self.limit, self.policy, [(key.hex(), at) for key, at in self.touched],
        ]  # fmt: skip

    def result(self, answer: Answer) -> Record | Exception:
        if answer.status == "ok":
            assert isinstance(answer, _CreateAnswer)
            return record_of(answer.created)
        return TooManySessionsError(self.user_id, self.limit)


class Update(Operation):
    """Changes of one session: of its attributes, its expiry, its inactivity rule, its group."""

    kind = "update"
    __slots__ = (
        "accessed", "check", "deletes", "expires_at", "group", "include_inactivity", "notify",
        "notify_on_conflict", "record", "sets",
    )  # fmt: skip

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
        accessed: int | None,
    ) -> None:
        size = 128
        for name, value, _, _ in sets:
            size += len(name) + len(value)
        super().__init__(record.key, size)
        self.record = record
        self.check = check
        self.sets = sets
        self.deletes = deletes
        self.expires_at = expires_at
        self.include_inactivity = include_inactivity
        self.group = group
        self.notify = notify
        self.notify_on_conflict = notify_on_conflict
        self.accessed = accessed

    def item(self, index: int) -> list[Any]:
        group = self.group
        return [
            index, self.key.hex(), self.record.version, self.check,
            [(name, value.decode(), ends, base) for name, value, ends, base in self.sets],
            self.deletes, self.expires_at, self.include_inactivity,
            group is not None, group[0] if group else None, self.notify, self.accessed, self.notify_on_conflict,
        ]  # fmt: skip

    def result(self, answer: Answer) -> Record | Exception:
        assert isinstance(answer, _UpdateAnswer)
        if answer.status == "ok":
            return self._saved(answer)
        session_id = UUID(bytes=self.key)
        if answer.status == "session":
            return SessionVersionConflict(session_id, self.record.version, answer.version)
        if answer.status == "attributes":
            return AttributeVersionConflict(session_id, answer.keys)
        return SessionNotFoundError(session_id)

    def _saved(self, answer: _UpdateAnswer) -> Record:
        """The new record. Where the caller's copy was not the newest version, copy plus changes would be a record
        that never was: then the server sends the whole snapshot (C4)."""
        if bytes(answer.snapshot) != b"null":
            return record_of(answer.snapshot)
        record, inactivity = self.record, self.include_inactivity
        return record.changed(
            version=answer.version,
            updated_at=answer.updated_at,
            last_accessed=answer.last_accessed,
            expires_at=answer.expires_at,
            include_inactivity=record.include_inactivity if inactivity is None else inactivity,
            group_id=self.group[0] if self.group else record.group_id,
            sets=[(name, value, ends) for name, value, ends, _ in self.sets],
            deletes=[name for name, _ in self.deletes],
        )


class Delete(Operation):
    """The end of one session. Its result is an error where there was no such session."""

    kind = "delete"
    __slots__ = ()

    def __init__(self, key: bytes) -> None:
        super().__init__(key, 64)

    def item(self, index: int) -> list[Any]:
        return [index, self.key.hex()]

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

    def encode(self, inactivity: int, wait: bool) -> str:
        """The batch as the argument of the server's write function; `inactivity` in microseconds.

        `wait`: for rows that others have locked, instead of leaving them for the next batch.
        """
        batch: dict[str, Any] = {"inactivity": inactivity, "wait": wait}
        for index, operation in enumerate(self.operations):
            batch.setdefault(operation.kind, []).append(operation.item(index))
        return msgspec.json.encode(batch).decode()

    def settle(self, text: str | bytes) -> Settled:
        """Reads the server's answer.

        Raises:
            msgspec.DecodeError, LookupError, ValueError, RecursionError: the answer does not fit the batch; the
                server runs other functions than this version of the library. Or as `record_of`.
        """
        answers = _answers_decoder.decode(text)
        results: list[tuple[Operation, Any]] = []
        locked: list[Operation] = []
        waiting = dict(enumerate(self.operations))
        for kind, answer in answers.each():
            operation = waiting.pop(answer.index, None)
            if operation is None or operation.kind != kind:
                raise LookupError(f"{kind} {answer.index} was not sent, or is answered twice")
            if answer.status == "locked":
                locked.append(operation)
            else:
                results.append((operation, operation.result(answer)))
        if waiting:
            raise LookupError(f"{len(waiting)} of {len(self.operations)} operations are not answered")
        for operation in locked:
            operation.locked += 1
        return Settled(answers.incarnation, results, locked, [bytes.fromhex(key) for key in answers.evicted])


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
