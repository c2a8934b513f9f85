"""Decodes and checks the server's answer to a batch of writes (see `pgsession._database.statements`)."""

from __future__ import annotations

from typing import Literal

import msgspec

from .snapshots import Bigint


class Answer(msgspec.Struct, array_like=True):
    """Holds what the server's write function says of one operation, by its number among those of its kind."""

    number: int
    status: str


class TurnedAway(Answer, array_like=True):
    """Says why a create was not done; where the session that was there is returned, with that."""

    status: Literal["too_many", "locked", "exists", "same"]
    snapshot: str = ""


class Refusal(Answer, array_like=True):
    """Says why an update was not done."""

    status: Literal["gone", "taken", "session", "attributes", "too_many", "locked"]
    detail: Bigint | list[str] = 0

    @property
    def version(self) -> int:
        """Return the session's version that was in the way.

        Raises:
            LookupError: The answer has none.
        """
        if not isinstance(self.detail, int):
            raise LookupError(f"{self.status!r} without a version")
        return self.detail

    @property
    def keys(self) -> tuple[str, ...]:
        """Return the keys of the attributes whose versions were in the way.

        Raises:
            LookupError: The answer has none.
        """
        if isinstance(self.detail, int):
            raise LookupError(f"{self.status!r} without the keys")
        return tuple(self.detail)


class DeleteAnswer(Answer, array_like=True):
    """Says what became of a delete, and whose the session was."""

    status: Literal["ok", "gone", "locked"]
    user_id: str | None = None
    group_id: str | None = None


class Replacement(msgspec.Struct, array_like=True):
    """Says in whose place a session was created, by the number of the create, and at which version it is."""

    number: int
    version: Bigint
    reason: Literal["replaced", "expired"]
    user_id: str | None
    group_id: str | None


class Answers(msgspec.Struct):
    """Holds what the server's write function says of a batch."""

    incarnation: str | None
    xmax: int
    turned_away: list[TurnedAway] = []
    created_at: Bigint = 0
    replaced: list[Replacement] = []
    written: list[int] = []
    versions: list[Bigint] = []
    updated_at: Bigint = 0
    snapshots: list[tuple[int, str]] = []
    refused: list[Refusal] = []
    delete: list[DeleteAnswer] = []
    evicted: list[str] = []
    displaced: list[str] = []


_answers_decoder = msgspec.json.Decoder(Answers)


def answers_of(text: str | bytes) -> Answers:
    """Return the answers in the text that the write function has returned.

    Raises:
        msgspec.DecodeError: The text is no such answer.
    """
    return _answers_decoder.decode(text)
