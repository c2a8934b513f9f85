"""Gives each operation of a batch its own result or error out of the server's one answer. Does no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from pgsession._core.record import Record
from pgsession.errors import WriteOutcomeUnknown

from .answer_format import Answer, Answers, TurnedAway, answers_of
from .operations import Create, Delete, Operation, Replaced, Update
from .snapshots import record_of

T = TypeVar("T")


class Settled(NamedTuple):
    """Tells what became of a batch."""

    incarnation: str | None
    results: list[tuple[Operation, Any]]
    locked: list[Operation]
    """The operations whose rows somebody else has locked at the moment; nothing of them was done."""
    evicted: list[bytes]
    """The sessions that made room for others of their users."""
    xmax: int
    """Of a snapshot of before the batch."""


def settle(
    text: str | bytes, creates_sent: list[Create], updates_sent: list[Update], deletes_sent: list[Delete]
) -> Settled:
    """Read the server's answer to these operations and give each its result.

    Raises:
        msgspec.DecodeError, LookupError, ValueError, RecursionError: The answer does not fit the operations; the
            server runs other functions than this version of the library. Or as `record_of`.
    """
    count = len(creates_sent) + len(updates_sent) + len(deletes_sent)
    answers = answers_of(text)
    results: list[tuple[Operation, Any]] = []
    locked: list[Operation] = []
    updates = dict(enumerate(updates_sent, 1))
    snapshots = dict(answers.snapshots)
    for number, version in zip(answers.written, answers.versions, strict=True):
        update = _answered(updates, number)
        if number in snapshots:
            results.append((update, _saved_elsewhere(snapshots[number], answers.incarnation)))
        else:
            results.append((update, update.saved(version, answers.updated_at)))
    creates = dict(enumerate(creates_sent, 1))
    others: tuple[tuple[dict[int, Any], Sequence[Answer]], ...] = (
        (updates, answers.refused),
        (creates, answers.turned_away),
        (dict(enumerate(deletes_sent, 1)), answers.delete),
    )
    for waiting, given in others:
        for answer in given:
            operation = _answered(waiting, answer.number)
            if answer.status == "locked":
                locked.append(operation)
            elif isinstance(answer, TurnedAway) and answer.status == "same":
                results.append((operation, _returned(answer.snapshot, answers.incarnation)))
            else:
                results.append((operation, operation.result(answer)))
        if waiting and waiting is not creates:
            raise LookupError(f"{len(waiting)} of {count} operations are not answered")
    if creates and not answers.created_at:
        raise LookupError(f"{len(creates)} creates are not answered")
    results.extend(_created(creates, answers))
    for operation in locked:
        operation.locked += 1
    evicted = [bytes.fromhex(key) for key in answers.evicted + answers.displaced]
    return Settled(answers.incarnation, results, locked, evicted, answers.xmax)


def _created(creates: dict[int, Create], answers: Answers) -> list[tuple[Operation, Record]]:
    """Return the new records of creates that were done, by their numbers."""
    versions: dict[int, int] = {}
    for replacement in answers.replaced:
        create = creates.get(replacement.number)
        if create is None:
            raise LookupError(f"create {replacement.number} replaced a session, and was not done")
        create.replaced = Replaced(replacement.reason, replacement.user_id, replacement.group_id)
        versions[replacement.number] = replacement.version
    return [
        (create, create.saved(answers.created_at, answers.incarnation, versions.get(number)))
        for number, create in creates.items()
    ]


def _returned(snapshot: str, incarnation: str | None) -> Record | Exception:
    """Return the record of the session that was there already; or why it cannot be read, to its caller alone."""
    try:
        return record_of(snapshot, incarnation)
    except msgspec.DecodeError as error:
        return error


def _saved_elsewhere(snapshot: str, incarnation: str | None) -> Record | Exception:
    """Return the new record of an update whose caller's copy was not the newest version, or of another incarnation.

    The copy plus the changes would be a record that never was (C4). Where plain SQL has stored what cannot be read, the
    result is an error of that caller alone.
    """
    try:
        return record_of(snapshot, incarnation)
    except msgspec.DecodeError as error:
        unreadable = WriteOutcomeUnknown(f"it was saved, but the session cannot be read any more: {error}")
        unreadable.__cause__ = error
        return unreadable


def _answered(waiting: dict[int, T], number: int) -> T:
    operation = waiting.pop(number, None)
    if operation is None:
        raise LookupError(f"operation {number} was not sent, or is answered twice")
    return operation
