"""Plans batches of writes and gives each operation its own result. Decides; does no I/O.

Writes wait in one queue; `Queue.take` makes a batch of what waits. `Batch.settle` reads the server's answer and gives
every operation its own result or error: one caller's conflict changes nothing for the others. No batch has two
operations of one session (PostgreSQL would apply one of them silently).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from pgsession._core.record import Record
from pgsession.errors import WriteOutcomeUnknown

from .answers import Answer, answers_of
from .operations import Create, Delete, Operation, Update
from .snapshots import record_of

T = TypeVar("T")

MAX_OPERATIONS = 256
MAX_BYTES = 4 << 20


class Settled(NamedTuple):
    """Tells what became of a batch."""

    incarnation: str | None
    results: list[tuple[Operation, Any]]
    locked: list[Operation]
    """The operations whose rows somebody else has locked at the moment; nothing of them was done."""
    evicted: list[bytes]
    """The sessions that made room for created ones."""


class Batch:
    """Holds operations that share a transaction, no two of them of one session."""

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
        """Return how many sessions a user may have (0: any number), and True where more push out old ones.

        This limit is the same for all creates of a batch: it is their node's.
        """
        if not self._creates:
            return 0, True
        return self._creates[0].limit, self._creates[0].policy == "evict"

    def rows(self) -> tuple[list[Any], list[Any], list[Any]]:
        """Return its creates, updates and deletes as rows (see `pgsession._database.statements`)."""
        return (
            [create.row() for create in self._creates],
            [update.row() for update in self._updates],
            [delete.key.hex() for delete in self._deletes],
        )

    def settle(self, text: str | bytes) -> Settled:
        """Read the server's answer and give every operation its result.

        Raises:
            msgspec.DecodeError, LookupError, ValueError, RecursionError: The answer does not fit the batch; the
                server runs other functions than this version of the library. Or as `record_of`.
        """
        answers = answers_of(text)
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
    """Return the new record of an update whose caller's copy was not the newest version.

    The copy plus the changes would be a record that never was (C4). Where plain SQL has stored what cannot be read, the
    result is an error of that caller alone.
    """
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
    """Holds operations that wait to be written, in order of arrival, no two of one session (its owner sees to that).

    Not safe for threads: its owner locks.
    """

    def __init__(self) -> None:
        self._waiting: deque[Operation] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, operation: Operation) -> None:
        """Let an operation wait for its batch."""
        self._waiting.append(operation)

    def again(self, operation: Operation) -> None:
        """Put an operation back in front of all others: nothing of it has been done."""
        self._waiting.appendleft(operation)

    def take(self, most: int = MAX_OPERATIONS) -> Batch:
        """Return the longest-waiting operations within the bounds of a batch; an empty batch if nothing waits."""
        operations: list[Operation] = []
        size = 0
        while self._waiting and len(operations) < min(most, MAX_OPERATIONS):
            if operations and size + self._waiting[0].size > MAX_BYTES:
                break
            operations.append(self._waiting.popleft())
            size += operations[-1].size
        return Batch(operations)
