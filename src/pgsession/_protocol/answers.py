"""The server's answer to a batch of writes (see `pgsession._database.statements`), decoded and checked."""

from __future__ import annotations

from typing import Literal

import msgspec

from .snapshots import Bigint


class Answer(msgspec.Struct, array_like=True):
    """What the server's write function says of one operation, by its number among those of its kind."""

    number: int
    status: str


class TurnedAway(Answer, array_like=True):
    status: Literal["too_many", "locked"]


class Refusal(Answer, array_like=True):
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


class DeleteAnswer(Answer, array_like=True):
    status: Literal["ok", "gone", "locked"]


class Answers(msgspec.Struct):
    """What the server's write function says of a batch."""

    incarnation: str | None
    turned_away: list[TurnedAway] = []
    created_at: Bigint = 0
    written: list[int] = []
    versions: list[Bigint] = []
    updated_at: Bigint = 0
    snapshots: list[tuple[int, str]] = []
    refused: list[Refusal] = []
    delete: list[DeleteAnswer] = []
    evicted: list[str] = []


_answers_decoder = msgspec.json.Decoder(Answers)


def answers_of(text: str | bytes) -> Answers:
    """The answers in the text that the write function has returned.

    Raises:
        msgspec.DecodeError: it is none.
    """
    return _answers_decoder.decode(text)
