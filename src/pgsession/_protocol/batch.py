"""Plans batches of writes and gives each operation its own result. Decides; does no I/O.

Writes wait in one queue; `Queue.take` makes a batch of what waits. `Batch.settle` reads the server's answer and gives
every operation its own result or error: one caller's conflict changes nothing for the others. No batch has two
operations of one session (PostgreSQL would apply one of them silently).
"""

from __future__ import annotations

from collections import deque
from typing import Any, TypeVar

from .answers import Settled, settle
from .operations import Create, Delete, Operation, Room, Update

T = TypeVar("T")

MAX_OPERATIONS = 256
MAX_BYTES = 4 << 20


class Batch:
    """Holds operations that share a transaction, no two of them of one session."""

    def __init__(self, operations: list[Operation]) -> None:
        self.operations: list[Operation] = []
        self._creates: list[Create] = []
        self._updates: list[Update] = []
        self._deletes: list[Delete] = []
        self._fill(operations)

    @property
    def deadline(self) -> float:
        """Return the moment until which the most patient of its callers wait."""
        return max((operation.deadline for operation in self.operations), default=0.0)

    def leave_out_given_up(self) -> list[Operation]:
        """Take out the operations whose callers are gone, and return them."""
        given_up = [operation for operation in self.operations if operation.given_up]
        if given_up:
            self._fill([operation for operation in self.operations if not operation.given_up])
        return given_up

    def _fill(self, operations: list[Operation]) -> None:
        self.operations = operations
        self._creates, self._updates, self._deletes = [], [], []
        kinds: dict[type[Operation], list[Any]] = {
            Create: self._creates, Update: self._updates, Delete: self._deletes,
        }  # fmt: skip
        for operation in operations:
            kinds[type(operation)].append(operation)

    @property
    def limit(self) -> tuple[int, bool]:
        """Return how many sessions a user may have (0: any number), and True where more push out old ones.

        This limit is the same for all of a batch: it is their node's.
        """
        room = next((room for room in self._rooms()), None)
        return (0, True) if room is None else (room.limit, room.evicts)

    def accesses(self) -> list[tuple[str, int]]:
        """Return the accesses known here to sessions of the users who get one."""
        return [(key.hex(), at) for room in self._rooms() for key, at in room.accesses]

    def _rooms(self) -> list[Room]:
        givers: list[Create | Update] = [*self._creates, *self._updates]
        return [giver.room for giver in givers if giver.room is not None]

    def rows(self) -> tuple[list[Any], list[Any], list[Any]]:
        """Return its creates, updates and deletes as rows (see `pgsession._database.statements`)."""
        return (
            [create.row() for create in self._creates],
            [update.row() for update in self._updates],
            [delete.key.hex() for delete in self._deletes],
        )

    def settle(self, text: str | bytes) -> Settled:
        """Read the server's answer and give every operation its result; raises as `answers.settle`."""
        return settle(text, self._creates, self._updates, self._deletes)


class Queue:
    """Holds operations that wait to be written, in order of arrival, no two of one session (its owner sees to that).

    Those that claim their ids wait apart, for batches of their own: such a batch may have to wait for what another node
    has begun, and nothing else is to wait with it. Where both kinds wait, they take turns.

    Not safe for threads: its owner locks.
    """

    def __init__(self) -> None:
        self._waiting: deque[Operation] = deque()
        self._claims: deque[Operation] = deque()  # likewise, those that claim their ids
        self._claims_next = False

    def __len__(self) -> int:
        return len(self._waiting) + len(self._claims)

    def _line(self, operation: Operation) -> deque[Operation]:
        return self._claims if operation.claims_id else self._waiting

    def add(self, operation: Operation) -> None:
        """Let an operation wait for its batch."""
        self._line(operation).append(operation)

    def again(self, operation: Operation) -> None:
        """Put an operation back in front of all others: nothing of it has been done."""
        self._line(operation).appendleft(operation)

    def take(self, most: int = MAX_OPERATIONS) -> Batch:
        """Return the longest-waiting operations within the bounds of a batch; an empty batch if nothing waits."""
        claims = bool(self._claims) and (self._claims_next or not self._waiting)
        self._claims_next = not claims
        line = self._claims if claims else self._waiting
        operations: list[Operation] = []
        size = 0
        while line and len(operations) < min(most, MAX_OPERATIONS):
            if operations and size + line[0].size > MAX_BYTES:
                break
            operations.append(line.popleft())
            size += operations[-1].size
        return Batch(operations)
